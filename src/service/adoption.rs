//! How a patch spread: the leader notes every few minutes how many machines of each tier run it, from the same counts as the reports.

use super::census;
use super::{Core, ServiceError};
use crate::db::adoption::{self as rows, Running};
use crate::db::leader;
use crate::domain::{PatchVersion, TierName};
use jiff::Timestamp;
use std::collections::HashMap;

/// Days that the numbers are kept.
const KEPT: i32 = 90;
/// Points of one curve; more would say nothing more.
const POINTS: i32 = 300;

/// Notes what the machines run now; `false` if this replica does not lead any more.
pub async fn note(core: &Core, epoch: i64) -> Result<bool, ServiceError> {
    let census = census::current(core).await?;
    let mut running: HashMap<(PatchVersion, i32), u64> = HashMap::new();
    for row in &census.rows {
        if let Some(version) = row.patch.filter(|_| row.state.runs_patch()) {
            *running.entry((version, row.tier_id)).or_default() += row.machines;
        }
    }
    // A patch that nobody runs any more comes down to nothing.
    let snapshot = core.snapshots.get_full();
    let versions: std::collections::HashSet<PatchVersion> = snapshot
        .catalog
        .payloads()
        .iter()
        .map(|payload| payload.version)
        .collect();
    for version in versions {
        for tier in snapshot.catalog.tiers() {
            running.entry((version, tier.id)).or_default();
        }
    }
    let running: Vec<Running> = running
        .into_iter()
        .map(|((version, tier_id), machines)| Running {
            version,
            tier_id,
            machines,
        })
        .collect();
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !leader::fence(&tx, epoch).await? {
        return Ok(false);
    }
    rows::note(&tx, &running).await?;
    rows::forget(&tx, KEPT).await?;
    tx.commit().await?;
    Ok(true)
}

/// The machines that ran a patch over time, by tier in their order, oldest first; up to now.
pub async fn of(
    core: &Core,
    version: PatchVersion,
) -> Result<Vec<(TierName, Vec<(Timestamp, u64)>)>, ServiceError> {
    let found = rows::of(&core.db.conn().await?, version, POINTS).await?;
    let mut curves: Vec<(TierName, Vec<(Timestamp, u64)>)> = Vec::new();
    for (tier, at, machines) in found {
        let Ok(tier) = tier.parse::<TierName>() else {
            continue;
        };
        match curves.last_mut() {
            Some((last, points)) if *last == tier => points.push((at, machines)),
            _ => curves.push((tier, vec![(at, machines)])),
        }
    }
    let now = Timestamp::now();
    for (_, points) in &mut curves {
        if let Some((_, last)) = points.last().copied() {
            points.push((now, last));
        }
    }
    Ok(curves)
}
