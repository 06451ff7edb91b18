//! Whom a patch has reached. `GET patches/{version}/reach`.

use super::Limit;
use crate::domain::{Architecture, MachineId, MachineState, PatchVersion, Selector, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// What became of a patch on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReachStanding {
    /// It runs.
    Has,
    /// It could not be inserted.
    Failed,
    /// It was offered and does not run.
    Left,
}

/// A machine that runs the patch, or whose last offer it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReachedMachine {
    /// The machine.
    #[schema(value_type = String)]
    pub machine_id: MachineId,
    /// Its tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Kernel as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// What became of the patch there.
    #[schema(inline)]
    pub standing: ReachStanding,
    /// State as reported.
    #[schema(value_type = String)]
    pub state: MachineState,
    /// The patch it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub runs: Option<PatchVersion>,
    /// When it was offered the patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub offered_at: Option<Timestamp>,
    /// When it last checked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_check: Option<Timestamp>,
    /// Whether it has checked in since the patch was stopped; absent: the patch is not stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled_since: Option<bool>,
    /// Whether it has not checked in for twice the interval.
    pub silent: bool,
}

/// Machines of one standing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ReachTotal {
    /// What became of the patch there.
    #[schema(inline)]
    pub standing: ReachStanding,
    /// Machines.
    pub machines: u64,
    /// Of these have checked in since the patch was stopped; absent: the patch is not stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polled_since: Option<u64>,
    /// Of these have not checked in for twice the interval.
    pub silent: u64,
}

/// Query of `GET patches/{version}/reach`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReachQuery {
    /// Only machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// `next-cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items per page, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
}

/// Whom a patch has reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reach {
    /// The patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// Since when it, or a part of it, is offered to nobody anew; absent: it is not stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub stopped_at: Option<Timestamp>,
    /// Machines by what became of the patch there: `has`, `failed`, `left`.
    pub totals: Vec<ReachTotal>,
    /// The machines, by id.
    pub items: Vec<ReachedMachine>,
    /// Ask with this cursor for what follows; absent on the last page. Opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
