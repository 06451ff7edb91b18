//! When sync runs: at once when a replica begins to lead, then as `patch-sync.interval` says, and whenever somebody asks.

use crate::db::audit::Actor;
use crate::db::sync::{self as rows, Recorded};
use crate::service::peer::{self, keys};
use crate::service::sync::{self, Cause, Fence, Run};
use crate::service::{Core, ServiceError, contracts};
use crate::upstream;
use crate::wire::admin::SyncState;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the leader looks whether somebody asked another replica.
const LOOK: Duration = Duration::from_millis(500);

/// Runs what is due and what is asked for, until `stopping`. The caller drops it when it does not lead any more.
pub async fn schedule(core: &Arc<Core>, epoch: i64, stopping: &CancellationToken) {
    if !core.config.patch_sync.enabled {
        return stopping.cancelled().await;
    }
    if let Err(error) = remember(core).await {
        tracing::debug!(%error, "when sync last came to its end could not be found out");
    }
    let mut first = true;
    loop {
        if let Err(error) = look(core, epoch, &mut first).await {
            tracing::debug!(%error, "whether a sync is due could not be found out");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = core.sync_asked.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Takes over from the leader before when sync last came to its end, for the metric.
async fn remember(core: &Core) -> Result<(), ServiceError> {
    let Ok(upstream) = upstream::build(&core.config.patch_sync, Vec::new()) else {
        return Ok(());
    };
    let conn = core.db.conn().await?;
    let known = rows::upstream(&conn, &upstream.name()).await?;
    if let Some(at) = known.and_then(|known| known.succeeded_at) {
        core.metrics.sync.last_success.set(at.as_second());
    }
    Ok(())
}

async fn look(core: &Arc<Core>, epoch: i64, first: &mut bool) -> Result<(), ServiceError> {
    let (open, last) = {
        let conn = core.db.conn().await?;
        (rows::open(&conn).await?, rows::last(&conn).await?)
    };
    let config = &core.config.patch_sync;
    let queued = match open {
        // One that is at work although we lead and run none: its process has ended, or an archive is being imported.
        Some(open) if open.state == "running" => {
            if rows::free(&core.db, epoch).await? {
                tracing::warn!(
                    run = open.id,
                    "a sync ended without a word; it is run again"
                );
                *first = true;
            }
            return Ok(());
        }
        Some(open) => open,
        None => {
            let due =
                last.is_none_or(|last| Timestamp::now() >= sync::next_run(&last, config.interval));
            if !due && !*first {
                return Ok(());
            }
            let name = upstream::build(config, Vec::new())
                .map_or_else(|_| config.upstream_url.clone(), |upstream| upstream.name());
            match sync::due(core, &name).await? {
                Some(queued) => queued,
                None => return Ok(()),
            }
        }
    };
    *first = false;
    let id = queued.id;
    if let Err(error) = run(core, epoch, queued).await {
        tracing::warn!(%error, run = id, "a sync could not begin");
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        rows::refuse(&tx, id, &error.to_string()).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn run(core: &Arc<Core>, epoch: i64, queued: Recorded) -> Result<(), ServiceError> {
    let cause = match queued.cause.as_str() {
        "interval" => Cause::Interval,
        _ => Cause::Trigger,
    };
    let actor = Actor {
        name: queued.actor,
        source: queued.source,
    };
    let trusted = keys::trusted(&core.db.conn().await?).await?;
    let upstream = upstream::build(&contracts::patch_sync(core).await?, trusted)
        .map_err(|error| ServiceError::Conflict(error.to_string()))?;
    let run = Run {
        id: Some(queued.id),
        ..Run::configured(core, cause, actor).await?
    };
    let ended = sync::run(core, upstream.as_ref(), &run, Fence::of_leader(epoch)).await?;
    if ended.state == SyncState::Done
        && let Err(error) = peer::report_up(core).await
    {
        tracing::warn!(%error, "the server above could not be told how things stand here");
    }
    Ok(())
}
