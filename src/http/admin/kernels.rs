//! The table of supported kernels.

use super::extract::{Admin, Operator, Viewer};
use crate::http::error::{ApiError, JsonBody};
use crate::service::{Core, kernels};
use crate::wire::admin::{KernelsImport, KernelsOutcome, Page, SupportedKernel};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default().routes(routes!(list, import))
}

/// List the supported kernels
///
/// The table that says for which kernels patches are made, and for how long.
#[utoipa::path(get, path = "/kernels", tag = "kernels",
    responses((status = 200, description = "The table", body = Page<SupportedKernel>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
) -> Result<Json<Page<SupportedKernel>>, ApiError> {
    Ok(Json(Page::whole(kernels::list(&core).await?)))
}

/// Replace the supported kernels
///
/// The whole table as CSV, all of it or nothing; the answer says what comes, goes and changes. With `dry-run` nothing is changed.
#[utoipa::path(put, path = "/kernels", tag = "kernels", request_body = KernelsImport,
    responses((status = 200, description = "What changed, or would change", body = KernelsOutcome)))]
async fn import(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<KernelsImport>,
) -> Result<Json<KernelsOutcome>, ApiError> {
    let outcome = kernels::import(&core, &admin.actor(), &request).await?;
    Ok(Json(outcome))
}
