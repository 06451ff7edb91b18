//! Metrics of rollouts. The leader shows them; on other replicas the gauges have no series.

use super::family::{Gauges, Registry, counter};
use prometheus::IntCounter;
use prometheus::core::{AtomicF64, AtomicI64};

/// Rollouts that are not at their end, and what became of them.
#[derive(Debug)]
pub struct RolloutMetrics {
    state: Gauges<AtomicI64>,
    phase: Gauges<AtomicI64>,
    share: Gauges<AtomicF64>,
    /// Rollouts that halted by themselves.
    pub halts: IntCounter,
    /// Looks at the rollouts that failed.
    pub failures: IntCounter,
}

/// One rollout as it is shown. Several parts of one patch in a tier are shown as one, in the state that was shown last.
#[derive(Debug, Clone, Copy)]
pub struct RolloutGauge<'a> {
    /// Version of the patch.
    pub patch: &'a str,
    /// Name of the tier.
    pub tier: &'a str,
    /// Word of its state.
    pub state: &'a str,
    /// Number of its phase, from 1.
    pub phase: i64,
    /// Share of the machines that are let in, from 0 to 1.
    pub share: f64,
}

impl RolloutMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            state: Gauges::new(
                r,
                "livepatch_rollout_state",
                "Rollouts that are not at their end: 1 for the state that they are in.",
                &["patch", "tier", "state"],
            ),
            phase: Gauges::new(
                r,
                "livepatch_rollout_phase",
                "The phase that a rollout is in, from 1.",
                &["patch", "tier"],
            ),
            share: Gauges::new(
                r,
                "livepatch_rollout_share_ratio",
                "Share of the tier's machines that a rollout lets in.",
                &["patch", "tier"],
            ),
            halts: counter(
                r,
                "livepatch_rollout_halts_total",
                "Rollouts that halted by themselves under this replica's lead, because of what machines reported.",
            ),
            failures: counter(
                r,
                "livepatch_rollout_look_failures_total",
                "Looks at the rollouts that failed.",
            ),
        }
    }

    /// Shows these and no others.
    pub fn show<'a>(&self, rollouts: impl IntoIterator<Item = RolloutGauge<'a>>) {
        let (mut states, mut phases, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        for rollout in rollouts {
            let one = vec![rollout.patch.to_owned(), rollout.tier.to_owned()];
            let mut state = one.clone();
            state.push(rollout.state.to_owned());
            states.push((state, 1));
            phases.push((one.clone(), rollout.phase));
            shares.push((one, rollout.share));
        }
        self.state.show(states);
        self.phase.show(phases);
        self.share.show(shares);
    }
}
