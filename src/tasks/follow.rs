//! Keeps the snapshot as new as the database: reloads what is notified, everything after a lost connection, and looks
//! at the head from time to time in case a notification went astray.

use crate::db::listen::{Change, Heard, listen};
use crate::db::{DbError, audit, outbox, quarantine, tiers};
use crate::service::Core;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How often the head is compared although nothing was notified.
const LOOK: Duration = Duration::from_secs(15);

/// Follows until `stopping`.
pub async fn follow(core: Arc<Core>, stopping: CancellationToken) {
    let (sender, mut heard) = mpsc::channel(1024);
    let listener = listen(Arc::clone(core.db.settings()), sender);
    let work = async {
        let mut look = tokio::time::interval(LOOK);
        loop {
            let message = tokio::select! {
                message = heard.recv() => message,
                _ = look.tick() => {
                    compare(&core).await;
                    continue;
                }
            };
            match message {
                Some(Heard::Connected) => {
                    core.webhooks.wake.notify_one();
                    reload(&core, None, i64::MAX).await;
                }
                Some(Heard::Changed(Some(Change::Outbox), _)) => core.webhooks.wake.notify_one(),
                Some(Heard::Changed(change, seq)) => reload(&core, change, seq).await,
                Some(Heard::Lost) => {}
                None => return,
            }
        }
    };
    tokio::select! {
        () = stopping.cancelled() => {}
        () = listener => {}
        () = work => {}
    }
}

async fn reload(core: &Core, change: Option<Change>, seq: i64) {
    let captures = async {
        match change {
            None | Some(Change::Captures) => core.captures.reload(&core.db).await,
            Some(_) => Ok(()),
        }
    };
    let (snapshot, captures) = tokio::join!(core.snapshots.reload(change, seq), captures);
    if let Err(error) = snapshot.and(captures) {
        core.metrics.snapshot.reload_failures.inc();
        tracing::warn!(%error, "what changed could not be read; the old state stays in use");
    }
}

/// Reloads if the database is further than the snapshot; takes what gauges show of the database.
async fn compare(core: &Core) {
    let looked = async {
        let conn = core.db.conn().await?;
        let (seq, _) = audit::head(&conn).await?;
        let waiting = outbox::count(&conn).await?;
        let lag = tiers::lag(&conn).await?;
        Ok::<_, DbError>((seq, quarantine::count(&conn).await?, waiting, lag))
    };
    match looked.await {
        Ok((seq, quarantined, (pending, dead), lag)) => {
            let now = jiff::Timestamp::now().as_second();
            core.metrics.database.last_seen.set(now);
            core.metrics.fleet.lag(&lag);
            core.metrics.audit_head.set(seq);
            core.metrics.ingest.quarantined.set(quarantined);
            core.metrics.webhooks.pending.set(pending);
            core.metrics.webhooks.dead.set(dead);
            if seq.unsigned_abs() > core.snapshots.get().version {
                reload(core, None, seq).await;
            }
        }
        Err(error) => tracing::debug!(%error, "the head of the audit log could not be read"),
    }
}
