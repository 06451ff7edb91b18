//! Auth tokens. `GET|POST auth-tokens`, `DELETE auth-tokens/{name}`.

use super::expose;
use crate::domain::{Labels, Secret, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a new auth token looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenFormat {
    /// `lpa_` and 256 random bits.
    #[default]
    Token,
    /// A random UUID (122 bits), for clients that take nothing else.
    Uuid,
}

impl TokenFormat {
    /// Whether it is the usual one, to leave it out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// `POST auth-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AuthTokenCreate {
    /// Name, not used by another that is not revoked.
    pub name: String,
    /// The tier it admits to.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// After this it enables no more machines; machines it enabled stay enabled. Without it: no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// Labels for the machines it enables, at most 32. Keys and values are made like those of Kubernetes.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// What it looks like.
    #[serde(default, skip_serializing_if = "TokenFormat::is_default")]
    pub format: TokenFormat,
}

/// A new auth token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AuthTokenCreated {
    /// Name.
    pub name: String,
    /// The tier it admits to.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// The token; shown only here.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub token: Secret,
    /// After this it enables no more machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// Labels for the machines it enables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// An auth token as listed; the token itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AuthTokenEntry {
    /// Name.
    pub name: String,
    /// The tier it admits to.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Labels for the machines it enables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Machines it enabled.
    pub machines: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// After this it enables no more machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub valid_until: Option<Timestamp>,
    /// When it last enabled a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_used: Option<Timestamp>,
    /// Since then it enables none, and machines it enabled are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Timestamp>,
}
