//! Sync tokens: made for a tier, shown once, listed, revoked. They expire unless somebody asks for one that does not.

use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::sync_tokens::{self as rows, NewSyncToken, SyncTokenRow};
use crate::db::{DbError, fleet};
use crate::domain::Secret;
use crate::domain::token::{SYNC_PREFIX, token_hash};
use crate::service::auth::{expiry, fresh_token};
use crate::service::{Core, ServiceError, paging, text};
use crate::wire::admin::{Page, PageQuery, SyncTokenCreate, SyncTokenCreated, SyncTokenEntry};
use jiff::Timestamp;
use serde_json::json;

/// The most characters of a name.
const MAX_NAME: usize = 100;

/// Makes a sync token.
pub async fn create(
    core: &Core,
    actor: &Actor,
    request: SyncTokenCreate,
) -> Result<SyncTokenCreated, ServiceError> {
    text::name("sync token's name", &request.name, MAX_NAME)?;
    let valid_until = expiry(request.valid_until, request.no_expiry, Timestamp::now())?;

    let token = fresh_token(SYNC_PREFIX)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let tier_id = fleet::tier_id(&tx, &request.tier)
        .await?
        .ok_or_else(|| ServiceError::not_found("tier", &request.tier))?;
    let new = NewSyncToken {
        name: &request.name,
        tier_id,
        hash: token_hash(&token),
        created_by: &actor.name,
        valid_until,
    };
    rows::insert(&tx, &new).await.map_err(|error| match error {
        DbError::Exists(_) => ServiceError::Conflict(format!(
            "there is a sync token {:?} already; take another name, or revoke that one first",
            request.name
        )),
        other => other.into(),
    })?;
    let entry = Entry {
        actor,
        action: "sync-token.create",
        target: &request.name,
        details: json!({ "tier": request.tier, "valid-until": valid_until }),
    };
    let seq = audit::append(&tx, entry, Change::Tokens).await?;
    tx.commit().await?;
    drop(conn);
    core.changed(Some(Change::Tokens), seq).await;
    Ok(SyncTokenCreated {
        name: request.name,
        tier: request.tier,
        token: Secret::new(token),
        valid_until,
    })
}

/// Revokes the living sync token of this name: servers that show it are refused from now on.
pub async fn revoke(core: &Core, actor: &Actor, name: &str) -> Result<(), ServiceError> {
    text::name("sync token's name", name, MAX_NAME)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !rows::revoke(&tx, name).await? {
        return Err(text::missing("sync token that is not revoked", name));
    }
    let entry = Entry {
        actor,
        action: "sync-token.revoke",
        target: name,
        details: json!({}),
    };
    let seq = audit::append(&tx, entry, Change::Tokens).await?;
    tx.commit().await?;
    drop(conn);
    core.changed(Some(Change::Tokens), seq).await;
    Ok(())
}

/// Sync tokens, newest first, revoked ones too.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<SyncTokenEntry>, ServiceError> {
    let before = paging::after("sync-tokens", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let found = rows::page(&conn, before, limit as i64 + 1).await?;
    let place = |row: &SyncTokenRow| paging::encode("sync-tokens", &[&row.id]);
    Ok(paging::page(found, limit, place, |row| SyncTokenEntry {
        name: row.name,
        tier: row.tier,
        created_at: row.created_at,
        created_by: row.created_by,
        valid_until: row.valid_until,
        last_used: row.last_used,
        revoked_at: row.revoked_at,
    }))
}
