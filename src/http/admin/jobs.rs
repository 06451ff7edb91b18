//! Jobs.

use super::extract::{Admin, Viewer};
use crate::http::error::{ApiError, PathParam, QueryParams};
use crate::service::{Core, jobs};
use crate::wire::admin::{Job, Page, PageQuery};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(show))
}

/// List jobs
///
/// Newest first; the last 500 are kept.
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(PageQuery),
    responses((status = 200, description = "Jobs", body = Page<Job>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<Job>>, ApiError> {
    Ok(Json(jobs::list(&core, &query).await?))
}

/// Show a job
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs",
    params(("id" = i64, Path, description = "The job's id")),
    responses((status = 200, description = "The job as it stands", body = Job)))]
async fn show(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(jobs::show(&core, id).await?))
}
