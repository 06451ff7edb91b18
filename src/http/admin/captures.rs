//! Capture mode.

use super::extract::{Admin, Operator, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, captures};
use crate::wire::admin::{Capture, CaptureContent, CaptureStart, Page, PageQuery};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list, start))
        .routes(routes!(show, stop))
}

/// List captures
///
/// Newest first. What a capture recorded is deleted a week after its end.
#[utoipa::path(get, path = "/captures", tag = "captures", params(PageQuery),
    responses((status = 200, description = "Captures", body = Page<Capture>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<Capture>>, ApiError> {
    Ok(Json(captures::list(&core, &query).await?))
}

/// Start a capture
///
/// Needs the role operator. Records requests of a machine, from an address, or of that machine from that address, for
/// at most 24 hours and 500 requests (100 if not given). Secrets are masked before anything is stored.
#[utoipa::path(post, path = "/captures", tag = "captures", request_body = CaptureStart,
    responses((status = 201, description = "The capture", body = Capture)))]
async fn start(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<CaptureStart>,
) -> Result<(StatusCode, Json<Capture>), ApiError> {
    let capture = captures::start(&core, &admin.actor(), &request).await?;
    Ok((StatusCode::CREATED, Json(capture)))
}

/// Show what a capture recorded
#[utoipa::path(get, path = "/captures/{id}", tag = "captures",
    params(("id" = i64, Path, description = "The capture's id")),
    responses((status = 200, description = "The capture and its records", body = CaptureContent)))]
async fn show(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<CaptureContent>, ApiError> {
    Ok(Json(captures::show(&core, id).await?))
}

/// End a capture and delete what it recorded
///
/// Needs the role operator.
#[utoipa::path(delete, path = "/captures/{id}", tag = "captures",
    params(("id" = i64, Path, description = "The capture's id")),
    responses((status = 204, description = "The capture is gone")))]
async fn stop(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
) -> Result<StatusCode, ApiError> {
    captures::stop(&core, &admin.actor(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}
