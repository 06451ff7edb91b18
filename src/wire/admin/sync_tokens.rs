//! Servers below this one: the tokens they pull with, `GET|POST sync-tokens`, `DELETE sync-tokens/{name}`, and what they
//! report, `GET sync-peers`.

use super::{expose, is_false};
use crate::domain::{Secret, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST sync-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SyncTokenCreate {
    /// Name, not used by another that is not revoked.
    pub name: String,
    /// The tier it may pull from, with those after it.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// After this it is refused. Without it: 90 days from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// It never expires.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_expiry: bool,
}

/// A new sync token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncTokenCreated {
    /// Name.
    pub name: String,
    /// The tier it may pull from, with those after it.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// The token; shown only here.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub token: Secret,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
}

/// A sync token as listed; the token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncTokenEntry {
    /// Name.
    pub name: String,
    /// The tier it may pull from, with those after it.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Timestamp>,
    /// Since then it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
}

/// A deployment below this one, as it reported last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PeerEntry {
    /// What it calls itself.
    pub deployment: String,
    /// The sync token that it reported with, or the archive that the report came in.
    pub via: String,
    /// Its machines, exactly (`1234`) or as a range (`1000-1999`).
    pub machines: String,
    /// How many machines it reported one by one.
    pub machine_reports: u64,
    /// When it reported.
    #[schema(value_type = String, format = DateTime)]
    pub reported_at: Timestamp,
}
