//! Counts over all machines of a tier. Each reads the table once: nothing that changes at a check-in is indexed.

use super::fleet::{MachineFilter, state};
use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Architecture, MachineState, PatchVersion};

statements! {
    COUNT_BY_VERSION_AND_STATE = "select patch, state, count(*) from machines
        where tier_id = $1 and ($2::bigint is null or patch = $2) and ($3::smallint is null or state = $3)
        group by patch, state order by patch desc, state";
    COUNT_PATCH_HEALTH = "select k.text, h.architecture, h.state, h.machines from (
            select kernel_id, architecture, state, count(*) as machines from machines
            where tier_id = $1 and (patch = $2 or offered = $2)
            group by kernel_id, architecture, state) h
        left join words k on k.id = h.kernel_id";
}

/// Machines of a tier by the version applied and the state, highest version first.
pub async fn by_version_and_state(
    run: &impl Run,
    tier_id: i32,
    filter: &MachineFilter,
) -> Result<Vec<(Option<PatchVersion>, MachineState, u64)>, DbError> {
    let rows = run
        .rows(
            &COUNT_BY_VERSION_AND_STATE,
            &[&tier_id, &filter.patch, &filter.state],
        )
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let machines: i64 = row.get(2);
            (
                PatchVersion::from_code(row.get(0)),
                state(row.get(1)),
                machines.unsigned_abs(),
            )
        })
        .collect())
}

/// Machines of one kernel, architecture and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthRow {
    /// Kernel as reported.
    pub kernel: Option<String>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// State as reported.
    pub state: MachineState,
    /// How many.
    pub machines: u64,
}

/// Machines of a tier that run a patch or were offered it last.
pub async fn patch_health(
    run: &impl Run,
    tier_id: i32,
    version: PatchVersion,
) -> Result<Vec<HealthRow>, DbError> {
    let rows = run
        .rows(&COUNT_PATCH_HEALTH, &[&tier_id, &version.code()])
        .await?;
    Ok(rows
        .iter()
        .map(|row| HealthRow {
            kernel: row.get(0),
            architecture: Architecture::from_code(row.get(1)),
            state: state(row.get(2)),
            machines: row.get::<_, i64>(3).unsigned_abs(),
        })
        .collect())
}
