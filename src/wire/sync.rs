//! What servers of this kind say to each other (ours): the signed head of an index, the records it is made of, and the
//! report that goes back up. The same records stand in air-gap archives.
//!
//! A state is a text: one JSON object a line, each line once, sorted by its bytes, every line ended by a newline. The head names its
//! SHA-256 and length, and only the head is signed; so a record can be trusted exactly if the whole text is the head's.

use crate::domain::{Architecture, PatchVersion, PublicKey, Scope, Sha256, Signature, TierName};
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The version of these shapes. A reader refuses any other.
pub const FORMAT: u32 = 1;

/// Content type of a whole state.
pub const WHOLE: &str = "application/vnd.livepatch-onprem.state";
/// Content type of the difference between two states.
pub const DIFFERENCE: &str = "application/vnd.livepatch-onprem.state-difference";

/// The head of an index: what state there is, since when and until when it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Head {
    /// [`FORMAT`].
    pub format: u32,
    /// The deployment that says so; stays the same for its life.
    pub deployment: Uuid,
    /// The tier whose payloads these are, with those of the tiers after it.
    pub tier: TierName,
    /// Grows with every change of the state.
    pub version: u64,
    /// SHA-256 of the state.
    pub digest: Sha256,
    /// Length of the state in bytes.
    pub bytes: u64,
    /// Payloads in it.
    pub payloads: u64,
    /// When this head was signed.
    pub issued_at: Timestamp,
    /// From then on it must not be believed.
    pub expires_at: Timestamp,
    /// Keys whose signatures will be good from now on; the one that signed is among them.
    pub keys: Vec<PublicKey>,
}

/// A head as it travels: its exact text and the signatures over that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SignedHead {
    /// The JSON text of a [`Head`].
    pub signed: String,
    /// By the current key, and after a rotation also by the one before.
    pub signatures: Vec<KeySignature>,
}

/// One signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KeySignature {
    /// Whose.
    pub key: PublicKey,
    /// Over the text.
    pub signature: Signature,
}

/// A line of a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Record {
    /// A bundle that can be fetched.
    Payload(PayloadRecord),
    /// A tier.
    Tier(TierRecord),
    /// A patch has reached a tier.
    Promotion(PromotionRecord),
    /// A patch is blocked or held.
    Block(BlockRecord),
    /// A line of the table of supported kernels.
    Kernel(KernelRecord),
}

/// A bundle that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PayloadRecord {
    /// Canonical's file name.
    pub filename: String,
    /// Of the tarball.
    pub sha256: Sha256,
    /// Bytes of the tarball.
    pub size: u64,
}

/// A tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TierRecord {
    /// Its name.
    pub name: TierName,
    /// Its place on the way out, from 0.
    pub position: u32,
}

/// A patch, or a part of it, has reached a tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PromotionRecord {
    /// The patch.
    pub version: PatchVersion,
    /// How far.
    pub tier: TierName,
    /// The part.
    #[serde(default, skip_serializing_if = "ScopeRecord::is_all")]
    pub scope: ScopeRecord,
}

/// A patch, or a part of it, is not offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BlockRecord {
    /// The patch.
    pub version: PatchVersion,
    /// How.
    pub kind: BlockWord,
    /// The part.
    #[serde(default, skip_serializing_if = "ScopeRecord::is_all")]
    pub scope: ScopeRecord,
    /// Why, in the words of who decided.
    pub reason: String,
}

/// Whether a patch is withdrawn or only not offered anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlockWord {
    /// Withdrawn.
    Block,
    /// Not offered anew.
    Hold,
}

/// A part of a patch; what is not given is not narrowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ScopeRecord {
    /// Exactly this kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Kernels of this flavour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// This architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
}

impl ScopeRecord {
    /// Whether it is the whole patch.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// The scope it speaks of.
    pub fn scope(&self) -> Result<Scope, crate::domain::ParseError> {
        Scope::parse(
            self.kernel.as_deref(),
            self.flavour.as_deref(),
            self.architecture.map(Architecture::as_str),
        )
    }
}

impl From<&Scope> for ScopeRecord {
    fn from(scope: &Scope) -> Self {
        Self {
            kernel: scope.kernel.as_ref().map(ToString::to_string),
            flavour: scope.flavour.clone(),
            architecture: scope.architecture,
        }
    }
}

/// A line of the table of supported kernels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct KernelRecord {
    /// Ubuntu release, e.g. `22.04`.
    pub release: String,
    /// Its codename.
    pub codename: String,
    /// Architecture.
    pub architecture: Architecture,
    /// Kernel series, e.g. `5.15`.
    pub series: String,
    /// `GA` or `HWE`.
    pub kind: String,
    /// Flavours that are covered.
    pub flavours: Vec<String>,
    /// Months after the build date in which patches are made.
    pub months: i16,
    /// From this day on not covered at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_life: Option<Date>,
}

/// What a server tells the one above it after a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PeerReport {
    /// `patch-sync.id`, or the deployment's own id.
    pub deployment: String,
    /// Machines, exactly (`1234`) or as a range (`1000-1999`).
    pub machines: String,
    /// Machine by machine, only with `patch-sync.send-machine-reports`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine_reports: Vec<MachineReport>,
}

/// One machine in a report upwards; its id is hidden by a key that only its own server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MachineReport {
    /// HMAC-SHA256 of the machine id.
    pub machine: Sha256,
    /// Tier.
    pub tier: String,
    /// Kernel as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Architecture as reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Architecture>,
    /// State.
    pub state: String,
    /// Patch that it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patch: Option<PatchVersion>,
    /// When it last checked in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_check: Option<Timestamp>,
}
