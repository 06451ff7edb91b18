//! What is carried by hand: states that were exported, what was imported last, what is here of a state, and the fleet in groups.

use super::fleet::state;
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, MachineState, PatchVersion, Sha256};
use jiff::Timestamp;

statements! {
    INSERT_EXPORT = "insert into exports (tier, filter, version, digest, state, issued_at, actor) values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (tier, filter, version) do update set issued_at = excluded.issued_at where exports.digest = excluded.digest";
    SELECT_NEWEST_EXPORT = "select version, digest, issued_at from exports where tier = $1 and filter = $2 order by version desc limit 1";
    PRUNE_EXPORTS = "delete from exports where tier = $1 and filter = $2 and id not in
        (select id from exports where tier = $1 and filter = $2 order by version desc limit $3)";
    SELECT_EXPORT = "select digest, state from exports where tier = $1 and filter = $2 and version = $3";
    SELECT_EXPORT_VERSIONS = "select version from exports where tier = $1 and filter = $2 order by version desc";
    SELECT_KNOWN_LIKE = "select name, known from sync_upstreams where starts_with(name, $1) and known is not null order by name";
    SELECT_UPSTREAM_STATE = "select known, state from sync_upstreams where name = $1";
    SELECT_DEPLOYMENT_REPORT = "select report from deployments where id = $1 for update";
    SELECT_PRESENT = "select filename, sha256 from payloads where filename = any($1) and damaged is null and staged is null";
    SELECT_SET_ASIDE = "select filename, sha256 from quarantine where filename = any($1)";
    COUNT_FLEET_GROUPS = "select t.name, k.text, m.architecture, m.state, m.patch, count(*), max(m.last_check)
        from machines m left join machine_overrides o on o.machine_id = m.id
        join tiers t on t.id = coalesce(o.tier_id, m.tier_id)
        left join words k on k.id = m.kernel_id
        group by t.position, t.name, k.text, m.architecture, m.state, m.patch
        order by t.position, k.text collate \"C\", m.architecture, m.state, m.patch limit $1";
}

/// A state that was exported.
#[derive(Debug, Clone, Copy)]
pub struct Exported<'a> {
    /// Its tier.
    pub tier: &'a str,
    /// What it was narrowed to, as JSON.
    pub filter: &'a str,
    /// Version of the index.
    pub version: u64,
    /// SHA-256 of the state.
    pub digest: &'a Sha256,
    /// The state.
    pub state: &'a str,
    /// When its manifest was signed.
    pub issued_at: Timestamp,
    /// Who exported it.
    pub actor: &'a str,
}

/// Keeps a state that was exported, and of the same tier and filter only the newest `keep`.
pub async fn keep_export(
    run: &impl Run,
    exported: &Exported<'_>,
    keep: i64,
) -> Result<(), DbError> {
    let (tier, filter) = (exported.tier, exported.filter);
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 7] = [
        &tier,
        &filter,
        &(exported.version as i64),
        &exported.digest.0.as_slice(),
        &exported.state,
        &exported.issued_at,
        &exported.actor,
    ];
    run.exec(&INSERT_EXPORT, &params).await?;
    run.exec(&PRUNE_EXPORTS, &[&tier, &filter, &keep])
        .await
        .map(|_| ())
}

/// The newest state that was exported: version, digest, and when its manifest was signed.
pub async fn newest_export(
    run: &impl Run,
    tier: &str,
    filter: &str,
) -> Result<Option<(u64, Sha256, Timestamp)>, DbError> {
    let row = run.opt(&SELECT_NEWEST_EXPORT, &[&tier, &filter]).await?;
    row.map(|row| {
        let version: i64 = row.get(0);
        Ok((version.unsigned_abs(), digest(row.get(1))?, row.get(2)))
    })
    .transpose()
}

/// A state that was exported: its digest and text.
pub async fn export(
    run: &impl Run,
    tier: &str,
    filter: &str,
    version: u64,
) -> Result<Option<(Sha256, String)>, DbError> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&tier, &filter, &(version as i64)];
    let row = run.opt(&SELECT_EXPORT, &params).await?;
    row.map(|row| Ok((digest(row.get(0))?, row.get(1))))
        .transpose()
}

/// Versions whose states are kept, newest first.
pub async fn export_versions(
    run: &impl Run,
    tier: &str,
    filter: &str,
) -> Result<Vec<u64>, DbError> {
    let rows = run.rows(&SELECT_EXPORT_VERSIONS, &[&tier, &filter]).await?;
    Ok(rows
        .iter()
        .map(|r| r.get::<_, i64>(0).unsigned_abs())
        .collect())
}

/// What was believed last of each upstream whose name begins so, as JSON.
pub async fn known_like(run: &impl Run, prefix: &str) -> Result<Vec<(String, String)>, DbError> {
    let rows = run.rows(&SELECT_KNOWN_LIKE, &[&prefix]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// What was believed last of an upstream, as JSON, and the state of then.
pub async fn upstream(
    run: &impl Run,
    name: &str,
) -> Result<Option<(Option<String>, String)>, DbError> {
    let row = run.opt(&SELECT_UPSTREAM_STATE, &[&name]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// The last report of a deployment, which nobody else replaces until the transaction ends.
pub async fn deployment(run: &impl Run, id: &str) -> Result<Option<String>, DbError> {
    let row = run.opt(&SELECT_DEPLOYMENT_REPORT, &[&id]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Which of these payloads can be served, with their contents.
pub async fn present(run: &impl Run, names: &[&str]) -> Result<Vec<(String, Sha256)>, DbError> {
    named(run.rows(&SELECT_PRESENT, &[&names]).await?)
}

/// Which of these files are in quarantine, with their contents.
pub async fn set_aside(run: &impl Run, names: &[&str]) -> Result<Vec<(String, Sha256)>, DbError> {
    named(run.rows(&SELECT_SET_ASIDE, &[&names]).await?)
}

fn named(rows: Vec<tokio_postgres::Row>) -> Result<Vec<(String, Sha256)>, DbError> {
    rows.iter()
        .map(|row| Ok((row.get(0), digest(row.get(1))?)))
        .collect()
}

fn digest(bytes: &[u8]) -> Result<Sha256, DbError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| DbError::Row(format!("a digest has {} bytes", bytes.len())))?;
    Ok(Sha256(bytes))
}

/// Machines that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRow {
    /// Tier.
    pub tier: String,
    /// Kernel as reported.
    pub kernel: Option<String>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// State as reported.
    pub state: MachineState,
    /// Applied patch.
    pub patch: Option<PatchVersion>,
    /// How many.
    pub machines: u64,
    /// When one of them last checked in.
    pub last_check: Option<Timestamp>,
}

/// The fleet by tier, kernel, architecture, state and patch: at most `limit` groups.
pub async fn fleet_groups(run: &impl Run, limit: i64) -> Result<Vec<GroupRow>, DbError> {
    let rows = run.rows(&COUNT_FLEET_GROUPS, &[&limit]).await?;
    Ok(rows
        .iter()
        .map(|row| GroupRow {
            tier: row.get(0),
            kernel: row.get(1),
            architecture: Architecture::from_code(row.get(2)),
            state: state(row.get(3)),
            patch: PatchVersion::from_code(row.get(4)),
            machines: row.get::<_, i64>(5).unsigned_abs(),
            last_check: row.get(6),
        })
        .collect())
}
