//! Webhooks and what becomes of events on their way to them. `GET|POST webhooks`, `DELETE webhooks/{name}`,
//! `POST webhooks/{name}/test|enable|disable|retry`, `GET webhook-deliveries`, `GET webhook-deliveries/{id}`.

use super::{Limit, expose};
use crate::domain::{EventKind, EventPattern, Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// `POST webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WebhookCreate {
    /// Name, not used by another.
    pub name: String,
    /// Where events are sent to, `https://...` or `http://...`.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub url: Secret,
    /// What it is told of: kinds (`patch.promoted`) or groups (`patch.*`); empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub events: Vec<EventPattern>,
}

/// A webhook; its secret is shown only when it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Webhook {
    /// Name.
    pub name: String,
    /// Where events are sent to. Only administrators of the role admin are shown the path and what follows it.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub url: Secret,
    /// What it is told of; empty: everything.
    #[schema(value_type = Vec<String>)]
    pub events: Vec<EventPattern>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Since then it is switched off: it is told of nothing new, and what waits for it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disabled_at: Option<Timestamp>,
    /// Deliveries that wait to be tried, for the first time or again.
    pub pending: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// When it last took one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_delivered_at: Option<Timestamp>,
}

/// A new webhook.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WebhookCreated {
    /// The webhook.
    pub webhook: Webhook,
    /// What deliveries are signed with; shown only here.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub secret: Secret,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeliveryState {
    /// It waits to be tried, for the first time or again.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up: a dead letter.
    Dead,
}

impl DeliveryState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Dead];

    /// The state as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

/// An event on its way to a webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WebhookDelivery {
    /// Id.
    pub id: i64,
    /// The webhook.
    pub webhook: String,
    /// The event's id, sent as `webhook-id`; the same at every attempt and for every webhook.
    pub event: String,
    /// What happened.
    #[schema(value_type = String)]
    pub kind: EventKind,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// How far it is.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// While it waits: when it is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    /// When it was last tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub tried_at: Option<Timestamp>,
    /// What was wrong with the last attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is sent; only where one delivery is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub body: Option<serde_json::Value>,
}

/// The query of `GET webhook-deliveries`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WebhookDeliveryQuery {
    /// Only to this webhook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// Only in this state; `dead` are the dead letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<DeliveryState>,
    /// `next-cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items per page, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
}

/// `POST webhooks/{name}/retry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WebhookRetry {
    /// Only these deliveries; without it: all of the webhook that failed, given up or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<Vec<i64>>,
}

/// What came of a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WebhookRetried {
    /// Deliveries that are due now, with their attempts counted anew.
    pub deliveries: u64,
}
