//! Metrics of the machines as a whole, as they were counted last. Every replica counts for itself: take the maximum, not the sum.

use super::family::{gauge, register};
use prometheus::{Gauge, IntGauge, Registry};

/// How the machines stand.
#[derive(Debug)]
pub struct FleetMetrics {
    /// Share of the machines that are covered, of those that could be.
    pub coverage: Gauge,
    /// Machines that have not checked in for twice the interval.
    pub silent: IntGauge,
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
        }
    }
}
