//! What is carried by hand between servers of this kind (ours): the manifest of an archive, and the status of a fleet that goes
//! back out. Records of the state are those of [`super::sync`].

use super::sync::{BlockRecord, Head, MachineReport};
use crate::domain::{Architecture, PatchVersion, Sha256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of these shapes. A reader refuses any other.
pub const FORMAT: u32 = 1;

/// What an archive is: the index it carries, and how its bytes are cut into volumes. Every volume begins with it.
///
/// Only this is signed. It names the digests of the state and of the list of contents; the state names the digest of each payload. So
/// every byte of every volume follows from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ArchiveManifest {
    /// [`FORMAT`].
    pub format: u32,
    /// The index: whose, which version, since when and until when.
    pub index: Head,
    /// What the state was narrowed to.
    #[serde(default, skip_serializing_if = "FilterRecord::is_all")]
    pub filter: FilterRecord,
    /// The archive that must be there already; payloads of its state are not carried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// The list of the payloads that are carried.
    pub contents: Part,
    /// The volumes, from the first.
    pub volumes: Vec<VolumeRecord>,
}

/// What a state is narrowed to; what is empty does not narrow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilterRecord {
    /// Only these architectures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Architecture>,
    /// Only kernels of these flavours.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flavours: Vec<String>,
    /// Only this kernel and newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_kernel: Option<String>,
    /// Only kernels whose version begins with one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel_prefixes: Vec<String>,
}

impl FilterRecord {
    /// Whether nothing is left out.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// An older archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Since {
    /// The version of its index.
    pub version: u64,
    /// SHA-256 of its state.
    pub digest: Sha256,
}

/// A text that a manifest vouches for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Part {
    /// SHA-256.
    pub digest: Sha256,
    /// Length in bytes.
    pub bytes: u64,
}

/// One volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VolumeRecord {
    /// Payloads in it; together the volumes hold the list of contents in its order.
    pub payloads: u64,
    /// Bytes that follow the manifest, up to the end of the file.
    pub bytes: u64,
}

/// What an isolated site tells the connected one: its fleet in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FleetStatus {
    /// [`FORMAT`].
    pub format: u32,
    /// `patch-sync.id`, or the deployment's own id.
    pub deployment: String,
    /// When it was written.
    pub issued_at: Timestamp,
    /// Version of the server's software.
    pub server_version: String,
    /// Indexes that were taken in: where from, and which version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub intake: Vec<IntakeRecord>,
    /// Machines, exactly (`1234`) or as a range (`1000-1999`).
    pub machines: String,
    /// Machines by tier, kernel, state and patch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<FleetGroup>,
    /// What is blocked or held there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<BlockRecord>,
    /// Machine by machine, only with `patch-sync.send-machine-reports`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine_reports: Vec<MachineReport>,
}

/// An index that was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct IntakeRecord {
    /// The upstream's name.
    pub upstream: String,
    /// Version of its index.
    pub version: u64,
    /// When its head was signed.
    pub issued_at: Timestamp,
}

/// Machines that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FleetGroup {
    /// Tier.
    pub tier: String,
    /// Kernel as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Architecture as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// State as reported.
    pub state: String,
    /// Patch that is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchVersion>,
    /// How many, exactly or as a range.
    pub machines: String,
    /// When one of them last checked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}
