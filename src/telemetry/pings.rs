//! `livepatch_patch_ping_events`: pings of clients, by what they speak of.
//!
//! Its public labels name kernels and versions, which clients choose. So the caller gives only values that are in the
//! catalog, and the number of series is bounded besides: a forged flood of pings must not grow memory.

use super::family::{OTHER, Registry, counters};
use crate::domain::{Architecture, MachineState};
use prometheus::{IntCounter, IntCounterVec};
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Series at most; an installation with 300 kernels in use and two versions alive needs about this many.
const MAX_SERIES: usize = 10_000;

/// What a ping is counted under. `None`: not given, or not in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PingLabels<'a> {
    /// The word of its type, from the closed list of types.
    pub ping_type: &'static str,
    /// The kernel, if the catalog has it.
    pub kernel: Option<&'a str>,
    /// The patch version, if the catalog has it.
    pub patch_version: Option<&'a str>,
    /// The machine's tier, if there is one of that name.
    pub tier: Option<&'a str>,
    /// The state it reports.
    pub patch_state: Option<MachineState>,
    /// The architecture, where known.
    pub architecture: Option<Architecture>,
}

/// The counter and its series so far.
#[derive(Debug)]
pub struct PingMetrics {
    family: IntCounterVec,
    series: RwLock<HashMap<[String; 6], IntCounter>>,
}

impl PingMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            family: counters(
                registry,
                "livepatch_patch_ping_events",
                "Pings of clients around the insertion of a patch.",
                &[
                    "ping_type",
                    "kernel",
                    "patch_version",
                    "tier",
                    "patch_state",
                    "architecture",
                ],
            ),
            series: RwLock::default(),
        }
    }

    /// Counts a ping.
    pub fn inc(&self, labels: PingLabels<'_>) {
        let state = labels.patch_state.map_or(OTHER, MachineState::as_str);
        let architecture = labels.architecture.map_or(OTHER, Architecture::as_str);
        let values = [
            labels.ping_type,
            labels.kernel.unwrap_or(OTHER),
            labels.patch_version.unwrap_or(OTHER),
            labels.tier.unwrap_or(OTHER),
            state,
            architecture,
        ];
        let key = values.map(str::to_owned);
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = series.get(&key) {
            return counter.inc();
        }
        drop(series);
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if series.len() >= MAX_SERIES && !series.contains_key(&key) {
            // Types and states are closed sets, so these few series are bounded by themselves.
            let coarse = [labels.ping_type, OTHER, OTHER, OTHER, state, architecture];
            return self.family.with_label_values(&coarse).inc();
        }
        series
            .entry(key)
            .or_insert_with(|| self.family.with_label_values(&values))
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded_and_nothing_is_lost() {
        let registry = Registry::new();
        let metrics = PingMetrics::new(&registry);
        let total = MAX_SERIES + 500;
        for i in 0..total {
            metrics.inc(PingLabels {
                ping_type: "ping_after",
                kernel: Some(&format!("5.15.0-{i}.1-generic")),
                patch_version: Some("107.1"),
                tier: None,
                patch_state: Some(MachineState::Applied),
                architecture: Some(Architecture::Amd64),
            });
        }
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let values: Vec<u64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(values.len(), MAX_SERIES + 1);
        assert_eq!(values.iter().sum::<u64>(), total as u64);
        assert!(text.contains(r#"kernel="other",patch_state="applied",patch_version="other",ping_type="ping_after",tier="other"} 500"#));
    }
}
