//! Runs of sync, what they did, what is known of an upstream, and the lock that lets one run at a time.
//!
//! As with jobs, the lock belongs to a connection of its own: whoever gets it knows that a run that is said to be at work is not.

use super::connect::Db;
use super::outbox;
use super::run::{DbError, Run, Tx};
use super::statements;
use crate::domain::{EventKind, KernelVersion, Sha256};
use crate::wire::event::SyncStopped;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::Row;

/// The columns of [`Recorded`].
macro_rules! recorded {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " id, upstream, cause, actor, source, state, progress, code, error, queued_at, started_at, finished_at ",
            $after
        )
    };
}

statements! {
    TRY_RUN_LOCK = "select pg_try_advisory_lock(7103, 11)";
    RELEASE_RUN_LOCK = "select pg_advisory_unlock(7103, 11)";
    // Of a leader that was superseded, whose process may stand still.
    END_OLD_RUN = "select count(pg_terminate_backend(l.pid)) from pg_locks l join pg_database d on d.oid = l.database
        where d.datname = current_database() and l.locktype = 'advisory' and l.classid = 7103 and l.objid = 11 and l.objsubid = 2
          and l.granted and exists (select from sync_runs where state = 'running' and epoch > 0 and epoch < $1)";
    FAIL_DEAD_RUNS = recorded!("update sync_runs set state = 'failed', code = 'died', error = $1, finished_at = now(), updated_at = now()
        where state = 'running' and id <> $2 returning", "");
    QUEUE_RUN = recorded!("insert into sync_runs (upstream, cause, actor, source) values ($1, $2, $3, $4)
        on conflict do nothing returning", "");
    CLAIM_RUN = "update sync_runs set state = 'running', upstream = $2, epoch = $3, started_at = now(), updated_at = now()
        where id = $1 and state = 'queued' returning id";
    DELETE_OLD_RUNS = "delete from sync_runs where id <= (select max(id) from sync_runs) - $1";
    REFUSE_RUN = recorded!("update sync_runs set state = 'failed', code = 'refused', error = $2, finished_at = now(), updated_at = now()
        where id = $1 and state = 'queued' returning", "");
    UPDATE_RUN = "update sync_runs set progress = $2, updated_at = now() where id = $1 and state = 'running'";
    FINISH_RUN = "update sync_runs set state = $2, progress = $3, code = $4, error = $5, finished_at = now(), updated_at = now()
        where id = $1 and state = 'running' returning id";
    SELECT_RUN = recorded!("select", "from sync_runs where id = $1");
    SELECT_OPEN_RUN = recorded!("select", "from sync_runs where state in ('queued', 'running')");
    SELECT_LAST_RUN = recorded!("select", "from sync_runs where state not in ('queued', 'running') order by id desc limit 1");
    SELECT_RUN_PAGE = recorded!("select", "from sync_runs where $1::bigint is null or id < $1 order by id desc limit $2");
    INSERT_ITEMS = "insert into sync_items (run_id, filename, result, reason, bytes)
        select $1, f, r, w, b from unnest($2::text[], $3::text[], $4::text[], $5::bigint[]) as v(f, r, w, b)
        on conflict (run_id, filename) do update set result = excluded.result, reason = excluded.reason, bytes = excluded.bytes";
    SELECT_ITEMS = "select filename, result, reason, bytes from sync_items where run_id = $1
        order by array_position(array['failed', 'quarantined', 'withdrawn', 'ignored'], result), filename limit $2";
    COUNT_ITEMS = "select count(*) from sync_items where run_id = $1";
    SELECT_UPSTREAM = "select known, state, filter, pending, pending_digest, confirmed_digest, mirrored, succeeded_at
        from sync_upstreams where name = $1";
    PIN_UPSTREAM = "insert into sync_upstreams (name, known, state) values ($1, $2, $3)
        on conflict (name) do update set known = excluded.known, state = excluded.state where sync_upstreams.known is null";
    SUCCEED_UPSTREAM = "insert into sync_upstreams (name, known, state, filter, mirrored, succeeded_at) values ($1, $2, $3, $4, $5, now())
        on conflict (name) do update set known = excluded.known, state = excluded.state, filter = excluded.filter,
            mirrored = sync_upstreams.mirrored or excluded.mirrored, succeeded_at = now(),
            pending = null, pending_digest = null, confirmed_digest = null";
    WAIT_UPSTREAM = "insert into sync_upstreams (name, pending, pending_digest) values ($1, $2, $3)
        on conflict (name) do update set pending = excluded.pending, pending_digest = excluded.pending_digest, confirmed_digest = null
        where sync_upstreams.pending_digest is distinct from excluded.pending_digest";
    CONFIRM_UPSTREAM = "update sync_upstreams set confirmed_digest = pending_digest, pending = $3
        where name = $1 and pending_digest = $2 returning name";
    FORGET_UPSTREAM = "delete from sync_upstreams where name = $1 returning name";
    SELECT_OUR_KERNELS = "select distinct w.text from machines m join words w on w.id = m.kernel_id
        where $1::float8 is null or coalesce(m.last_check, m.registered_at) > now() - make_interval(secs => $1)";
}

/// Runs that are remembered.
const KEPT: i64 = 500;

/// A run as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Database id.
    pub id: i64,
    /// Where from.
    pub upstream: String,
    /// `interval`, `trigger` or `import`.
    pub cause: String,
    /// Who asked for it.
    pub actor: String,
    /// From where.
    pub source: String,
    /// `queued`, `running`, `done`, `failed` or `waiting`.
    pub state: String,
    /// How far it is and what came of it, as JSON.
    pub progress: String,
    /// With `failed` and `waiting`: why, for programs.
    pub code: Option<String>,
    /// The same for people.
    pub error: Option<String>,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl Recorded {
    fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            upstream: row.get(1),
            cause: row.get(2),
            actor: row.get(3),
            source: row.get(4),
            state: row.get(5),
            progress: row.get(6),
            code: row.get(7),
            error: row.get(8),
            queued_at: row.get(9),
            started_at: row.get(10),
            finished_at: row.get(11),
        }
    }
}

/// What a run did with a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// File name.
    pub filename: String,
    /// What became of it.
    pub result: String,
    /// Why.
    pub reason: String,
    /// Bytes fetched.
    pub bytes: i64,
}

/// What is known of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upstream {
    /// What was believed last, as JSON.
    pub known: Option<String>,
    /// The state of that, or what was listed last.
    pub state: String,
    /// The filter of the last run that went to the end, as JSON.
    pub filter: Option<String>,
    /// What waits for a person, as JSON.
    pub pending: Option<String>,
    /// What stands for that.
    pub pending_digest: Option<Sha256>,
    /// What was confirmed.
    pub confirmed_digest: Option<Sha256>,
    /// Tiers were taken over from it.
    pub mirrored: bool,
    /// When a run last came to its end.
    pub succeeded_at: Option<Timestamp>,
}

/// The right to run. Dropping it gives it up.
pub struct RunLock {
    client: tokio_postgres::Client,
    connection: JoinHandle<()>,
}

impl std::fmt::Debug for RunLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunLock")
    }
}

impl RunLock {
    /// Takes the lock; `None` if a run is at work, here or elsewhere. With an epoch, a run of an older leader is ended, and
    /// the lock may be free at the next try.
    pub async fn try_take(db: &Db, epoch: Option<i64>) -> Result<Option<Self>, DbError> {
        let (client, connection) = db.settings().connect_alone().await?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection that holds the lock for sync broke");
            }
        });
        let row = client.query_one(TRY_RUN_LOCK.text, &[]).await;
        let row = row.map_err(|e| DbError::of(TRY_RUN_LOCK.name, e))?;
        if row.get::<_, bool>(0) {
            return Ok(Some(Self { client, connection }));
        }
        if let Some(epoch) = epoch {
            let ended = client.query_one(END_OLD_RUN.text, &[&epoch]).await;
            ended.map_err(|e| DbError::of(END_OLD_RUN.name, e))?;
        }
        Ok(None)
    }

    /// Gives it up at once. Without this it is given up when the database notices that the connection is gone.
    pub async fn release(self) {
        // If the connection is broken, so is the lock.
        let _ = self.client.query(RELEASE_RUN_LOCK.text, &[]).await;
    }

    /// Returns when the lock is lost, because its connection broke.
    pub async fn lost(&mut self) {
        let _ = (&mut self.connection).await;
    }
}

/// Records that runs said to be at work, but for `own`, are not, and tells webhooks. Only the holder of the lock may call it.
pub async fn fail_dead(tx: &Tx<'_>, _lock: &RunLock, own: i64, why: &str) -> Result<(), DbError> {
    for row in tx.rows(&FAIL_DEAD_RUNS, &[&why, &own]).await? {
        failed(tx, Recorded::from_row(&row)).await?;
    }
    Ok(())
}

/// Tells webhooks of a run that failed.
async fn failed(tx: &Tx<'_>, run: Recorded) -> Result<(), DbError> {
    let data = SyncStopped {
        run: run.id,
        upstream: run.upstream,
        cause: run.cause,
        actor: run.actor,
        code: run.code.unwrap_or_default(),
        error: run.error.unwrap_or_default(),
    };
    outbox::emit(tx, EventKind::SyncFailed, &data).await?;
    Ok(())
}

/// Finds out whether a run that is said to be at work is; if not, it is recorded as failed. A run of an older leader is ended.
pub async fn free(db: &Db, epoch: i64) -> Result<bool, DbError> {
    let Some(lock) = RunLock::try_take(db, Some(epoch)).await? else {
        return Ok(false);
    };
    let failed = async {
        let mut conn = db.conn().await?;
        let tx = conn.begin().await?;
        fail_dead(&tx, &lock, 0, DIED).await?;
        tx.commit().await
    };
    let failed = failed.await;
    lock.release().await;
    failed.map(|()| true)
}

/// What a record says when its process ended before it.
pub const DIED: &str = "the server that ran it ended before it did; the next run goes on, what was fetched is not fetched again";

/// Records that a run that was asked for could not begin, and tells webhooks.
pub async fn refuse(tx: &Tx<'_>, id: i64, why: &str) -> Result<(), DbError> {
    match tx.opt(&REFUSE_RUN, &[&id, &why]).await? {
        Some(row) => failed(tx, Recorded::from_row(&row)).await,
        None => Ok(()),
    }
}

/// Asks for a run; `None` if one is queued or at work.
pub async fn queue(
    run: &impl Run,
    upstream: &str,
    cause: &str,
    actor: &str,
    source: &str,
) -> Result<Option<Recorded>, DbError> {
    let row = run
        .opt(&QUEUE_RUN, &[&upstream, &cause, &actor, &source])
        .await?;
    run.exec(&DELETE_OLD_RUNS, &[&KEPT]).await?;
    Ok(row.as_ref().map(Recorded::from_row))
}

/// Begins a run that is queued; `false` if it is not.
pub async fn claim(run: &impl Run, id: i64, upstream: &str, epoch: i64) -> Result<bool, DbError> {
    Ok(run
        .opt(&CLAIM_RUN, &[&id, &upstream, &epoch])
        .await?
        .is_some())
}

/// Records how far a run is.
pub async fn update(run: &impl Run, id: i64, progress: &str) -> Result<(), DbError> {
    run.exec(&UPDATE_RUN, &[&id, &progress]).await.map(|_| ())
}

/// Records the end of a run; `false` if it is not at work any more.
pub async fn finish(
    run: &impl Run,
    id: i64,
    state: &str,
    progress: &str,
    why: Option<(&str, &str)>,
) -> Result<bool, DbError> {
    let (code, error) = why.unzip();
    Ok(run
        .opt(&FINISH_RUN, &[&id, &state, &progress, &code, &error])
        .await?
        .is_some())
}

/// A run.
pub async fn get(run: &impl Run, id: i64) -> Result<Option<Recorded>, DbError> {
    let row = run.opt(&SELECT_RUN, &[&id]).await?;
    Ok(row.as_ref().map(Recorded::from_row))
}

/// The run that is queued or at work.
pub async fn open(run: &impl Run) -> Result<Option<Recorded>, DbError> {
    let row = run.opt(&SELECT_OPEN_RUN, &[]).await?;
    Ok(row.as_ref().map(Recorded::from_row))
}

/// The run that ended last.
pub async fn last(run: &impl Run) -> Result<Option<Recorded>, DbError> {
    let row = run.opt(&SELECT_LAST_RUN, &[]).await?;
    Ok(row.as_ref().map(Recorded::from_row))
}

/// A page of runs before this id, newest first.
pub async fn page(
    run: &impl Run,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Recorded>, DbError> {
    let rows = run.rows(&SELECT_RUN_PAGE, &[&before, &limit]).await?;
    Ok(rows.iter().map(Recorded::from_row).collect())
}

/// Records what a run did with these payloads.
pub async fn add_items(run: &impl Run, id: i64, items: &[Item]) -> Result<(), DbError> {
    let column = |of: fn(&Item) -> &str| items.iter().map(of).collect::<Vec<_>>();
    let (names, results) = (column(|i| &i.filename), column(|i| &i.result));
    let reasons = column(|i| &i.reason);
    let bytes: Vec<i64> = items.iter().map(|i| i.bytes).collect();
    run.exec(&INSERT_ITEMS, &[&id, &names, &results, &reasons, &bytes])
        .await
        .map(|_| ())
}

/// What a run did, those that need a look first, and how many there are in all.
pub async fn items(run: &impl Run, id: i64, limit: i64) -> Result<(Vec<Item>, u64), DbError> {
    let rows = run.rows(&SELECT_ITEMS, &[&id, &limit]).await?;
    let item = |row: &Row| Item {
        filename: row.get(0),
        result: row.get(1),
        reason: row.get(2),
        bytes: row.get(3),
    };
    let all: i64 = run.one(&COUNT_ITEMS, &[&id]).await?.get(0);
    Ok((rows.iter().map(item).collect(), all.unsigned_abs()))
}

/// What is known of an upstream; nothing, if it was never seen.
pub async fn upstream(run: &impl Run, name: &str) -> Result<Option<Upstream>, DbError> {
    let Some(row) = run.opt(&SELECT_UPSTREAM, &[&name]).await? else {
        return Ok(None);
    };
    let digest = |at: usize| -> Result<Option<Sha256>, DbError> {
        let bytes: Option<&[u8]> = row.get(at);
        Ok(bytes.map(Sha256::try_from).transpose()?)
    };
    Ok(Some(Upstream {
        known: row.get(0),
        state: row.get(1),
        filter: row.get(2),
        pending: row.get(3),
        pending_digest: digest(4)?,
        confirmed_digest: digest(5)?,
        mirrored: row.get(6),
        succeeded_at: row.get(7),
    }))
}

/// Notes what was believed at the first contact; `false` if there was one before.
pub async fn pin(run: &impl Run, name: &str, known: &str, state: &str) -> Result<bool, DbError> {
    Ok(run.exec(&PIN_UPSTREAM, &[&name, &known, &state]).await? > 0)
}

/// Notes what is known after a run that came to its end; nothing waits any more.
pub async fn succeed(
    run: &impl Run,
    name: &str,
    known: Option<&str>,
    state: &str,
    filter: &str,
    mirrored: bool,
) -> Result<(), DbError> {
    run.exec(
        &SUCCEED_UPSTREAM,
        &[&name, &known, &state, &filter, &mirrored],
    )
    .await
    .map(|_| ())
}

/// Notes what waits for a person. What waits already stays as it is, confirmed or not.
pub async fn wait(
    run: &impl Run,
    name: &str,
    pending: &str,
    digest: &Sha256,
) -> Result<(), DbError> {
    run.exec(&WAIT_UPSTREAM, &[&name, &pending, &digest.0.as_slice()])
        .await
        .map(|_| ())
}

/// Notes that a person confirmed exactly this; `false` if something else waits, or nothing.
pub async fn confirm(
    run: &impl Run,
    name: &str,
    digest: &Sha256,
    pending: &str,
) -> Result<bool, DbError> {
    Ok(run
        .opt(&CONFIRM_UPSTREAM, &[&name, &digest.0.as_slice(), &pending])
        .await?
        .is_some())
}

/// Forgets all that is known of an upstream; `false` if nothing is.
pub async fn forget(run: &impl Run, name: &str) -> Result<bool, DbError> {
    Ok(run.opt(&FORGET_UPSTREAM, &[&name]).await?.is_some())
}

/// Kernels of machines that were heard of within `grace`, or ever. What is no kernel is passed over.
pub async fn our_kernels(
    run: &impl Run,
    grace: Option<Duration>,
) -> Result<BTreeSet<KernelVersion>, DbError> {
    let grace = grace.map(|grace| grace.as_secs_f64());
    let rows = run.rows(&SELECT_OUR_KERNELS, &[&grace]).await?;
    Ok(rows
        .iter()
        .filter_map(|row| row.get::<_, &str>(0).parse().ok())
        .collect())
}
