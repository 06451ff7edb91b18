//! Patches: the list, promotion, and what stops one.

use super::extract::{Admin, Operator, Viewer};
use crate::domain::PatchVersion;
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::patches::{self, Act};
use crate::service::{Core, promotions};
use crate::wire::admin::{
    BlockOutcome, BlockRequest, Page, PageQuery, Patch, PatchDetail, PromoteAllRequest,
    PromoteOutcome, PromoteRequest,
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
        .routes(routes!(show))
        .routes(routes!(promote))
        .routes(routes!(promote_all))
        .routes(routes!(block))
        .routes(routes!(unblock))
        .routes(routes!(hold))
        .routes(routes!(resume))
}

/// List patches
///
/// Highest version first, with every promotion and the blocks and holds that stand.
#[utoipa::path(get, path = "/patches", tag = "patches", params(PageQuery),
    responses((status = 200, description = "Patches", body = Page<Patch>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PageQuery>,
) -> Result<Json<Page<Patch>>, ApiError> {
    Ok(Json(patches::list(&core, &query).await?))
}

/// Show a patch with its payloads
#[utoipa::path(get, path = "/patches/{version}", tag = "patches",
    params(("version" = String, Path, description = "The patch, e.g. 107.1")),
    responses((status = 200, description = "The patch", body = PatchDetail)))]
async fn show(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(version): PathParam<PatchVersion>,
) -> Result<Json<PatchDetail>, ApiError> {
    Ok(Json(patches::show(&core, version).await?))
}

/// Promote a patch to a tier
///
/// It becomes available in that tier and all before it. With `dry-run`, only says what would change. A patch that has
/// reached exactly this tier stays as it is; promotion backwards is refused.
#[utoipa::path(post, path = "/patches/{version}/promote", tag = "patches", request_body = PromoteRequest,
    params(("version" = String, Path, description = "The patch, e.g. 107.1")),
    responses((status = 200, description = "What changed, or would change", body = PromoteOutcome),
        (status = 409, description = "It has reached a later tier", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn promote(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(version): PathParam<PatchVersion>,
    JsonBody(request): JsonBody<PromoteRequest>,
) -> Result<Json<PromoteOutcome>, ApiError> {
    let outcome = promotions::promote(&core, &admin.actor(), version, &request).await?;
    Ok(Json(outcome))
}

/// Promote everything from one tier on to a later one
///
/// Each patch that has reached `from` but not yet `to`, under the scope with which it came there.
#[utoipa::path(post, path = "/promote-all", tag = "patches", request_body = PromoteAllRequest,
    responses((status = 200, description = "What changed, or would change", body = PromoteOutcome)))]
async fn promote_all(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<PromoteAllRequest>,
) -> Result<Json<PromoteOutcome>, ApiError> {
    let outcome = promotions::promote_all(&core, &admin.actor(), &request).await?;
    Ok(Json(outcome))
}

async fn act(
    core: &Core,
    admin: &Admin<Operator>,
    version: PatchVersion,
    act: Act,
    request: &BlockRequest,
) -> Result<Json<BlockOutcome>, ApiError> {
    let outcome = patches::act(core, &admin.actor(), version, act, request).await?;
    Ok(Json(outcome))
}

/// Withdraw a patch
///
/// It is offered to nobody, and machines that run it may go back to a lower version.
#[utoipa::path(post, path = "/patches/{version}/block", tag = "patches", request_body = BlockRequest,
    params(("version" = String, Path, description = "The patch, e.g. 107.1")),
    responses((status = 200, description = "How it stands now", body = BlockOutcome)))]
async fn block(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(version): PathParam<PatchVersion>,
    JsonBody(request): JsonBody<BlockRequest>,
) -> Result<Json<BlockOutcome>, ApiError> {
    act(&core, &admin, version, Act::Block, &request).await
}

/// Lift a block
///
/// With the scope it was set with.
#[utoipa::path(post, path = "/patches/{version}/unblock", tag = "patches", request_body = BlockRequest,
    params(("version" = String, Path, description = "The patch, e.g. 107.1")),
    responses((status = 200, description = "How it stands now", body = BlockOutcome)))]
async fn unblock(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(version): PathParam<PatchVersion>,
    JsonBody(request): JsonBody<BlockRequest>,
) -> Result<Json<BlockOutcome>, ApiError> {
    act(&core, &admin, version, Act::Unblock, &request).await
}

/// Hold a patch
///
/// It is offered to no further machine; those that run it keep it.
#[utoipa::path(post, path = "/patches/{version}/hold", tag = "patches", request_body = BlockRequest,
    params(("version" = String, Path, description = "The patch, e.g. 107.1")),
    responses((status = 200, description = "How it stands now", body = BlockOutcome)))]
async fn hold(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(version): PathParam<PatchVersion>,
    JsonBody(request): JsonBody<BlockRequest>,
) -> Result<Json<BlockOutcome>, ApiError> {
    act(&core, &admin, version, Act::Hold, &request).await
}

/// Lift a hold
///
/// With the scope it was set with.
#[utoipa::path(post, path = "/patches/{version}/resume", tag = "patches", request_body = BlockRequest,
    params(("version" = String, Path, description = "The patch, e.g. 107.1")),
    responses((status = 200, description = "How it stands now", body = BlockOutcome)))]
async fn resume(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(version): PathParam<PatchVersion>,
    JsonBody(request): JsonBody<BlockRequest>,
) -> Result<Json<BlockOutcome>, ApiError> {
    act(&core, &admin, version, Act::Resume, &request).await
}
