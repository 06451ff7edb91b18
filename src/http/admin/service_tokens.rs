//! Service tokens.

use super::extract::{Admin, Administrator};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, service_tokens};
use crate::wire::admin::{
    Page, PageQuery, ServiceTokenCreate, ServiceTokenCreated, ServiceTokenEntry,
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
}

/// List service tokens
///
/// Needs the role admin. Newest first, revoked ones too. The tokens themselves are not kept.
#[utoipa::path(get, path = "/service-tokens", tag = "service-tokens", params(PageQuery),
    responses((status = 200, description = "Service tokens", body = Page<ServiceTokenEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Administrator>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<ServiceTokenEntry>>, ApiError> {
    Ok(Json(service_tokens::list(&core, &query).await?))
}

/// Make a service token
///
/// Needs the role admin. A program shows it as `Authorization: Bearer`. It expires after 90 days unless the request says
/// otherwise, and is shown only in this answer.
#[utoipa::path(post, path = "/service-tokens", tag = "service-tokens", request_body = ServiceTokenCreate,
    responses((status = 201, description = "The token", body = ServiceTokenCreated)))]
async fn create(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    JsonBody(request): JsonBody<ServiceTokenCreate>,
) -> Result<(StatusCode, Json<ServiceTokenCreated>), ApiError> {
    let created = service_tokens::create(&core, &admin.caller, request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Revoke a service token
///
/// Needs the role admin. Programs that show it are refused from now on.
#[utoipa::path(delete, path = "/service-tokens/{name}", tag = "service-tokens",
    params(("name" = String, Path, description = "The token's name")),
    responses((status = 204, description = "The token is revoked")))]
async fn revoke(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
) -> Result<StatusCode, ApiError> {
    service_tokens::revoke(&core, &admin.caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
