//! Coverage: how well the machines are covered, and whom a patch has reached.

use super::extract::{Admin, Viewer};
use crate::domain::PatchVersion;
use crate::http::error::{ApiError, PathParam, QueryParams};
use crate::service::{Core, coverage, reach};
use crate::wire::admin::{Coverage, CoverageQuery, Horizon, HorizonQuery, Reach, ReachQuery};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(by))
        .routes(routes!(horizon))
        .routes(routes!(reached))
}

/// How well the machines are covered
///
/// By tier, kernel, flavour or the value of a label: machines that run the highest version available to them, that are behind, that
/// failed, and those for which there is nothing, with the share that is covered.
#[utoipa::path(get, path = "/coverage", tag = "coverage", params(CoverageQuery),
    responses((status = 200, description = "Machines by group and cover", body = Coverage)))]
async fn by(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<CoverageQuery>,
) -> Result<Json<Coverage>, ApiError> {
    Ok(Json(coverage::by(&core, &query).await?))
}

/// Which machines lose the cover of their kernel
///
/// Within 30, 60 and 90 days, and those that need another kernel now, from the table of supported kernels and the days on which
/// kernels were built.
#[utoipa::path(get, path = "/coverage/horizon", tag = "coverage", params(HorizonQuery),
    responses((status = 200, description = "Kernels that lose their cover, the soonest first", body = Horizon)))]
async fn horizon(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<HorizonQuery>,
) -> Result<Json<Horizon>, ApiError> {
    Ok(Json(coverage::horizon(&core, &query).await?))
}

/// Whom a patch has reached
///
/// Machines that run it or whose last offer it was, by id; which of them have checked in since it was blocked, held, aborted or
/// halted, and which are silent. The totals are of all of them on every page.
#[utoipa::path(get, path = "/patches/{version}/reach", tag = "coverage",
    params(("version" = String, Path, description = "The patch, e.g. 107.1"), ReachQuery),
    responses((status = 200, description = "Totals and one page of machines", body = Reach)))]
async fn reached(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(version): PathParam<PatchVersion>,
    QueryParams(query): QueryParams<ReachQuery>,
) -> Result<Json<Reach>, ApiError> {
    Ok(Json(reach::of_patch(&core, version, &query).await?))
}
