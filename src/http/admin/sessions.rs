//! Login, logout and sessions.

use super::extract::{Admin, Source, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, auth};
use crate::wire::admin::{LoginAnswer, LoginRequest, Page, PageQuery, Session, WhoAmI};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(who_am_i))
        .routes(routes!(list))
        .routes(routes!(end))
}

/// Open a session
///
/// Takes name and password, gives a token for `Authorization: Bearer`. Failed logins are delayed by account and source.
#[utoipa::path(post, path = "/login", tag = "sessions", security(()), request_body = LoginRequest,
    responses((status = 200, description = "The session's token, shown only here", body = LoginAnswer)))]
async fn login(
    State(core): State<Arc<Core>>,
    Source(source): Source,
    JsonBody(request): JsonBody<LoginRequest>,
) -> Result<Json<LoginAnswer>, ApiError> {
    Ok(Json(auth::login(&core, &request, source).await?))
}

/// End one's own session
#[utoipa::path(post, path = "/logout", tag = "sessions",
    responses((status = 204, description = "The session has ended")))]
async fn logout(
    State(core): State<Arc<Core>>,
    admin: Admin<Viewer>,
) -> Result<StatusCode, ApiError> {
    auth::logout(&core, &admin.caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whom the server takes the caller for
#[utoipa::path(get, path = "/session", tag = "sessions",
    responses((status = 200, description = "Name, role and session", body = WhoAmI)))]
async fn who_am_i(admin: Admin<Viewer>) -> Json<WhoAmI> {
    Json(auth::who_am_i(&admin.caller))
}

/// List sessions
///
/// All that are open for role admin; one's own for other roles. Newest first.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(PageQuery),
    responses((status = 200, description = "Open sessions", body = Page<Session>)))]
async fn list(
    State(core): State<Arc<Core>>,
    admin: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<Session>>, ApiError> {
    Ok(Json(auth::sessions(&core, &admin.caller, &query).await?))
}

/// End a session
///
/// One's own; any with role admin.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "sessions",
    params(("id" = Uuid, Path, description = "The session's id")),
    responses((status = 204, description = "The session has ended")))]
async fn end(
    State(core): State<Arc<Core>>,
    admin: Admin<Viewer>,
    PathParam(id): PathParam<Uuid>,
) -> Result<StatusCode, ApiError> {
    auth::end_session(&core, &admin.caller, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
