//! Reports. `GET reports/machines?tier&version&state`, `GET reports/patch-health?tier&version`.

use super::{Limit, Machine, Page};
use crate::domain::{Architecture, MachineState, PatchVersion, Selector, States, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

/// Query of `GET reports/machines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MachinesReportQuery {
    /// The tier.
    #[param(value_type = String)]
    pub tier: TierName,
    /// Only machines with this patch applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
    /// Only machines in this state, or in one of several with commas between: `apply-failed,applied-with-bug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub state: Option<States>,
    /// Only machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub selector: Option<Selector>,
    /// `next-cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Machines per page, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
}

/// How many machines run a version in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct VersionStateCount {
    /// Version applied; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
    /// State as reported.
    #[schema(value_type = String)]
    pub state: MachineState,
    /// Machines.
    pub machines: u64,
}

/// Machines of a tier by version and state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MachinesReport {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// When the machines were counted; large fleets are not counted anew for each report.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// All machines that the query speaks of.
    pub total: u64,
    /// Their number by version (highest first) and state.
    pub counts: Vec<VersionStateCount>,
    /// One page of them.
    pub machines: Page<Machine>,
}

/// Query of `GET reports/patch-health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PatchHealthQuery {
    /// The tier.
    #[param(value_type = String)]
    pub tier: TierName,
    /// The patch.
    #[param(value_type = String)]
    pub version: PatchVersion,
    /// Only machines that this selector means, e.g. `rack=r1,kernel=5.15.0-*,!retired`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// How a patch fares on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KernelHealth {
    /// Kernel as reported.
    pub kernel: String,
    /// Architecture, where reported and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// Machines that run the patch or were offered it last.
    pub machines: u64,
    /// Their number by state.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub states: BTreeMap<MachineState, u64>,
    /// Machines in `apply-failed` or `applied-with-bug`.
    pub failed: u64,
}

/// How a patch fares in a tier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PatchHealth {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// The patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// When the machines were counted; large fleets are not counted anew for each report.
    #[schema(value_type = String, format = DateTime)]
    pub as_of: Timestamp,
    /// Machines of the tier that run the patch or were offered it last.
    pub machines: u64,
    /// Their number by state.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub states: BTreeMap<MachineState, u64>,
    /// Machines in `apply-failed` or `applied-with-bug`.
    pub failed: u64,
    /// `failed` by `machines`, 0 to 1; 0 without machines.
    pub failed_share: f64,
    /// By kernel, most failures first.
    pub kernels: Vec<KernelHealth>,
}
