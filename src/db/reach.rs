//! Who has a patch, and who was offered it: what a person asks after it was stopped.
//!
//! `machines.patch` is not indexed, so each statement reads the whole table once.

use super::filter::{MachineFilter, matching, source};
use super::fleet::state;
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, MachineId, MachineState, PatchVersion, TierName};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

/// The machines that a patch has reached: `$16` is its version.
macro_rules! reached {
    () => {
        "(m.tried = $16 or (m.patch = $16 and m.state in (1, 7)))"
    };
}

/// What became of it there: 1 it runs, 2 it failed, 3 neither. A report counts from the first check-in after the offer on.
macro_rules! standing {
    () => {
        "case when m.patch = $16 and m.state in (1, 7) then 1
            when m.state = 2 and m.last_check <> m.tried_at then 2 else 3 end"
    };
}

/// See [`count`].
macro_rules! counted {
    ($source:ident) => {
        concat!(
            "select ",
            standing!(),
            " as standing, count(*), count(*) filter (where m.last_check > $17),
            count(*) filter (where m.last_check < now() - make_interval(secs => $18))",
            source!($source),
            reached!(),
            " and ",
            matching!(),
            " group by standing"
        )
    };
}

/// See [`page`].
macro_rules! listed {
    ($source:ident) => {
        concat!(
            "with hits as materialized (select m.id",
            source!($source),
            "m.id > $17 and ",
            reached!(),
            " and ",
            matching!(),
            "),
        page as materialized (select id from hits order by id limit $19)
        select m.id, t.name, k.text, m.architecture, m.state, m.patch, case when m.tried = $16 then m.tried_at end, m.last_check,
            ",
            standing!(),
            ", m.last_check < now() - make_interval(secs => $18)
        from page p join machines m on m.id = p.id
        left join machine_overrides o on o.machine_id = m.id
        join tiers t on t.id = coalesce(o.tier_id, m.tier_id)
        left join words k on k.id = m.kernel_id order by m.id"
        )
    };
}

statements! {
    SELECT_REACH_PATCH = "select id from patches where version = $1";
    // Since when nobody is offered the patch, or a part of it, anew. What went on again does not count.
    SELECT_STOPPED_AT = "select greatest(
            (select max(at) from blocks where patch_id = $1 and lifted_at is null),
            (select max(e.at) from rollout_events e join rollouts r on r.id = e.rollout_id
                where r.patch_id = $1 and r.state in (4, 6) and e.kind in ('halt', 'abort', 'block')))";
    COUNT_REACH = counted!(all);
    COUNT_REACH_LED = counted!(led);
    SELECT_REACH = listed!(all);
    SELECT_REACH_LED = listed!(led);
}

/// What became of a patch on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It runs.
    Has,
    /// It could not be inserted.
    Failed,
    /// It was offered and does not run.
    Left,
}

impl Standing {
    fn from_code(code: i32) -> Self {
        match code {
            1 => Self::Has,
            2 => Self::Failed,
            _ => Self::Left,
        }
    }
}

/// A machine that the patch has reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Identity.
    pub id: MachineId,
    /// Its tier.
    pub tier: TierName,
    /// Kernel as reported.
    pub kernel: Option<String>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// State as reported.
    pub state: MachineState,
    /// What it runs.
    pub runs: Option<PatchVersion>,
    /// When it was offered the patch.
    pub offered_at: Option<Timestamp>,
    /// When it last checked in.
    pub last_check: Option<Timestamp>,
    /// What became of the patch.
    pub standing: Standing,
    /// It has not checked in for long.
    pub silent: bool,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Of these.
    pub standing: Standing,
    /// In all.
    pub machines: u64,
    /// Of these have checked in since the patch was stopped.
    pub polled: u64,
    /// Of these have not checked in for long.
    pub silent: u64,
}

/// The database id of a patch.
pub async fn patch(run: &impl Run, version: PatchVersion) -> Result<Option<i32>, DbError> {
    let row = run.opt(&SELECT_REACH_PATCH, &[&version.code()]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Since when a patch, or a part of it, stands still; `None`: it does not.
pub async fn stopped_at(run: &impl Run, patch_id: i32) -> Result<Option<Timestamp>, DbError> {
    Ok(run.one(&SELECT_STOPPED_AT, &[&patch_id]).await?.get(0))
}

/// Counts who of the machines that a filter lets through was reached. A machine is silent that has not checked in for `silence` seconds.
pub async fn count(
    run: &impl Run,
    filter: &MachineFilter,
    version: PatchVersion,
    stopped_at: Option<Timestamp>,
    silence: f64,
) -> Result<Vec<Counted>, DbError> {
    let (sql, version) = (filter.pick(&COUNT_REACH, &COUNT_REACH_LED), version.code());
    let params = filter.params(&[&version, &stopped_at, &silence]);
    let rows = run.rows(sql, &params).await?;
    let counted = |row: &Row| Counted {
        standing: Standing::from_code(row.get(0)),
        machines: row.get::<_, i64>(1).unsigned_abs(),
        polled: row.get::<_, i64>(2).unsigned_abs(),
        silent: row.get::<_, i64>(3).unsigned_abs(),
    };
    Ok(rows.iter().map(counted).collect())
}

/// Who of them was reached, after the machine `after`, by id.
pub async fn page(
    run: &impl Run,
    filter: &MachineFilter,
    version: PatchVersion,
    after: Uuid,
    silence: f64,
    limit: i64,
) -> Result<Vec<Reached>, DbError> {
    let (sql, version) = (
        filter.pick(&SELECT_REACH, &SELECT_REACH_LED),
        version.code(),
    );
    let params = filter.params(&[&version, &after, &silence, &limit]);
    let rows = run.rows(sql, &params).await?;
    let reached = |row: &Row| {
        let state = state(row.get(4));
        Ok(Reached {
            id: MachineId(row.get::<_, Uuid>(0).into_bytes()),
            tier: row.get::<_, &str>(1).parse()?,
            kernel: row.get(2),
            architecture: Architecture::from_code(row.get(3)),
            state,
            runs: PatchVersion::from_code(row.get(5)).filter(|_| state.runs_patch()),
            offered_at: row.get(6),
            last_check: row.get(7),
            standing: Standing::from_code(row.get(8)),
            silent: row.get::<_, Option<bool>>(9).unwrap_or_default(),
        })
    };
    rows.iter().map(reached).collect()
}
