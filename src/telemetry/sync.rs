//! Metrics of sync and of leadership.

use super::family::{Counters, Registry, counter, gauge, histogram};
use super::labels::SyncEnd;
use prometheus::{Histogram, IntCounter, IntGauge};

/// Seconds that a run takes: from nothing new to everything there is.
const SECONDS: [f64; 10] = [
    0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0,
];

/// What is fetched from elsewhere. Counted by the replica that runs it.
#[derive(Debug)]
pub struct SyncMetrics {
    runs: Counters<SyncEnd>,
    duration: Histogram,
    /// Bytes fetched.
    pub bytes: IntCounter,
    /// Seconds between two runs; 0: there are none.
    pub interval: IntGauge,
    /// When a run last came to its end, in unix seconds; 0: never.
    pub last_success: IntGauge,
    /// Until when the index that was believed last holds, in unix seconds; 0: there is none.
    pub index_expiry: IntGauge,
    /// Whether this replica leads.
    pub leads: IntGauge,
    /// The epoch of leadership that this replica knows of.
    pub epoch: IntGauge,
}

impl SyncMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            runs: Counters::new(
                r,
                "livepatch_sync_runs_total",
                "Runs of sync, by how they ended.",
                "outcome",
            ),
            duration: histogram(
                r,
                "livepatch_sync_duration_seconds",
                "How long a run of sync took.",
                &SECONDS,
            ),
            bytes: counter(
                r,
                "livepatch_sync_fetched_bytes_total",
                "Bytes fetched from upstream.",
            ),
            interval: gauge(
                r,
                "livepatch_sync_interval_seconds",
                "How often sync runs by itself (patch-sync.interval); 0 where it does not.",
            ),
            last_success: gauge(
                r,
                "livepatch_sync_last_success_timestamp_seconds",
                "When a run of sync last came to its end; 0 if none has.",
            ),
            index_expiry: gauge(
                r,
                "livepatch_sync_index_expiry_timestamp_seconds",
                "Until when the index of upstream that was believed last holds; 0 if there is none.",
            ),
            leads: gauge(r, "livepatch_leader", "Whether this replica is the leader."),
            epoch: gauge(
                r,
                "livepatch_leader_epoch",
                "The epoch of leadership that this replica took last; 0 if it never led.",
            ),
        }
    }

    /// Takes a run that ended.
    pub fn observe(&self, end: SyncEnd, seconds: f64) {
        self.runs.inc(end);
        self.duration.observe(seconds);
    }
}
