//! Rollout policies of tiers.

use super::extract::{Admin, Operator, Viewer};
use crate::domain::TierName;
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::Core;
use crate::service::rollouts::policies;
use crate::wire::admin::{Page, PolicyEntry, PolicyOutcome, PolicyPlan, PolicySet, PolicyUnset};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(show, set, unset))
        .routes(routes!(apply))
}

/// List rollout policies
///
/// In the order of the tiers. A tier that is not in the list has none: what reaches it is offered to all at once.
#[utoipa::path(get, path = "/policies", tag = "policies",
    responses((status = 200, description = "All policies", body = Page<PolicyEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
) -> Result<Json<Page<PolicyEntry>>, ApiError> {
    Ok(Json(Page::whole(policies::list(&core).await?)))
}

/// Show a tier's rollout policy
#[utoipa::path(get, path = "/tiers/{name}/policy", tag = "policies",
    params(("name" = String, Path, description = "The tier")),
    responses((status = 200, description = "The policy", body = PolicyEntry)))]
async fn show(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(name): PathParam<TierName>,
) -> Result<Json<PolicyEntry>, ApiError> {
    Ok(Json(policies::of(&core, &name).await?))
}

/// Set a tier's rollout policy
///
/// One that could not be followed is refused, with everything that is wrong in it. What is available in the tier stays so.
#[utoipa::path(put, path = "/tiers/{name}/policy", tag = "policies", request_body = PolicySet,
    params(("name" = String, Path, description = "The tier")),
    responses((status = 200, description = "The policy as it stands now", body = PolicyEntry),
        (status = 409, description = "Tiers are taken over from upstream", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn set(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<TierName>,
    JsonBody(request): JsonBody<PolicySet>,
) -> Result<Json<PolicyEntry>, ApiError> {
    let entry = policies::set(&core, &admin.actor(), &name, &request).await?;
    Ok(Json(entry))
}

/// Take a tier's rollout policy away
///
/// Everybody is let in at once again, and rollouts that were under way there are at their end.
#[utoipa::path(delete, path = "/tiers/{name}/policy", tag = "policies",
    params(("name" = String, Path, description = "The tier"), PolicyUnset),
    responses((status = 204, description = "It has none any more"),
        (status = 409, description = "Tiers are taken over from upstream", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn unset(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<TierName>,
    QueryParams(query): QueryParams<PolicyUnset>,
) -> Result<StatusCode, ApiError> {
    policies::unset(&core, &admin.actor(), &name, query.reason.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Apply rollout policies
///
/// Makes these the policies of all tiers, in one transaction. A tier that is not named loses its policy. With `dry-run`, only says
/// what would change, and what that means for which machines.
#[utoipa::path(post, path = "/policies/apply", tag = "policies", request_body = PolicyPlan,
    responses((status = 200, description = "What changed, or would change", body = PolicyOutcome),
        (status = 409, description = "Tiers are taken over from upstream", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn apply(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<PolicyPlan>,
) -> Result<Json<PolicyOutcome>, ApiError> {
    Ok(Json(
        policies::apply(&core, &admin.actor(), &request).await?,
    ))
}
