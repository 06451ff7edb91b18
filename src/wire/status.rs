//! The client's status document, as written: the JSON of client 11 (public names, spelled exactly so), which is also what
//! the reference client sends. The fields after `tier` that carry a comment are ours and only stand in requests.
//!
//! The server does not read this type but [`super::ClientReport`], which takes every age of the document.

use super::Token;
use crate::domain::{Architecture, KernelSupport, MachineId, TierName};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};

/// A status document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusDocument {
    /// Version of the client.
    #[serde(rename = "Client-Version")]
    pub client_version: String,
    /// The machine.
    #[serde(rename = "Machine-Id")]
    #[schema(value_type = String)]
    pub machine_id: MachineId,
    /// Its architecture.
    #[serde(rename = "Architecture")]
    #[schema(value_type = String)]
    pub architecture: Architecture,
    /// Model name of its processor; empty if not known.
    #[serde(rename = "CPU-Model")]
    pub cpu_model: String,
    /// When it last asked a server.
    #[serde(rename = "Last-Check")]
    #[schema(value_type = Option<String>)]
    pub last_check: Option<Timestamp>,
    /// When it was booted.
    #[serde(rename = "Boot-Time")]
    #[schema(value_type = Option<String>)]
    pub boot_time: Option<Timestamp>,
    /// Seconds since boot, as text.
    #[serde(rename = "Uptime")]
    pub uptime: String,
    /// One entry for each kernel; the reference client has one.
    #[serde(rename = "Status")]
    pub status: Vec<StatusEntry>,
    /// The tier, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tier: Option<TierName>,
    /// Ours, only when registering: the administrator's token.
    #[serde(
        rename = "auth-token",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub auth_token: Option<Token<'static>>,
    /// Ours, only in requests: the day the running kernel was built.
    #[serde(
        rename = "kernel-build-date",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub kernel_build_date: Option<Date>,
}

/// What is known of one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusEntry {
    /// The kernel.
    #[serde(rename = "Kernel")]
    pub kernel: String,
    /// Whether it is the running one.
    #[serde(rename = "Running")]
    pub running: bool,
    /// The patch on it.
    #[serde(rename = "Livepatch")]
    pub livepatch: LivepatchStatus,
    /// Whether patches are made for it.
    #[serde(rename = "Supported", default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub supported: Option<KernelSupport>,
    /// The day from which it gets no more patches.
    #[serde(
        rename = "UpgradeRequiredDate",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schema(value_type = Option<String>)]
    pub upgrade_required_date: Option<Date>,
}

/// What is known of the patch on a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LivepatchStatus {
    /// `checked`, `needs-check` or `check-failed`.
    #[serde(rename = "CheckState")]
    pub check_state: String,
    /// State of the patch.
    #[serde(rename = "State")]
    pub state: String,
    /// Its version; empty if there is none.
    #[serde(rename = "Version")]
    pub version: String,
    /// What it fixes.
    #[serde(rename = "Fixes", default)]
    pub fixes: Vec<StatusFix>,
}

/// One fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StatusFix {
    /// Usually a CVE.
    #[serde(rename = "Name")]
    pub name: String,
    /// What it is about.
    #[serde(rename = "Description")]
    pub description: String,
    /// A bug number or link.
    #[serde(rename = "Bug")]
    pub bug: String,
    /// Whether the running kernel has it.
    #[serde(rename = "Patched")]
    pub patched: bool,
}
