//! Sync tokens, and the servers that report with them.

use super::extract::{Admin, Operator, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, peer};
use crate::wire::admin::{
    Page, PageQuery, PeerEntry, SyncTokenCreate, SyncTokenCreated, SyncTokenEntry,
};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
        .routes(routes!(peers))
}

/// List sync tokens
///
/// Newest first, revoked ones too. The tokens themselves are not kept.
#[utoipa::path(get, path = "/sync-tokens", tag = "sync-tokens", params(PageQuery),
    responses((status = 200, description = "Sync tokens", body = Page<SyncTokenEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<SyncTokenEntry>>, ApiError> {
    Ok(Json(peer::tokens::list(&core, &query).await?))
}

/// Make a sync token
///
/// Needs the role operator. Another server pulls the tier and those after it with it. It expires after 90 days unless the
/// request says otherwise, and is shown only in this answer.
#[utoipa::path(post, path = "/sync-tokens", tag = "sync-tokens", request_body = SyncTokenCreate,
    responses((status = 201, description = "The token", body = SyncTokenCreated)))]
async fn create(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<SyncTokenCreate>,
) -> Result<(StatusCode, Json<SyncTokenCreated>), ApiError> {
    let created = peer::tokens::create(&core, &admin.actor(), request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revoke a sync token
///
/// Needs the role operator. Servers that show it are refused from now on.
#[utoipa::path(delete, path = "/sync-tokens/{name}", tag = "sync-tokens",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 204, description = "The token is revoked")))]
async fn revoke(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<String>,
) -> Result<StatusCode, ApiError> {
    peer::tokens::revoke(&core, &admin.actor(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the servers that pull from this one
///
/// By their ids, with what each reported last.
#[utoipa::path(get, path = "/sync-peers", tag = "sync-peers", operation_id = "list", params(PageQuery),
    responses((status = 200, description = "Servers below this one", body = Page<PeerEntry>)))]
async fn peers(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<PeerEntry>>, ApiError> {
    Ok(Json(peer::peers(&core, &query).await?))
}
