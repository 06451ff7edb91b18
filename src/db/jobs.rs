//! Jobs: long work and what came of it, and the lock that lets one run at a time.
//!
//! The lock belongs to a connection of its own, so that it ends with the process that holds it, however that ends.
//! Whoever gets the lock knows that a job that is said to run does not.

use super::connect::Db;
use super::run::{DbError, Run};
use super::statements;
use jiff::Timestamp;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

statements! {
    SET_JOB_PATIENCE = "select set_config('lock_timeout', $1, false)";
    TAKE_JOB_LOCK = "select pg_advisory_lock(7103, 2)";
    FAIL_DEAD_JOBS = "update jobs set state = 'failed', error = $1, finished_at = now(), updated_at = now()
        where state = 'running' returning id";
    INSERT_JOB = "insert into jobs (kind, actor) values ($1, $2)
        returning id, kind, actor, state, progress, error, started_at, finished_at";
    DELETE_OLD_JOBS = "delete from jobs where id <= (select max(id) from jobs) - $1";
    UPDATE_JOB = "update jobs set progress = $2, updated_at = now() where id = $1 and state = 'running'";
    FINISH_JOB = "update jobs set state = $2, progress = $3, error = $4, finished_at = now(), updated_at = now()
        where id = $1 and state = 'running'";
    SELECT_JOB = "select id, kind, actor, state, progress, error, started_at, finished_at from jobs where id = $1";
    SELECT_RUNNING_JOB = "select id, kind, actor, state, progress, error, started_at, finished_at from jobs
        where state = 'running'";
    SELECT_JOB_PAGE = "select id, kind, actor, state, progress, error, started_at, finished_at from jobs
        where $1::bigint is null or id < $1 order by id desc limit $2";
}

/// Jobs that are remembered.
const KEPT: i64 = 500;

/// A job as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Database id.
    pub id: i64,
    /// What it does.
    pub kind: String,
    /// Who asked for it.
    pub actor: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// How far it is, as JSON.
    pub progress: String,
    /// With `failed`: why.
    pub error: Option<String>,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Recorded {
    fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            kind: row.get(1),
            actor: row.get(2),
            state: row.get(3),
            progress: row.get(4),
            error: row.get(5),
            started_at: row.get(6),
            finished_at: row.get(7),
        }
    }
}

/// The right to run a job. Dropping it gives it up.
pub struct JobLock {
    _client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl std::fmt::Debug for JobLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobLock")
    }
}

impl JobLock {
    /// Takes the lock; `None` if a job runs, here or on another replica, and does not end within `patience`.
    pub async fn take(db: &Db, patience: Duration) -> Result<Option<Self>, DbError> {
        let (client, connection) = db.settings().connect_alone().await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "the connection that holds the lock for jobs broke");
            }
        });
        // PostgreSQL takes 0 for no limit.
        let patience = patience.as_millis().max(1).to_string();
        client
            .query_one(SET_JOB_PATIENCE.text, &[&patience])
            .await
            .map_err(|e| DbError::of(SET_JOB_PATIENCE.name, e))?;
        match client.query_one(TAKE_JOB_LOCK.text, &[]).await {
            Ok(_) => Ok(Some(Self {
                _client: client,
                connection,
            })),
            Err(e) if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(e) => Err(DbError::of(TAKE_JOB_LOCK.name, e)),
        }
    }

    /// Returns when the lock is lost, because its connection broke.
    pub async fn lost(&mut self) {
        // Whether the task ended well or not, the connection is gone.
        let _ = (&mut self.connection).await;
    }
}

/// Records that jobs said to run do not. Only the holder of the lock may call it.
pub async fn fail_dead(run: &impl Run, _lock: &JobLock, why: &str) -> Result<Vec<i64>, DbError> {
    let rows = run.rows(&FAIL_DEAD_JOBS, &[&why]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Records a new job, and forgets very old ones. Only the holder of the lock may call it.
pub async fn insert(
    run: &impl Run,
    _lock: &JobLock,
    kind: &str,
    actor: &str,
) -> Result<Recorded, DbError> {
    let row = run.one(&INSERT_JOB, &[&kind, &actor]).await?;
    run.exec(&DELETE_OLD_JOBS, &[&KEPT]).await?;
    Ok(Recorded::from_row(&row))
}

/// Records how far a running job is.
pub async fn update(run: &impl Run, id: i64, progress: &str) -> Result<(), DbError> {
    run.exec(&UPDATE_JOB, &[&id, &progress]).await.map(|_| ())
}

/// Records the end of a running job; with `error`, that it failed.
pub async fn finish(
    run: &impl Run,
    id: i64,
    progress: &str,
    error: Option<&str>,
) -> Result<(), DbError> {
    let state = if error.is_some() { "failed" } else { "done" };
    run.exec(&FINISH_JOB, &[&id, &state, &progress, &error])
        .await
        .map(|_| ())
}

/// A job.
pub async fn get(run: &impl Run, id: i64) -> Result<Option<Recorded>, DbError> {
    let row = run.opt(&SELECT_JOB, &[&id]).await?;
    Ok(row.as_ref().map(Recorded::from_row))
}

/// The job that is said to run.
pub async fn running(run: &impl Run) -> Result<Option<Recorded>, DbError> {
    let row = run.opt(&SELECT_RUNNING_JOB, &[]).await?;
    Ok(row.as_ref().map(Recorded::from_row))
}

/// A page of jobs before this id, newest first.
pub async fn page(
    run: &impl Run,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Recorded>, DbError> {
    let rows = run.rows(&SELECT_JOB_PAGE, &[&before, &limit]).await?;
    Ok(rows.iter().map(Recorded::from_row).collect())
}
