//! Service tokens.

use super::{expose, is_false};
use crate::domain::{Grant, Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST service-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServiceTokenCreate {
    /// Name, not used by another that is not revoked.
    pub name: String,
    /// What it may do: `read`, `write` or `admin` everywhere, or in a section of the API, such as `patches:write`.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Grant>,
    /// After this it is refused. Without it: 90 days from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// It never expires.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_expiry: bool,
}

/// A new service token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceTokenCreated {
    /// Name.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Grant>,
    /// The token; shown only here.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub token: Secret,
    /// After this it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
}

/// A service token as listed; the token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ServiceTokenEntry {
    /// Name.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Vec<Grant>,
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
