//! Auth tokens: made for a tier, shown once, listed, revoked. A revocation is felt by every replica's snapshot.

use super::auth::fresh_token;
use super::failpoint::failpoint;
use super::{Core, ServiceError, paging, text};
use crate::db::audit::{self, Actor, Entry};
use crate::db::auth_tokens::{self as rows, AuthTokenRow, NewAuthToken};
use crate::db::listen::Change;
use crate::db::{DbError, fleet};
use crate::domain::Secret;
use crate::domain::token::{AUTH_PREFIX, token_hash};
use crate::wire::admin::{
    AuthTokenCreate, AuthTokenCreated, AuthTokenEntry, Page, PageQuery, TokenFormat,
};
use jiff::Timestamp;
use serde_json::json;

/// The most characters of a name.
const MAX_NAME: usize = 100;

/// Makes an auth token.
pub async fn create(
    core: &Core,
    actor: &Actor,
    request: AuthTokenCreate,
) -> Result<AuthTokenCreated, ServiceError> {
    text::name("auth token's name", &request.name, MAX_NAME)?;
    if request
        .valid_until
        .is_some_and(|until| until <= Timestamp::now())
    {
        return Err(ServiceError::Invalid(
            "valid-until is in the past; give a later time, or none for no end".to_owned(),
        ));
    }
    let token = match request.format {
        TokenFormat::Token => fresh_token(AUTH_PREFIX)?,
        TokenFormat::Uuid => uuid::Uuid::new_v4().to_string(),
    };
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let tier_id = fleet::tier_id(&tx, &request.tier)
        .await?
        .ok_or_else(|| ServiceError::not_found("tier", &request.tier))?;
    let new = NewAuthToken {
        name: &request.name,
        tier_id,
        hash: token_hash(&token),
        labels: &request.labels,
        created_by: &actor.name,
        valid_until: request.valid_until,
    };
    rows::insert(&tx, &new).await.map_err(|error| match error {
        DbError::Exists(_) => ServiceError::Conflict(format!(
            "there is an auth token {:?} already; take another name, or revoke that one first",
            request.name
        )),
        other => other.into(),
    })?;
    let entry = Entry {
        actor,
        action: "auth-token.create",
        target: &request.name,
        details: json!({
            "tier": request.tier,
            "valid-until": request.valid_until,
            "labels": request.labels,
            "format": request.format,
        }),
    };
    let seq = audit::append(&tx, entry, Change::Tokens).await?;
    failpoint("token-before-commit");
    tx.commit().await?;
    failpoint("token-after-commit");
    drop(conn);
    core.changed(Some(Change::Tokens), seq).await;
    Ok(AuthTokenCreated {
        name: request.name,
        tier: request.tier,
        token: Secret::new(token),
        valid_until: request.valid_until,
        labels: request.labels.to_texts(),
    })
}

/// Revokes the living auth token of this name: it enables no more machines, and those it enabled are refused.
pub async fn revoke(core: &Core, actor: &Actor, name: &str) -> Result<(), ServiceError> {
    text::name("auth token's name", name, MAX_NAME)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let machines = rows::revoke(&tx, name)
        .await?
        .ok_or_else(|| text::missing("auth token that is not revoked", name))?;
    let entry = Entry {
        actor,
        action: "auth-token.revoke",
        target: name,
        details: json!({ "machines": machines }),
    };
    let seq = audit::append(&tx, entry, Change::Tokens).await?;
    tx.commit().await?;
    drop(conn);
    core.changed(Some(Change::Tokens), seq).await;
    Ok(())
}

/// Auth tokens, newest first, revoked ones too.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<AuthTokenEntry>, ServiceError> {
    page(core, query, true).await
}

/// The same; their machines are counted only if that is asked for, since it takes long with many machines.
pub async fn page(
    core: &Core,
    query: &PageQuery,
    counted: bool,
) -> Result<Page<AuthTokenEntry>, ServiceError> {
    let before = paging::after("auth-tokens", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let found = rows::page(&conn, before, limit as i64 + 1, counted).await?;
    let place = |row: &AuthTokenRow| paging::encode("auth-tokens", &[&row.id]);
    Ok(paging::page(found, limit, place, |row| AuthTokenEntry {
        name: row.name,
        tier: row.tier,
        labels: row.labels,
        machines: row.machines,
        created_at: row.created_at,
        created_by: row.created_by,
        valid_until: row.valid_until,
        last_used: row.last_used,
        revoked_at: row.revoked_at,
    }))
}
