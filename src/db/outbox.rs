//! Events on their way out: written in the transaction of what happened, one delivery for each webhook that wants the kind, so
//! that no event is lost and none is sent for what did not commit. Who delivers is woken at the commit.
//!
//! Times are the database's.

use super::audit;
use super::listen::Change;
use super::run::{DbError, Run, Tx};
use super::statements;
use crate::domain::{EventKind, Secret};
use crate::wire::event::Event;
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;
use tokio_postgres::Row;

statements! {
    // The lock keeps a webhook that is being removed from failing the transaction; who removes it waits, or is not seen.
    EMIT = "with matching as materialized (
            select id from webhooks
            where disabled_at is null and (events = '{}' or $1 = any(events) or $2 = any(events)) for key share),
        event as (insert into outbox (kind, body) select $1, $3 where exists (select from matching) returning id)
        insert into deliveries (event_id, webhook_id) select event.id, matching.id from event, matching";
    EMIT_TO = "with event as (insert into outbox (kind, body) values ($2, $3) returning id)
        insert into deliveries (event_id, webhook_id) select id, $1 from event returning id";
    // The oldest that is due of each webhook that nothing is on its way to.
    SELECT_DUE = "select distinct on (d.webhook_id) d.id, d.webhook_id, w.name, w.url, w.secret, d.event_id::text, o.kind, o.body,
            d.attempts, now()
        from deliveries d join webhooks w on w.id = d.webhook_id join outbox o on o.id = d.event_id
        where d.state = 'pending' and d.next_at <= now() and w.disabled_at is null and d.webhook_id <> all($1)
        order by d.webhook_id, d.next_at, d.id";
    SELECT_NEXT_DUE = "select greatest(extract(epoch from min(d.next_at) - now()), 0)::float8
        from deliveries d join webhooks w on w.id = d.webhook_id
        where d.state = 'pending' and w.disabled_at is null and d.webhook_id <> all($1)";
    SETTLE_DELIVERED = "update deliveries set state = 'delivered', attempts = attempts + 1, last_error = null,
            tried_at = now(), ended_at = now()
        where id = $1 and state = 'pending' and attempts = $2";
    SETTLE_FAILED = "update deliveries set attempts = attempts + 1, last_error = $3, tried_at = now(),
            next_at = now() + make_interval(secs => $4)
        where id = $1 and state = 'pending' and attempts = $2";
    SETTLE_DEAD = "update deliveries set state = 'dead', attempts = attempts + 1, last_error = $3,
            tried_at = now(), ended_at = now()
        where id = $1 and state = 'pending' and attempts = $2";
    COUNT_DELIVERIES = "select (select count(*) from deliveries where state = 'pending'),
            (select count(*) from deliveries where state = 'dead')";
    DELETE_OLD_DELIVERIES = "delete from deliveries where state <> 'pending' and ended_at < now() - make_interval(days => $1)";
    DELETE_TOLD_EVENTS = "delete from outbox o
        where at < now() - interval '1 hour' and not exists (select from deliveries d where d.event_id = o.id)";
}

fn body(kind: EventKind, data: &impl Serialize) -> Result<String, DbError> {
    let event = Event {
        kind,
        timestamp: Timestamp::now(),
        data,
    };
    serde_json::to_string(&event)
        .map_err(|e| DbError::Row(format!("the event {kind} cannot be written: {e}")))
}

/// Tells every webhook that wants this kind; nothing is written if none does. Call it in the transaction of what happened, before
/// [`audit::append`]. Returns how many will be told.
pub async fn emit(tx: &Tx<'_>, kind: EventKind, data: &impl Serialize) -> Result<u64, DbError> {
    let body = body(kind, data)?;
    let told = tx
        .exec(&EMIT, &[&kind.as_str(), &kind.group(), &body])
        .await?;
    if told > 0 {
        wake(tx).await?;
    }
    Ok(told)
}

/// Tells one webhook, whatever it wants otherwise; the delivery's id.
pub async fn emit_to(
    tx: &Tx<'_>,
    webhook: i32,
    kind: EventKind,
    data: &impl Serialize,
) -> Result<i64, DbError> {
    let body = body(kind, data)?;
    let row = tx.one(&EMIT_TO, &[&webhook, &kind.as_str(), &body]).await?;
    wake(tx).await?;
    Ok(row.get(0))
}

/// Wakes who delivers, at the commit.
pub async fn wake(tx: &Tx<'_>) -> Result<(), DbError> {
    audit::notify(tx, Change::Outbox, 0).await
}

/// A delivery that is due.
#[derive(Debug, Clone)]
pub struct Due {
    /// The delivery.
    pub id: i64,
    /// The webhook.
    pub webhook: i32,
    /// Its name.
    pub name: String,
    /// Where to.
    pub url: Secret,
    /// What it is signed with.
    pub secret: Secret,
    /// The event, the same at every attempt.
    pub event: String,
    /// Its kind, as its name.
    pub kind: String,
    /// What is sent.
    pub body: String,
    /// Attempts so far.
    pub attempts: i32,
    /// What the database's clock says.
    pub now: Timestamp,
}

impl Due {
    fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            webhook: row.get(1),
            name: row.get(2),
            url: Secret::new(row.get::<_, String>(3)),
            secret: Secret::new(row.get::<_, String>(4)),
            event: row.get(5),
            kind: row.get(6),
            body: row.get(7),
            attempts: row.get(8),
            now: row.get(9),
        }
    }
}

/// The oldest delivery that is due of every webhook but these.
pub async fn due(run: &impl Run, but: &[i32]) -> Result<Vec<Due>, DbError> {
    let rows = run.rows(&SELECT_DUE, &[&but]).await?;
    Ok(rows.iter().map(Due::from_row).collect())
}

/// How long until a delivery to any webhook but these is due; `None`: nothing waits.
pub async fn next_due(run: &impl Run, but: &[i32]) -> Result<Option<Duration>, DbError> {
    let seconds: Option<f64> = run.one(&SELECT_NEXT_DUE, &[&but]).await?.get(0);
    Ok(seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::MAX)))
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The receiver has it.
    Delivered,
    /// It is tried again after this pause.
    Failed(String, Duration),
    /// It is not tried again.
    Dead(String),
}

/// Records what came of an attempt; `false` if the delivery is not as it was when the attempt began.
pub async fn settle(run: &impl Run, due: &Due, settled: &Settled) -> Result<bool, DbError> {
    let (id, attempts) = (due.id, due.attempts);
    let rows = match settled {
        Settled::Delivered => run.exec(&SETTLE_DELIVERED, &[&id, &attempts]).await?,
        Settled::Failed(why, pause) => {
            let seconds = pause.as_secs_f64();
            run.exec(&SETTLE_FAILED, &[&id, &attempts, why, &seconds])
                .await?
        }
        Settled::Dead(why) => run.exec(&SETTLE_DEAD, &[&id, &attempts, why]).await?,
    };
    Ok(rows > 0)
}

/// How many deliveries wait, and how many were given up.
pub async fn count(run: &impl Run) -> Result<(i64, i64), DbError> {
    let row = run.one(&COUNT_DELIVERIES, &[]).await?;
    Ok((row.get(0), row.get(1)))
}

/// Deletes deliveries that ended this many days ago, and events that nobody is told of any more.
pub async fn delete_old(run: &impl Run, days: i32) -> Result<(), DbError> {
    run.exec(&DELETE_OLD_DELIVERIES, &[&days]).await?;
    run.exec(&DELETE_TOLD_EVENTS, &[]).await?;
    Ok(())
}
