//! Quarantine.

use super::extract::{Admin, Operator, Viewer};
use crate::http::error::{ApiError, PathParam, QueryParams};
use crate::service::{Core, quarantine};
use crate::wire::admin::{IngestOutcome, Page, PageQuery, QuarantineEntry};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(show, drop_file))
        .routes(routes!(release))
}

/// List quarantined files
///
/// Newest first, each with the rule it broke.
#[utoipa::path(get, path = "/quarantine", tag = "quarantine", params(PageQuery),
    responses((status = 200, description = "Quarantined files", body = Page<QuarantineEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<QuarantineEntry>>, ApiError> {
    Ok(Json(quarantine::list(&core, &query).await?))
}

/// Show a quarantined file
#[utoipa::path(get, path = "/quarantine/{id}", tag = "quarantine",
    params(("id" = i64, Path, description = "The quarantined file's id")),
    responses((status = 200, description = "The quarantined file", body = QuarantineEntry)))]
async fn show(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<QuarantineEntry>, ApiError> {
    Ok(Json(quarantine::show(&core, id).await?))
}

/// Try a quarantined file again
///
/// All checks run under the policy of now. If it still fails, it stays and the reasons are told.
#[utoipa::path(post, path = "/quarantine/{id}/release", tag = "quarantine",
    params(("id" = i64, Path, description = "The quarantined file's id")),
    responses((status = 200, description = "Verified and stored", body = IngestOutcome),
        (status = 409, description = "It still fails", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn release(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<IngestOutcome>, ApiError> {
    Ok(Json(quarantine::release(&core, &admin.actor(), id).await?))
}

/// Remove a quarantined file
#[utoipa::path(delete, path = "/quarantine/{id}", tag = "quarantine",
    params(("id" = i64, Path, description = "The quarantined file's id")),
    responses((status = 204, description = "It is gone")))]
async fn drop_file(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
) -> Result<StatusCode, ApiError> {
    quarantine::drop_file(&core, &admin.actor(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
