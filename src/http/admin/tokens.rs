//! Auth tokens.

use super::extract::{Admin, Operator, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, auth_tokens};
use crate::wire::admin::{AuthTokenCreate, AuthTokenCreated, AuthTokenEntry, Page, PageQuery};
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
}

/// List auth tokens
///
/// Newest first, revoked ones too. The tokens themselves are not kept.
#[utoipa::path(get, path = "/auth-tokens", tag = "auth-tokens", params(PageQuery),
    responses((status = 200, description = "Auth tokens", body = Page<AuthTokenEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<AuthTokenEntry>>, ApiError> {
    Ok(Json(auth_tokens::list(&core, &query).await?))
}

/// Make an auth token
///
/// Needs the role operator. The token is shown only in this answer.
#[utoipa::path(post, path = "/auth-tokens", tag = "auth-tokens", request_body = AuthTokenCreate,
    responses((status = 201, description = "The token", body = AuthTokenCreated)))]
async fn create(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<AuthTokenCreate>,
) -> Result<(StatusCode, Json<AuthTokenCreated>), ApiError> {
    let created = auth_tokens::create(&core, &admin.actor(), request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revoke an auth token
///
/// Needs the role operator. It enables no more machines, and those it enabled are refused from now on.
#[utoipa::path(delete, path = "/auth-tokens/{name}", tag = "auth-tokens",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 204, description = "The token is revoked")))]
async fn revoke(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<String>,
) -> Result<StatusCode, ApiError> {
    auth_tokens::revoke(&core, &admin.actor(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
