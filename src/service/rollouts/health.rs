//! What machines report of the patches that are being rolled out, for the gate.

use super::interval;
use crate::db::rollouts::{self as rows, Asked, KernelHealth, RolloutRow};
use crate::domain::policy::Policy;
use crate::domain::{Architecture, KernelVersion};
use crate::rollout::advance::Health;
use crate::rollout::{Catalog, RolloutState};
use crate::service::census::{self, Census};
use crate::service::{Core, ServiceError};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::Arc;

/// Rollouts with what machines report of them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    by_kernel: HashMap<i64, Vec<KernelHealth>>,
    census: Option<Arc<Census>>,
}

/// Whether a kernel is under the rollout's scope. One that cannot be read is under no narrower scope than all.
fn covers(row: &RolloutRow, kernel: &str, architecture: Option<Architecture>) -> bool {
    if row.scope.is_all() {
        return true;
    }
    let kernel = kernel.parse::<KernelVersion>().ok();
    kernel
        .zip(architecture)
        .is_some_and(|(kernel, arch)| row.scope.covers(&kernel, arch))
}

/// Offers made before this do not count toward the gate.
fn since(row: &RolloutRow, policy: &Policy, now: Timestamp) -> Timestamp {
    let window = policy.gate.map(|gate| gate.window.as_seconds());
    let window = window.map(|seconds| now.saturating_sub(SignedDuration::from_secs(seconds)));
    let window = window.and_then(Result::ok);
    window.map_or(row.counts_from, |window| window.max(row.counts_from))
}

/// Asks for the health of these rollouts; `rows` are with their tier's policy.
pub(crate) async fn of(
    core: &Core,
    wanted: &[(&RolloutRow, &Policy)],
    now: Timestamp,
) -> Result<Reports, ServiceError> {
    if wanted.is_empty() {
        return Ok(Reports::default());
    }
    let asked: Vec<Asked> = wanted
        .iter()
        .map(|(row, policy)| Asked {
            id: row.id,
            version: row.version,
            tier_id: row.tier_id,
            known: row.begun_at,
            since: since(row, policy, now),
        })
        .collect();
    let silence = 2.0 * interval(core).as_duration().as_secs_f64();
    let found = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin_read().await?;
        let found = rows::health(&tx, &asked, silence).await?;
        tx.commit().await?;
        found
    };
    let mut by_kernel: HashMap<i64, Vec<KernelHealth>> = HashMap::new();
    for health in found {
        by_kernel.entry(health.id).or_default().push(health);
    }
    Ok(Reports {
        by_kernel,
        census: Some(census::current(core).await?),
    })
}

impl Reports {
    /// What is known of one rollout.
    pub(crate) fn total(&self, row: &RolloutRow, catalog: &Catalog) -> Health {
        let mut total = Health {
            population: self.population(row, catalog),
            ..Health::default()
        };
        for (_, _, health) in self.kernels(row) {
            total += health;
        }
        total
    }

    /// What is known of one rollout, by kernel.
    pub(crate) fn kernels(&self, row: &RolloutRow) -> Vec<(String, Option<Architecture>, Health)> {
        let mut kernels: HashMap<(&str, Option<Architecture>), Health> = HashMap::new();
        for found in self.by_kernel.get(&row.id).into_iter().flatten() {
            if covers(row, &found.kernel, found.architecture) {
                *kernels
                    .entry((found.kernel.as_str(), found.architecture))
                    .or_default() += found.health;
            }
        }
        let mut kernels: Vec<_> = kernels
            .into_iter()
            .map(|((kernel, arch), health)| (kernel.to_owned(), arch, health))
            .collect();
        kernels.sort_by(|a, b| (b.2.offered, &a.0).cmp(&(a.2.offered, &b.0)));
        kernels
    }

    /// Machines of the tier that there is a payload for.
    fn population(&self, row: &RolloutRow, catalog: &Catalog) -> u64 {
        let groups = self.census.iter().flat_map(|census| &census.rows);
        groups
            .filter(|group| group.tier_id == row.tier_id)
            .filter(|group| {
                let Some((kernel, arch)) = group.kernel.as_deref().zip(group.architecture) else {
                    return false;
                };
                covers(row, kernel, Some(arch))
                    && catalog
                        .for_kernel(kernel, arch)
                        .iter()
                        .any(|payload| payload.version == row.version)
            })
            .map(|group| group.machines)
            .sum()
    }
}

/// Whether machines' reports can still change what becomes of it: it runs, or ended within the gate's window.
pub(crate) fn is_watched(row: &RolloutRow, policy: &Policy, now: Timestamp) -> bool {
    match row.state {
        RolloutState::Running => true,
        RolloutState::Paused | RolloutState::Done => policy.gate.is_some_and(|gate| {
            let since = row.ended_at.unwrap_or(row.phase_at);
            row.state == RolloutState::Paused
                || now.as_second() - since.as_second() < gate.window.as_seconds()
        }),
        RolloutState::AwaitingApproval | RolloutState::Halted | RolloutState::Aborted => false,
    }
}
