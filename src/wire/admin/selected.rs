//! Labels of machines, and what is done to all machines that a selector means.
//!
//! `PATCH machines/{id}/labels`, `POST machines/label`, `POST machines/move`.

use super::is_false;
use crate::domain::{LabelKey, Labels, Selector, TierName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// `PATCH machines/{id}/labels`, answered with a [`Machine`](super::Machine).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MachineLabel {
    /// Labels that are set.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub set: Labels,
    /// Keys of labels that are taken away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub remove: BTreeSet<LabelKey>,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST machines/label`: the same for all machines that a selector means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SelectedLabel {
    /// Which machines; at least one term.
    #[schema(value_type = String)]
    pub selector: Selector,
    /// Labels that are set.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub set: Labels,
    /// Keys of labels that are taken away.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub remove: BTreeSet<LabelKey>,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// What became of the machines' labels, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LabelOutcome {
    /// The selector, in its one form.
    #[schema(value_type = String)]
    pub selector: Selector,
    /// Nothing was changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Machines that the selector means.
    pub machines: u64,
    /// Those of them that did not have it so already.
    pub changed: u64,
}

/// `POST machines/move`: all machines that a selector means are moved to a tier, whatever their auth tokens say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SelectedMove {
    /// Which machines; at least one term.
    #[schema(value_type = String)]
    pub selector: Selector,
    /// Their tier from now on.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// Machines of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TierMachines {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Machines.
    pub machines: u64,
}

/// Which machines were moved, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MoveOutcome {
    /// The selector, in its one form.
    #[schema(value_type = String)]
    pub selector: Selector,
    /// The tier they were moved to.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Nothing was changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Machines that the selector means.
    pub machines: u64,
    /// Those of them that were in another tier. Those that are in this one already stay as they are: there by a move, or
    /// by their auth token.
    pub moved: u64,
    /// Where they came from, in the order of tiers.
    pub from: Vec<TierMachines>,
    /// Machines moved that are offered something else in the new tier, or nothing any more, as far as tiers decide.
    pub offered_else: u64,
}
