//! Webhooks, and their deliveries as people see them. Writing events and delivering them is the business of `outbox.rs`.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{EventPattern, Secret};
use jiff::Timestamp;
use tokio_postgres::Row;

/// The columns of [`Webhook`].
macro_rules! webhook {
    ($where:literal) => {
        concat!(
            "select w.id, w.name, w.url, w.events, w.created_at, w.created_by, w.disabled_at,
                count(d.id) filter (where d.state = 'pending'), count(d.id) filter (where d.state = 'dead'),
                max(d.ended_at) filter (where d.state = 'delivered')
            from webhooks w left join deliveries d on d.webhook_id = w.id ",
            $where,
            " group by w.id order by w.name"
        )
    };
}

/// The columns of [`Delivery`].
macro_rules! delivery {
    ($rest:literal) => {
        concat!(
            "select d.id, w.name, d.event_id::text, o.kind, o.at, d.state, d.attempts, d.next_at, d.last_error, d.tried_at, d.ended_at, o.body
            from deliveries d join webhooks w on w.id = d.webhook_id join outbox o on o.id = d.event_id ",
            $rest
        )
    };
}

statements! {
    // One at a time, so that two do not both see room for one more.
    LOCK_WEBHOOKS = "select pg_advisory_xact_lock(7103, 14)";
    COUNT_WEBHOOKS = "select count(*) from webhooks";
    INSERT_WEBHOOK = "insert into webhooks (name, url, secret, events, created_by) values ($1, $2, $3, $4, $5) returning id";
    DELETE_WEBHOOK = "delete from webhooks where name = $1 returning id";
    DISABLE_WEBHOOK = "update webhooks set disabled_at = now() where name = $1 and disabled_at is null returning id";
    ENABLE_WEBHOOK = "update webhooks set disabled_at = null where name = $1 and disabled_at is not null returning id";
    LOCK_WEBHOOK = "select id, disabled_at is not null from webhooks where name = $1 for key share";
    SELECT_WEBHOOKS = webhook!("");
    SELECT_WEBHOOK = webhook!("where w.name = $1");
    SELECT_DELIVERIES = delivery!("where ($1::bigint is null or d.id < $1) and ($2::text is null or w.name = $2)
        and ($3::text is null or d.state = $3) order by d.id desc limit $4");
    SELECT_DELIVERY = delivery!("where d.id = $1");
    RETRY_DELIVERIES = "update deliveries set state = 'pending', attempts = 0, next_at = now(), ended_at = null
        where webhook_id = $1 and (state = 'dead' or state = 'pending' and attempts > 0)
          and ($2::bigint[] is null or id = any($2))";
}

/// A webhook; its secret is not read here.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// Where to; may hold what only the receiver and administrators know.
    pub url: Secret,
    /// What it is told of; empty: everything.
    pub events: Vec<EventPattern>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Since then it is told nothing.
    pub disabled_at: Option<Timestamp>,
    /// Deliveries that wait.
    pub pending: i64,
    /// Deliveries that were given up.
    pub dead: i64,
    /// When it last took one.
    pub delivered_at: Option<Timestamp>,
}

impl Webhook {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        let events: Vec<&str> = row.get(3);
        let events: Result<_, _> = events.into_iter().map(str::parse).collect();
        Ok(Self {
            id: row.get(0),
            name: row.get(1),
            url: Secret::new(row.get::<_, String>(2)),
            events: events?,
            created_at: row.get(4),
            created_by: row.get(5),
            disabled_at: row.get(6),
            pending: row.get(7),
            dead: row.get(8),
            delivered_at: row.get(9),
        })
    }
}

/// A webhook to be made.
#[derive(Debug)]
pub struct New<'a> {
    /// Name.
    pub name: &'a str,
    /// Where to.
    pub url: &'a str,
    /// What it is signed with.
    pub secret: &'a Secret,
    /// What it is told of; empty: everything.
    pub events: &'a [EventPattern],
    /// Who makes it.
    pub created_by: &'a str,
}

/// Takes the right to make one, until the transaction ends; how many there are.
pub async fn lock_all(run: &impl Run) -> Result<i64, DbError> {
    run.rows(&LOCK_WEBHOOKS, &[]).await?;
    Ok(run.one(&COUNT_WEBHOOKS, &[]).await?.get(0))
}

/// Makes a webhook. [`DbError::Exists`]: one has this name.
pub async fn insert(run: &impl Run, new: &New<'_>) -> Result<i32, DbError> {
    let events: Vec<&str> = new.events.iter().map(EventPattern::as_str).collect();
    let secret = new.secret.expose();
    let row = run
        .one(
            &INSERT_WEBHOOK,
            &[&new.name, &new.url, &secret, &events, &new.created_by],
        )
        .await?;
    Ok(row.get(0))
}

/// Removes a webhook with its deliveries; `false` if there is none.
pub async fn delete(run: &impl Run, name: &str) -> Result<bool, DbError> {
    Ok(run.opt(&DELETE_WEBHOOK, &[&name]).await?.is_some())
}

/// Switches a webhook on or off; `false` if it stands so, or there is none.
pub async fn switch(run: &impl Run, name: &str, on: bool) -> Result<bool, DbError> {
    let sql = if on {
        &ENABLE_WEBHOOK
    } else {
        &DISABLE_WEBHOOK
    };
    Ok(run.opt(sql, &[&name]).await?.is_some())
}

/// The id of a webhook, which stays until the transaction ends, and whether it is switched off.
pub async fn lock(run: &impl Run, name: &str) -> Result<Option<(i32, bool)>, DbError> {
    let row = run.opt(&LOCK_WEBHOOK, &[&name]).await?;
    Ok(row.map(|row| (row.get(0), row.get(1))))
}

/// Every webhook, by name.
pub async fn list(run: &impl Run) -> Result<Vec<Webhook>, DbError> {
    let rows = run.rows(&SELECT_WEBHOOKS, &[]).await?;
    rows.iter().map(Webhook::from_row).collect()
}

/// A webhook.
pub async fn find(run: &impl Run, name: &str) -> Result<Option<Webhook>, DbError> {
    let row = run.opt(&SELECT_WEBHOOK, &[&name]).await?;
    row.as_ref().map(Webhook::from_row).transpose()
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Database id.
    pub id: i64,
    /// The webhook's name.
    pub webhook: String,
    /// The event's id.
    pub event: String,
    /// Its kind, as its name.
    pub kind: String,
    /// When it happened.
    pub at: Timestamp,
    /// `pending`, `delivered` or `dead`.
    pub state: String,
    /// Attempts so far.
    pub attempts: i32,
    /// While pending: not before.
    pub next_at: Timestamp,
    /// What was wrong with the last attempt that failed.
    pub last_error: Option<String>,
    /// When it was last tried.
    pub tried_at: Option<Timestamp>,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
    /// What is sent.
    pub body: String,
}

impl Delivery {
    fn from_row(row: &Row) -> Self {
        Self {
            id: row.get(0),
            webhook: row.get(1),
            event: row.get(2),
            kind: row.get(3),
            at: row.get(4),
            state: row.get(5),
            attempts: row.get(6),
            next_at: row.get(7),
            last_error: row.get(8),
            tried_at: row.get(9),
            ended_at: row.get(10),
            body: row.get(11),
        }
    }
}

/// A page of deliveries before this id, newest first; of one webhook, in one state.
pub async fn deliveries(
    run: &impl Run,
    before: Option<i64>,
    webhook: Option<&str>,
    state: Option<&str>,
    limit: i64,
) -> Result<Vec<Delivery>, DbError> {
    let rows = run
        .rows(&SELECT_DELIVERIES, &[&before, &webhook, &state, &limit])
        .await?;
    Ok(rows.iter().map(Delivery::from_row).collect())
}

/// A delivery.
pub async fn delivery(run: &impl Run, id: i64) -> Result<Option<Delivery>, DbError> {
    let row = run.opt(&SELECT_DELIVERY, &[&id]).await?;
    Ok(row.as_ref().map(Delivery::from_row))
}

/// Makes due now what failed, of these deliveries of a webhook (`None`: of all), counting attempts anew; how many.
pub async fn retry(run: &impl Run, webhook: i32, only: Option<&[i64]>) -> Result<u64, DbError> {
    run.exec(&RETRY_DELIVERIES, &[&webhook, &only]).await
}
