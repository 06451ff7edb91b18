//! What came of a run: counts by kind, latencies, and how they are shown to people and programs.

use super::latency::Latency;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Everything counted while the load runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    /// Requests sent.
    pub(super) sent: u64,
    /// Of these, answered and stored.
    pub(super) ok: u64,
    /// Failures by kind.
    pub(super) errors: BTreeMap<String, u64>,
    /// From due to the end, whatever the end was.
    pub(super) all: Latency,
    /// From due to a good answer.
    pub(super) good: Latency,
    /// Answers that offered a patch.
    pub(super) offers: u64,
    /// Machines on which a patch failed, as they will report.
    pub(super) failures: u64,
    /// Machines that went silent.
    pub(super) crashed: u64,
    /// Requests of machines that went silent, or lost by the simulated network.
    pub(super) lost: u64,
    /// Downloads that were whole.
    pub(super) downloads: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// From the first byte asked to the last byte checked.
    pub(super) download_time: Latency,
    /// Failed downloads by kind.
    pub(super) download_errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts one request that ended, `waited` after it was due.
    pub(super) fn ended(&mut self, waited: Duration, failure: Option<String>) {
        self.all.record(waited);
        match failure {
            None => {
                self.ok += 1;
                self.good.record(waited);
            }
            Some(kind) => *self.errors.entry(kind).or_default() += 1,
        }
    }

    /// Failures in all.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl From<&Latency> for Percentiles {
    fn from(latency: &Latency) -> Self {
        let ms = |took: Duration| (took.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            p50: ms(latency.quantile(0.5)),
            p90: ms(latency.quantile(0.9)),
            p99: ms(latency.quantile(0.99)),
            p999: ms(latency.quantile(0.999)),
            max: ms(latency.max()),
        }
    }
}

/// The downloads of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Downloads {
    /// Whole, with the right digest.
    pub ok: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// How long the whole ones took.
    pub latency_ms: Percentiles,
}

/// The result of a run. Every request that was due is in `ok` or in exactly one of `errors`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Machines asked for.
    pub machines: u32,
    /// Machines that have a token and took part.
    pub enabled: u32,
    /// Of these, registered by this run.
    pub registered: u32,
    /// Failed registrations by kind; several may be of one machine, which tries again.
    pub registration_errors: BTreeMap<String, u64>,
    /// What the fleet's machines are made from.
    pub seed: u64,
    /// The most connections at once.
    pub connections: u32,
    /// Requests per second asked for.
    pub rate: f64,
    /// How long the load ran, in seconds, with the wait for the last answers.
    pub seconds: f64,
    /// Whether it was stopped before its time.
    pub interrupted: bool,
    /// Requests that were due.
    pub due: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests answered well, and stored by the server before it answered.
    pub ok: u64,
    /// Good answers per second.
    pub ok_per_second: f64,
    /// Failures by kind: `status-N`, `timeout`, `connection-refused`, `connection-broken`, `unreadable-answer`,
    /// `not-stored` (answered, but the server says that the report was lost), `not-sent` (due, but no connection was
    /// free to the end), `cut-off` (no answer when the run ended).
    pub errors: BTreeMap<String, u64>,
    /// From when a request was due, of all requests that were due.
    pub latency_ms: Percentiles,
    /// From when a request was due, of those answered well.
    pub latency_ok_ms: Percentiles,
    /// Answers that offered a patch.
    pub offers: u64,
    /// Machines on which a patch failed (`--fail`).
    pub failures: u64,
    /// Machines that went silent (`--crash`).
    pub crashed: u64,
    /// Requests that count as sent and were not: of machines that went silent, or lost by `--unstable-network`.
    pub lost: u64,
    /// Downloads.
    pub downloads: Downloads,
}

impl Summary {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<16} {value}");
        };
        line(
            "machines",
            format!(
                "{} of {} enabled, {} registered now (seed {})",
                self.enabled, self.machines, self.registered, self.seed
            ),
        );
        for (kind, count) in &self.registration_errors {
            line("", format!("registration: {kind}: {count}"));
        }
        let early = if self.interrupted {
            ", stopped early"
        } else {
            ""
        };
        line(
            "load",
            format!(
                "{:.1}/s for {:.1} s over at most {} connections{early}",
                self.rate, self.seconds, self.connections
            ),
        );
        line(
            "check-ins",
            format!(
                "{} due, {} sent, {} stored, {:.1} stored/s",
                self.due, self.sent, self.ok, self.ok_per_second
            ),
        );
        let failed: u64 = self.errors.values().sum();
        line("failed", failed.to_string());
        for (kind, count) in &self.errors {
            line("", format!("{kind}: {count}"));
        }
        let row = |p: &Percentiles| {
            format!(
                "p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1} ms",
                p.p50, p.p90, p.p99, p.p999, p.max
            )
        };
        line("from due, all", row(&self.latency_ms));
        line("from due, stored", row(&self.latency_ok_ms));
        line("offers", self.offers.to_string());
        for (name, count) in [
            ("patch failed", self.failures),
            ("went silent", self.crashed),
            ("lost on the way", self.lost),
        ] {
            if count > 0 {
                line(name, count.to_string());
            }
        }
        let downloads = &self.downloads;
        if downloads.ok > 0 || !downloads.errors.is_empty() {
            line(
                "downloads",
                format!("{}, {} bytes", downloads.ok, downloads.bytes),
            );
            for (kind, count) in &downloads.errors {
                line("", format!("{kind}: {count}"));
            }
            line("download time", row(&downloads.latency_ms));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}
