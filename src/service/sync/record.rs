//! The record of a run: how far it is, what came of it, and how it is shown.

use crate::db::sync::{self as rows, Item, Recorded};
use crate::service::{Core, ServiceError};
use crate::wire::admin::{
    SyncItem, SyncItemResult, SyncOutcome, SyncPhase, SyncProgress, SyncRun, SyncState,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the record of a run at work is written.
const EVERY: Duration = Duration::from_millis(500);

/// What is written into a record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Account {
    pub(super) progress: SyncProgress,
    pub(super) outcome: SyncOutcome,
}

/// Where a run says how far it is.
#[derive(Debug)]
pub(super) struct Recorder {
    /// The run's id; `None` for one that only says what it would do.
    pub(super) id: Option<i64>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    account: Account,
    items: Vec<Item>,
    written: Instant,
}

impl Recorder {
    pub(super) fn new(id: Option<i64>) -> Self {
        let inner = Inner {
            account: Account::default(),
            items: Vec::new(),
            written: Instant::now(),
        };
        Self {
            id,
            inner: Mutex::new(inner),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what came of it.
    pub(super) fn outcome<T>(&self, change: impl FnOnce(&mut SyncOutcome) -> T) -> T {
        self.with(|inner| change(&mut inner.account.outcome))
    }

    /// Changes how far it is.
    pub(super) fn progress<T>(&self, change: impl FnOnce(&mut SyncProgress) -> T) -> T {
        self.with(|inner| change(&mut inner.account.progress))
    }

    /// Names a payload.
    pub(super) fn item(
        &self,
        filename: impl Into<String>,
        result: SyncItemResult,
        reason: impl Into<String>,
        bytes: u64,
    ) {
        let item = Item {
            filename: filename.into(),
            result: word(result).to_owned(),
            reason: reason.into(),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        };
        self.with(|inner| inner.items.push(item));
    }

    /// What was named so far.
    pub(super) fn items(&self) -> Vec<Item> {
        self.with(|inner| inner.items.clone())
    }

    /// The account as it stands.
    pub(super) fn account(&self) -> Account {
        self.with(|inner| inner.account.clone())
    }

    /// The account as text.
    pub(super) fn text(&self) -> Result<String, ServiceError> {
        serde_json::to_string(&self.account())
            .map_err(|e| ServiceError::Internal(format!("a run's account cannot be written: {e}")))
    }

    /// Goes over to another phase, and writes that.
    pub(super) async fn phase(&self, core: &Core, phase: SyncPhase) -> Result<(), ServiceError> {
        self.progress(|progress| progress.phase = phase);
        self.write(core).await
    }

    /// Writes the record if that was not done for a while.
    pub(super) async fn tick(&self, core: &Core) {
        let due = self.with(|inner| {
            let due = inner.written.elapsed() >= EVERY;
            if due {
                inner.written = Instant::now();
            }
            due
        });
        if due && let Err(error) = self.write(core).await {
            tracing::debug!(%error, "a run's progress could not be recorded");
        }
    }

    async fn write(&self, core: &Core) -> Result<(), ServiceError> {
        if let Some(id) = self.id {
            let text = self.text()?;
            rows::update(&core.db.conn().await?, id, &text).await?;
        }
        Ok(())
    }
}

fn word(result: SyncItemResult) -> &'static str {
    match result {
        SyncItemResult::Added => "added",
        SyncItemResult::Healed => "healed",
        SyncItemResult::Quarantined => "quarantined",
        SyncItemResult::Failed => "failed",
        SyncItemResult::Withdrawn => "withdrawn",
        SyncItemResult::Returned => "returned",
        SyncItemResult::Ignored => "ignored",
    }
}

/// A named payload as shown.
pub(super) fn item(item: Item) -> SyncItem {
    SyncItem {
        filename: item.filename,
        result: match item.result.as_str() {
            "added" => SyncItemResult::Added,
            "healed" => SyncItemResult::Healed,
            "quarantined" => SyncItemResult::Quarantined,
            "withdrawn" => SyncItemResult::Withdrawn,
            "returned" => SyncItemResult::Returned,
            "ignored" => SyncItemResult::Ignored,
            _ => SyncItemResult::Failed,
        },
        reason: item.reason,
        bytes: item.bytes.unsigned_abs(),
    }
}

/// A run as shown, and what came of it.
pub(super) fn shown(row: Recorded) -> Result<(SyncRun, SyncOutcome), ServiceError> {
    let account: Account = serde_json::from_str(&row.progress).map_err(|e| {
        ServiceError::Internal(format!("the account of run {} cannot be read: {e}", row.id))
    })?;
    let run = SyncRun {
        id: row.id,
        upstream: row.upstream,
        cause: row.cause,
        actor: row.actor,
        state: state(&row.state),
        progress: account.progress,
        added: account.outcome.added,
        quarantined: account.outcome.quarantined,
        code: row.code,
        error: row.error,
        queued_at: row.queued_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    };
    Ok((run, account.outcome))
}

fn state(word: &str) -> SyncState {
    match word {
        "queued" => SyncState::Queued,
        "running" => SyncState::Running,
        "done" => SyncState::Done,
        "waiting" => SyncState::Waiting,
        _ => SyncState::Failed,
    }
}

/// The shortest pause after a run that failed.
const AFTER_FAILURE: Duration = Duration::from_mins(5);

/// When the run after this one is due. Up to a tenth of the interval is added, by the run's id, so that many servers do not ask
/// one upstream at the same moment for ever; every replica comes to the same time.
pub fn next_run(last: &Recorded, interval: Duration) -> Timestamp {
    let pause = if last.state == "failed" {
        interval.min(AFTER_FAILURE)
    } else {
        interval
    };
    let mut seed = [0; 4];
    let text = format!("{} {}", last.id, last.queued_at);
    seed.copy_from_slice(&crate::domain::Sha256::of(text.as_bytes()).0[..4]);
    let share = f64::from(u32::from_be_bytes(seed)) / f64::from(u32::MAX) / 10.0;
    let pause = pause + pause.mul_f64(share);
    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
    let from = last.finished_at.unwrap_or(last.queued_at);
    from.checked_add(pause).unwrap_or(Timestamp::MAX)
}
