//! The machines counted. It reads the whole table once: nothing that changes at a check-in is indexed.
//!
//! These are the key figures, so their names begin with `KPI`, as published dashboards expect of the metric of statements.

use super::filter::{MachineFilter, matching, source};
use super::fleet::state;
use super::run::{DbError, Run, Sql};
use super::statements;
use crate::domain::{Architecture, LabelKey, MachineState, PatchVersion};
use jiff::civil::Date;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Machines by all that reports speak of, and by a further column; how many of them are silent is a column too.
macro_rules! counted {
    ($column:literal, $silent:literal, $($from:expr),*) => {
        concat!(
            "select g.tier_id, g.kernel_id, k.text, g.architecture, g.patch, g.offered, g.state, g.build_date, g.machines, g.silent, g.label
            from (select m.tier_id, m.kernel_id, m.architecture, m.patch, m.offered, m.state, m.build_date, ",
            $column,
            " as label, count(*) as machines, ",
            $silent,
            " as silent",
            $($from,)*
            " group by m.tier_id, m.kernel_id, m.architecture, m.patch, m.offered, m.state, m.build_date, label) g
            left join words k on k.id = g.kernel_id"
        )
    };
}

statements! {
    // Compiling the query takes longer than it saves; a few megabytes keep the groups out of temporary files.
    KPI_CENSUS_SETTINGS = "select set_config('jit', 'off', true), set_config('work_mem', '32MB', true)";
    KPI_COUNT_MACHINES = counted!(
        "null::text",
        "count(*) filter (where m.last_check < now() - make_interval(secs => $1))",
        " from machines m"
    );
    KPI_COUNT_MACHINES_BY_LABEL = counted!(
        "l.value",
        "count(*) filter (where m.last_check < now() - make_interval(secs => $1))",
        " from machines m left join machine_labels l on l.machine_id = m.id and l.key = $2"
    );
    KPI_COUNT_SELECTED = counted!(
        "(select l.value from machine_labels l where l.machine_id = m.id and l.key = $17::text)",
        "count(*) filter (where m.last_check < now() - make_interval(secs => $16))",
        source!(all),
        matching!()
    );
    KPI_COUNT_SELECTED_LED = counted!(
        "(select l.value from machine_labels l where l.machine_id = m.id and l.key = $17::text)",
        "count(*) filter (where m.last_check < now() - make_interval(secs => $16))",
        source!(led),
        matching!()
    );
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
    /// The day their kernel was built.
    pub build_date: Option<Date>,
    /// How many.
    pub machines: u64,
    /// How many of them have not checked in for long.
    pub silent: u64,
}

/// Counts all machines, with a label also by its value; machines without it have none. One is silent that has checked in, but
/// not for `silence` seconds. Call it in a read transaction of its own, whose settings it changes.
pub async fn census(
    run: &impl Run,
    silence: f64,
    label: Option<&LabelKey>,
) -> Result<Vec<(Option<String>, CensusRow)>, DbError> {
    run.one(&KPI_CENSUS_SETTINGS, &[]).await?;
    let rows = match label {
        None => run.rows(&KPI_COUNT_MACHINES, &[&silence]).await?,
        Some(key) => {
            let params: [&(dyn ToSql + Sync); 2] = [&silence, &key.as_str()];
            run.rows(&KPI_COUNT_MACHINES_BY_LABEL, &params).await?
        }
    };
    Ok(read(&rows))
}

/// Counts the machines that a filter lets through, like [`census`].
pub async fn census_of(
    run: &impl Run,
    filter: &MachineFilter,
    silence: f64,
    label: Option<&LabelKey>,
) -> Result<Vec<(Option<String>, CensusRow)>, DbError> {
    let sql: &Sql = filter.pick(&KPI_COUNT_SELECTED, &KPI_COUNT_SELECTED_LED);
    let key = label.map(LabelKey::as_str);
    run.one(&KPI_CENSUS_SETTINGS, &[]).await?;
    let rows = run.rows(sql, &filter.params(&[&silence, &key])).await?;
    Ok(read(&rows))
}

fn read(rows: &[Row]) -> Vec<(Option<String>, CensusRow)> {
    // Thousands of groups share a few hundred kernels.
    let mut kernels: HashMap<i32, Arc<str>> = HashMap::new();
    let counted = |row: &Row| {
        let kernel = row
            .get::<_, Option<i32>>(1)
            .zip(row.get::<_, Option<&str>>(2))
            .map(|(id, text)| Arc::clone(kernels.entry(id).or_insert_with(|| text.into())));
        let counted = CensusRow {
            tier_id: row.get(0),
            kernel,
            architecture: Architecture::from_code(row.get(3)),
            patch: PatchVersion::from_code(row.get(4)),
            offered: PatchVersion::from_code(row.get(5)),
            state: state(row.get(6)),
            build_date: row.get(7),
            machines: row.get::<_, i64>(8).unsigned_abs(),
            silent: row.get::<_, i64>(9).unsigned_abs(),
        };
        (row.get(10), counted)
    };
    rows.iter().map(counted).collect()
}
