//! Service tokens: made for a program, shown once, listed, revoked. They expire unless somebody asks for one that does not.

use super::auth::{Caller, expiry, fresh_token, record};
use super::{Core, ServiceError, paging, text};
use crate::db::DbError;
use crate::db::service_tokens::{self as rows, NewServiceToken, ServiceTokenRow};
use crate::domain::Secret;
use crate::domain::token::{SERVICE_PREFIX, token_hash};
use crate::wire::admin::{
    Page, PageQuery, ServiceTokenCreate, ServiceTokenCreated, ServiceTokenEntry,
};
use jiff::Timestamp;
use serde_json::json;

/// The most characters of a name.
const MAX_NAME: usize = 64;
/// The most scopes of one token.
const MAX_SCOPES: usize = 32;

/// Makes a service token. It may do at most what its maker may.
pub async fn create(
    core: &Core,
    caller: &Caller,
    request: ServiceTokenCreate,
) -> Result<ServiceTokenCreated, ServiceError> {
    text::name("service token's name", &request.name, MAX_NAME)?;
    let mut scopes = request.scopes;
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() || scopes.len() > MAX_SCOPES {
        return Err(ServiceError::Invalid(format!(
            "scopes must hold 1 to {MAX_SCOPES} of them, such as read or patches:write"
        )));
    }
    let valid_until = expiry(request.valid_until, request.no_expiry, Timestamp::now())?;
    let token = fresh_token(SERVICE_PREFIX)?;
    let new = NewServiceToken {
        name: &request.name,
        hash: token_hash(&token),
        scopes: &scopes,
        created_by: &caller.name,
        valid_until,
    };
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    rows::insert(&tx, &new).await.map_err(|error| match error {
        DbError::Exists(_) => ServiceError::Conflict(format!(
            "there is a service token {:?} already; take another name, or revoke that one first",
            request.name
        )),
        other => other.into(),
    })?;
    let details = json!({ "scopes": scopes, "valid-until": valid_until });
    let actor = caller.actor();
    record(&tx, &actor, "service-token.create", &request.name, details).await?;
    tx.commit().await?;
    Ok(ServiceTokenCreated {
        name: request.name,
        scopes,
        token: Secret::new(token),
        valid_until,
    })
}

/// Revokes the living service token of this name: programs that show it are refused from now on.
pub async fn revoke(core: &Core, caller: &Caller, name: &str) -> Result<(), ServiceError> {
    text::name("service token's name", name, MAX_NAME)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !rows::revoke(&tx, name).await? {
        return Err(text::missing("service token that is not revoked", name));
    }
    let actor = caller.actor();
    record(&tx, &actor, "service-token.revoke", name, json!({})).await?;
    tx.commit().await?;
    Ok(())
}

/// Service tokens, newest first, revoked ones too.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<ServiceTokenEntry>, ServiceError> {
    let before = paging::after("service-tokens", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let found = rows::page(&conn, before, limit as i64 + 1).await?;
    let place = |row: &ServiceTokenRow| paging::encode("service-tokens", &[&row.id]);
    Ok(paging::page(found, limit, place, |row| ServiceTokenEntry {
        name: row.name,
        scopes: row.scopes,
        created_at: row.created_at,
        created_by: row.created_by,
        valid_until: row.valid_until,
        last_used: row.last_used,
        revoked_at: row.revoked_at,
    }))
}
