//! Logs and the one registry of metrics.

mod connections;
mod contracts;
mod family;
mod fleet;
mod http;
mod labels;
pub mod logs;
mod metrics;
mod pings;
mod reference;
mod rollouts;
pub mod security;
mod sync;
pub mod traces;
mod webhooks;

pub use connections::{ConnectionMetrics, TlsMetrics};
pub use contracts::ContractsMetrics;
pub use family::{Counters, Described, Histograms, Label, Words};
pub use fleet::{FleetCounts, FleetMetrics, TierLag};
pub use http::{HttpMetrics, HttpRoute};
pub use labels::{
    CutOff, DeliveryResult, HandshakeFailure, IngestOutcome, NotStored, Refusal, SyncEnd,
    TlsReload, TokenKind, Verification,
};
pub use metrics::{
    AuthMetrics, CacheMetrics, CheckInMetrics, ClientMetrics, DatabaseMetrics, IngestMetrics,
    Metrics, SnapshotMetrics, StoreMetrics,
};
pub use pings::{PingLabels, PingMetrics};
pub use reference::{PUBLIC, markdown};
pub use rollouts::{RolloutGauge, RolloutMetrics};
pub use sync::SyncMetrics;
pub use webhooks::WebhookMetrics;
