//! Machines, their history and why each is offered what it is.
//!
//! `GET machines`, `GET|DELETE machines/{id}`, `PUT machines/{id}/tier`, `POST machines/{id}/revoke`,
//! `GET machines/{id}/history`, `GET machines/{id}/explain`.

use super::Limit;
use crate::domain::{
    Architecture, Fate, KernelSupport, MachineId, MachineState, PatchVersion, Selector, Sha256,
    States, TierName,
};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// A machine: what it last reported and what was decided about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Machine {
    /// Its identity.
    #[schema(value_type = String)]
    pub machine_id: MachineId,
    /// Its tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// It was moved to this tier by an administrator, whatever its auth token says.
    #[serde(default)]
    pub moved: bool,
    /// Its tokens issued before this are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_before: Option<Timestamp>,
    /// Name of the auth token that enabled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// When it was enabled.
    #[schema(value_type = String, format = DateTime)]
    pub registered_at: Timestamp,
    /// When it last checked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_check: Option<Timestamp>,
    /// Kernel as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Architecture, where reported and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// State of the patch as reported.
    #[schema(value_type = String)]
    pub state: MachineState,
    /// The version it says is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub applied: Option<PatchVersion>,
    /// The version it was last offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub offered: Option<PatchVersion>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub offered_at: Option<Timestamp>,
    /// Kind of the last answer: `offer`, `up-to-date`, `keeps-higher`, `nothing-to-apply`,
    /// `kernel-upgrade-required`, `unsupported` or `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What the table of supported kernels says.
    #[schema(value_type = String)]
    pub supported: KernelSupport,
    /// Version of its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// CPU model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub boot_time: Option<Timestamp>,
    /// The day its kernel was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub build_date: Option<Date>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Query of `GET machines`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachineQuery {
    /// Only in this tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub tier: Option<TierName>,
    /// Only in this state, or in one of several with commas between: `apply-failed,applied-with-bug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub state: Option<States>,
    /// Only with this kernel, as reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Only with kernels of this flavour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// Only of this architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// Only with this patch in their reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
    /// Only those that last checked in before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub last_seen_before: Option<Timestamp>,
    /// With `version`, not only those that report it but those that report it or were offered it last, and of whom this came of
    /// it: `waiting`, `failed`, `applied` or `any`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub fate: Option<Fate>,
    /// Only machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// `PUT machines/{id}/tier`, answered with a [`Machine`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MachineMove {
    /// Its tier from now on.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST machines/{id}/revoke`, answered with a [`Machine`]: its tokens given out so far are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MachineRevoke {
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Query of `GET machines/{id}/history`; newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Not before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// Before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// `next-cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items per page, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
}

/// What a line of history tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HistoryKind {
    /// A check-in.
    Report,
    /// A message around the insertion of a patch.
    Ping,
}

/// A line of a machine's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct HistoryEntry {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Check-in or ping.
    pub kind: HistoryKind,
    /// Kernel as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Architecture, where reported and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// State of the patch as reported.
    #[schema(value_type = String)]
    pub state: MachineState,
    /// The version it said was applied; with a ping, the version the ping is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub applied: Option<PatchVersion>,
    /// With a check-in: its tier at that time, unless the tier is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tier: Option<TierName>,
    /// With a check-in: the version it was offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub offered: Option<PatchVersion>,
    /// With a check-in: kind of the answer, as in [`Machine::outcome`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// With a ping: which, e.g. `ping_before`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping_type: Option<String>,
    /// With a ping: what the machine said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The payload that a machine is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OfferedPayload {
    /// Patch version.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// File name.
    pub filename: String,
    /// Content.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
}

/// One reason; the same that stand in the client's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ExplainReason {
    /// For programs, e.g. `not-in-tier`.
    pub code: String,
    /// For people.
    pub text: String,
    /// The version it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
}

/// `GET machines/{id}/explain`: what the machine would be offered if it asked now, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The machine.
    #[schema(value_type = String)]
    pub machine_id: MachineId,
    /// Its tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// It was moved to this tier by an administrator, whatever its auth token says.
    #[serde(default)]
    pub moved: bool,
    /// Name of the auth token that enabled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_token: Option<String>,
    /// Kernel as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Architecture, where reported and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// State of the patch as reported.
    #[schema(value_type = String)]
    pub state: MachineState,
    /// The version it says is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub applied: Option<PatchVersion>,
    /// Kind of the answer, as in [`Machine::outcome`].
    pub outcome: String,
    /// What it would be offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<OfferedPayload>,
    /// What the table of supported kernels says.
    #[schema(value_type = String)]
    pub supported: KernelSupport,
    /// From this day on its kernel must be upgraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub upgrade_required_date: Option<Date>,
    /// The day its kernel was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub build_date: Option<Date>,
    /// What led to the answer, in order; the last one is the reason for the outcome.
    pub reasons: Vec<ExplainReason>,
    /// Why the machine would not be answered at all, e.g. its token was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// When it last checked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_check: Option<Timestamp>,
}
