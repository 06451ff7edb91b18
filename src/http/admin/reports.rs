//! Reports.

use super::extract::{Admin, Viewer};
use crate::http::error::{ApiError, QueryParams};
use crate::service::{Core, reports};
use crate::wire::admin::{MachinesReport, MachinesReportQuery, PatchHealth, PatchHealthQuery};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(machines))
        .routes(routes!(patch_health))
}

/// Machines of a tier by version and state
///
/// Counts of all that the query speaks of, and one page of them as in the list of machines.
#[utoipa::path(get, path = "/reports/machines", tag = "reports", params(MachinesReportQuery),
    responses((status = 200, description = "Counts and machines", body = MachinesReport)))]
async fn machines(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<MachinesReportQuery>,
) -> Result<Json<MachinesReport>, ApiError> {
    Ok(Json(reports::machines(&core, &query).await?))
}

/// How a patch fares in a tier
///
/// Machines that run the patch or were offered it last, by state, in all and by kernel.
#[utoipa::path(get, path = "/reports/patch-health", tag = "reports", params(PatchHealthQuery),
    responses((status = 200, description = "Counts by state and kernel", body = PatchHealth)))]
async fn patch_health(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PatchHealthQuery>,
) -> Result<Json<PatchHealth>, ApiError> {
    Ok(Json(reports::patch_health(&core, &query).await?))
}
