//! One attempt to deliver: sign, send, record.

use crate::db::outbox::{self, Due, Settled};
use crate::db::{DbError, leader};
use crate::domain::EventKind;
use crate::domain::webhook::{SigningSecret, pause};
use crate::service::Core;
use crate::telemetry::DeliveryResult;
use crate::upstream::webhook::{Message, SendError};

/// Tries a delivery once, and records what came of it unless the leader of this epoch was superseded meanwhile. Fails if that could
/// not be recorded: then it is sent again.
pub async fn attempt(core: &Core, epoch: i64, due: &Due) -> Result<(), DbError> {
    let sent = send(core, due).await;
    let attempts = due.attempts.unsigned_abs().saturating_add(1);
    // Whoever tries a webhook out wants to know now.
    let most = if due.kind == EventKind::WebhookTest.as_str() {
        1
    } else {
        core.config.webhooks.max_attempts
    };
    let settled = match sent {
        Ok(()) => Settled::Delivered,
        Err(SendError::Failed(why)) if attempts < most => {
            let seed = format!("{} {}", due.event, due.webhook);
            Settled::Failed(why, pause(&seed, attempts))
        }
        Err(error) => Settled::Dead(error.to_string()),
    };
    if !record(core, epoch, due, &settled).await? {
        return Ok(());
    }
    let (webhook, kind, delivery) = (&due.name, &due.kind, due.id);
    let result = match &settled {
        Settled::Delivered => {
            tracing::debug!(%webhook, %kind, delivery, attempts, "an event was delivered");
            DeliveryResult::Delivered
        }
        Settled::Failed(error, pause) => {
            let again = pause.as_secs();
            tracing::info!(%webhook, %kind, delivery, attempts, again, %error, "an event was not delivered; it is tried again");
            DeliveryResult::Failed
        }
        Settled::Dead(error) => {
            tracing::warn!(%webhook, %kind, delivery, attempts, %error, "an event was not delivered and is not tried again");
            DeliveryResult::Dead
        }
    };
    core.metrics.webhooks.deliveries.inc(result);
    Ok(())
}

async fn send(core: &Core, due: &Due) -> Result<(), SendError> {
    let timestamp = due.now.as_second();
    let unsigned = |why: &dyn std::fmt::Display| {
        SendError::Gone(format!(
            "it cannot be signed ({why}); remove the webhook and add it again"
        ))
    };
    let secret = SigningSecret::parse(due.secret.expose()).map_err(|e| unsigned(&e))?;
    let signature = secret.sign(&due.event, timestamp, due.body.as_bytes());
    let message = Message {
        id: &due.event,
        timestamp,
        signature: &signature.map_err(|e| unsigned(&e))?,
        body: &due.body,
    };
    core.webhooks.sender.send(due.url.expose(), message).await
}

/// `false` if there is nothing to record any more: another replica leads, or the delivery was changed or removed meanwhile.
async fn record(core: &Core, epoch: i64, due: &Due, settled: &Settled) -> Result<bool, DbError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !leader::fence(&tx, epoch).await? || !outbox::settle(&tx, due, settled).await? {
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}
