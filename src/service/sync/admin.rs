//! What administrators ask of sync.

use super::mirror::{Confirmed, Moves};
use super::record::{self, next_run};
use super::request::Cause;
use super::run::{note, queue};
use super::{filters as of, plan};
use crate::db::audit::Actor;
use crate::db::sync::{self as rows, Recorded};
use crate::db::{leader, staged};
use crate::index::Known;
use crate::service::{Core, ServiceError, paging};
use crate::upstream;
use crate::wire::admin::{
    Page, PageQuery, SyncConfirm, SyncFilters, SyncFiltersQuery, SyncIndex, SyncLeader,
    SyncPending, SyncReport, SyncRun, SyncStatus,
};
use jiff::Timestamp;
use serde_json::json;

/// Items that a report names.
const NAMED: usize = 1000;

/// The name of the configured upstream.
fn name(core: &Core) -> Result<String, ServiceError> {
    let sync = &core.config.patch_sync;
    upstream::build(sync, Vec::new())
        .map(|upstream| upstream.name())
        .map_err(|error| ServiceError::Conflict(error.to_string()))
}

fn enabled(core: &Core) -> Result<(), ServiceError> {
    if core.config.patch_sync.enabled {
        return Ok(());
    }
    Err(ServiceError::Conflict(
        "nothing is fetched from elsewhere: set patch-sync.enabled and say where from, then restart"
            .to_owned(),
    ))
}

fn shown(row: Recorded) -> Result<SyncRun, ServiceError> {
    Ok(record::shown(row)?.0)
}

/// Asks for a run. If one is queued or at work, that one is the answer.
pub async fn trigger(core: &Core, actor: &Actor) -> Result<SyncRun, ServiceError> {
    enabled(core)?;
    let name = name(core)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let cause = Cause::Trigger.as_str();
    let queued = rows::queue(&tx, &name, cause, &actor.name, &actor.source).await?;
    let row = if let Some(row) = queued {
        note(&tx, actor, "sync.trigger", &name, json!({ "run": row.id })).await?;
        row
    } else {
        let open = rows::open(&tx).await?;
        open.ok_or_else(|| ServiceError::Unavailable("a run has just ended; ask again".to_owned()))?
    };
    tx.commit().await?;
    core.sync_asked.notify_one();
    shown(row)
}

/// How sync stands.
pub async fn status(core: &Core) -> Result<SyncStatus, ServiceError> {
    let config = &core.config.patch_sync;
    let name = name(core).unwrap_or_else(|_| config.upstream_url.clone());
    let conn = core.db.conn().await?;
    let known = rows::upstream(&conn, &name).await?.unwrap_or_default();
    let running = rows::open(&conn).await?;
    let last = rows::last(&conn).await?;
    let next_run = (config.enabled && running.is_none())
        .then(|| last.as_ref().map(|last| next_run(last, config.interval)))
        .flatten();
    let index = known
        .known
        .as_deref()
        .and_then(|text| serde_json::from_str::<Known>(text).ok())
        .map(|known| SyncIndex {
            deployment: known.deployment,
            tier: known.tier,
            version: known.version,
            issued_at: known.issued_at,
            keys: known.keys,
        });
    let age = known.succeeded_at.map(|at| {
        let age = Timestamp::now().duration_since(at).as_secs();
        age.max(0).unsigned_abs()
    });
    Ok(SyncStatus {
        enabled: config.enabled,
        driver: config.driver.as_str().to_owned(),
        upstream: name,
        leader: leader::current(&conn).await?.map(|leader| SyncLeader {
            holder: leader.holder,
            epoch: leader.epoch,
            renewed_at: leader.renewed_at,
        }),
        succeeded_at: known.succeeded_at,
        age,
        next_run,
        running: running.map(shown).transpose()?,
        last: last.map(shown).transpose()?,
        pending: pending(&known)?.map(|(pending, _)| pending),
        index,
        sync_tiers: config.sync_tiers,
        filter: of::wire(&of::configured(core, &conn).await?),
    })
}

/// What waits, and the moves given with a confirmation.
fn pending(known: &rows::Upstream) -> Result<Option<(SyncPending, Moves)>, ServiceError> {
    let Some(text) = &known.pending else {
        return Ok(None);
    };
    let (mut pending, moves) = if let Ok(kept) = serde_json::from_str::<Confirmed>(text) {
        (kept.pending, kept.moves)
    } else {
        let pending = serde_json::from_str(text).map_err(|e| {
            ServiceError::Internal(format!("what waits for a person cannot be read: {e}"))
        })?;
        (pending, Moves::new())
    };
    pending.confirmed = known.confirmed_digest.is_some();
    Ok(Some((pending, moves)))
}

/// Lists runs, newest first.
pub async fn reports(core: &Core, query: &PageQuery) -> Result<Page<SyncRun>, ServiceError> {
    let before = paging::after("sync", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let rows = rows::page(&core.db.conn().await?, before, limit as i64 + 1).await?;
    let runs: Result<Vec<SyncRun>, ServiceError> = rows.into_iter().map(shown).collect();
    let place = |run: &SyncRun| paging::encode("sync", &[&run.id]);
    Ok(paging::page(runs?, limit, place, |run| run))
}

/// A run with all that came of it.
pub async fn report(core: &Core, id: i64) -> Result<SyncReport, ServiceError> {
    let conn = core.db.conn().await?;
    let row = rows::get(&conn, id).await?;
    let row = row.ok_or_else(|| ServiceError::not_found("sync report", id))?;
    let (items, all) = rows::items(&conn, id, NAMED as i64).await?;
    let (run, outcome) = record::shown(row)?;
    let from = run.started_at.unwrap_or(run.queued_at);
    let until = run.finished_at.unwrap_or_else(Timestamp::now);
    Ok(SyncReport {
        seconds: until.duration_since(from).as_secs_f64().max(0.0),
        items_left_out: all.saturating_sub(items.len() as u64),
        items: items.into_iter().map(record::item).collect(),
        run,
        outcome,
    })
}

/// Confirms exactly what waits, and asks for a run.
pub async fn confirm(
    core: &Core,
    actor: &Actor,
    request: &SyncConfirm,
) -> Result<SyncStatus, ServiceError> {
    enabled(core)?;
    let name = name(core)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let known = rows::upstream(&tx, &name).await?.unwrap_or_default();
    let Some((mut pending, _)) = pending(&known)? else {
        return Err(ServiceError::Conflict(
            "nothing waits to be confirmed".to_owned(),
        ));
    };
    check_moves(&pending, &request.r#move)?;
    pending.confirmed = false;
    let kept = Confirmed {
        pending,
        moves: request.r#move.clone(),
    };
    let text = serde_json::to_string(&kept)
        .map_err(|e| ServiceError::Internal(format!("a confirmation cannot be written: {e}")))?;
    if !rows::confirm(&tx, &name, &request.digest, &text).await? {
        return Err(ServiceError::Conflict(
            "what waits now is not what is confirmed; look at `livepatch-admin sync status` again"
                .to_owned(),
        ));
    }
    let details = json!({ "digest": request.digest, "move": request.r#move });
    let cause = Cause::Trigger.as_str();
    rows::queue(&tx, &name, cause, &actor.name, &actor.source).await?;
    note(&tx, actor, "sync.confirm", &name, details).await?;
    tx.commit().await?;
    core.sync_asked.notify_one();
    drop(conn);
    status(core).await
}

/// Every tier that goes and is used needs a tier that stays.
fn check_moves(pending: &SyncPending, moves: &Moves) -> Result<(), ServiceError> {
    let Some(tiers) = &pending.tiers else {
        return Ok(());
    };
    for (from, to) in moves {
        if !tiers.tiers.contains(to) {
            return Err(ServiceError::Conflict(format!(
                "tier {from} cannot be moved to {to}: upstream has no such tier"
            )));
        }
    }
    for gone in tiers.removed.iter().filter(|tier| tier.is_used()) {
        if !moves.contains_key(&gone.name) {
            return Err(ServiceError::Conflict(format!(
                "tier {name} goes, and {machines} machines, {auth} auth tokens and {sync} sync tokens use it; say where they \
                 go with `--move {name}=TIER`",
                name = gone.name,
                machines = gone.machines,
                auth = gone.auth_tokens,
                sync = gone.sync_tokens,
            )));
        }
    }
    Ok(())
}

/// Forgets what is known of the configured upstream: its deployment, keys and version. The next run is a first contact.
pub async fn reset(core: &Core, actor: &Actor) -> Result<SyncStatus, ServiceError> {
    let name = name(core)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if rows::open(&tx)
        .await?
        .is_some_and(|run| run.state == "running")
    {
        return Err(ServiceError::Conflict(
            "a run is at work; wait for its end".to_owned(),
        ));
    }
    let known = rows::upstream(&tx, &name).await?.unwrap_or_default();
    if !rows::forget(&tx, &name).await? {
        return Err(ServiceError::not_found("known upstream", &name));
    }
    note(
        &tx,
        actor,
        "sync.reset",
        &name,
        json!({ "known": known.known }),
    )
    .await?;
    tx.commit().await?;
    drop(conn);
    status(core).await
}

/// What other filters would add and drop, from what upstream had last and what is here.
pub async fn filters(core: &Core, query: &SyncFiltersQuery) -> Result<SyncFilters, ServiceError> {
    let name = name(core).unwrap_or_default();
    let conn = core.db.conn().await?;
    let current = of::configured(core, &conn).await?;
    let proposed = of::proposed(core, &conn, query).await?;
    let known = rows::upstream(&conn, &name).await?.unwrap_or_default();
    let names = plan::read(&known.state, known.known.is_some());
    let stored = staged::stored(&conn).await?;
    Ok(SyncFilters {
        change: plan::change(&names, &stored, &current, &proposed),
        known: names.len() as u64,
        current: of::wire(&current),
        proposed: of::wire(&proposed),
    })
}

/// Asks for a run that is due; `None` if one is queued or at work.
pub async fn due(core: &Core, upstream: &str) -> Result<Option<Recorded>, ServiceError> {
    let actor = Actor {
        name: "system".to_owned(),
        source: "schedule".to_owned(),
    };
    queue(core, upstream, Cause::Interval, &actor).await
}
