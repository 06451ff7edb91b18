//! What webhooks are sent: one JSON object with the kind of the event, when it happened, and its data by kind. Fields may be added;
//! those that are there keep their names and meanings. Described for receivers in `docs/reference/events.md`.

use super::admin::WireScope;
use crate::domain::{EventKind, PatchVersion, Sha256, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The body of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<T> {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When.
    pub timestamp: Timestamp,
    /// More, by kind.
    pub data: T,
}

/// Of `patch.arrived`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PatchArrived {
    /// Version.
    pub version: PatchVersion,
    /// The security notice.
    pub notice: String,
    /// The tier that it entered; absent if tiers are taken over from upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierName>,
    /// How it came: `upload`, or the upstream.
    pub source: String,
    /// Who brought it.
    pub actor: String,
}

/// Of `patch.promoted`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PatchPromoted {
    /// Version.
    pub version: PatchVersion,
    /// The security notice.
    pub notice: String,
    /// The last tier that this part of it had reached before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<TierName>,
    /// The tier that it reached.
    pub tier: TierName,
    /// The part of it; absent: the whole patch.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// Who promoted it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
}

/// Of `patch.blocked`, `patch.unblocked`, `patch.held` and `patch.resumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PatchStopped {
    /// Version.
    pub version: PatchVersion,
    /// The security notice.
    pub notice: String,
    /// The part of it; absent: the whole patch.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// Who did it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
}

/// Of `coverage.changed`: the table of supported kernels was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CoverageChanged {
    /// Lines that came.
    pub added: u64,
    /// Lines that went.
    pub removed: u64,
    /// Lines that are other than before.
    pub changed: u64,
    /// Who did it.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
}

/// Of `payload.quarantined`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PayloadQuarantined {
    /// Its number in the quarantine.
    pub quarantine_id: i64,
    /// File name as given.
    pub filename: String,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// The rule that was broken.
    pub code: String,
    /// What was wrong.
    pub reason: String,
    /// How it came: `upload`, or the upstream.
    pub source: String,
    /// Who brought it.
    pub actor: String,
}

/// Of `sync.completed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SyncCompleted {
    /// The run's number.
    pub run: i64,
    /// Where from.
    pub upstream: String,
    /// `interval`, `trigger` or `import`.
    pub cause: String,
    /// Who asked for it.
    pub actor: String,
    /// Whether anything that people see changed.
    pub changed: bool,
    /// Payloads that are new here.
    pub added: u64,
    /// Files that were refused at the door.
    pub quarantined: u64,
    /// Payloads that upstream does not have any more.
    pub withdrawn: u64,
    /// Payloads that upstream has again.
    pub returned: u64,
    /// Patches that nobody had seen before, at most a hundred of them.
    pub new_patches: Vec<PatchVersion>,
}

/// Of `sync.failed` and `sync.waiting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SyncStopped {
    /// The run's number.
    pub run: i64,
    /// Where from.
    pub upstream: String,
    /// `interval`, `trigger` or `import`.
    pub cause: String,
    /// Who asked for it.
    pub actor: String,
    /// Why, for programs.
    pub code: String,
    /// Why, for people.
    pub error: String,
}

/// Of `rollout.started`, `rollout.advanced`, `rollout.halted`, `rollout.resumed`, `rollout.completed`, `rollout.aborted` and
/// `rollout.approval-needed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutChanged {
    /// The rollout's number.
    pub rollout: i64,
    /// Version of the patch.
    pub version: PatchVersion,
    /// The security notice.
    pub notice: String,
    /// The tier.
    pub tier: TierName,
    /// The part of the patch; absent: the whole patch.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
    /// How it stands now.
    pub state: String,
    /// Its phase, from 1.
    pub phase: u32,
    /// Share of the machines that are let in, e.g. `10%`.
    pub share: String,
    /// Who did it: a person, or the engine.
    pub actor: String,
    /// What happened, for people; of a halt with its numbers.
    pub text: String,
}

/// Of `webhook.test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WebhookTest {
    /// The webhook's name.
    pub webhook: String,
    /// Who tries it.
    pub actor: String,
}
