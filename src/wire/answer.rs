//! What the server answers a client under `/v1/client/...`. These shapes are ours; see the compatibility page.
//!
//! Written exactly as frozen by the golden tests; read by the reference client, which ignores keys it does not know, so
//! that a newer server can add some.

use super::Token;
use crate::domain::{
    Architecture, Fix, KernelSupport, KernelVersion, MachineId, PatchVersion, Sha256, TierName,
};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Answer to `POST /v1/client/{machine-id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RegisterAnswer {
    /// What the machine shows from now on.
    #[schema(value_type = String)]
    pub machine_token: Token<'static>,
    /// The tier the machine is in.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Minutes between two checks.
    pub check_interval: u32,
}

/// Answer to `GET /v1/client/{machine-id}/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct InfoAnswer {
    /// The machine asked about.
    #[schema(value_type = String)]
    pub machine_id: MachineId,
    /// The tier it is in, or would enter by registering with the token shown.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// When it registered; absent if it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub enabled_at: Option<Timestamp>,
    /// When it last checked in; absent if never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub last_check: Option<Timestamp>,
    /// What the token allows.
    #[serde(default)]
    pub affordances: Affordances,
}

/// What a token allows: the keys are those of an Ubuntu Pro entitlement (public). Absent means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Affordances {
    /// Only these architectures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub architectures: Vec<Architecture>,
    /// Only these Ubuntu series, by code name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<String>,
    /// Only these kernel flavours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_flavors: Vec<String>,
    /// Only kernels from this one on, e.g. `4.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_kernel_version: Option<String>,
    /// The tier the token is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tier: Option<TierName>,
}

/// Answer to `POST /v1/client/{machine-id}/updates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct UpdatesAnswer {
    /// What to apply: nothing or one payload, since patches are cumulative.
    pub patches: Vec<PatchOffer>,
    /// Whether patches are made for the kernel.
    #[schema(value_type = String)]
    pub supported: KernelSupport,
    /// The day from which this kernel gets no more patches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub upgrade_required_date: Option<Date>,
    /// The tier the machine is in.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Minutes until the next check.
    pub check_interval: u32,
    /// Whether the report was stored before this answer was given.
    pub stored: bool,
    /// Why this and not another answer, in the order in which it was decided.
    #[serde(default)]
    pub reasons: Vec<Reason>,
}

/// One payload to fetch and apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PatchOffer {
    /// The patch, e.g. `107.1`.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// The kernel it is for.
    #[schema(value_type = String)]
    pub kernel: KernelVersion,
    /// The architecture it is for.
    #[schema(value_type = String)]
    pub architecture: Architecture,
    /// The file's name.
    pub filename: String,
    /// Digest of the whole file.
    #[schema(value_type = String)]
    pub sha256: Sha256,
    /// Where to fetch it: absolute, or relative to the server's address.
    pub url: String,
    /// The file's length in bytes.
    pub size: u64,
    /// What it fixes, as far as the server knows.
    #[serde(default)]
    pub fixes: Vec<Fix>,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Reason {
    /// A stable word for programs, e.g. `not-in-tier`.
    #[schema(value_type = String)]
    pub code: Cow<'static, str>,
    /// A sentence for people.
    #[schema(value_type = String)]
    pub text: Cow<'static, str>,
    /// The patch it speaks of, if it speaks of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub version: Option<PatchVersion>,
}
