//! Policies of tiers, rollouts with their events, and what machines report of a patch that is being rolled out.

use super::catalog::{scope, scope_columns};
use super::run::{DbError, Run, Tx};
use super::statements;
use crate::domain::{Architecture, PatchVersion, Scope};
use crate::rollout::advance::Health;
use crate::rollout::{LabelValue, Rollout, RolloutState};
use jiff::Timestamp;
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

statements! {
    SELECT_NOW = "select now()";
    SELECT_POLICIES = "select tier_id, spec, set_at, actor, reason from policies";
    UPSERT_POLICY = "insert into policies (tier_id, spec, actor, reason) values ($1, $2, $3, $4)
        on conflict (tier_id) do update set spec = excluded.spec, set_at = now(), actor = excluded.actor, reason = excluded.reason";
    DELETE_POLICY = "delete from policies where tier_id = $1";
    SELECT_ROLLOUTS = "select r.id, r.patch_id, p.version, r.tier_id, r.kernel, r.flavour, r.architecture, r.state, r.phase, r.threshold,
            r.begun_at, r.phase_at, r.widened_at, r.counts_from, r.ended_at, r.requested_by, r.approved_by, r.reason
        from rollouts r join patches p on p.id = r.patch_id where $1::bigint is null or r.id = $1 order by r.id";
    LOCK_ROLLOUT = "select from rollouts where id = $1 for update";
    SELECT_LIMITS = "select rollout_id, label, value, threshold from rollout_limits";
    INSERT_ROLLOUT = "insert into rollouts (patch_id, tier_id, kernel, flavour, architecture, state, threshold, ended_at, requested_by, reason)
        values ($1, $2, $3, $4, $5, $6, $7, case when $6 = 5::smallint then timestamptz 'epoch' end, $8, $9)
        on conflict do nothing returning id";
    CHANGE_ROLLOUT = "update rollouts set state = $5::smallint, phase = $6, threshold = $7, reason = $8,
            phase_at = case when $9 then now() else phase_at end,
            widened_at = case when $7 <> $4 then now() else widened_at end,
            counts_from = case when $10 then now() else counts_from end,
            ended_at = case when $5::smallint in (5, 6) then now() end,
            approved_by = coalesce($11, approved_by)
        where id = $1 and state = $2 and phase = $3 and threshold = $4";
    SELECT_HALTED_IN_TIER = "select exists (select from rollouts where tier_id = $1 and state = 4)";
    UPSERT_LIMIT = "insert into rollout_limits (rollout_id, label, value, threshold) values ($1, $2, $3, $4)
        on conflict (rollout_id, label, value) do update set threshold = greatest(rollout_limits.threshold, excluded.threshold)";
    INSERT_ROLLOUT_EVENT = "insert into rollout_events (rollout_id, kind, actor, text) values ($1, $2, $3, $4)";
    SELECT_ROLLOUT_EVENTS = "select at, kind, actor, text from rollout_events where rollout_id = $1 order by id desc limit $2";
    // Promotions with who asked for them: what may have to begin.
    SELECT_WHO_PROMOTED = "select r.patch_id, p.version, r.tier_id, r.kernel, r.flavour, r.architecture, r.actor
        from promotions r join patches p on p.id = r.patch_id order by r.at";
    SELECT_STOPPED_PATCHES = "select distinct patch_id from blocks where lifted_at is null and kernel = '' and flavour = '' and architecture = 0";
    // Who was offered the patch of a rollout, was known before it began, and was offered it in the time that counts: by kernel.
    // A report counts from the first check-in after the offer on; a machine counts once, as failed if anything says so.
    HEALTH_SETTINGS = "select set_config('jit', 'off', true), set_config('work_mem', '32MB', true)";
    SELECT_HEALTH = "with asked as materialized (
            select * from unnest($1::bigint[], $2::bigint[], $3::int[], $4::timestamptz[], $5::timestamptz[])
            as a(id, version, tier_id, known, since)),
        bad as materialized (
            select machine_id, patch, max(at) as at from pings
            where ping_type like 'ping\\_err%' and patch in (select version from asked) group by machine_id, patch),
        judged as (
            select a.id, m.kernel_id, m.architecture,
                case when b.at is not null or (m.state = 2 and m.last_check <> m.tried_at) or (m.state = 7 and m.patch = m.tried) then 2
                     when m.state = 1 and m.patch = m.tried then 1
                     when m.last_check < now() - make_interval(secs => $6) then 3
                     else 0 end as came
            from asked a
            join machines m on m.tried = a.version and m.tier_id = a.tier_id and m.tried <> 0
                and m.registered_at < a.known and m.tried_at >= a.since
            left join bad b on b.machine_id = m.id and b.patch = m.tried and b.at >= m.tried_at),
        counted as (select id, kernel_id, architecture, came, count(*) n from judged group by 1, 2, 3, 4)
        select c.id, k.text, c.architecture, c.came, c.n from counted c left join words k on k.id = c.kernel_id";
}

/// A policy as it stands.
#[derive(Debug, Clone)]
pub struct PolicyRow {
    /// Tier.
    pub tier_id: i32,
    /// The policy as a person wrote it, as JSON.
    pub spec: String,
    /// Since when.
    pub set_at: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A rollout with everything that is kept of it.
#[derive(Debug, Clone)]
pub struct RolloutRow {
    /// Database id.
    pub id: i64,
    /// Patch.
    pub patch_id: i32,
    /// Its version.
    pub version: PatchVersion,
    /// Tier.
    pub tier_id: i32,
    /// For which kernels.
    pub scope: Scope,
    /// How it stands.
    pub state: RolloutState,
    /// Number of its phase.
    pub phase: usize,
    /// Places below this are let in.
    pub threshold: u64,
    /// When it began.
    pub begun_at: Timestamp,
    /// Since when its phase is open, or when the phase began.
    pub phase_at: Timestamp,
    /// When its threshold was changed last.
    pub widened_at: Timestamp,
    /// Offers before this do not count.
    pub counts_from: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who promoted the patch.
    pub requested_by: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// Why it stands as it does.
    pub reason: String,
}

impl RolloutRow {
    /// As the engine has it.
    pub fn engine(&self, limits: HashMap<LabelValue, u64>) -> Rollout {
        Rollout {
            id: self.id,
            version: self.version,
            tier_id: self.tier_id,
            scope: self.scope.clone(),
            state: self.state,
            phase: self.phase,
            threshold: self.threshold,
            limits,
        }
    }
}

/// That a patch reached a tier, and by whom.
#[derive(Debug, Clone)]
pub struct Promoted {
    /// Patch.
    pub patch_id: i32,
    /// Its version.
    pub version: PatchVersion,
    /// The tier it reached.
    pub tier_id: i32,
    /// For which kernels.
    pub scope: Scope,
    /// Who promoted it.
    pub actor: String,
}

/// An entry of a rollout's timeline.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// What kind, e.g. `halted`.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// What, for people.
    pub text: String,
}

/// What is to be changed of a rollout, if it still stands as it was read.
#[derive(Debug, Clone)]
pub struct Changed<'a> {
    /// New state.
    pub state: RolloutState,
    /// New phase.
    pub phase: usize,
    /// New threshold.
    pub threshold: u64,
    /// Why it stands so.
    pub reason: &'a str,
    /// The phase's time begins anew.
    pub new_phase: bool,
    /// The gate counts from now on.
    pub count_anew: bool,
    /// Who approved it.
    pub approved_by: Option<&'a str>,
}

/// Whose health is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Rollout.
    pub id: i64,
    /// Its patch.
    pub version: PatchVersion,
    /// Its tier.
    pub tier_id: i32,
    /// Only machines that were registered before this count.
    pub known: Timestamp,
    /// Only offers since then count.
    pub since: Timestamp,
}

/// What machines of one kernel report.
#[derive(Debug, Clone)]
pub struct KernelHealth {
    /// Rollout.
    pub id: i64,
    /// Kernel as reported.
    pub kernel: String,
    /// Architecture.
    pub architecture: Option<Architecture>,
    /// In numbers; the population is not counted here.
    pub health: Health,
}

fn version(code: i64) -> Result<PatchVersion, DbError> {
    PatchVersion::from_code(code)
        .ok_or_else(|| DbError::Row(format!("patch version code {code} is not valid")))
}

/// Now, by the database's clock.
pub async fn now(run: &impl Run) -> Result<Timestamp, DbError> {
    Ok(run.one(&SELECT_NOW, &[]).await?.get(0))
}

/// All policies.
pub async fn policies(run: &impl Run) -> Result<Vec<PolicyRow>, DbError> {
    let rows = run.rows(&SELECT_POLICIES, &[]).await?;
    let policy = |row: &Row| PolicyRow {
        tier_id: row.get(0),
        spec: row.get(1),
        set_at: row.get(2),
        actor: row.get(3),
        reason: row.get(4),
    };
    Ok(rows.iter().map(policy).collect())
}

/// Sets a tier's policy.
pub async fn set_policy(
    tx: &Tx<'_>,
    tier_id: i32,
    spec: &str,
    actor: &str,
    reason: &str,
) -> Result<(), DbError> {
    tx.exec(&UPSERT_POLICY, &[&tier_id, &spec, &actor, &reason])
        .await
        .map(|_| ())
}

/// Takes a tier's policy away; `false` if there was none.
pub async fn unset_policy(tx: &Tx<'_>, tier_id: i32) -> Result<bool, DbError> {
    Ok(tx.exec(&DELETE_POLICY, &[&tier_id]).await? > 0)
}

/// All rollouts, or one of them, in the order they began.
pub async fn list(run: &impl Run, id: Option<i64>) -> Result<Vec<RolloutRow>, DbError> {
    let rows = run.rows(&SELECT_ROLLOUTS, &[&id]).await?;
    let rollout = |row: &Row| {
        let state: i16 = row.get(7);
        Ok(RolloutRow {
            id: row.get(0),
            patch_id: row.get(1),
            version: version(row.get(2))?,
            tier_id: row.get(3),
            scope: scope(row.get(4), row.get(5), row.get(6))?,
            state: RolloutState::from_code(state)
                .ok_or_else(|| DbError::Row(format!("rollout state {state} is not known")))?,
            phase: row.get::<_, i32>(8).unsigned_abs() as usize,
            threshold: row.get::<_, i64>(9).unsigned_abs(),
            begun_at: row.get(10),
            phase_at: row.get(11),
            widened_at: row.get(12),
            counts_from: row.get(13),
            ended_at: row.get(14),
            requested_by: row.get(15),
            approved_by: row.get(16),
            reason: row.get(17),
        })
    };
    rows.iter().map(rollout).collect()
}

/// One rollout, locked until the end of the transaction.
pub async fn lock(tx: &Tx<'_>, id: i64) -> Result<Option<RolloutRow>, DbError> {
    if tx.opt(&LOCK_ROLLOUT, &[&id]).await?.is_none() {
        return Ok(None);
    }
    Ok(list(tx, Some(id)).await?.pop())
}

/// Whether a rollout stands halted in a tier.
pub async fn has_halted(run: &impl Run, tier_id: i32) -> Result<bool, DbError> {
    Ok(run.one(&SELECT_HALTED_IN_TIER, &[&tier_id]).await?.get(0))
}

/// Thresholds of label values, by rollout.
pub async fn limits(run: &impl Run) -> Result<HashMap<i64, HashMap<LabelValue, u64>>, DbError> {
    let mut limits: HashMap<i64, HashMap<LabelValue, u64>> = HashMap::new();
    for row in run.rows(&SELECT_LIMITS, &[]).await? {
        let of = limits.entry(row.get(0)).or_default();
        of.insert(
            (row.get(1), row.get(2)),
            row.get::<_, i64>(3).unsigned_abs(),
        );
    }
    Ok(limits)
}

/// Raises the threshold of a label value.
pub async fn raise_limit(
    tx: &Tx<'_>,
    id: i64,
    (label, value): &LabelValue,
    threshold: u64,
) -> Result<(), DbError> {
    let threshold = threshold as i64;
    tx.exec(&UPSERT_LIMIT, &[&id, label, value, &threshold])
        .await
        .map(|_| ())
}

/// Begins a rollout, or with [`RolloutState::Done`] notes that there is nothing to roll out any more; `None` if there is one
/// of that patch, tier and scope.
pub async fn begin(
    tx: &Tx<'_>,
    promoted: &Promoted,
    tier_id: i32,
    state: RolloutState,
    reason: &str,
) -> Result<Option<i64>, DbError> {
    let (kernel, flavour, architecture) = scope_columns(&promoted.scope);
    let threshold: i64 = if state == RolloutState::Done {
        crate::rollout::cohort::PLACES as i64
    } else {
        0
    };
    let params: [&(dyn ToSql + Sync); 9] = [
        &promoted.patch_id,
        &tier_id,
        &kernel,
        &flavour,
        &architecture,
        &state.code(),
        &threshold,
        &promoted.actor,
        &reason,
    ];
    let row = tx.opt(&INSERT_ROLLOUT, &params).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Changes a rollout; `false` if it does not stand any more as it was read.
pub async fn change(tx: &Tx<'_>, was: &RolloutRow, to: &Changed<'_>) -> Result<bool, DbError> {
    let (phase, threshold) = (was.phase as i32, was.threshold as i64);
    let (new_phase, new_threshold) = (to.phase as i32, to.threshold as i64);
    let params: [&(dyn ToSql + Sync); 11] = [
        &was.id,
        &was.state.code(),
        &phase,
        &threshold,
        &to.state.code(),
        &new_phase,
        &new_threshold,
        &to.reason,
        &to.new_phase,
        &to.count_anew,
        &to.approved_by,
    ];
    Ok(tx.exec(&CHANGE_ROLLOUT, &params).await? > 0)
}

/// Adds to a rollout's timeline.
pub async fn tell(
    tx: &Tx<'_>,
    id: i64,
    kind: &str,
    actor: &str,
    text: &str,
) -> Result<(), DbError> {
    tx.exec(&INSERT_ROLLOUT_EVENT, &[&id, &kind, &actor, &text])
        .await
        .map(|_| ())
}

/// A rollout's timeline, newest first.
pub async fn events(run: &impl Run, id: i64, limit: i64) -> Result<Vec<Event>, DbError> {
    let rows = run.rows(&SELECT_ROLLOUT_EVENTS, &[&id, &limit]).await?;
    let event = |row: &Row| Event {
        at: row.get(0),
        kind: row.get(1),
        actor: row.get(2),
        text: row.get(3),
    };
    Ok(rows.iter().map(event).collect())
}

/// Every promotion with who asked for it, oldest first.
pub async fn promoted(run: &impl Run) -> Result<Vec<Promoted>, DbError> {
    let rows = run.rows(&SELECT_WHO_PROMOTED, &[]).await?;
    let promoted = |row: &Row| {
        Ok(Promoted {
            patch_id: row.get(0),
            version: version(row.get(1))?,
            tier_id: row.get(2),
            scope: scope(row.get(3), row.get(4), row.get(5))?,
            actor: row.get(6),
        })
    };
    rows.iter().map(promoted).collect()
}

/// Patches that are blocked or held as a whole.
pub async fn stopped(run: &impl Run) -> Result<Vec<i32>, DbError> {
    let rows = run.rows(&SELECT_STOPPED_PATCHES, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What machines report of patches that are being rolled out, by kernel. A machine is silent that has not checked in for `silence`
/// seconds. Call it in a transaction of its own, whose settings it changes.
pub async fn health(
    run: &impl Run,
    asked: &[Asked],
    silence: f64,
) -> Result<Vec<KernelHealth>, DbError> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    macro_rules! column {
        ($of:expr) => {
            &asked.iter().map($of).collect::<Vec<_>>()
        };
    }
    run.one(&HEALTH_SETTINGS, &[]).await?;
    let params: [&(dyn ToSql + Sync); 6] = [
        column!(|a| a.id),
        column!(|a| a.version.code()),
        column!(|a| a.tier_id),
        column!(|a| a.known),
        column!(|a| a.since),
        &silence,
    ];
    let rows = run.rows(&SELECT_HEALTH, &params).await?;
    let of_kernel = |row: &Row| {
        let machines = row.get::<_, i64>(4).unsigned_abs();
        let mut health = Health {
            offered: machines,
            ..Health::default()
        };
        match row.get::<_, i32>(3) {
            1 => health.applied = machines,
            2 => health.failed = machines,
            3 => health.silent = machines,
            _ => {}
        }
        KernelHealth {
            id: row.get(0),
            kernel: row.get::<_, Option<String>>(1).unwrap_or_default(),
            architecture: Architecture::from_code(row.get(2)),
            health,
        }
    };
    Ok(rows.iter().map(of_kernel).collect())
}
