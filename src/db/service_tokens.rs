//! Service tokens: what programs show that use the admin API.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Grant, Sha256};
use jiff::Timestamp;
use tokio_postgres::Row;

statements! {
    INSERT_SERVICE_TOKEN = "insert into service_tokens (name, hash, scopes, created_by, valid_until)
        values ($1, $2, $3, $4, $5)";
    REVOKE_SERVICE_TOKEN = "update service_tokens set revoked_at = now() where name = $1 and revoked_at is null";
    SELECT_SERVICE_TOKEN = "select id, name, scopes, last_used is null or last_used < now() - interval '1 minute'
        from service_tokens
        where hash = $1 and revoked_at is null and (valid_until is null or valid_until > now())";
    SELECT_SERVICE_TOKENS = "select id, name, scopes, created_at, created_by, valid_until, last_used, revoked_at
        from service_tokens where $1::int is null or id < $1 order by id desc limit $2";
    TOUCH_SERVICE_TOKEN = "update service_tokens set last_used = now() where id = $1";
}

/// A new service token's row.
#[derive(Debug)]
pub struct NewServiceToken<'a> {
    /// Name.
    pub name: &'a str,
    /// Hash of its text.
    pub hash: Sha256,
    /// What it may do.
    pub scopes: &'a [Grant],
    /// Who makes it.
    pub created_by: &'a str,
    /// After this it is refused.
    pub valid_until: Option<Timestamp>,
}

/// A service token as stored; its text is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTokenRow {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Grant>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// After this it is refused.
    pub valid_until: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A service token that is valid now.
#[derive(Debug, Clone)]
pub struct LiveServiceToken {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Grant>,
    /// Whether its last use is due to be written.
    pub stale: bool,
}

fn scopes(row: &Row, at: usize) -> Result<Vec<Grant>, DbError> {
    let words: Vec<&str> = row.get(at);
    let read = words.into_iter().map(str::parse);
    Ok(read.collect::<Result<_, _>>()?)
}

/// Stores a service token. [`DbError::Exists`]: a living one has this name.
pub async fn insert(run: &impl Run, new: &NewServiceToken<'_>) -> Result<(), DbError> {
    let scopes: Vec<String> = new.scopes.iter().map(Grant::to_string).collect();
    run.exec(
        &INSERT_SERVICE_TOKEN,
        &[
            &new.name,
            &&new.hash.0[..],
            &scopes,
            &new.created_by,
            &new.valid_until,
        ],
    )
    .await
    .map(|_| ())
}

/// Revokes the living token of this name; `false` if there is none.
pub async fn revoke(run: &impl Run, name: &str) -> Result<bool, DbError> {
    Ok(run.exec(&REVOKE_SERVICE_TOKEN, &[&name]).await? > 0)
}

/// The token with this hash, if it is neither revoked nor expired.
pub async fn find(run: &impl Run, hash: &Sha256) -> Result<Option<LiveServiceToken>, DbError> {
    let row = run.opt(&SELECT_SERVICE_TOKEN, &[&&hash.0[..]]).await?;
    row.map(|row| {
        Ok(LiveServiceToken {
            id: row.get(0),
            name: row.get(1),
            scopes: scopes(&row, 2)?,
            stale: row.get(3),
        })
    })
    .transpose()
}

/// Service tokens, newest first, revoked ones too.
pub async fn page(
    run: &impl Run,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<ServiceTokenRow>, DbError> {
    let rows = run.rows(&SELECT_SERVICE_TOKENS, &[&before, &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(ServiceTokenRow {
                id: row.get(0),
                name: row.get(1),
                scopes: scopes(row, 2)?,
                created_at: row.get(3),
                created_by: row.get(4),
                valid_until: row.get(5),
                last_used: row.get(6),
                revoked_at: row.get(7),
            })
        })
        .collect()
}

/// Notes that a token was used.
pub async fn touch(run: &impl Run, id: i32) -> Result<(), DbError> {
    run.exec(&TOUCH_SERVICE_TOKEN, &[&id]).await.map(|_| ())
}
