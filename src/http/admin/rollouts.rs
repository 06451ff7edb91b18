//! Rollouts: how they stand, what would become of them, and what people do about them.

use super::extract::{Admin, Operator, Viewer};
use crate::domain::PatchVersion;
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::Core;
use crate::service::rollouts::act::{self, Act};
use crate::service::rollouts::show;
use crate::wire::admin::{
    ForecastQuery, Page, PatchForecast, RolloutAct, RolloutDetail, RolloutEntry, RolloutQuery,
};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(detail))
        .routes(routes!(approve))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(abort))
        .routes(routes!(block))
        .routes(routes!(forecast))
}

/// List rollouts
///
/// Newest first; those that ended only with `all`.
#[utoipa::path(get, path = "/rollouts", tag = "rollouts", params(RolloutQuery),
    responses((status = 200, description = "Rollouts", body = Page<RolloutEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<RolloutQuery>,
) -> Result<Json<Page<RolloutEntry>>, ApiError> {
    Ok(Json(Page::whole(show::list(&core, &query).await?)))
}

/// Show a rollout
///
/// With what machines report against the gate, by kernel, its timeline, and what would become of it.
#[utoipa::path(get, path = "/rollouts/{id}", tag = "rollouts",
    params(("id" = i64, Path, description = "The rollout's number")),
    responses((status = 200, description = "The rollout", body = RolloutDetail)))]
async fn detail(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<RolloutDetail>, ApiError> {
    Ok(Json(show::detail(&core, id).await?))
}

async fn acted(
    core: &Core,
    admin: &Admin<Operator>,
    id: i64,
    act: Act,
    request: &RolloutAct,
) -> Result<Json<RolloutDetail>, ApiError> {
    act::act(core, &admin.actor(), id, act, request.reason.as_deref()).await?;
    Ok(Json(show::detail(core, id).await?))
}

/// Approve a rollout
///
/// Somebody else than who promoted the patch lets it begin.
#[utoipa::path(post, path = "/rollouts/{id}/approve", tag = "rollouts", request_body = RolloutAct,
    params(("id" = i64, Path, description = "The rollout's number")),
    responses((status = 200, description = "How it stands now", body = RolloutDetail),
        (status = 409, description = "It does not await approval", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn approve(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
    JsonBody(request): JsonBody<RolloutAct>,
) -> Result<Json<RolloutDetail>, ApiError> {
    // A second pair of eyes is what this is for.
    admin.caller.person()?;
    acted(&core, &admin, id, Act::Approve, &request).await
}

/// Pause a rollout
///
/// No machine is let in until it is resumed.
#[utoipa::path(post, path = "/rollouts/{id}/pause", tag = "rollouts", request_body = RolloutAct,
    params(("id" = i64, Path, description = "The rollout's number")),
    responses((status = 200, description = "How it stands now", body = RolloutDetail),
        (status = 409, description = "It does not run", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn pause(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
    JsonBody(request): JsonBody<RolloutAct>,
) -> Result<Json<RolloutDetail>, ApiError> {
    acted(&core, &admin, id, Act::Pause, &request).await
}

/// Resume a rollout
///
/// After a pause, a halt or an abort. What failed before a halt does not count any more.
#[utoipa::path(post, path = "/rollouts/{id}/resume", tag = "rollouts", request_body = RolloutAct,
    params(("id" = i64, Path, description = "The rollout's number")),
    responses((status = 200, description = "How it stands now", body = RolloutDetail),
        (status = 409, description = "It does not stand still", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn resume(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
    JsonBody(request): JsonBody<RolloutAct>,
) -> Result<Json<RolloutDetail>, ApiError> {
    acted(&core, &admin, id, Act::Resume, &request).await
}

/// Abort a rollout
///
/// Ends it and holds the patch: no further machine is offered it, those that run it keep it.
#[utoipa::path(post, path = "/rollouts/{id}/abort", tag = "rollouts", request_body = RolloutAct,
    params(("id" = i64, Path, description = "The rollout's number")),
    responses((status = 200, description = "How it stands now", body = RolloutDetail),
        (status = 409, description = "It ended", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn abort(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
    JsonBody(request): JsonBody<RolloutAct>,
) -> Result<Json<RolloutDetail>, ApiError> {
    acted(&core, &admin, id, Act::Abort, &request).await
}

/// End a rollout and withdraw its patch
///
/// Ends it and blocks the patch: machines that run it may go back to a lower version.
#[utoipa::path(post, path = "/rollouts/{id}/block", tag = "rollouts", request_body = RolloutAct,
    params(("id" = i64, Path, description = "The rollout's number")),
    responses((status = 200, description = "How it stands now", body = RolloutDetail),
        (status = 409, description = "It ended", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn block(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<i64>,
    JsonBody(request): JsonBody<RolloutAct>,
) -> Result<Json<RolloutDetail>, ApiError> {
    acted(&core, &admin, id, Act::Block, &request).await
}

/// Foresee how a patch comes to each tier
///
/// As things stand, or as if it were promoted to `tier` now: machines, kernels and bytes, downloads per second at most, when each
/// phase would open and when each tier would be done, given windows, freezes and caps.
#[utoipa::path(get, path = "/patches/{version}/forecast", tag = "rollouts",
    params(("version" = String, Path, description = "The patch, e.g. 107.1"), ForecastQuery),
    responses((status = 200, description = "What would become of it", body = PatchForecast)))]
async fn forecast(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(version): PathParam<PatchVersion>,
    QueryParams(query): QueryParams<ForecastQuery>,
) -> Result<Json<PatchForecast>, ApiError> {
    Ok(Json(show::of_patch(&core, version, &query).await?))
}
