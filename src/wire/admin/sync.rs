//! What comes from upstream: `POST sync/trigger`, `GET sync/status`, `GET sync/reports`, `GET sync/reports/{id}`,
//! `POST sync/confirm`, `POST sync/reset`, `GET sync/filters`.

use super::{WireScope, is_false};
use crate::domain::{PatchVersion, PublicKey, Sha256, TierName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SyncState {
    /// Asked for; the leader takes it up.
    Queued,
    /// At work.
    Running,
    /// Came to its end; single payloads may be in quarantine.
    Done,
    /// Gave up; `error` says why. Nothing of it is visible, and what was fetched is not fetched again.
    Failed,
    /// Needs a person: `sync status` says what for, `sync confirm` lets it go on.
    Waiting,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SyncPhase {
    /// Has not begun.
    #[default]
    Queued,
    /// Asks what upstream has.
    Listing,
    /// Fetches payloads.
    Fetching,
    /// Makes them visible.
    Publishing,
    /// Has ended.
    Ended,
}

/// How much of a run is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncProgress {
    /// What it does now.
    #[serde(default)]
    pub phase: SyncPhase,
    /// Payloads fetched, or tried.
    #[serde(default)]
    pub done: u64,
    /// Payloads to be fetched, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Bytes fetched.
    #[serde(default)]
    pub bytes: u64,
    /// Bytes to be fetched, where upstream says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
}

/// A run of sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncRun {
    /// Id.
    pub id: i64,
    /// Where from, without secrets.
    pub upstream: String,
    /// `interval`, `trigger` or `import`.
    pub cause: String,
    /// Who asked for it.
    pub actor: String,
    /// How far it is.
    pub state: SyncState,
    /// How much is done.
    pub progress: SyncProgress,
    /// Payloads that became visible.
    #[serde(default)]
    pub added: u64,
    /// Payloads that our own checks refused in this run.
    #[serde(default)]
    pub quarantined: u64,
    /// With `failed` and `waiting`: why, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was asked for.
    #[schema(value_type = String, format = DateTime)]
    pub queued_at: Timestamp,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}

/// Payloads that a filter kept out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncSkipped {
    /// The key of the filter.
    pub filter: String,
    /// How many.
    pub payloads: u64,
    /// Some of them.
    pub names: Vec<String>,
}

/// Payloads on one side of a filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FilterSide {
    /// How many.
    pub payloads: u64,
    /// Bytes, as far as they are known.
    pub bytes: u64,
    /// Some of them.
    pub names: Vec<String>,
}

/// What another filter means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FilterChange {
    /// Payloads of upstream that it lets in and that are not here.
    pub adds: FilterSide,
    /// Payloads that are here and that it does not let in any more. They stay until `storage prune`.
    pub drops: FilterSide,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", default)]
pub struct SyncOutcome {
    /// Payloads that upstream has.
    pub offered: u64,
    /// Of these, here already.
    pub there: u64,
    /// Of these, fetched by an earlier run that did not come to its end.
    pub resumed: u64,
    /// Payloads fetched.
    pub fetched: u64,
    /// Payloads that became visible.
    pub added: u64,
    /// Damaged payloads that are whole again.
    pub healed: u64,
    /// Payloads that our own checks refused.
    pub quarantined: u64,
    /// Payloads that lie in quarantine from before and were not fetched again.
    pub quarantined_before: u64,
    /// Payloads held because upstream does not have them any more.
    pub withdrawn: u64,
    /// Payloads that upstream has again and whose hold was lifted.
    pub returned: u64,
    /// Blocks and holds of upstream that were taken over.
    pub blocks_placed: u64,
    /// Blocks and holds of upstream that were lifted, because it did.
    pub blocks_lifted: u64,
    /// The table of supported kernels was replaced.
    pub kernels_changed: bool,
    /// Tiers and promotions were taken over and differ from before.
    pub tiers_changed: bool,
    /// Patches that were not known before.
    #[schema(value_type = Vec<String>)]
    pub new_patches: Vec<PatchVersion>,
    /// What filters kept out.
    pub skipped: Vec<SyncSkipped>,
    /// What the filter means if it is another one than at the last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_change: Option<FilterChange>,
    /// What waits for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<SyncPending>,
}

/// What became of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SyncItemResult {
    /// It became visible.
    Added,
    /// It was damaged and is whole again.
    Healed,
    /// Our own checks refused it.
    Quarantined,
    /// It could not be fetched.
    Failed,
    /// Upstream does not have it any more; it is held.
    Withdrawn,
    /// Upstream has it again; its hold was lifted.
    Returned,
    /// Its name is no payload's.
    Ignored,
}

/// A payload that is worth naming.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncItem {
    /// File name.
    pub filename: String,
    /// What became of it.
    pub result: SyncItemResult,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Bytes fetched.
    #[serde(default)]
    pub bytes: u64,
}

/// A run with all that came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncReport {
    /// The run.
    pub run: SyncRun,
    /// What came of it.
    pub outcome: SyncOutcome,
    /// Seconds it took.
    pub seconds: f64,
    /// Payloads worth naming, the first 1,000, those that need a look first.
    pub items: Vec<SyncItem>,
    /// How many more there are.
    pub items_left_out: u64,
}

/// That upstream lost more than `patch-sync.max-shrink` allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncShrink {
    /// Payloads it had.
    pub before: u64,
    /// Payloads of these that it does not have any more, or with another content.
    pub gone: u64,
    /// `patch-sync.max-shrink`, percent.
    pub limit: u32,
    /// Some of them.
    pub names: Vec<String>,
}

/// A tier that upstream does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TierGone {
    /// Its name.
    #[schema(value_type = String)]
    pub name: TierName,
    /// Machines in it, and machines that were moved into it.
    pub machines: u64,
    /// Auth tokens that admit to it.
    pub auth_tokens: u64,
    /// Sync tokens that read from it.
    pub sync_tokens: u64,
}

impl TierGone {
    /// Whether anything needs another tier.
    pub const fn is_used(&self) -> bool {
        self.machines + self.auth_tokens + self.sync_tokens > 0
    }
}

/// A promotion that upstream does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PromotionGone {
    /// The patch.
    #[schema(value_type = String)]
    pub version: PatchVersion,
    /// The tier that it had reached.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// The part of it.
    #[serde(default, skip_serializing_if = "WireScope::is_all")]
    pub scope: WireScope,
}

/// What taking over the tiers of upstream means (`patch-sync.sync-tiers`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TiersPreview {
    /// Tiers afterwards, first to last.
    #[schema(value_type = Vec<String>)]
    pub tiers: Vec<TierName>,
    /// Tiers that are new.
    #[schema(value_type = Vec<String>)]
    pub added: Vec<TierName>,
    /// Tiers that go.
    pub removed: Vec<TierGone>,
    /// Promotions that come.
    pub promotions_added: u64,
    /// Promotions that go.
    pub promotions_removed: u64,
    /// Some of these.
    pub promotions: Vec<PromotionGone>,
}

/// What waits for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncPending {
    /// Stands for exactly this; to be given with `sync confirm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Sha256>,
    /// Upstream lost much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shrink: Option<SyncShrink>,
    /// Tiers and promotions would be replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tiers: Option<TiersPreview>,
    /// It was confirmed; the next run goes on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub confirmed: bool,
}

/// `POST sync/confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SyncConfirm {
    /// What is confirmed, as `sync status` shows it.
    #[schema(value_type = String)]
    pub digest: Sha256,
    /// Where machines and tokens of tiers that go are moved: old tier to new tier.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub r#move: BTreeMap<TierName, TierName>,
}

/// Filters of intake; what is empty does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncFilter {
    /// `patch-sync.architectures`
    pub architectures: Vec<String>,
    /// `patch-sync.flavors`
    pub flavors: Vec<String>,
    /// `patch-sync.minimum-kernel-version`
    pub minimum_kernel_version: String,
    /// `patch-sync.kernel-prefixes`
    pub kernel_prefixes: Vec<String>,
    /// With `patch-sync.only-our-kernels`: how many kernels that are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub our_kernels: Option<u64>,
}

/// The query of `GET sync/filters`; what is not given stays as configured. Lists are separated by commas, `all` means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SyncFiltersQuery {
    /// As `patch-sync.architectures`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architectures: Option<String>,
    /// As `patch-sync.flavors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavors: Option<String>,
    /// As `patch-sync.minimum-kernel-version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_kernel_version: Option<String>,
    /// As `patch-sync.kernel-prefixes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_prefixes: Option<String>,
    /// As `patch-sync.only-our-kernels`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_our_kernels: Option<bool>,
}

/// What filters mean.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncFilters {
    /// As configured.
    pub current: SyncFilter,
    /// As asked about.
    pub proposed: SyncFilter,
    /// Payloads that upstream had when it was last asked.
    pub known: u64,
    /// What the proposed ones would add and drop.
    pub change: FilterChange,
}

/// Who may run what only one replica may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncLeader {
    /// The replica.
    pub holder: String,
    /// Counts up with each change of leader.
    pub epoch: i64,
    /// When it last said that it is there.
    #[schema(value_type = String, format = DateTime)]
    pub renewed_at: Timestamp,
}

/// The index that was believed last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncIndex {
    /// The deployment it is of.
    pub deployment: Uuid,
    /// Its tier.
    #[schema(value_type = String)]
    pub tier: TierName,
    /// Its version.
    pub version: u64,
    /// When it was signed.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// Whose signatures are good.
    #[schema(value_type = Vec<String>)]
    pub keys: Vec<PublicKey>,
}

/// How sync stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SyncStatus {
    /// `patch-sync.enabled`
    pub enabled: bool,
    /// `peer`, `downloader` or `directory`.
    pub driver: String,
    /// Where from, without secrets.
    pub upstream: String,
    /// Who runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<SyncLeader>,
    /// When a run last came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub succeeded_at: Option<Timestamp>,
    /// Seconds since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<u64>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_run: Option<Timestamp>,
    /// The run that is queued or at work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<SyncRun>,
    /// The run that ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<SyncRun>,
    /// What waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<SyncPending>,
    /// The index that was believed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<SyncIndex>,
    /// `patch-sync.sync-tiers`: tiers and promotions are upstream's.
    pub sync_tiers: bool,
    /// Filters as configured.
    pub filter: SyncFilter,
}
