//! Deployments below this one, with what each reported last; and what the index for them is read from beside the catalog.

use super::catalog::scope;
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{MachineId, PatchVersion, Scope};
use crate::rollout::BlockKind;
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

statements! {
    UPSERT_DEPLOYMENT = "insert into deployments (id, via, machines, report) values ($1, $2, $3, $4)
        on conflict (id) do update set via = excluded.via, machines = excluded.machines, report = excluded.report,
            reported_at = now()";
    COUNT_OTHER_DEPLOYMENTS = "select count(*) from deployments where via = $1 and id <> $2";
    SELECT_DEPLOYMENTS = "select id, via, reported_at, machines, report from deployments
        where $1::text is null or id > $1 order by id limit $2";
    SELECT_BLOCKS_TOLD = "select p.version, b.kind, b.kernel, b.flavour, b.architecture, b.reason
        from blocks b join patches p on p.id = b.patch_id where b.lifted_at is null";
    COUNT_MACHINES = "select count(*) from machines";
    SELECT_MACHINES_TOLD = "select m.id, t.name, k.text, m.architecture, m.state, m.patch, m.last_check
        from machines m left join machine_overrides o on o.machine_id = m.id
        join tiers t on t.id = coalesce(o.tier_id, m.tier_id) left join words k on k.id = m.kernel_id
        order by m.id limit $1";
}

/// A deployment and its last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// What it calls itself.
    pub id: String,
    /// The sync token that it reported with, or the archive.
    pub via: String,
    /// When.
    pub reported_at: Timestamp,
    /// Its machines, exactly or as a range.
    pub machines: String,
    /// The whole report, as JSON.
    pub report: String,
}

/// A block or hold that stands, with its reason.
#[derive(Debug, Clone)]
pub struct BlockTold {
    /// The patch.
    pub version: PatchVersion,
    /// Block or hold.
    pub kind: BlockKind,
    /// The part.
    pub scope: Scope,
    /// Why.
    pub reason: String,
}

/// A machine as it is reported upwards.
#[derive(Debug, Clone)]
pub struct MachineTold {
    /// Identity; leaves this deployment only as an HMAC.
    pub id: MachineId,
    /// Tier.
    pub tier: String,
    /// Kernel as reported.
    pub kernel: Option<String>,
    /// Architecture's code, 0 if not known.
    pub architecture: i16,
    /// State's code.
    pub state: i16,
    /// Patch's code, 0 for none.
    pub patch: i64,
    /// When it last checked in.
    pub last_check: Option<Timestamp>,
}

/// Keeps a report in place of the one before.
pub async fn put(
    run: &impl Run,
    id: &str,
    via: &str,
    machines: &str,
    report: &str,
) -> Result<(), DbError> {
    run.exec(&UPSERT_DEPLOYMENT, &[&id, &via, &machines, &report])
        .await
        .map(|_| ())
}

/// How many deployments other than `id` reported by this way.
pub async fn others(run: &impl Run, via: &str, id: &str) -> Result<u64, DbError> {
    let row = run.one(&COUNT_OTHER_DEPLOYMENTS, &[&via, &id]).await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// Deployments by id.
pub async fn page(
    run: &impl Run,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Deployment>, DbError> {
    let rows = run.rows(&SELECT_DEPLOYMENTS, &[&after, &limit]).await?;
    let read = |row: &Row| Deployment {
        id: row.get(0),
        via: row.get(1),
        reported_at: row.get(2),
        machines: row.get(3),
        report: row.get(4),
    };
    Ok(rows.iter().map(read).collect())
}

/// Blocks and holds that stand.
pub async fn blocks(run: &impl Run) -> Result<Vec<BlockTold>, DbError> {
    let rows = run.rows(&SELECT_BLOCKS_TOLD, &[]).await?;
    rows.iter()
        .map(|row| {
            let code: i64 = row.get(0);
            Ok(BlockTold {
                version: PatchVersion::from_code(code).ok_or_else(|| {
                    DbError::Row(format!("patch version code {code} is not valid"))
                })?,
                kind: if row.get::<_, i16>(1) == BlockKind::Block as i16 {
                    BlockKind::Block
                } else {
                    BlockKind::Hold
                },
                scope: scope(row.get(2), row.get(3), row.get(4))?,
                reason: row.get(5),
            })
        })
        .collect()
}

/// How many machines there are.
pub async fn machines(run: &impl Run) -> Result<u64, DbError> {
    let row = run.one(&COUNT_MACHINES, &[]).await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// Machines for a report upwards.
pub async fn machine_list(run: &impl Run, limit: i64) -> Result<Vec<MachineTold>, DbError> {
    let rows = run.rows(&SELECT_MACHINES_TOLD, &[&limit]).await?;
    let read = |row: &Row| MachineTold {
        id: MachineId(row.get::<_, Uuid>(0).into_bytes()),
        tier: row.get(1),
        kernel: row.get(2),
        architecture: row.get(3),
        state: row.get(4),
        patch: row.get(5),
        last_check: row.get(6),
    };
    Ok(rows.iter().map(read).collect())
}
