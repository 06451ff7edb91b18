//! Metrics of webhooks. Neither names nor URLs are labels.

use super::family::{Counters, Registry, gauge};
use super::labels::DeliveryResult;
use prometheus::IntGauge;

/// Deliveries of events.
#[derive(Debug)]
pub struct WebhookMetrics {
    /// Attempts, by what came of them; counted by the leader.
    pub deliveries: Counters<DeliveryResult>,
    /// Deliveries that wait.
    pub pending: IntGauge,
    /// Deliveries that were given up.
    pub dead: IntGauge,
}

impl WebhookMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        Self {
            deliveries: Counters::new(
                r,
                "livepatch_webhook_deliveries_total",
                "Attempts to deliver an event to a webhook, by what came of them.",
                "result",
            ),
            pending: gauge(
                r,
                "livepatch_webhook_pending_deliveries",
                "Deliveries to webhooks that wait to be tried, for the first time or again.",
            ),
            dead: gauge(
                r,
                "livepatch_webhook_dead_letters",
                "Deliveries to webhooks that were given up.",
            ),
        }
    }
}
