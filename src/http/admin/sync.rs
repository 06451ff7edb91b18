//! Sync: what comes from upstream.

use super::extract::{Admin, Operator, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, sync};
use crate::wire::admin::{
    Page, PageQuery, SyncConfirm, SyncFilters, SyncFiltersQuery, SyncReport, SyncRun, SyncStatus,
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
        .routes(routes!(trigger))
        .routes(routes!(status))
        .routes(routes!(reports))
        .routes(routes!(report))
        .routes(routes!(confirm))
        .routes(routes!(reset))
        .routes(routes!(filters))
}

/// Ask for a run
///
/// The leader takes it up within a second. If one is queued or at work already, that one is the answer.
#[utoipa::path(post, path = "/sync/trigger", tag = "sync",
    responses((status = 202, description = "The run", body = SyncRun),
        (status = 409, description = "Nothing is fetched from elsewhere by the configuration",
            body = crate::wire::Problem, content_type = "application/problem+json")))]
async fn trigger(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
) -> Result<(StatusCode, Json<SyncRun>), ApiError> {
    let run = sync::trigger(&core, &admin.actor()).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// See how sync stands
///
/// Where from, who runs it, when it last came to its end, what waits for a person, and the filters.
#[utoipa::path(get, path = "/sync/status", tag = "sync",
    responses((status = 200, description = "How it stands", body = SyncStatus)))]
async fn status(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
) -> Result<Json<SyncStatus>, ApiError> {
    Ok(Json(sync::status(&core).await?))
}

/// List runs, newest first
#[utoipa::path(get, path = "/sync/reports", tag = "sync", params(PageQuery),
    responses((status = 200, description = "Runs", body = Page<SyncRun>)))]
async fn reports(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<SyncRun>>, ApiError> {
    Ok(Json(sync::reports(&core, &query).await?))
}

/// See what came of a run
///
/// What came, what was skipped by which filter, what was refused and why, bytes and seconds.
#[utoipa::path(get, path = "/sync/reports/{id}", tag = "sync",
    params(("id" = i64, Path, description = "The run's id")),
    responses((status = 200, description = "The report", body = SyncReport),
        (status = 404, description = "There is no such run", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn report(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<SyncReport>, ApiError> {
    Ok(Json(sync::report(&core, id).await?))
}

/// Confirm what waits
///
/// Confirms exactly what the digest stands for, and asks for a run. If upstream or what is here has changed when that
/// run looks, it waits again.
#[utoipa::path(post, path = "/sync/confirm", tag = "sync", request_body = SyncConfirm,
    responses((status = 200, description = "How it stands now", body = SyncStatus),
        (status = 409, description = "Something else waits, or nothing, or a tier that goes is used",
            body = crate::wire::Problem, content_type = "application/problem+json")))]
async fn confirm(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<SyncConfirm>,
) -> Result<Json<SyncStatus>, ApiError> {
    let status = sync::confirm(&core, &admin.actor(), &request).await?;
    Ok(Json(status))
}

/// Forget what is known of the upstream
///
/// Its deployment, its keys and the version of its index; the next run is a first contact and trusts the key it meets, unless
/// `patch-sync.upstream-key` names one. Payloads stay.
#[utoipa::path(post, path = "/sync/reset", tag = "sync",
    responses((status = 200, description = "How it stands now", body = SyncStatus),
        (status = 404, description = "Nothing is known of it", body = crate::wire::Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "A run is at work", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn reset(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
) -> Result<Json<SyncStatus>, ApiError> {
    Ok(Json(sync::reset(&core, &admin.actor()).await?))
}

/// See what other filters would add and drop
///
/// From what upstream had when it was last asked, and what is here. Changes nothing.
#[utoipa::path(get, path = "/sync/filters", tag = "sync", params(SyncFiltersQuery),
    responses((status = 200, description = "What they mean", body = SyncFilters)))]
async fn filters(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<SyncFiltersQuery>,
) -> Result<Json<SyncFilters>, ApiError> {
    Ok(Json(sync::filters(&core, &query).await?))
}
