//! The audit log.

use super::extract::{Admin, Viewer};
use crate::http::error::{ApiError, QueryParams};
use crate::service::{Core, audit};
use crate::wire::admin::{AuditEntry, AuditQuery, AuditVerdict, Page};
use axum::Json;
use axum::extract::State;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(verify))
}

/// List audit entries
///
/// Newest first. `action` takes a whole action such as `patch.promote`, or a noun such as `patch` for all of it.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditQuery),
    responses((status = 200, description = "Entries", body = Page<AuditEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, ApiError> {
    Ok(Json(audit::list(&core, &query).await?))
}

/// Verify the audit log
///
/// Follows the chain of hashes from the first entry to the head and tells where it breaks.
#[utoipa::path(get, path = "/audit/verify", tag = "audit",
    responses((status = 200, description = "Whether the chain is whole", body = AuditVerdict)))]
async fn verify(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
) -> Result<Json<AuditVerdict>, ApiError> {
    Ok(Json(audit::verify(&core).await?))
}
