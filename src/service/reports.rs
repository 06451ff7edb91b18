//! Reports: where the machines of a tier stand, and how a patch fares in it.

use super::fleet::{self, Wanted};
use super::{Core, ServiceError, census};
use crate::domain::{Architecture, MachineState, PatchVersion};
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
    let wanted = Wanted {
        tier: Some(&query.tier),
        version: query.version,
        state: query.state.as_ref(),
        selector: query.selector.as_ref(),
        ..Wanted::default()
    };
    let machines = {
        let conn = core.db.conn().await?;
        let filter = fleet::filter(core, &conn, &wanted).await?;
        fleet::page(&conn, &filter, query.cursor.as_deref(), query.limit).await?
    };
    let census = census::selected(core, Some(&query.tier), query.selector.as_ref(), None).await?;
    // Highest version first, those without one last; then by state.
    let mut groups: BTreeMap<(Reverse<Option<PatchVersion>>, i16, MachineState), u64> =
        BTreeMap::new();
    let rows = census.rows.iter().map(|(_, row)| row);
    let speaks_of = rows.filter(|row| {
        query
            .version
            .is_none_or(|version| row.patch == Some(version))
            && (query.state.as_ref()).is_none_or(|states| states.contains(row.state))
    });
    for row in speaks_of {
        let group = (Reverse(row.patch), row.state.code(), row.state);
        *groups.entry(group).or_default() += row.machines;
    }
    let counts: Vec<VersionStateCount> = groups
        .into_iter()
        .map(|((version, _, state), machines)| VersionStateCount {
            version: version.0,
            state,
            machines,
        })
        .collect();
    Ok(MachinesReport {
        tier: query.tier.clone(),
        as_of: census.as_of,
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
    let census = census::selected(core, Some(&query.tier), query.selector.as_ref(), None).await?;
    let mut states: BTreeMap<MachineState, u64> = BTreeMap::new();
    let mut by_kernel: BTreeMap<(String, Option<Architecture>), BTreeMap<MachineState, u64>> =
        BTreeMap::new();
    let version = Some(query.version);
    let rows = census.rows.iter().map(|(_, row)| row);
    let concerned = rows.filter(|row| row.patch == version || row.offered == version);
    for row in concerned {
        *states.entry(row.state).or_default() += row.machines;
        let kernel = row.kernel.as_deref().unwrap_or("unknown").to_owned();
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
        as_of: census.as_of,
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
