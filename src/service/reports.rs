//! Reports: where the machines of a tier stand, and how a patch fares in it.

use super::fleet::{self, Wanted};
use super::{Core, ServiceError};
use crate::db::reports as rows;
use crate::domain::{Architecture, MachineState};
use crate::wire::admin::{
    KernelHealth, MachinesReport, MachinesReportQuery, PatchHealth, PatchHealthQuery,
    VersionStateCount,
};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Machines of a tier: their number by version and state, and one page of them.
pub async fn machines(
    core: &Core,
    query: &MachinesReportQuery,
) -> Result<MachinesReport, ServiceError> {
    let tier_id = fleet::known_tier(core, &query.tier)?;
    let wanted = Wanted {
        tier: Some(&query.tier),
        version: query.version,
        state: query.state,
        ..Wanted::default()
    };
    let conn = core.db.conn().await?;
    let filter = fleet::filter(core, &conn, &wanted).await?;
    let machines = fleet::page(&conn, &filter, query.cursor.as_deref(), query.limit).await?;
    let counts: Vec<VersionStateCount> = rows::by_version_and_state(&conn, tier_id, &filter)
        .await?
        .into_iter()
        .map(|(version, state, machines)| VersionStateCount {
            version,
            state,
            machines,
        })
        .collect();
    Ok(MachinesReport {
        tier: query.tier.clone(),
        total: counts.iter().map(|count| count.machines).sum(),
        counts,
        machines,
    })
}

fn failures(states: &BTreeMap<MachineState, u64>) -> u64 {
    let failed = states.iter().filter(|(state, _)| state.is_failure());
    failed.map(|(_, machines)| machines).sum()
}

/// How a patch fares in a tier, in all and by kernel.
pub async fn patch_health(
    core: &Core,
    query: &PatchHealthQuery,
) -> Result<PatchHealth, ServiceError> {
    let tier_id = fleet::known_tier(core, &query.tier)?;
    let found = {
        let conn = core.db.conn().await?;
        rows::patch_health(&conn, tier_id, query.version).await?
    };
    let mut states: BTreeMap<MachineState, u64> = BTreeMap::new();
    let mut by_kernel: BTreeMap<(String, Option<Architecture>), BTreeMap<MachineState, u64>> =
        BTreeMap::new();
    for row in found {
        *states.entry(row.state).or_default() += row.machines;
        let kernel = row.kernel.unwrap_or_else(|| "unknown".to_owned());
        let kernel = by_kernel.entry((kernel, row.architecture)).or_default();
        *kernel.entry(row.state).or_default() += row.machines;
    }
    let mut kernels: Vec<KernelHealth> = by_kernel
        .into_iter()
        .map(|((kernel, architecture), states)| KernelHealth {
            kernel,
            architecture,
            machines: states.values().sum(),
            failed: failures(&states),
            states,
        })
        .collect();
    // Stable: kernels with as many failures and machines stay in the order of their names.
    kernels.sort_by_key(|kernel| (Reverse(kernel.failed), Reverse(kernel.machines)));
    let machines: u64 = states.values().sum();
    let failed = failures(&states);
    Ok(PatchHealth {
        tier: query.tier.clone(),
        version: query.version,
        machines,
        failed,
        failed_share: if machines == 0 {
            0.0
        } else {
            failed as f64 / machines as f64
        },
        states,
        kernels,
    })
}
