//! Rollouts, what machines report of them, and what would become of them. `GET rollouts`, `GET rollouts/{id}`,
//! `POST rollouts/{id}/approve|pause|resume|abort|block`, `GET patches/{version}/forecast`, `POST policies/apply`.

use super::{KernelGap, PolicySpec, WireScope};
use crate::domain::{Architecture, PatchVersion, Selector, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A rollout as listed, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutEntry {
    /// Number.
    pub id: i64,
    /// Patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// Tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// For which kernels.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// `awaiting-approval`, `running`, `paused`, `halted`, `done` or `aborted`.
    pub state: String,
    /// The phase it is in, from 1.
    pub phase: u32,
    /// Phases of the tier's policy; 0 if it has none any more.
    pub phases: u32,
    /// Share of the machines that are let in, e.g. `10%`.
    pub share: String,
    /// Whether machines may be let in now: `open`, `frozen` or `outside-window`; what ended or stands still is `closed`.
    pub opening: String,
    /// When it opens next, where it is closed by the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub opens_at: Option<Timestamp>,
    /// The zone of the policy, in which times are best shown.
    pub zone: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub begun_at: Timestamp,
    /// Since when its phase is open, or when the phase began.
    #[schema(value_type = String, format = DateTime)]
    pub phase_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Who promoted the patch.
    pub requested_by: String,
    /// Who approved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Why it stands as it does; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// `GET rollouts`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RolloutQuery {
    /// Only of this patch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
    /// Only in this tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub tier: Option<TierName>,
    /// Also those that ended: done and aborted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// What machines report of a patch that was offered to them. Only those count that were known before the rollout began.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutHealth {
    /// Machines of the tier that there is a payload for; for a single kernel not counted.
    pub machines: u64,
    /// Machines that were offered it in the time that counts.
    pub offered: u64,
    /// Of these: it is applied.
    pub applied: u64,
    /// Of these: it failed.
    pub failed: u64,
    /// Of these: went silent.
    pub silent: u64,
    /// Of these: nothing is known yet.
    pub pending: u64,
}

/// The same for one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutKernel {
    /// Kernel as reported.
    pub kernel: String,
    /// Architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// What its machines report.
    pub health: RolloutHealth,
}

/// The gate and what stands against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutGate {
    /// So many machines must have reported.
    pub machines: u32,
    /// So many have.
    pub reported: u64,
    /// More failures than this halt it, e.g. `0.5%`.
    pub failure_rate: String,
    /// The share that failed of those that count.
    pub failing: String,
}

/// An entry of a rollout's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutEvent {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What kind, e.g. `halt`.
    pub kind: String,
    /// Who.
    pub actor: String,
    /// What happened.
    pub text: String,
}

/// When a phase would open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseForecast {
    /// The phase, from 1.
    pub phase: u32,
    /// Its share.
    pub share: String,
    /// When its whole share is let in.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Machines that are then let in.
    pub machines: u64,
}

/// What would become of a rollout if every machine that takes the patch is well.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutForecast {
    /// Phases still to open.
    pub phases: Vec<PhaseForecast>,
    /// When it would be at its end; nothing: not within four months, or not by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ends_at: Option<Timestamp>,
    /// The most downloads per second that it leads to.
    pub peak_downloads_per_second: f64,
}

/// `GET rollouts/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutDetail {
    /// The rollout.
    pub rollout: RolloutEntry,
    /// What machines report.
    pub health: RolloutHealth,
    /// When that was counted: now, or shortly ago where counting takes long.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// The gate, where the policy has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<RolloutGate>,
    /// By kernel, the most machines first.
    pub kernels: Vec<RolloutKernel>,
    /// Its timeline, newest first.
    pub events: Vec<RolloutEvent>,
    /// What would become of it; nothing once it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<RolloutForecast>,
}

/// `POST rollouts/{id}/approve|pause|resume|abort|block`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RolloutAct {
    /// Why; goes to the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a patch would come to one tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TierForecast {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// `available`, the state of its rollout, or how it would begin: `promoted` (by the tier before, by itself) or `by-hand`.
    pub begins: String,
    /// When it begins or began; nothing: when somebody promotes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// Machines of the tier that would be offered it.
    pub machines: u64,
    /// Kernels of these.
    pub kernels: u64,
    /// Bytes that they download.
    pub bytes: u64,
    /// Phases and end, as far as it goes by itself.
    pub forecast: RolloutForecast,
    /// The zone of the tier's policy.
    pub zone: String,
}

/// `GET patches/{version}/forecast`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PatchForecast {
    /// The patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// By tier, first to last.
    pub tiers: Vec<TierForecast>,
    /// Kernels of machines for which the patch has no payload.
    pub kernels_without_payload: Vec<KernelGap>,
}

/// `GET patches/{version}/forecast`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ForecastQuery {
    /// As if it were promoted to this tier now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub tier: Option<TierName>,
    /// Only for the machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// `PUT tiers/{name}/policy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PolicySet {
    /// The policy.
    pub policy: PolicySpec,
    /// Why; goes to the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `DELETE tiers/{name}/policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PolicyUnset {
    /// Why; goes to the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST policies/apply`: the policies of all tiers. A tier that is not named loses its policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PolicyPlan {
    /// Policies by tier.
    #[schema(value_type = std::collections::BTreeMap<String, PolicySpec>)]
    pub policies: std::collections::BTreeMap<TierName, PolicySpec>,
    /// Why; goes to the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub dry_run: bool,
}

/// What becomes of a tier's policy, and what that means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyChange {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// `set`, `change`, `unset` or `none`.
    pub action: String,
    /// The policy as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PolicySpec>,
    /// The policy as it would stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PolicySpec>,
    /// What that means for which machines, a sentence each.
    pub means: Vec<String>,
}

/// What a plan would change, or what was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PolicyOutcome {
    /// Whether it was only looked at.
    pub dry_run: bool,
    /// By tier, first to last.
    pub changes: Vec<PolicyChange>,
}
