//! Long work that an administrator asked for. `POST storage/refresh`, `POST storage/prune`, `POST storage/verify` (no body) are answered with
//! a [`Job`] (202); `GET jobs`, `GET jobs/{id}`.

use super::is_false;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// `POST storage/refresh`: looks for tarballs that were put into the storage by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RefreshRequest {
    /// Remove a found file once its content is stored or quarantined.
    #[serde(default, skip_serializing_if = "is_false")]
    pub remove_originals: bool,
    /// Only say what would be taken in.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// `POST storage/prune`: removes payloads that no filter of intake admits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PruneRequest {
    /// Only say what would be removed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// At work.
    Running,
    /// Came to its end; single items may have failed.
    Done,
    /// Gave up; `error` says why.
    Failed,
}

/// What became of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobItemResult {
    /// Refresh: verified and stored.
    Stored,
    /// Refresh: the same content was stored before.
    AlreadyThere,
    /// Refresh: refused, kept apart.
    Quarantined,
    /// Refresh: not a payload by its name.
    Ignored,
    /// Verify: the object is what it should be.
    Verified,
    /// Verify: the object was altered.
    Damaged,
    /// Verify: the object is not there.
    Missing,
    /// Verify: was damaged or missing before and is whole again.
    Repaired,
    /// Prune: no filter admits it and no machine needs it; it was removed.
    Pruned,
    /// Prune: no filter admits it, but a machine's kernel could need it.
    Kept,
    /// The item could not be dealt with, e.g. the storage did not answer.
    Failed,
}

impl JobItemResult {
    /// Whether a person should look at it.
    pub const fn is_bad(self) -> bool {
        matches!(
            self,
            Self::Quarantined | Self::Damaged | Self::Missing | Self::Failed
        )
    }
}

/// How much of a job is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobProgress {
    /// Items dealt with.
    pub done: u64,
    /// Items in all, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Bytes read.
    #[serde(default)]
    pub bytes: u64,
    /// Items by result.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub counts: BTreeMap<JobItemResult, u64>,
}

/// One item that is worth naming: all but `already-there`, `ignored` and `verified`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobItem {
    /// File name or storage key.
    pub item: String,
    /// What became of it.
    pub result: JobItemResult,
    /// The rule that was broken, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What was wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With `quarantined`: where it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine_id: Option<i64>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// Id.
    pub id: i64,
    /// `storage-refresh`, `storage-verify` or `storage-prune`; further kinds may come.
    pub kind: String,
    /// How far it is.
    pub state: JobState,
    /// How much is done.
    pub progress: JobProgress,
    /// Items worth naming, the first 1,000.
    #[serde(default)]
    pub results: Vec<JobItem>,
    /// How many more there are than `results` holds.
    #[serde(default)]
    pub results_left_out: u64,
    /// With `failed`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Who asked for it.
    pub actor: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
}
