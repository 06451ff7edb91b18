//! Fetching: several payloads at once through the one door, staged.
//!
//! Those that fetch and examine do not wait for the database: rows gather while others are committed, and are written together.

use super::error::RunError;
use super::run::{Found, Work};
use crate::blob::Key;
use crate::bundle::BundleName;
use crate::db::staged;
use crate::domain::Sha256;
use crate::service::failpoint::failpoint;
use crate::service::ingest::{self, Origin, Passed, Taken, Verified};
use crate::service::{Core, ServiceError};
use crate::upstream::{Body, Offered};
use crate::wire::admin::{IngestResult, SyncItemResult, SyncPhase};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Payloads that may fail before the run gives up.
const FAILURES: usize = 5;
/// Objects that are looked at together.
const LOOKS: usize = 16;
/// Payloads that wait for their rows, and as many whose rows are written together. Their content is kept until then.
const ROWS: usize = 16;

/// What was fetched.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// Payloads that can become visible.
    pub(super) names: Vec<String>,
    /// The newest change that others see already: a payload that was mended.
    pub(super) seq: Option<i64>,
}

/// What went on so far.
#[derive(Debug, Default)]
struct Gathered {
    fetched: Fetched,
    failed: Vec<RunError>,
}

/// Fetches what the plan says.
pub(super) async fn fetch(work: &Work<'_>, found: &mut Found) -> Result<Fetched, RunError> {
    let core = work.core;
    for id in std::mem::take(&mut found.plan.replaced) {
        discard(core, id).await?;
    }
    let mut names = still_there(work, found).await?;
    let wanted = &found.plan.fetch;
    work.record.progress(|progress| {
        progress.total = Some(wanted.len() as u64);
        progress.total_bytes = wanted.iter().map(|o| o.size).sum();
    });
    work.record.phase(core, SyncPhase::Fetching).await?;
    let gathered = Mutex::new(Gathered::default());
    let (rows, waiting) = mpsc::channel(ROWS);
    let to = Target {
        met: &found.plan.met,
        rows,
        gathered: &gathered,
    };
    let fetching = fetch_all(work, wanted, to);
    let (fetched, ()) = tokio::join!(fetching, write_rows(work, waiting, &gathered));
    fetched?;
    let gathered = gathered
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let failed = gathered.failed.len();
    let mut failures = gathered.failed.into_iter();
    if let Some(first) = failures.next() {
        return Err(match first {
            // One that says more than that a payload failed.
            RunError::Upstream(_) | RunError::Service(ServiceError::Unavailable(_)) => first,
            first if failed == 1 => RunError::Payloads(first.to_string()),
            first => RunError::Payloads(format!("{first}; and {} more failed", failed - 1)),
        });
    }
    let mut fetched = gathered.fetched;
    fetched.names.append(&mut names);
    Ok(fetched)
}

/// Where to with what is fetched.
struct Target<'a> {
    /// Names that there is a row of.
    met: &'a HashSet<String>,
    /// Payloads that only lack their row.
    rows: mpsc::Sender<Verified>,
    gathered: &'a Mutex<Gathered>,
}

/// Fetches all, as many at once as may be.
async fn fetch_all(work: &Work<'_>, wanted: &[Offered], to: Target<'_>) -> Result<(), RunError> {
    let width = work.core.config.patch_sync.parallelism.max(1) as usize;
    let to = &to;
    if work.upstream.batch() <= 1 {
        stream::iter(wanted)
            .for_each_concurrent(width, |offered| async move {
                if given_up(to.gathered) {
                    return;
                }
                let ready = work.upstream.prepare(std::slice::from_ref(offered)).await;
                match ready {
                    Ok(()) => one(work, offered, to).await,
                    Err(error) => fail(work, &offered.name, error.into(), to.gathered),
                }
            })
            .await;
        return Ok(());
    }
    for batch in wanted.chunks(work.upstream.batch()) {
        if given_up(to.gathered) {
            break;
        }
        work.upstream.prepare(batch).await?;
        stream::iter(batch)
            .for_each_concurrent(width, |offered| one(work, offered, to))
            .await;
    }
    Ok(())
}

/// Writes rows as they come, those that gathered meanwhile together.
async fn write_rows(
    work: &Work<'_>,
    mut waiting: mpsc::Receiver<Verified>,
    gathered: &Mutex<Gathered>,
) {
    let mut group = Vec::with_capacity(ROWS);
    while waiting.recv_many(&mut group, ROWS).await > 0 {
        let results = ingest::stage(work.core, &origin(work, None), &group).await;
        for (verified, result) in group.drain(..).zip(results) {
            match result {
                Ok(taken) => settle(work, taken, gathered),
                Err(error) => fail(work, &verified.name, error.into(), gathered),
            }
            finished(work).await;
        }
    }
}

fn given_up(gathered: &Mutex<Gathered>) -> bool {
    let gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
    gathered.failed.len() >= FAILURES
}

/// Of what an earlier run staged, what can still be shown; the rest is fetched again.
async fn still_there(work: &Work<'_>, found: &mut Found) -> Result<Vec<String>, RunError> {
    let resumed = std::mem::take(&mut found.plan.resumed);
    let looks = stream::iter(resumed).map(|(offered, sha256, size)| async move {
        let there = work.core.store.head(&Key::Payload(sha256)).await;
        there.map(|there| (offered, there == Some(size)))
    });
    let mut looks = looks.buffer_unordered(LOOKS);
    let mut names = Vec::new();
    while let Some(look) = looks.next().await {
        let (offered, there) = look.map_err(ServiceError::from)?;
        if there {
            names.push(offered.name.to_string());
        } else {
            found.plan.fetch.push(offered);
        }
    }
    Ok(names)
}

fn fail(work: &Work<'_>, name: &BundleName, error: RunError, gathered: &Mutex<Gathered>) {
    work.record.item(
        name.to_string(),
        SyncItemResult::Failed,
        error.to_string(),
        0,
    );
    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
    gathered.failed.push(error);
}

/// Another payload is dealt with.
async fn finished(work: &Work<'_>) {
    work.record.progress(|progress| progress.done += 1);
    work.record.tick(work.core).await;
}

/// One payload of a batch that is ready.
async fn one(work: &Work<'_>, offered: &Offered, to: &Target<'_>) {
    let given_up = given_up(to.gathered);
    let taken = if given_up {
        Ok(None)
    } else {
        take(work, offered, to).await
    };
    // Also what is not wanted any more was made ready.
    work.upstream.done(offered).await;
    match taken {
        Ok(Some(verified)) => {
            // Whoever writes the rows stays until the last sender is gone.
            let _ = to.rows.send(*verified).await;
            return;
        }
        Ok(None) if given_up => return,
        Ok(None) => {}
        Err(error) => fail(work, &offered.name, error, to.gathered),
    }
    finished(work).await;
}

fn origin<'a>(work: &'a Work<'_>, offered: Option<&Offered>) -> Origin<'a> {
    Origin {
        actor: &work.run.actor,
        source: work.run.cause.source(),
        declared: offered.and_then(|offered| offered.sha256),
        size: offered.and_then(|offered| offered.size),
        release: None,
        staged: work.record.id,
    }
}

/// Takes a payload in; gives it back if it still needs its row.
async fn take(
    work: &Work<'_>,
    offered: &Offered,
    to: &Target<'_>,
) -> Result<Option<Box<Verified>>, RunError> {
    let body = work.upstream.open(offered).await?;
    let came = AtomicU64::new(0);
    let body = exactly(body, offered.size, work, &came);
    let origin = origin(work, Some(offered));
    let passed = if to.met.contains(&offered.name.to_string()) {
        let taken = ingest::take(work.core, &origin, &offered.name, body).await;
        taken.map(Passed::Done)
    } else {
        ingest::pass(work.core, &origin, &offered.name, body).await
    };
    match passed {
        Ok(Passed::Verified(verified)) => Ok(Some(verified)),
        Ok(Passed::Done(taken)) => {
            settle(work, taken, to.gathered);
            Ok(None)
        }
        // Ours to refuse, not upstream's to mend.
        Err(ServiceError::TooLarge(why)) => {
            let name = offered.name.to_string();
            work.record.item(name, SyncItemResult::Quarantined, why, 0);
            work.record.outcome(|o| o.quarantined += 1);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Notes what became of a payload that was taken in.
fn settle(work: &Work<'_>, taken: Taken, gathered: &Mutex<Gathered>) {
    let outcome = taken.outcome;
    let bytes = outcome.size;
    if outcome.result == IngestResult::Quarantined {
        let code = outcome.code.unwrap_or_default();
        let why = format!("{code}: {}", outcome.reason.unwrap_or_default());
        work.record
            .item(&outcome.filename, SyncItemResult::Quarantined, why, bytes);
        work.record.outcome(|o| {
            o.fetched += 1;
            o.quarantined += 1;
        });
        return;
    }
    let healed = taken.seq.is_some();
    if healed {
        let why = outcome.warning.unwrap_or_default();
        work.record
            .item(&outcome.filename, SyncItemResult::Healed, why, bytes);
    }
    work.record.outcome(|o| {
        o.fetched += 1;
        o.healed += u64::from(healed);
    });
    let mut gathered = gathered.lock().unwrap_or_else(PoisonError::into_inner);
    gathered.fetched.names.push(outcome.filename);
    gathered.fetched.seq = gathered.fetched.seq.max(taken.seq);
}

/// The body, which must have exactly the length that was announced: what is longer is given up at once.
fn exactly<'a>(
    body: Body,
    size: Option<u64>,
    work: &'a Work<'_>,
    came: &'a AtomicU64,
) -> impl Stream<Item = io::Result<Bytes>> + 'a {
    let checked = body.map(move |piece| {
        let piece = piece?;
        let bytes = piece.len() as u64;
        let total = came.fetch_add(bytes, Ordering::Relaxed) + bytes;
        work.record.progress(|progress| progress.bytes += bytes);
        work.core.metrics.sync.bytes.inc_by(bytes);
        match size {
            Some(size) if total > size => Err(io::Error::other(format!(
                "it has more than the {size} bytes that upstream announced"
            ))),
            _ => Ok(piece),
        }
    });
    let end = stream::once(async move {
        let total = came.load(Ordering::Relaxed);
        match size {
            Some(size) if total < size => Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("it has {total} bytes, upstream announced {size}"),
            ))),
            _ => None,
        }
    });
    checked.chain(end.filter_map(std::future::ready))
}

/// Removes a hidden payload and its object, unless it was shown meanwhile.
pub(in crate::service) async fn discard(
    core: &Core,
    id: i64,
) -> Result<Option<Sha256>, ServiceError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let Some((_, sha256, _)) = staged::lock_hidden(&tx, id).await? else {
        return Ok(None);
    };
    if staged::count_content(&tx, &sha256).await? == 1 {
        // Before the commit: while the row is locked nobody shows it, and whoever brings the file waits.
        core.store.delete(&Key::Payload(sha256)).await?;
        failpoint("prune-after-object");
    }
    staged::delete_hidden(&tx, id).await?;
    tx.commit().await?;
    Ok(Some(sha256))
}
