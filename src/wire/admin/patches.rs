//! Patches, their promotion and what stops them.
//!
//! `GET patches`, `GET patches/{version}`, `POST patches/{version}/promote|block|unblock|hold|resume`,
//! `POST promote-all`.

use super::{PayloadEntry, WireScope, is_false};
use crate::domain::{Architecture, PatchVersion, Selector, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A patch as listed, highest version first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Patch {
    /// Version, e.g. `107.1`.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// The security notice that announces it, e.g. `LSN-0107-1`.
    pub notice: String,
    /// Number of payloads.
    pub payloads: u64,
    /// Number of different kernels among them.
    pub kernels: u64,
    /// Payloads whose object was found missing or altered.
    #[serde(default)]
    pub damaged: u64,
    /// The last tier that the whole patch has reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reach: Option<TierName>,
    /// Every promotion, oldest first.
    pub promotions: Vec<Promotion>,
    /// Blocks and holds that stand.
    pub blocks: Vec<Block>,
    /// When its first payload came in.
    #[schema(value_type = String, format = DateTime)]
    pub first_seen: Timestamp,
}

/// `GET patches/{version}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PatchDetail {
    /// The patch.
    pub patch: Patch,
    /// Its payloads, by kernel and architecture.
    pub payloads: Vec<PayloadEntry>,
}

/// That a patch reached a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Promotion {
    /// The tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// For which kernels.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Why, in the words of who did it; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// The two ways to stop a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BlockKind {
    /// Withdrawn: not offered, and machines that run it may go back to a lower version.
    Block,
    /// Not offered anew; machines that run it keep it.
    Hold,
}

/// A block or hold that stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Block {
    /// Block or hold.
    pub kind: BlockKind,
    /// For which kernels.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// `POST patches/{version}/promote`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PromoteRequest {
    /// The tier it shall reach.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// For which kernels; all if not given.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// With `dry-run`: say what it would mean for the machines that this selector means. A promotion itself is for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub selector: Option<Selector>,
}

/// `POST promote-all`: everything that has reached `from` reaches `to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PromoteAllRequest {
    /// What has reached this tier...
    #[schema(value_type = String)]
    pub from: TierName,
    /// ...shall reach this one.
    #[schema(value_type = String)]
    pub to: TierName,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only say what would change.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// What a promotion changed, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PromoteOutcome {
    /// Nothing was changed.
    #[serde(default)]
    pub dry_run: bool,
    /// Patches that go further; empty if all were there already.
    pub patches: Vec<PromotedPatch>,
    /// Payloads that become available in further tiers.
    pub payloads: u64,
    /// Machines that are offered another payload than before by it.
    pub machines: u64,
    /// Bytes that these machines download for it, together.
    #[serde(default)]
    pub bytes: u64,
    /// Kernels that machines in the tiers run and for which the patches have no payload.
    pub kernels_without_payload: Vec<KernelGap>,
}

/// One patch of a promotion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PromotedPatch {
    /// The patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// The last tier before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub from: Option<TierName>,
    /// The last tier after.
    #[schema(value_type = String)]
    pub to: TierName,
    /// For which kernels.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
}

/// A kernel that gets nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KernelGap {
    /// Kernel as machines report it.
    pub kernel: String,
    /// Architecture, where reported and known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
    /// Machines that run it.
    pub machines: u64,
}

/// `POST patches/{version}/block`, `unblock`, `hold` and `resume`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlockRequest {
    /// For which kernels; all if not given. To lift one, the scope it was set with.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a patch stands after one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct BlockOutcome {
    /// The patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// Whether anything changed; `false` if it stood so already.
    pub changed: bool,
    /// Blocks and holds that stand now.
    pub blocks: Vec<Block>,
    /// Machines under the scope that say they run this version.
    pub machines_running: u64,
}
