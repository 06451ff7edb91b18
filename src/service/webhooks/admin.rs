//! Looking after webhooks: made with a secret that is shown once, listed, tried out, switched off and on, removed; and what became
//! of deliveries.

use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::webhooks::{self as rows, Delivery, New};
use crate::db::{DbError, Tx, outbox};
use crate::domain::{EventKind, Role, Secret, webhook};
use crate::service::{Core, ServiceError, paging, text};
use crate::upstream::webhook::origin;
use crate::wire::admin::{
    DeliveryState, Page, Webhook, WebhookCreate, WebhookCreated, WebhookDelivery,
    WebhookDeliveryQuery, WebhookRetried, WebhookRetry,
};
use crate::wire::event::WebhookTest;
use serde_json::json;

/// The most characters of a name.
const MAX_NAME: usize = 100;
/// The most webhooks: each is delivered to on its own, beside the others.
const MAX_WEBHOOKS: i64 = 32;
/// The most deliveries that are named at once.
const MAX_NAMED: usize = 1000;

/// Makes a webhook.
pub async fn create(
    core: &Core,
    actor: &Actor,
    request: WebhookCreate,
) -> Result<WebhookCreated, ServiceError> {
    text::name("webhook's name", &request.name, MAX_NAME)?;
    let url = request.url.expose();
    core.webhooks
        .sender
        .check(url)
        .map_err(|why| ServiceError::Invalid(format!("the webhook's URL is not taken: {why}")))?;
    let mut events = request.events;
    events.sort_unstable();
    events.dedup();
    let mut random = [0u8; 32];
    openssl::rand::rand_bytes(&mut random)
        .map_err(|e| ServiceError::Internal(format!("no random numbers: {e}")))?;
    let secret = webhook::secret(random);
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if rows::lock_all(&tx).await? >= MAX_WEBHOOKS {
        return Err(ServiceError::Conflict(format!(
            "there are {MAX_WEBHOOKS} webhooks already, and that is the most; remove one, or let one receiver pass events on"
        )));
    }
    let new = New {
        name: &request.name,
        url,
        secret: &secret,
        events: &events,
        created_by: &actor.name,
    };
    rows::insert(&tx, &new).await.map_err(|error| match error {
        DbError::Exists(_) => ServiceError::Conflict(format!(
            "there is a webhook {:?} already; take another name, or remove that one first",
            request.name
        )),
        other => other.into(),
    })?;
    let made = found(&tx, &request.name).await?;
    let details = json!({ "origin": origin(url), "events": events });
    note(&tx, actor, "webhook.add", &request.name, details).await?;
    tx.commit().await?;
    Ok(WebhookCreated {
        webhook: shown(made, Role::Admin),
        secret,
    })
}

async fn found(tx: &Tx<'_>, name: &str) -> Result<rows::Webhook, ServiceError> {
    let found = rows::find(tx, name).await?;
    found.ok_or_else(|| text::missing("webhook", name))
}

async fn note(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    name: &str,
    details: serde_json::Value,
) -> Result<(), ServiceError> {
    let entry = Entry {
        actor,
        action,
        target: name,
        details,
    };
    audit::append(tx, entry, Change::Nothing).await?;
    Ok(())
}

/// A webhook as somebody of this role sees it.
fn shown(row: rows::Webhook, role: Role) -> Webhook {
    let url = if role >= Role::Admin {
        row.url
    } else {
        // What follows the host often lets whoever knows it post.
        Secret::new(format!("{}/[hidden]", origin(row.url.expose())))
    };
    Webhook {
        name: row.name,
        url,
        events: row.events,
        created_at: row.created_at,
        created_by: row.created_by,
        disabled_at: row.disabled_at,
        pending: row.pending.unsigned_abs(),
        dead: row.dead.unsigned_abs(),
        last_delivered_at: row.delivered_at,
    }
}

/// Every webhook, by name, as somebody of this role sees it.
pub async fn list(core: &Core, role: Role) -> Result<Page<Webhook>, ServiceError> {
    let found = rows::list(&core.db.conn().await?).await?;
    let shown = found.into_iter().map(|row| shown(row, role));
    Ok(Page::whole(shown.collect()))
}

/// Removes a webhook, with what waits for it and what became of the rest.
pub async fn remove(core: &Core, actor: &Actor, name: &str) -> Result<(), ServiceError> {
    text::name("webhook's name", name, MAX_NAME)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !rows::delete(&tx, name).await? {
        return Err(text::missing("webhook", name));
    }
    note(&tx, actor, "webhook.remove", name, json!({})).await?;
    Ok(tx.commit().await?)
}

/// Switches a webhook on or off. What stands so changes nothing.
pub async fn switch(
    core: &Core,
    actor: &Actor,
    name: &str,
    on: bool,
) -> Result<Webhook, ServiceError> {
    text::name("webhook's name", name, MAX_NAME)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let changed = rows::switch(&tx, name, on).await?;
    let webhook = found(&tx, name).await?;
    if changed {
        if on {
            outbox::wake(&tx).await?;
        }
        let action = if on {
            "webhook.enable"
        } else {
            "webhook.disable"
        };
        note(&tx, actor, action, name, json!({})).await?;
        tx.commit().await?;
    }
    Ok(shown(webhook, Role::Admin))
}

/// Sends a webhook an event that says only that it is tried out, whatever it wants otherwise. It is tried once.
pub async fn test(core: &Core, actor: &Actor, name: &str) -> Result<WebhookDelivery, ServiceError> {
    text::name("webhook's name", name, MAX_NAME)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let locked = rows::lock(&tx, name).await?;
    let (id, disabled) = locked.ok_or_else(|| text::missing("webhook", name))?;
    if disabled {
        return Err(ServiceError::Conflict(format!(
            "the webhook {name:?} is switched off; switch it on first: `livepatch-admin webhook enable {name}`"
        )));
    }
    let data = WebhookTest {
        webhook: name.to_owned(),
        actor: actor.name.clone(),
    };
    let id = outbox::emit_to(&tx, id, EventKind::WebhookTest, &data).await?;
    let row = rows::delivery(&tx, id).await?;
    let row = row.ok_or_else(|| ServiceError::Internal("a delivery vanished".to_owned()))?;
    note(&tx, actor, "webhook.test", name, json!({ "delivery": id })).await?;
    tx.commit().await?;
    delivery(row, false)
}

/// Makes due now what failed, given up or waiting for another try, with its attempts counted anew.
pub async fn retry(
    core: &Core,
    actor: &Actor,
    name: &str,
    request: &WebhookRetry,
) -> Result<WebhookRetried, ServiceError> {
    text::name("webhook's name", name, MAX_NAME)?;
    let mut only = request.deliveries.clone();
    if let Some(only) = &mut only {
        only.sort_unstable();
        only.dedup();
        if only.len() > MAX_NAMED {
            return Err(ServiceError::Invalid(format!(
                "at most {MAX_NAMED} deliveries are named at once; name none for all that failed"
            )));
        }
    }
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let locked = rows::lock(&tx, name).await?;
    let (id, _) = locked.ok_or_else(|| text::missing("webhook", name))?;
    let due = rows::retry(&tx, id, only.as_deref()).await?;
    if let Some(only) = only.as_ref().filter(|only| due < only.len() as u64) {
        return Err(ServiceError::Conflict(format!(
            "of these {} deliveries {due} are of the webhook {name:?} and have failed; `livepatch-admin webhook deliveries {name}` lists what there is",
            only.len()
        )));
    }
    if due > 0 {
        outbox::wake(&tx).await?;
        let details = json!({ "deliveries": due, "named": only.is_some() });
        note(&tx, actor, "webhook.retry", name, details).await?;
        tx.commit().await?;
    }
    Ok(WebhookRetried { deliveries: due })
}

/// Deliveries, newest first.
pub async fn deliveries(
    core: &Core,
    query: &WebhookDeliveryQuery,
) -> Result<Page<WebhookDelivery>, ServiceError> {
    let before = paging::after("webhook-deliveries", query.cursor.as_deref())?;
    let webhook = query.webhook.as_deref();
    if let Some(name) = webhook {
        text::name("webhook's name", name, MAX_NAME)?;
    }
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let state = query.state.map(DeliveryState::as_str);
    let found = rows::deliveries(&conn, before, webhook, state, limit as i64 + 1).await?;
    let place = |row: &Delivery| paging::encode("webhook-deliveries", &[&row.id]);
    let page = paging::page(found, limit, place, |row| delivery(row, false));
    Ok(Page {
        items: page.items.into_iter().collect::<Result<_, _>>()?,
        next_cursor: page.next_cursor,
    })
}

/// A delivery with what is sent.
pub async fn show(core: &Core, id: i64) -> Result<WebhookDelivery, ServiceError> {
    let found = rows::delivery(&core.db.conn().await?, id).await?;
    delivery(
        found.ok_or_else(|| ServiceError::not_found("delivery", id))?,
        true,
    )
}

fn delivery(row: Delivery, with_body: bool) -> Result<WebhookDelivery, ServiceError> {
    let unread = |what: &str| {
        ServiceError::Internal(format!("{what} of delivery {} cannot be read", row.id))
    };
    let state = DeliveryState::ALL
        .into_iter()
        .find(|state| state.as_str() == row.state)
        .ok_or_else(|| unread("the state"))?;
    let body = with_body.then(|| serde_json::from_str(&row.body));
    Ok(WebhookDelivery {
        body: body.transpose().map_err(|_| unread("the body"))?,
        kind: row.kind.parse().map_err(|_| unread("the kind"))?,
        id: row.id,
        webhook: row.webhook,
        event: row.event,
        at: row.at,
        state,
        attempts: row.attempts.unsigned_abs(),
        next_attempt_at: (state == DeliveryState::Pending).then_some(row.next_at),
        tried_at: row.tried_at,
        error: row.last_error,
    })
}
