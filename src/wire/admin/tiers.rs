//! Tiers. `GET|POST tiers`, `PATCH tiers/{name}`, `DELETE tiers/{name}?move-to=TIER`.

use crate::domain::{PatchVersion, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A tier as listed, first to last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Tier {
    /// Name.
    #[schema(value_type = String)]
    pub name: TierName,
    /// Place in the order; 0 is where new patches enter.
    pub position: u32,
    /// Machines in it.
    pub machines: u64,
    /// Auth tokens that admit to it and are not revoked.
    pub auth_tokens: u64,
    /// Patches available in it, for some kernel at least.
    pub patches: u64,
    /// The highest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub newest_patch: Option<PatchVersion>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// `POST tiers`, answered with a [`Tier`]. Without `before` and `after` it becomes the last; not both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TierCreate {
    /// Name, not yet taken.
    #[schema(value_type = String)]
    pub name: TierName,
    /// Stands just before this tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub before: Option<TierName>,
    /// Stands just after this tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub after: Option<TierName>,
}

/// `PATCH tiers/{name}`: renames or moves, answered with a [`Tier`]. `before` and `after` exclude each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TierChange {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub name: Option<TierName>,
    /// Moves to just before this tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub before: Option<TierName>,
    /// Moves to just after this tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub after: Option<TierName>,
}

/// Query of `DELETE tiers/{name}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TierDeleteQuery {
    /// Where its machines and auth tokens go; required if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub move_to: Option<TierName>,
}

/// What the deletion of a tier moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TierDeleted {
    /// The tier that is gone.
    #[schema(value_type = String)]
    pub name: TierName,
    /// Where machines and tokens went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub moved_to: Option<TierName>,
    /// Machines moved.
    pub machines: u64,
    /// Auth tokens moved.
    pub auth_tokens: u64,
}
