//! Logs and the one registry of metrics.

mod connections;
mod family;
mod fleet;
mod http;
mod labels;
pub mod logs;
mod metrics;
mod pings;
mod rollouts;
pub mod security;
mod sync;
pub mod traces;
mod webhooks;

pub use connections::{ConnectionMetrics, TlsMetrics};
pub use family::{Counters, Histograms, Label, Words};
pub use fleet::FleetMetrics;
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
pub use rollouts::{RolloutGauge, RolloutMetrics};
pub use sync::SyncMetrics;
pub use webhooks::WebhookMetrics;
