//! One run from its beginning to its end.

use super::believed::{self, Before};
use super::error::RunError;
use super::plan::{self, Names, Plan};
use super::record::Recorder;
use super::request::{Cause, Ended, Fence, Run};
use super::{fetch, mirror, publish};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::sync::{self as rows, Recorded, RunLock};
use crate::db::{Tx, outbox, staged};
use crate::domain::{EventKind, Sha256};
use crate::index::IntakeFilter;
use crate::service::{Core, ServiceError};
use crate::telemetry::SyncEnd;
use crate::upstream::{Listing, Question, Upstream};
use crate::wire::admin::{
    SyncItemResult, SyncPending, SyncPhase, SyncState, TierGone, TiersPreview,
};
use crate::wire::event::SyncStopped;
use jiff::Timestamp;
use serde_json::json;
use std::time::Instant;

/// A run at work.
#[derive(Debug)]
pub(super) struct Work<'a> {
    pub(super) core: &'a Core,
    pub(super) upstream: &'a dyn Upstream,
    pub(super) run: &'a Run,
    pub(super) fence: Fence,
    pub(super) record: Recorder,
    pub(super) name: String,
}

/// Asks for a run that the leader takes up; `None` if one is queued or at work.
pub async fn queue(
    core: &Core,
    upstream: &str,
    cause: Cause,
    actor: &Actor,
) -> Result<Option<Recorded>, ServiceError> {
    let conn = core.db.conn().await?;
    Ok(rows::queue(&conn, upstream, cause.as_str(), &actor.name, &actor.source).await?)
}

/// Runs to the end. Fails only if it could not begin ([`ServiceError::Conflict`] while another run is at work); what goes wrong
/// later is in what it returns and in its record.
pub async fn run(
    core: &Core,
    upstream: &dyn Upstream,
    run: &Run,
    fence: Fence,
) -> Result<Ended, ServiceError> {
    let mut work = Work {
        core,
        upstream,
        run,
        fence,
        record: Recorder::new(None),
        name: upstream.name(),
    };
    if run.dry_run {
        let result = look(&work).await.map(|_| ());
        return Ok(ended(&work, &result));
    }
    let mut lock = RunLock::try_take(&core.db, fence.epoch())
        .await?
        .ok_or_else(busy)?;
    let id = match begin(&work, &lock).await {
        Ok(id) => id,
        Err(error) => {
            lock.release().await;
            return Err(error);
        }
    };
    work.record = Recorder::new(Some(id));
    let started = Instant::now();
    let result = tokio::select! {
        biased;
        () = core.stopping.cancelled() => Err(RunError::Stopped),
        () = lock.lost() => Err(RunError::Lost),
        result = whole(&work) => result,
    };
    let ended = ended(&work, &result);
    let seconds = started.elapsed().as_secs_f64();
    core.metrics.sync.observe(
        match ended.state {
            SyncState::Done => SyncEnd::Done,
            SyncState::Waiting => SyncEnd::Waiting,
            _ => SyncEnd::Failed,
        },
        seconds,
    );
    match &result {
        Ok(()) => {
            tracing::info!(run = id, upstream = %work.name, seconds, added = ended.outcome.added, quarantined = ended.outcome.quarantined, "sync done");
        }
        Err(error) => {
            tracing::warn!(run = id, upstream = %work.name, seconds, code = error.code(), %error, "sync did not come to its end");
            if let Err(error) = close(&work, id, error).await {
                tracing::warn!(%error, run = id, "the end of a sync could not be recorded");
            }
        }
    }
    lock.release().await;
    Ok(ended)
}

fn busy() -> ServiceError {
    ServiceError::Conflict(
        "another run is at work; one runs at a time, `livepatch-admin sync status` shows it"
            .to_owned(),
    )
}

/// Makes the record say that it runs.
async fn begin(work: &Work<'_>, lock: &RunLock) -> Result<i64, ServiceError> {
    let mut conn = work.core.db.conn().await?;
    let tx = conn.begin().await?;
    work.fence.check(&tx).await.map_err(|error| match error {
        RunError::Service(error) => error,
        other => ServiceError::Conflict(other.to_string()),
    })?;
    rows::fail_dead(&tx, lock, 0, rows::DIED).await?;
    let id = if let Some(id) = work.run.id {
        id
    } else {
        let (cause, actor) = (work.run.cause.as_str(), &work.run.actor);
        let row = rows::queue(&tx, &work.name, cause, &actor.name, &actor.source).await?;
        row.ok_or_else(busy)?.id
    };
    if !rows::claim(&tx, id, &work.name, work.fence.epoch().unwrap_or(0)).await? {
        return Err(busy());
    }
    tx.commit().await?;
    Ok(id)
}

/// Records that it ended otherwise than by making everything visible.
async fn close(work: &Work<'_>, id: i64, error: &RunError) -> Result<(), ServiceError> {
    work.record
        .progress(|progress| progress.phase = SyncPhase::Ended);
    let text = work.record.text()?;
    let mut conn = work.core.db.conn().await?;
    let tx = conn.begin().await?;
    let (state, kind) = if let RunError::Waiting(pending) = error {
        if let Some(digest) = &pending.digest {
            let text = serde_json::to_string(pending).map_err(|e| {
                ServiceError::Internal(format!("what waits cannot be written: {e}"))
            })?;
            rows::wait(&tx, &work.name, &text, digest).await?;
        }
        ("waiting", EventKind::SyncWaiting)
    } else {
        ("failed", EventKind::SyncFailed)
    };
    let why = error.to_string();
    if rows::finish(&tx, id, state, &text, Some((error.code(), &why))).await? {
        rows::add_items(&tx, id, &work.record.items()).await?;
        let event = SyncStopped {
            run: id,
            upstream: work.name.clone(),
            cause: work.run.cause.as_str().to_owned(),
            actor: work.run.actor.name.clone(),
            code: error.code().to_owned(),
            error: why,
        };
        outbox::emit(&tx, kind, &event).await?;
        tx.commit().await?;
    }
    Ok(())
}

fn ended(work: &Work<'_>, result: &Result<(), RunError>) -> Ended {
    let state = match result {
        Ok(()) => SyncState::Done,
        Err(RunError::Waiting(_)) => SyncState::Waiting,
        Err(_) => SyncState::Failed,
    };
    let error = result.as_ref().err();
    Ended {
        id: work.record.id,
        state,
        code: error.map(|e| e.code().to_owned()),
        error: error.map(ToString::to_string),
        outcome: work.record.account().outcome,
    }
}

/// What was found by looking.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) before: Before,
    pub(super) listing: Listing,
    pub(super) names: Names,
    /// What upstream had before.
    pub(super) had: Names,
    pub(super) plan: Plan,
    pub(super) tiers: Option<TiersPreview>,
    /// Where the users of tiers that go are moved.
    pub(super) moves: mirror::Moves,
}

async fn whole(work: &Work<'_>) -> Result<(), RunError> {
    let mut found = look(work).await?;
    let fetched = fetch::fetch(work, &mut found).await?;
    publish::publish(work, &found, fetched).await
}

/// Lists, believes, filters, and finds out whether a person must confirm. Changes nothing but, at the first contact, what is
/// believed.
async fn look(work: &Work<'_>) -> Result<Found, RunError> {
    let core = work.core;
    work.record.phase(core, SyncPhase::Listing).await?;
    let before = believed::load(work).await?;
    let question = Question {
        filter: &work.run.filter,
        known: before.index.as_ref().map(|(known, state)| (known, state)),
        now: Timestamp::now(),
    };
    let listing = work.upstream.list(question).await?;
    if let Some((head, _)) = &listing.index {
        let metrics = &core.metrics.sync;
        metrics.index_expiry.set(head.expires_at.as_second());
    }
    if before.row.known.is_none() && !work.run.dry_run {
        believed::pin(work, &listing).await?;
    }
    let names = plan::names(&listing);
    let had = plan::read(&before.row.state, before.row.known.is_some());
    let conn = core.db.conn().await?;
    let stored = staged::stored(&conn).await?;
    let mut plan = plan::plan(&names, &work.run.filter, &stored);
    leave_out(work, &conn, &mut plan).await?;
    for (name, why) in &listing.unreadable {
        work.record.item(name, SyncItemResult::Ignored, why, 0);
    }
    let tiers = match (&listing.index, work.run.mirror) {
        (Some((_, state)), true) => Some(mirror::preview(&conn, state).await?),
        _ => None,
    };
    let filter_before: Option<IntakeFilter> = before
        .row
        .filter
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok());
    work.record.outcome(|outcome| {
        outcome.offered = names.len() as u64;
        outcome.there = plan.there;
        outcome.resumed = plan.resumed.len() as u64;
        outcome.skipped = plan.skipped.values().cloned().collect();
        if let Some(last) = filter_before.filter(|last| *last != work.run.filter) {
            let change = plan::change(&names, &stored, &last, &work.run.filter);
            outcome.filter_change = Some(change);
        }
        if work.run.dry_run {
            outcome.fetched = plan.fetch.len() as u64;
        }
    });
    let mut found = Found {
        before,
        listing,
        names,
        had,
        plan,
        tiers,
        moves: mirror::Moves::new(),
    };
    weigh(work, &mut found)?;
    Ok(found)
}

/// Takes out of the plan what our own checks have refused before, or would for its length.
async fn leave_out(
    work: &Work<'_>,
    run: &impl crate::db::Run,
    plan: &mut Plan,
) -> Result<(), RunError> {
    let names: Vec<String> = plan.fetch.iter().map(|o| o.name.to_string()).collect();
    let asked: Vec<&str> = names.iter().map(String::as_str).collect();
    let refused = staged::quarantined(run, &asked).await?;
    let most = work.core.config.ingest.max_bundle_bytes;
    plan.fetch.retain(|offered| {
        let name = offered.name.to_string();
        let known = refused.iter().any(|(of, sha256, size)| {
            *of == name
                && match offered.sha256 {
                    Some(said) => said == *sha256,
                    None => offered.size == Some(*size),
                }
        });
        if known {
            work.record.outcome(|o| o.quarantined_before += 1);
            return false;
        }
        if offered.size.is_some_and(|size| size > most) {
            let why =
                format!("it has more than {most} bytes, the limit of ingest.max-bundle-bytes");
            work.record.item(name, SyncItemResult::Quarantined, why, 0);
            work.record.outcome(|o| o.quarantined += 1);
            return false;
        }
        true
    });
    Ok(())
}

/// Stops a run that a person must confirm, unless exactly this was confirmed.
fn weigh(work: &Work<'_>, found: &mut Found) -> Result<(), RunError> {
    let row = &found.before.row;
    let asked_for_less = found.listing.index.is_none();
    let shrink = plan::shrink(
        &found.had,
        &found.names,
        asked_for_less.then_some(&work.run.filter),
        work.run.max_shrink,
    );
    let tiers = found
        .tiers
        .as_ref()
        .filter(|preview| !row.mirrored || preview.removed.iter().any(TierGone::is_used));
    if shrink.is_none() && tiers.is_none() {
        return Ok(());
    }
    let mut pending = SyncPending {
        digest: None,
        shrink,
        tiers: tiers.cloned(),
        confirmed: false,
    };
    let what = serde_json::to_string(&pending)
        .map_err(|e| ServiceError::Internal(format!("what waits cannot be written: {e}")))?;
    let state = match &found.listing.index {
        Some((head, _)) => head.digest.to_string(),
        None => plan::lines(&found.names),
    };
    let digest = Sha256::of(format!("{state}\n{what}").as_bytes());
    if row.confirmed_digest == Some(digest) {
        found.moves = mirror::moves(row.pending.as_deref());
        return Ok(());
    }
    if work.run.confirmed {
        return Ok(());
    }
    pending.digest = Some(digest);
    work.record.outcome(|o| o.pending = Some(pending.clone()));
    Err(RunError::Waiting(Box::new(pending)))
}

/// Writes that an administrator asked for something of sync.
pub(super) async fn note(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    upstream: &str,
    details: serde_json::Value,
) -> Result<i64, ServiceError> {
    let entry = Entry {
        actor,
        action,
        target: upstream,
        details: json!(details),
    };
    Ok(audit::append(tx, entry, Change::Nothing).await?)
}
