//! Delivers events to webhooks while this replica leads: one delivery at a time to each webhook, all webhooks beside each other, so
//! that one that is slow or down delays no other. Woken when something was written, and when something is due again.

use crate::db::{DbError, outbox};
use crate::service::{Core, webhooks};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The longest sleep, in case a notification went astray.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after the database failed.
const RECOVER: Duration = Duration::from_secs(2);
/// How long deliveries that are under way may take when the server stops. One that is cut off is made again by the next leader.
const GRACE: Duration = Duration::from_secs(2);

/// Delivers until `stopping`. The caller drops it when it does not lead any more; what is under way is cut off with it.
pub async fn deliver(core: &Arc<Core>, epoch: i64, stopping: &CancellationToken) {
    let mut under_way = JoinSet::new();
    let mut busy: Vec<i32> = Vec::new();
    loop {
        let pause = match look(core, epoch, &mut busy, &mut under_way).await {
            Ok(next) => next.map_or(LOOK, |next| next.min(LOOK)),
            Err(error) => {
                tracing::debug!(%error, "what is to be delivered to webhooks could not be found out");
                RECOVER
            }
        };
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(ended) = under_way.join_next() => match ended {
                Ok(webhook) => busy.retain(|id| *id != webhook),
                // A panic does not say whose it was.
                Err(error) => {
                    tracing::error!(%error, "a delivery broke off");
                    under_way.shutdown().await;
                    busy.clear();
                    tokio::time::sleep(RECOVER).await;
                }
            },
            () = core.webhooks.wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    let ending = async { while under_way.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ending).await.is_err() {
        tracing::debug!("deliveries to webhooks were cut off");
    }
}

/// Starts what is due; how long until more is.
async fn look(
    core: &Arc<Core>,
    epoch: i64,
    busy: &mut Vec<i32>,
    under_way: &mut JoinSet<i32>,
) -> Result<Option<Duration>, DbError> {
    let conn = core.db.conn().await?;
    for due in outbox::due(&conn, busy).await? {
        busy.push(due.webhook);
        let core = Arc::clone(core);
        under_way.spawn(async move {
            if let Err(error) = webhooks::attempt(&core, epoch, &due).await {
                tracing::warn!(%error, webhook = %due.name, delivery = due.id, "what came of a delivery could not be recorded; it is made again");
                tokio::time::sleep(RECOVER).await;
            }
            due.webhook
        });
    }
    outbox::next_due(&conn, busy).await
}
