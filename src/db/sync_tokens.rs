//! Sync tokens: what other servers show to pull from a tier of this one. The snapshot reads them with [`load`].

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{Sha256, TierName};
use crate::rollout::SyncTokenEntry;
use jiff::Timestamp;

statements! {
    INSERT_SYNC_TOKEN = "insert into sync_tokens (name, tier_id, hash, created_by, valid_until)
        values ($1, $2, $3, $4, $5)";
    REVOKE_SYNC_TOKEN = "update sync_tokens set revoked_at = now() where name = $1 and revoked_at is null";
    SELECT_SYNC_TOKENS = "select id, name, tier_id, hash, valid_until, revoked_at is not null from sync_tokens";
    SELECT_SYNC_TOKENS_PAGE = "select s.id, s.name, t.name, s.created_at, s.created_by, s.valid_until, s.last_used, s.revoked_at
        from sync_tokens s join tiers t on t.id = s.tier_id
        where $1::int is null or s.id < $1 order by s.id desc limit $2";
    TOUCH_SYNC_TOKEN = "update sync_tokens set last_used = now()
        where id = $1 and (last_used is null or last_used < now() - interval '1 minute')";
}

/// A new sync token's row.
#[derive(Debug)]
pub struct NewSyncToken<'a> {
    /// Name.
    pub name: &'a str,
    /// The tier it may pull from.
    pub tier_id: i32,
    /// Hash of its text.
    pub hash: Sha256,
    /// Who makes it.
    pub created_by: &'a str,
    /// After this it is refused.
    pub valid_until: Option<Timestamp>,
}

/// A sync token as stored; its text is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncTokenRow {
    /// Database id.
    pub id: i32,
    /// Name.
    pub name: String,
    /// The tier it may pull from.
    pub tier: TierName,
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

/// Stores a sync token. [`DbError::Exists`]: a living one has this name.
pub async fn insert(run: &impl Run, new: &NewSyncToken<'_>) -> Result<(), DbError> {
    run.exec(
        &INSERT_SYNC_TOKEN,
        &[
            &new.name,
            &new.tier_id,
            &&new.hash.0[..],
            &new.created_by,
            &new.valid_until,
        ],
    )
    .await
    .map(|_| ())
}

/// Revokes the living token of this name; `false` if there is none.
pub async fn revoke(run: &impl Run, name: &str) -> Result<bool, DbError> {
    Ok(run.exec(&REVOKE_SYNC_TOKEN, &[&name]).await? > 0)
}

/// Reads all sync tokens for the snapshot.
pub async fn load(run: &impl Run) -> Result<Vec<(Sha256, SyncTokenEntry)>, DbError> {
    let rows = run.rows(&SELECT_SYNC_TOKENS, &[]).await?;
    rows.iter()
        .map(|row| {
            let entry = SyncTokenEntry {
                id: row.get(0),
                name: row.get(1),
                tier_id: row.get(2),
                valid_until: row
                    .get::<_, Option<Timestamp>>(4)
                    .map(Timestamp::as_microsecond),
                revoked: row.get(5),
            };
            Ok((Sha256::try_from(row.get::<_, &[u8]>(3))?, entry))
        })
        .collect()
}

/// Sync tokens, newest first, revoked ones too.
pub async fn page(
    run: &impl Run,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<SyncTokenRow>, DbError> {
    let rows = run
        .rows(&SELECT_SYNC_TOKENS_PAGE, &[&before, &limit])
        .await?;
    rows.iter()
        .map(|row| {
            Ok(SyncTokenRow {
                id: row.get(0),
                name: row.get(1),
                tier: row.get::<_, &str>(2).parse()?,
                created_at: row.get(3),
                created_by: row.get(4),
                valid_until: row.get(5),
                last_used: row.get(6),
                revoked_at: row.get(7),
            })
        })
        .collect()
}

/// Notes that a token was used, at most once a minute.
pub async fn touch(run: &impl Run, id: i32) -> Result<(), DbError> {
    run.exec(&TOUCH_SYNC_TOKEN, &[&id]).await.map(|_| ())
}
