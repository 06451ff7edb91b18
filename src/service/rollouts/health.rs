//! What machines report of the patches that are being rolled out, for the gate.
//!
//! The leader counts at each look. Who only wants to see gets what was counted last, if counting takes long
//! and it is not long ago; with few machines each is counted when asked for.

use crate::db::rollouts::{self as rows, Asked, KernelHealth, RolloutRow};
use crate::domain::policy::Policy;
use crate::domain::{Architecture, KernelVersion};
use crate::rollout::advance::Health;
use crate::rollout::{Catalog, RolloutState};
use crate::service::census::{self, Census, silence};
use crate::service::{Core, ServiceError};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counting that takes less is done for each who asks.
const QUICK: Duration = Duration::from_millis(50);
/// What was counted is given out for so many times as long as counting took.
const SHARE: u32 = 20;

/// Rollouts with what machines report of them.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    by_kernel: HashMap<i64, Vec<KernelHealth>>,
    census: Option<Arc<Census>>,
    /// When machines were counted.
    pub(crate) as_of: Timestamp,
}

/// What was counted last, of each rollout.
#[derive(Debug, Default)]
pub struct Looks {
    last: Mutex<HashMap<i64, Look>>,
    counting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Look {
    counts_from: Timestamp,
    as_of: Timestamp,
    begun: Instant,
    took: Duration,
    kernels: Vec<KernelHealth>,
}

impl Looks {
    /// What is kept of a rollout and may still be given out.
    fn kept(&self, row: &RolloutRow) -> Option<(Timestamp, Vec<KernelHealth>)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.get(&row.id)
            .filter(|look| look.counts_from == row.counts_from)
            .filter(|look| look.begun.elapsed() < look.took * SHARE)
            .map(|look| (look.as_of, look.kernels.clone()))
    }

    fn keep(
        &self,
        wanted: &[(&RolloutRow, &Policy)],
        as_of: Timestamp,
        begun: Instant,
        found: &HashMap<i64, Vec<KernelHealth>>,
    ) {
        let took = begun.elapsed();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|_, look| look.begun.elapsed() < look.took * SHARE);
        if took < QUICK {
            return;
        }
        for (row, _) in wanted {
            let look = Look {
                counts_from: row.counts_from,
                as_of,
                begun,
                took,
                kernels: found.get(&row.id).cloned().unwrap_or_default(),
            };
            last.insert(row.id, look);
        }
    }
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
        return Ok(Reports {
            as_of: now,
            ..Reports::default()
        });
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
    let begun = Instant::now();
    let found = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin_read().await?;
        let found = rows::health(&tx, &asked, silence(core)).await?;
        tx.commit().await?;
        found
    };
    let mut by_kernel: HashMap<i64, Vec<KernelHealth>> = HashMap::new();
    for health in found {
        by_kernel.entry(health.id).or_default().push(health);
    }
    core.looks.keep(wanted, now, begun, &by_kernel);
    Ok(Reports {
        by_kernel,
        census: Some(census::current(core).await?),
        as_of: now,
    })
}

/// The health of one rollout as it is or, if counting takes long, as it was counted last.
pub(crate) async fn shown(
    core: &Core,
    row: &RolloutRow,
    policy: &Policy,
    now: Timestamp,
) -> Result<Reports, ServiceError> {
    let kept = async || match core.looks.kept(row) {
        Some((as_of, kernels)) => Ok::<_, ServiceError>(Some(Reports {
            by_kernel: HashMap::from([(row.id, kernels)]),
            census: Some(census::current(core).await?),
            as_of,
        })),
        None => Ok(None),
    };
    if let Some(reports) = kept().await? {
        return Ok(reports);
    }
    // Who waits here while another counts is served by what the other counted, if it is kept.
    let _turn = core.looks.counting.lock().await;
    match kept().await? {
        Some(reports) => Ok(reports),
        None => of(core, &[(row, policy)], now).await,
    }
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
