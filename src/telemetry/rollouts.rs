//! Metrics of rollouts. The leader shows them; on other replicas the gauges have no series.

use super::family::{counter, register};
use prometheus::{GaugeVec, IntCounter, IntGaugeVec, Opts, Registry};

/// Rollouts that are not at their end, and what became of them.
#[derive(Debug)]
pub struct RolloutMetrics {
    state: IntGaugeVec,
    phase: IntGaugeVec,
    share: GaugeVec,
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
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(r, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let share = Opts::new(
            "livepatch_rollout_share_ratio",
            "Share of the tier's machines that a rollout lets in.",
        );
        Self {
            state: gauges(
                "livepatch_rollout_state",
                "Rollouts that are not at their end: 1 for the state that they are in.",
                &["patch", "tier", "state"],
            ),
            phase: gauges(
                "livepatch_rollout_phase",
                "The phase that a rollout is in, from 1.",
                &["patch", "tier"],
            ),
            share: register(r, GaugeVec::new(share, &["patch", "tier"])),
            halts: counter(
                r,
                "livepatch_rollout_halts_total",
                "Rollouts that this replica halted because of what machines reported.",
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
        self.state.reset();
        self.phase.reset();
        self.share.reset();
        for rollout in rollouts {
            let RolloutGauge {
                patch, tier, state, ..
            } = rollout;
            self.state.with_label_values(&[patch, tier, state]).set(1);
            self.phase
                .with_label_values(&[patch, tier])
                .set(rollout.phase);
            self.share
                .with_label_values(&[patch, tier])
                .set(rollout.share);
        }
    }
}
