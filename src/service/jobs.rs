//! Jobs: long work that an administrator asks for, one at a time over all replicas, with a record of what came of it.
//!
//! A job belongs to the process that started it and ends with it. Its record is then marked as failed by whoever gets
//! the lock next: the next start of a server ([`sweep`]) or the next job. What a job did stands; asking for it again
//! goes on where it ended, because everything it does can be repeated.

use super::{Core, ServiceError, paging, prune, storage};
use crate::db::audit::{self, Actor, Entry};
use crate::db::jobs::{self as rows, JobLock, Recorded};
use crate::db::listen::Change;
use crate::wire::admin::{
    Job, JobItem, JobItemResult, JobProgress, JobState, Page, PageQuery, PruneRequest,
    RefreshRequest,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Items that a record names.
const NAMED: usize = 1000;
/// How often a running job's record is written.
const EVERY: Duration = Duration::from_secs(1);
/// How long a new job waits for the lock: PostgreSQL lets go of it a moment after its holder has ended.
const SETTLE: Duration = Duration::from_secs(1);
/// What a job's record says when its process ended before it.
const DIED: &str =
    "the server that ran it ended before it did; start it again, what is done stays done";

/// What a job does.
#[derive(Debug, Clone)]
pub enum Work {
    /// Takes in tarballs that lie in the storage.
    Refresh(RefreshRequest),
    /// Compares every payload's object with its hash.
    Verify,
    /// Removes payloads that no filter admits.
    Prune(PruneRequest),
}

impl Work {
    fn kind(&self) -> &'static str {
        match self {
            Self::Refresh(_) => "storage-refresh",
            Self::Verify => "storage-verify",
            Self::Prune(_) => "storage-prune",
        }
    }

    fn details(&self, id: i64) -> serde_json::Value {
        match self {
            Self::Refresh(request) => {
                json!({ "job": id, "remove-originals": request.remove_originals, "dry-run": request.dry_run })
            }
            Self::Verify => json!({ "job": id }),
            Self::Prune(request) => json!({ "job": id, "dry-run": request.dry_run }),
        }
    }
}

/// Holds the jobs of this process.
#[derive(Debug)]
pub struct Runner {
    tasks: TaskTracker,
    stop: CancellationToken,
    ended: watch::Sender<u64>,
}

impl Runner {
    /// A runner without jobs.
    pub fn new() -> Self {
        Self {
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            ended: watch::Sender::new(0),
        }
    }

    /// Stops the job that runs and returns when its record says so.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

/// What is written into a record.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Account {
    progress: JobProgress,
    results: Vec<JobItem>,
    results_left_out: u64,
}

/// Where a job says how far it is.
#[derive(Debug)]
pub(super) struct Report {
    id: i64,
    account: Mutex<(Account, Instant)>,
}

impl Report {
    fn new(id: i64) -> Self {
        Self {
            id,
            account: Mutex::new((Account::default(), Instant::now())),
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Account, &mut Instant) -> T) -> T {
        let mut guard = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        let (account, written) = &mut *guard;
        change(account, written)
    }

    /// Says how many items there are in all.
    pub(super) fn total(&self, total: u64) {
        self.with(|account, _| account.progress.total = Some(total));
    }

    /// Counts an item, names it if it is worth naming, and writes the record now and then.
    pub(super) async fn item(&self, core: &Core, bytes: u64, item: JobItem, name: bool) {
        let due = self.with(|account, written| {
            account.progress.done += 1;
            account.progress.bytes += bytes;
            *account.progress.counts.entry(item.result).or_default() += 1;
            if name {
                if account.results.len() < NAMED {
                    account.results.push(item);
                } else {
                    account.results_left_out += 1;
                }
            }
            let due = written.elapsed() >= EVERY;
            if due {
                *written = Instant::now();
            }
            due
        });
        if due && let Err(error) = self.write(core).await {
            tracing::warn!(%error, job = self.id, "a job's progress could not be recorded");
        }
    }

    fn text(&self) -> Result<String, ServiceError> {
        self.with(|account, _| serde_json::to_string(account))
            .map_err(|e| ServiceError::Internal(format!("a job's account cannot be written: {e}")))
    }

    async fn write(&self, core: &Core) -> Result<(), ServiceError> {
        let text = self.text()?;
        Ok(rows::update(&core.db.conn().await?, self.id, &text).await?)
    }
}

/// Starts a job. [`ServiceError::Conflict`] while another one runs, here or on another replica.
pub async fn start(core: &Arc<Core>, actor: &Actor, work: Work) -> Result<Job, ServiceError> {
    let Some(lock) = JobLock::take(&core.db, SETTLE).await? else {
        let running = rows::running(&core.db.conn().await?).await?;
        let which = running.map_or_else(
            || "another job".to_owned(),
            |job| format!("job {} ({}, asked for by {})", job.id, job.kind, job.actor),
        );
        return Err(ServiceError::Conflict(format!(
            "{which} is running; one runs at a time, start this when it has ended"
        )));
    };
    let job = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        rows::fail_dead(&tx, &lock, DIED).await?;
        let job = rows::insert(&tx, &lock, work.kind(), &actor.name).await?;
        let action = match work {
            Work::Refresh(_) => "storage.refresh",
            Work::Verify => "storage.verify",
            Work::Prune(_) => "storage.prune",
        };
        let entry = Entry {
            actor,
            action,
            target: core.store.place(),
            details: work.details(job.id),
        };
        audit::append(&tx, entry, Change::Nothing).await?;
        tx.commit().await?;
        job
    };
    let (core, actor, id) = (Arc::clone(core), actor.clone(), job.id);
    let tasks = core.jobs.tasks.clone();
    tasks.spawn(async move { run(core, actor, id, work, lock).await });
    job_of(job)
}

async fn run(core: Arc<Core>, actor: Actor, id: i64, work: Work, mut lock: JobLock) {
    let report = Report::new(id);
    let result = tokio::select! {
        biased;
        () = core.jobs.stop.cancelled() => {
            Err("the server was stopped; start it again, what is done stays done".to_owned())
        }
        () = lock.lost() => {
            Err("the connection to the database broke; start it again, what is done stays done".to_owned())
        }
        result = async {
            match &work {
                Work::Refresh(request) => storage::refresh(&core, &actor, request, &report).await,
                Work::Verify => storage::verify(&core, &actor, &report).await,
                Work::Prune(request) => prune::prune(&core, &actor, request, &report).await,
            }
        } => result.map_err(|e| e.to_string()),
    };
    let error = result.err();
    let written: Result<(), ServiceError> = async {
        let text = report.text()?;
        let conn = core.db.conn().await?;
        Ok(rows::finish(&conn, id, &text, error.as_deref()).await?)
    }
    .await;
    if let Err(error) = written {
        tracing::error!(%error, job = id, "the end of a job could not be recorded");
    }
    match &error {
        None => tracing::info!(job = id, kind = work.kind(), "job done"),
        Some(error) => tracing::warn!(job = id, kind = work.kind(), error, "job failed"),
    }
    drop(lock);
    core.jobs.ended.send_modify(|n| *n += 1);
}

/// Marks jobs as failed whose server ended before them; to be called when a server starts. Leaves everything alone
/// while a job runs on another replica. Returns how many were marked.
pub async fn sweep(core: &Core) -> Result<usize, ServiceError> {
    let Some(lock) = JobLock::take(&core.db, Duration::ZERO).await? else {
        return Ok(0);
    };
    Ok(rows::fail_dead(&core.db.conn().await?, &lock, DIED)
        .await?
        .len())
}

/// Lists jobs, newest first.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<Job>, ServiceError> {
    let before = paging::after("jobs", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let rows = rows::page(&conn, before, limit as i64 + 1).await?;
    let jobs: Result<Vec<Job>, ServiceError> = rows.into_iter().map(job_of).collect();
    let place = |job: &Job| paging::encode("jobs", &[&job.id]);
    Ok(paging::page(jobs?, limit, place, |job| job))
}

/// A job as it stands.
pub async fn show(core: &Core, id: i64) -> Result<Job, ServiceError> {
    let row = rows::get(&core.db.conn().await?, id).await?;
    job_of(row.ok_or_else(|| ServiceError::not_found("job", id))?)
}

/// Waits until a job of this process has ended, and returns it.
pub async fn wait(core: &Core, id: i64) -> Result<Job, ServiceError> {
    let mut ended = core.jobs.ended.subscribe();
    loop {
        let job = show(core, id).await?;
        if job.state != JobState::Running || ended.changed().await.is_err() {
            return Ok(job);
        }
    }
}

fn job_of(row: Recorded) -> Result<Job, ServiceError> {
    let account: Account = serde_json::from_str(&row.progress).map_err(|e| {
        ServiceError::Internal(format!("the account of job {} cannot be read: {e}", row.id))
    })?;
    let state = match row.state.as_str() {
        "running" => JobState::Running,
        "done" => JobState::Done,
        _ => JobState::Failed,
    };
    Ok(Job {
        id: row.id,
        kind: row.kind,
        state,
        progress: account.progress,
        results: account.results,
        results_left_out: account.results_left_out,
        error: row.error,
        actor: row.actor,
        started_at: row.started_at,
        finished_at: row.finished_at,
    })
}

/// An item without remarks.
pub(super) fn item(name: impl Into<String>, result: JobItemResult) -> JobItem {
    JobItem {
        item: name.into(),
        result,
        code: None,
        reason: None,
        quarantine_id: None,
    }
}
