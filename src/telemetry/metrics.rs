//! The one registry of metrics: public names for the dashboards people already run, ours beside them.
//!
//! The public names stand in Canonical's published dashboards and alert rules and are kept even where they break
//! conventions; ours follow them. Label values are closed sets: no machine id, no free text. Series that can be known
//! are there from the start, so that an alert on "no increase" works from the first scrape on.

use super::connections::{ConnectionMetrics, TlsMetrics};
use super::contracts::ContractsMetrics;
use super::family::{
    Counters, Described, Histograms, Registry, SECONDS, Words, counter, counters, gauge, histogram,
    histograms, register,
};
use super::fleet::FleetMetrics;
use super::http::HttpMetrics;
use super::labels::{IngestOutcome, NotStored, TokenKind, Verification};
use super::pings::PingMetrics;
use super::rollouts::RolloutMetrics;
use super::sync::SyncMetrics;
use super::webhooks::WebhookMetrics;
use prometheus::{Histogram, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Opts, TextEncoder};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What `decide` can answer; the words are those of the engine, and a test compares the two.
const DECISIONS: [&str; 7] = [
    "offer",
    "up-to-date",
    "keeps-higher",
    "nothing-to-apply",
    "kernel-upgrade-required",
    "unsupported",
    "unknown",
];
/// Operations of the object store, as it names them.
const OPERATIONS: [&str; 9] = [
    "put", "head", "get", "open", "read", "delete", "list", "presign", "health",
];
/// Sizes of groups of check-ins; a thousand is the most that one commit takes.
const GROUPS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 200.0, 400.0, 700.0, 1000.0];

/// Every metric of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests.
    pub http: HttpMetrics,
    /// What they come over.
    pub connections: Arc<ConnectionMetrics>,
    /// TLS of the listeners.
    pub tls: TlsMetrics,
    /// Who they come from.
    pub auth: AuthMetrics,
    /// Questions to the contracts service.
    pub contracts: ContractsMetrics,
    /// Requests that the governor turned away.
    pub overload: IntCounter,
    /// Statements.
    pub database: DatabaseMetrics,
    /// The cache of payloads.
    pub cache: CacheMetrics,
    /// What clients send.
    pub clients: ClientMetrics,
    /// Pings of clients.
    pub pings: PingMetrics,
    /// The way of check-ins into the database.
    pub check_ins: CheckInMetrics,
    /// Decisions, by the word of their outcome.
    pub offers: Words<IntCounter>,
    /// The snapshot that decisions are made from.
    pub snapshot: SnapshotMetrics,
    /// The object store.
    pub store: StoreMetrics,
    /// What is brought in.
    pub ingest: IngestMetrics,
    /// What is fetched from elsewhere.
    pub sync: SyncMetrics,
    /// The machines as a whole.
    pub fleet: FleetMetrics,
    /// Rollouts.
    pub rollouts: RolloutMetrics,
    /// Events on their way to webhooks.
    pub webhooks: WebhookMetrics,
    /// Number of the newest entry of the audit log.
    pub audit_head: IntGauge,
}

/// Authentication.
#[derive(Debug)]
pub struct AuthMetrics {
    /// How long it took to find out who asks.
    pub duration: Histograms<TokenKind>,
    /// Requests that were let in.
    pub authorized: Counters<TokenKind>,
    /// Requests that were not.
    pub failures: Counters<TokenKind>,
    /// Logins that were put off because too many had failed.
    pub throttled: IntCounter,
}

/// The database.
#[derive(Debug)]
pub struct DatabaseMetrics {
    family: HistogramVec,
    known: OnceLock<HashMap<&'static str, Histogram>>,
    /// Statements that failed.
    pub errors: IntCounter,
    /// When the database last answered the regular look at it, in unix seconds; 0: never.
    pub last_seen: IntGauge,
}

/// The cache of payloads.
#[derive(Debug)]
pub struct CacheMetrics {
    hits: IntCounter,
    misses: IntCounter,
    evictions: IntCounter,
    length: IntGauge,
    bytes: IntGauge,
    sampling: Mutex<()>,
}

/// What clients send.
#[derive(Debug)]
pub struct ClientMetrics {
    /// Status reports that name a kernel which is not in the table of supported kernels.
    pub unknown_kernel: IntCounter,
    /// Status reports without the kernel's build date.
    pub without_build_date: IntCounter,
    /// Kernels of reports that could not be recorded.
    pub logging_kernels_errors: IntCounter,
    /// Keys of client bodies that are not known and were ignored.
    pub unknown_keys: IntCounter,
}

/// Check-ins.
#[derive(Debug)]
pub struct CheckInMetrics {
    /// Waiting for the database now.
    pub queue_length: IntGauge,
    /// How many may wait.
    pub queue_capacity: IntGauge,
    /// Written together in one commit.
    pub group_size: Histogram,
    /// Seconds of one commit.
    pub flush_seconds: Histogram,
    /// Answered but not stored.
    pub not_stored: Counters<NotStored>,
}

/// The snapshot.
#[derive(Debug)]
pub struct SnapshotMetrics {
    /// Its version: the number of the audit entry it is as new as.
    pub version: IntGauge,
    /// Seconds of reading it anew.
    pub reload_seconds: Histogram,
    /// Readings that failed; the old one stays in use.
    pub reload_failures: IntCounter,
}

/// The object store.
#[derive(Debug)]
pub struct StoreMetrics {
    duration: Words<Histogram>,
    succeeded: Words<IntCounter>,
    failed: Words<IntCounter>,
}

/// Bundles on their way in.
#[derive(Debug)]
pub struct IngestMetrics {
    /// What became of them.
    pub outcomes: Counters<IngestOutcome>,
    /// What did not verify.
    pub verification_failures: Counters<Verification>,
    /// In quarantine now.
    pub quarantined: IntGauge,
}

impl Metrics {
    /// Makes the registry with every metric at zero.
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let info = register(
            r,
            IntGaugeVec::new(
                Opts::new("livepatch_build_info", "The running version; always 1."),
                &["version"],
            ),
        );
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        let decisions = counters(
            r,
            "livepatch_offers_total",
            "Answers to check-ins, by what was decided.",
            &["decision"],
        );
        let metrics = Self {
            http: HttpMetrics::new(r),
            connections: Arc::new(ConnectionMetrics::new(r)),
            tls: TlsMetrics::new(r),
            auth: AuthMetrics {
                duration: Histograms::new(
                    r,
                    "livepatch_server_http_auth_duration_seconds",
                    "How long authentication took.",
                    "token_type",
                ),
                authorized: Counters::new(
                    r,
                    "livepatch_server_http_authorizer_count",
                    "Requests that were let in.",
                    "token",
                ),
                failures: Counters::new(
                    r,
                    "livepatch_auth_failures_total",
                    "Requests and logins that were not let in.",
                    "token_type",
                ),
                throttled: counter(
                    r,
                    "livepatch_auth_throttled_total",
                    "Logins put off because too many had failed.",
                ),
            },
            contracts: ContractsMetrics::new(r),
            overload: counter(
                r,
                "livepatch_server_httpgovernor_request_overload",
                "Requests of clients turned away because too many were under way.",
            ),
            database: DatabaseMetrics {
                family: histograms(
                    r,
                    "livepatch_server_database_query_duration_seconds",
                    "How long statements took.",
                    &["method"],
                ),
                known: OnceLock::new(),
                errors: counter(
                    r,
                    "livepatch_server_database_error_count",
                    "Statements that failed.",
                ),
                last_seen: gauge(
                    r,
                    "livepatch_database_last_seen_timestamp_seconds",
                    "When the database last answered the look that each replica takes every 15 seconds; 0 if it never did.",
                ),
            },
            cache: CacheMetrics {
                hits: counter(
                    r,
                    "livepatch_server_patch_cache_hits",
                    "Downloads answered from memory.",
                ),
                misses: counter(
                    r,
                    "livepatch_server_patch_cache_misses",
                    "Downloads that had to fetch, or wait for one that did.",
                ),
                evictions: counter(
                    r,
                    "livepatch_server_patch_cache_evictions",
                    "Payloads that left memory.",
                ),
                length: gauge(
                    r,
                    "livepatch_server_patch_cache_length",
                    "Payloads in memory.",
                ),
                bytes: gauge(
                    r,
                    "livepatch_patch_cache_bytes",
                    "Bytes of payloads in memory.",
                ),
                sampling: Mutex::new(()),
            },
            clients: ClientMetrics {
                unknown_kernel: counter(
                    r,
                    "livepatch_client_updates_with_unknown_kernel_total",
                    "Status reports with a kernel that is not in the table of supported kernels.",
                ),
                without_build_date: counter(
                    r,
                    "livepatch_client_updates_without_build_date_total",
                    "Status reports without the kernel's build date.",
                ),
                logging_kernels_errors: counter(
                    r,
                    "livepatch_logging_kernels_error_total",
                    "Kernels of reports that could not be recorded.",
                ),
                unknown_keys: counter(
                    r,
                    "livepatch_client_unknown_keys_total",
                    "Keys of client bodies that are not known and were ignored.",
                ),
            },
            pings: PingMetrics::new(r),
            check_ins: CheckInMetrics {
                queue_length: gauge(
                    r,
                    "livepatch_check_in_queue_length",
                    "Check-ins waiting for the database.",
                ),
                queue_capacity: gauge(
                    r,
                    "livepatch_check_in_queue_capacity",
                    "Check-ins that may wait for the database (check-in.queue).",
                ),
                group_size: histogram(
                    r,
                    "livepatch_check_in_group_size",
                    "Check-ins written in one commit.",
                    &GROUPS,
                ),
                flush_seconds: histogram(
                    r,
                    "livepatch_check_in_flush_seconds",
                    "How long a commit of check-ins took.",
                    &SECONDS,
                ),
                not_stored: Counters::new(
                    r,
                    "livepatch_check_ins_not_stored_total",
                    "Check-ins whose report was not stored.",
                    "reason",
                ),
            },
            offers: Words::new(&DECISIONS, |word| decisions.with_label_values(&[word])),
            snapshot: SnapshotMetrics {
                version: gauge(
                    r,
                    "livepatch_snapshot_version",
                    "Number of the audit entry that the snapshot is as new as.",
                ),
                reload_seconds: histogram(
                    r,
                    "livepatch_snapshot_reload_seconds",
                    "How long reading the snapshot anew took.",
                    &SECONDS,
                ),
                reload_failures: counter(
                    r,
                    "livepatch_snapshot_reload_failures_total",
                    "Readings of the snapshot that failed.",
                ),
            },
            store: StoreMetrics::new(r),
            ingest: IngestMetrics {
                outcomes: Counters::new(
                    r,
                    "livepatch_ingest_bundles_total",
                    "Bundles that were brought in, by what became of them.",
                    "outcome",
                ),
                verification_failures: Counters::new(
                    r,
                    "livepatch_verification_failures_total",
                    "What did not verify.",
                    "check",
                ),
                quarantined: gauge(
                    r,
                    "livepatch_payloads_quarantined",
                    "Payloads in quarantine.",
                ),
            },
            sync: SyncMetrics::new(r),
            fleet: FleetMetrics::new(r),
            rollouts: RolloutMetrics::new(r),
            webhooks: WebhookMetrics::new(r),
            audit_head: gauge(
                r,
                "livepatch_audit_chain_head",
                "Number of the newest entry of the audit log.",
            ),
            registry,
        };
        Arc::new(metrics)
    }

    /// What every metric is, in the order of their names.
    pub fn described(&self) -> Vec<Described> {
        self.registry.described()
    }

    /// All metrics in Prometheus' text format.
    pub fn encode(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .unwrap_or_else(|error| {
                tracing::error!(%error, "metrics could not be written");
                String::new()
            })
    }

    /// What the database layer calls after every statement: name, duration, whether it went well.
    pub fn database_observer(
        self: &Arc<Self>,
    ) -> Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync> {
        let metrics = self.clone();
        Arc::new(move |name, duration, well| metrics.database.observe(name, duration, well))
    }

    /// What the object store calls after every operation: name, seconds, whether it succeeded.
    pub fn store_observer(self: &Arc<Self>) -> Arc<dyn Fn(&'static str, f64, bool) + Send + Sync> {
        let metrics = self.clone();
        Arc::new(move |operation, seconds, well| metrics.store.observe(operation, seconds, well))
    }
}

impl DatabaseMetrics {
    /// Makes the series of these statements, so that they are there from the start; the first call counts.
    pub fn know(&self, names: impl Iterator<Item = &'static str>) {
        self.known.get_or_init(|| {
            names
                .map(|name| (name, self.family.with_label_values(&[name])))
                .collect()
        });
    }

    /// Takes the duration of a statement.
    pub fn observe(&self, name: &'static str, duration: Duration, well: bool) {
        let seconds = duration.as_secs_f64();
        match self.known.get().and_then(|known| known.get(name)) {
            Some(known) => known.observe(seconds),
            None => self.family.with_label_values(&[name]).observe(seconds),
        }
        if !well {
            self.errors.inc();
        }
    }
}

impl CacheMetrics {
    /// Takes over what the cache counted since the start of the process; called at each scrape.
    pub fn sample(&self, hits: u64, misses: u64, evictions: u64, length: u64, bytes: u64) {
        // Two scrapes at once must not both add the same difference.
        let _one = self.sampling.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, total) in [
            (&self.hits, hits),
            (&self.misses, misses),
            (&self.evictions, evictions),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.length.set(i64::try_from(length).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl StoreMetrics {
    fn new(registry: &Registry) -> Self {
        let seconds = histograms(
            registry,
            "livepatch_object_store_request_duration_seconds",
            "How long requests to the object store took.",
            &["operation"],
        );
        let requests = counters(
            registry,
            "livepatch_object_store_requests_total",
            "Requests to the object store; that there is no such object is an answer and no failure.",
            &["operation", "outcome"],
        );
        Self {
            duration: Words::new(&OPERATIONS, |word| seconds.with_label_values(&[word])),
            succeeded: Words::new(&OPERATIONS, |word| {
                requests.with_label_values(&[word, "success"])
            }),
            failed: Words::new(&OPERATIONS, |word| {
                requests.with_label_values(&[word, "failure"])
            }),
        }
    }

    /// Takes one request.
    pub fn observe(&self, operation: &str, seconds: f64, well: bool) {
        self.duration.get(operation).observe(seconds);
        let outcome = if well { &self.succeeded } else { &self.failed };
        outcome.get(operation).inc();
    }
}
