//! Administrators.

use super::extract::{Admin, Administrator, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, admins};
use crate::wire::admin::{AdminCreate, AdminEntry, Page, PageQuery, PasswordChange, RoleChange};
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
        .routes(routes!(change_password))
        .routes(routes!(change_role))
        .routes(routes!(remove))
}

/// List administrators
///
/// By name: first those of the configuration, then those of the database.
#[utoipa::path(get, path = "/admins", tag = "admins", params(PageQuery),
    responses((status = 200, description = "Administrators", body = Page<AdminEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<AdminEntry>>, ApiError> {
    Ok(Json(admins::list(&core, &query).await?))
}

/// Add an administrator
///
/// Needs the role admin.
#[utoipa::path(post, path = "/admins", tag = "admins", request_body = AdminCreate,
    responses((status = 201, description = "The administrator", body = AdminEntry)))]
async fn create(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    JsonBody(request): JsonBody<AdminCreate>,
) -> Result<(StatusCode, Json<AdminEntry>), ApiError> {
    let entry = admins::create(&core, &admin.caller, &request).await?;
    Ok((StatusCode::CREATED, Json(entry)))
}

/// Change a password
///
/// One's own, giving the present one, or with role admin anybody's. Ends the administrator's other sessions.
#[utoipa::path(put, path = "/admins/{name}/password", tag = "admins", request_body = PasswordChange,
    params(("name" = String, Path, description = "The administrator's name")),
    responses((status = 204, description = "The password is changed")))]
async fn change_password(
    State(core): State<Arc<Core>>,
    admin: Admin<Viewer>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<PasswordChange>,
) -> Result<StatusCode, ApiError> {
    admins::change_password(&core, &admin.caller, &name, &request).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change a role
///
/// Needs the role admin. Refused for oneself and for the last administrator of role admin.
#[utoipa::path(put, path = "/admins/{name}/role", tag = "admins", request_body = RoleChange,
    params(("name" = String, Path, description = "The administrator's name")),
    responses((status = 200, description = "The administrator", body = AdminEntry)))]
async fn change_role(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<RoleChange>,
) -> Result<Json<AdminEntry>, ApiError> {
    Ok(Json(
        admins::change_role(&core, &admin.caller, &name, &request).await?,
    ))
}

/// Remove an administrator
///
/// Needs the role admin. Refused for oneself and for the last administrator of role admin.
#[utoipa::path(delete, path = "/admins/{name}", tag = "admins",
    params(("name" = String, Path, description = "The administrator's name")),
    responses((status = 204, description = "The administrator and all its sessions are gone")))]
async fn remove(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
) -> Result<StatusCode, ApiError> {
    admins::remove(&core, &admin.caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
