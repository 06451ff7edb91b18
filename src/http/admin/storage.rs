//! The storage as a whole: taking in what lies in it, and comparing it with what should lie in it, and removing what
//! nobody needs. All are jobs.

use super::extract::{Admin, Operator};
use crate::http::error::{ApiError, JsonBody};
use crate::service::Core;
use crate::service::jobs::{self, Work};
use crate::wire::admin::{Job, PruneRequest, RefreshRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(refresh))
        .routes(routes!(verify))
        .routes(routes!(prune))
}

/// Take in tarballs from the storage
///
/// Starts a job that looks for tarballs which were put into the storage by hand and takes in what is new. One job runs
/// at a time.
#[utoipa::path(post, path = "/storage/refresh", tag = "storage", request_body = RefreshRequest,
    responses((status = 202, description = "The job", body = Job),
        (status = 409, description = "Another job is running", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn refresh(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let job = jobs::start(&core, &admin.actor(), Work::Refresh(request)).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Compare every stored payload with its hash
///
/// Starts a job. What is damaged or missing is not offered any more; what is whole again is. One job runs at a time.
#[utoipa::path(post, path = "/storage/verify", tag = "storage",
    responses((status = 202, description = "The job", body = Job),
        (status = 409, description = "Another job is running", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn verify(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let job = jobs::start(&core, &admin.actor(), Work::Verify).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

/// Remove payloads that no filter admits
///
/// Starts a job. Kept is whatever is for a kernel that any machine has reported. With `dry-run` it only says what it would
/// remove. One job runs at a time.
#[utoipa::path(post, path = "/storage/prune", tag = "storage", request_body = PruneRequest,
    responses((status = 202, description = "The job", body = Job),
        (status = 409, description = "Another job is running", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn prune(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<PruneRequest>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let job = jobs::start(&core, &admin.actor(), Work::Prune(request)).await?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}
