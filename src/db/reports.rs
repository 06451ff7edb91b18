//! The machines counted. It reads the whole table once: nothing that changes at a check-in is indexed.

use super::filter::{MachineFilter, matching, source};
use super::fleet::state;
use super::run::{DbError, Run, Sql};
use super::statements;
use crate::domain::{Architecture, MachineState, PatchVersion};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::types::ToSql;

/// Machines by what they agree in.
macro_rules! counted {
    ($($from:expr),*) => {
        concat!(
            "select g.tier_id, g.kernel_id, k.text, g.architecture, g.patch, g.offered, g.state, g.machines from (
            select m.tier_id, m.kernel_id, m.architecture, m.patch, m.offered, m.state, count(*) as machines",
            $($from,)*
            " group by m.tier_id, m.kernel_id, m.architecture, m.patch, m.offered, m.state) g
        left join words k on k.id = g.kernel_id"
        )
    };
}

statements! {
    // Compiling the query takes longer than it saves; a few megabytes keep the groups out of temporary files.
    CENSUS_SETTINGS = "select set_config('jit', 'off', true), set_config('work_mem', '32MB', true)";
    COUNT_MACHINES = counted!(" from machines m");
    COUNT_SELECTED = counted!(source!(all), matching!());
    COUNT_SELECTED_LED = counted!(source!(led), matching!());
}

/// Machines that agree in all of this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CensusRow {
    /// Their tier.
    pub tier_id: i32,
    /// Kernel as reported.
    pub kernel: Option<Arc<str>>,
    /// Architecture, where known.
    pub architecture: Option<Architecture>,
    /// The patch in their reports.
    pub patch: Option<PatchVersion>,
    /// What they were offered last.
    pub offered: Option<PatchVersion>,
    /// State as reported.
    pub state: MachineState,
    /// How many.
    pub machines: u64,
}

/// Counts all machines. Call it in a read transaction of its own, whose settings it changes.
pub async fn census(run: &impl Run) -> Result<Vec<CensusRow>, DbError> {
    counted(run, &COUNT_MACHINES, &[]).await
}

/// Counts the machines that a filter lets through, like [`census`].
pub async fn census_of(run: &impl Run, filter: &MachineFilter) -> Result<Vec<CensusRow>, DbError> {
    let sql = filter.pick(&COUNT_SELECTED, &COUNT_SELECTED_LED);
    counted(run, sql, &filter.params(&[])).await
}

async fn counted(
    run: &impl Run,
    sql: &Sql,
    params: &[&(dyn ToSql + Sync)],
) -> Result<Vec<CensusRow>, DbError> {
    run.one(&CENSUS_SETTINGS, &[]).await?;
    let rows = run.rows(sql, params).await?;
    // Thousands of groups share a few hundred kernels.
    let mut kernels: HashMap<i32, Arc<str>> = HashMap::new();
    Ok(rows
        .iter()
        .map(|row| {
            let kernel = row
                .get::<_, Option<i32>>(1)
                .zip(row.get::<_, Option<&str>>(2))
                .map(|(id, text)| Arc::clone(kernels.entry(id).or_insert_with(|| text.into())));
            CensusRow {
                tier_id: row.get(0),
                kernel,
                architecture: Architecture::from_code(row.get(3)),
                patch: PatchVersion::from_code(row.get(4)),
                offered: PatchVersion::from_code(row.get(5)),
                state: state(row.get(6)),
                machines: row.get::<_, i64>(7).unsigned_abs(),
            }
        })
        .collect())
}
