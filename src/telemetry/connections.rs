//! Metrics of connections and of TLS on them.

use super::family::{Counters, Registry, gauge};
use super::labels::{CutOff, HandshakeFailure, Refusal, TlsReload};
use prometheus::IntGauge;

/// Connections of callers.
#[derive(Debug)]
pub struct ConnectionMetrics {
    /// Open now.
    pub open: IntGauge,
    /// Closed because their clients kept them waiting.
    pub cut: Counters<CutOff>,
    /// Closed at once.
    pub refused: Counters<Refusal>,
}

impl ConnectionMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            open: gauge(
                registry,
                "livepatch_connections_open",
                "Connections of clients that are open.",
            ),
            cut: Counters::new(
                registry,
                "livepatch_connections_cut_total",
                "Connections closed because their clients kept them waiting.",
                "wait",
            ),
            refused: Counters::new(
                registry,
                "livepatch_connections_refused_total",
                "Connections closed at once because there were too many.",
                "limit",
            ),
        }
    }
}

/// TLS of the listeners.
#[derive(Debug)]
pub struct TlsMetrics {
    /// Handshakes that failed.
    pub failures: Counters<HandshakeFailure>,
    /// Certificates that were read again.
    pub reloads: Counters<TlsReload>,
    /// When the certificate in use ends, in seconds since 1970; 0 without TLS.
    pub expiry: IntGauge,
}

impl TlsMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        Self {
            failures: Counters::new(
                registry,
                "livepatch_tls_handshake_failures_total",
                "TLS handshakes that failed, by their cause.",
                "cause",
            ),
            reloads: Counters::new(
                registry,
                "livepatch_tls_reloads_total",
                "Certificates that were read again after a change or SIGHUP, and what became of them.",
                "result",
            ),
            expiry: gauge(
                registry,
                "livepatch_tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use ends; 0 without TLS.",
            ),
        }
    }
}
