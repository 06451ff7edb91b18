//! Auth tokens as administrators manage them. What the snapshot reads of them is in `tokens`.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Labels, Sha256, TierName};
use jiff::Timestamp;
use std::collections::BTreeMap;

statements! {
    INSERT_AUTH_TOKEN = "insert into auth_tokens (name, tier_id, hash, labels, created_by, valid_until)
        values ($1, $2, $3, $4, $5, $6)";
    SELECT_AUTH_TOKEN_NAMED = "select 1 from auth_tokens where name = $1 limit 1";
    REVOKE_AUTH_TOKEN = "update auth_tokens set revoked_at = now() where name = $1 and revoked_at is null returning id";
    COUNT_TOKEN_MACHINES = "select count(*) from machines where auth_token_id = $1";
    SELECT_AUTH_TOKENS_PAGE = "with page as (
            select * from auth_tokens where ($1::int is null or id < $1) order by id desc limit $2),
        counts as (
                        select auth_token_id, count(*) as machines from machines
            where $3::bool and auth_token_id in (select id from page) group by 1)
        select p.id, p.name, t.name, p.labels, coalesce(c.machines, 0), p.created_at, p.created_by, p.valid_until,
            p.last_used, p.revoked_at
        from page p join tiers t on t.id = p.tier_id left join counts c on c.auth_token_id = p.id
        order by p.id desc";
}

/// A new auth token's row.
#[derive(Debug)]
pub struct NewAuthToken<'a> {
    /// Name.
    pub name: &'a str,
    /// The tier it admits to.
    pub tier_id: i32,
    /// Hash of its text.
    pub hash: Sha256,
    /// Labels for the machines it enables.
    pub labels: &'a Labels,
    /// Who makes it.
    pub created_by: &'a str,
    /// After this it enables no more machines.
    pub valid_until: Option<Timestamp>,
}

/// An auth token as stored; its text is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthTokenRow {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// The tier it admits to.
    pub tier: TierName,
    /// Labels for the machines it enables.
    pub labels: BTreeMap<String, String>,
    /// Machines it enabled.
    pub machines: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// After this it enables no more machines.
    pub valid_until: Option<Timestamp>,
    /// When it last enabled a machine.
    pub last_used: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Stores an auth token.
pub async fn insert(run: &impl Run, new: &NewAuthToken<'_>) -> Result<(), DbError> {
    let labels = serde_json::json!(new.labels);
    run.exec(
        &INSERT_AUTH_TOKEN,
        &[
            &new.name,
            &new.tier_id,
            &&new.hash.0[..],
            &labels,
            &new.created_by,
            &new.valid_until,
        ],
    )
    .await
    .map(|_| ())
}

/// Whether there is, or was, a token of this name.
pub async fn was_made(run: &impl Run, name: &str) -> Result<bool, DbError> {
    Ok(run.opt(&SELECT_AUTH_TOKEN_NAMED, &[&name]).await?.is_some())
}

/// Revokes the living token of this name and says how many machines it enabled; `None` if there is none.
pub async fn revoke(run: &impl Run, name: &str) -> Result<Option<i64>, DbError> {
    let Some(row) = run.opt(&REVOKE_AUTH_TOKEN, &[&name]).await? else {
        return Ok(None);
    };
    let id: i32 = row.get(0);
    let counted = run.one(&COUNT_TOKEN_MACHINES, &[&id]).await?;
    Ok(Some(counted.get(0)))
}

/// Auth tokens, newest first, revoked ones too. Counting their machines reads that table once.
pub async fn page(
    run: &impl Run,
    before: Option<i32>,
    limit: i64,
    counted: bool,
) -> Result<Vec<AuthTokenRow>, DbError> {
    let rows = run
        .rows(&SELECT_AUTH_TOKENS_PAGE, &[&before, &limit, &counted])
        .await?;
    rows.iter()
        .map(|row| {
            let labels = serde_json::from_value(row.get(3)).map_err(|e| {
                DbError::Row(format!(
                    "labels of auth token {}: {e}",
                    row.get::<_, i32>(0)
                ))
            })?;
            Ok(AuthTokenRow {
                id: row.get(0),
                name: row.get(1),
                tier: row.get::<_, &str>(2).parse()?,
                labels,
                machines: row.get::<_, i64>(4).unsigned_abs(),
                created_at: row.get(5),
                created_by: row.get(6),
                valid_until: row.get(7),
                last_used: row.get(8),
                revoked_at: row.get(9),
            })
        })
        .collect()
}
