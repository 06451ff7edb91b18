//! Metrics of the machines as a whole, as they were counted last, and of how patches come along the tiers.
//!
//! Every replica counts for itself: of the two figures without labels take the maximum, not the sum. Machines by something are shown by
//! the leader alone, and the last count is kept so that a replica shows it as soon as it leads.

use super::family::{Gauges, Registry, gauge, register};
use prometheus::core::{AtomicF64, AtomicI64};
use prometheus::{Gauge, IntGauge};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How the machines stand.
#[derive(Debug)]
pub struct FleetMetrics {
    /// Share of the machines that are covered, of those that could be.
    pub coverage: Gauge,
    /// Machines that have not checked in for twice the interval.
    pub silent: IntGauge,
    states: Gauges<AtomicI64>,
    patches: Gauges<AtomicI64>,
    lag: Gauges<AtomicF64>,
    waiting: Gauges<AtomicF64>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    leads: bool,
    counts: FleetCounts,
}

/// Machines, counted. Whoever counts gives names from the catalog only, and [`OTHER`](Self::OTHER) for everything else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// By tier and state.
    pub states: BTreeMap<(String, &'static str), u64>,
    /// By tier and the version of the patch that they report.
    pub patches: BTreeMap<(String, String), u64>,
}

impl FleetCounts {
    /// What is not in the catalog.
    pub const OTHER: &'static str = super::family::OTHER;
    /// Machines without a patch.
    pub const NONE: &'static str = "none";
}

/// How patches come along to one tier.
#[derive(Debug, Clone, PartialEq)]
pub struct TierLag {
    /// The tier.
    pub tier: String,
    /// Seconds that the highest patch in it took from its entry; `None` while it has none.
    pub took: Option<f64>,
    /// Seconds since the entry of the oldest patch that is higher than all in it and may come; 0 if there is none.
    pub waiting: f64,
}

impl FleetMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let coverage = Gauge::new(
            "livepatch_coverage_ratio",
            "Share of the machines that run the highest version available to them, of those that could.",
        );
        Self {
            coverage: register(r, coverage),
            silent: gauge(
                r,
                "livepatch_machines_silent",
                "Machines that have not checked in for twice check-in.interval.",
            ),
            states: Gauges::new(
                r,
                "livepatch_machines",
                "Machines by their tier and the state they reported last; the leader shows them.",
                &["tier", "state"],
            ),
            patches: Gauges::new(
                r,
                "livepatch_machines_by_patch",
                "Machines by their tier and the patch in their last report, \"none\" without one; the leader shows them.",
                &["tier", "patch"],
            ),
            lag: Gauges::new(
                r,
                "livepatch_tier_lag_seconds",
                "How long the highest patch in a tier took to it from its entry into the first; no series while a tier is empty.",
                &["tier"],
            ),
            waiting: Gauges::new(
                r,
                "livepatch_tier_waiting_seconds",
                "How long ago the oldest patch came in that is higher than all in this tier and not blocked or held; 0 if there is none.",
                &["tier"],
            ),
            kept: Mutex::default(),
        }
    }

    /// Takes what was counted, and shows it if this replica leads.
    pub fn count(&self, counts: FleetCounts) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.counts = counts;
        if kept.leads {
            self.show(&kept.counts);
        }
    }

    /// Whether this replica leads from now on.
    pub fn lead(&self, leads: bool) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.leads = leads;
        if leads {
            self.show(&kept.counts);
        } else {
            self.show(&FleetCounts::default());
        }
    }

    fn show(&self, counts: &FleetCounts) {
        let states = counts.states.iter().map(|((tier, state), machines)| {
            (
                vec![tier.clone(), (*state).to_owned()],
                machines.cast_signed(),
            )
        });
        self.states.show(states);
        let patches = counts.patches.iter().map(|((tier, patch), machines)| {
            (vec![tier.clone(), patch.clone()], machines.cast_signed())
        });
        self.patches.show(patches);
    }

    /// Shows how patches come along to the tiers.
    pub fn lag(&self, tiers: &[TierLag]) {
        let took = tiers
            .iter()
            .filter_map(|lag| Some((vec![lag.tier.clone()], lag.took?)));
        self.lag.show(took);
        let waiting = tiers
            .iter()
            .map(|lag| (vec![lag.tier.clone()], lag.waiting));
        self.waiting.show(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        text.lines()
            .filter(|line| line.starts_with("livepatch_machines{"))
            .map(str::to_owned)
            .collect()
    }

    fn counts(tier: &str, machines: u64) -> FleetCounts {
        FleetCounts {
            states: [((tier.to_owned(), "applied"), machines)].into(),
            patches: BTreeMap::new(),
        }
    }

    #[test]
    fn only_the_leader_shows_machines_and_at_once() {
        let registry = Registry::new();
        let fleet = FleetMetrics::new(&registry);
        fleet.count(counts("edge", 7));
        assert_eq!(lines(&registry), [""; 0]);
        fleet.lead(true);
        let line = |tier: &str, n: u64| {
            format!(r#"livepatch_machines{{state="applied",tier="{tier}"}} {n}"#)
        };
        assert_eq!(lines(&registry), [line("edge", 7)]);
        // A tier that is gone is not shown any more.
        fleet.count(counts("stable", 8));
        assert_eq!(lines(&registry), [line("stable", 8)]);
        fleet.lead(false);
        assert_eq!(lines(&registry), [""; 0]);
        fleet.count(counts("stable", 9));
        assert_eq!(lines(&registry), [""; 0]);
        fleet.lead(true);
        assert_eq!(lines(&registry), [line("stable", 9)]);
    }
}
