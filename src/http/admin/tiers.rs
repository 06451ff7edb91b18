//! Tiers.

use super::extract::{Admin, Operator, Viewer};
use crate::domain::TierName;
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, tiers};
use crate::wire::admin::{Page, Tier, TierChange, TierCreate, TierDeleteQuery, TierDeleted};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list, create))
        .routes(routes!(change, delete))
}

/// List tiers
///
/// First to last, with the machines, auth tokens and patches in each.
#[utoipa::path(get, path = "/tiers", tag = "tiers",
    responses((status = 200, description = "All tiers", body = Page<Tier>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
) -> Result<Json<Page<Tier>>, ApiError> {
    Ok(Json(Page::whole(tiers::list(&core).await?)))
}

/// Make a tier
///
/// It becomes the last one, or stands before or after another. What has reached the tiers behind it is available in it.
/// There may be 64 tiers.
#[utoipa::path(post, path = "/tiers", tag = "tiers", request_body = TierCreate,
    responses((status = 201, description = "The new tier", body = Tier),
        (status = 409, description = "The name is taken, or there are too many", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn create(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<TierCreate>,
) -> Result<(StatusCode, Json<Tier>), ApiError> {
    let tier = tiers::create(&core, &admin.actor(), &request).await?;
    Ok((StatusCode::CREATED, Json(tier)))
}

/// Rename or move a tier
///
/// A move that would change in which tiers any patch is available is refused; promote what is between first.
#[utoipa::path(patch, path = "/tiers/{name}", tag = "tiers", request_body = TierChange,
    params(("name" = String, Path, description = "The tier")),
    responses((status = 200, description = "The tier as it stands now", body = Tier),
        (status = 409, description = "The name is taken, or patches would become available elsewhere",
            body = crate::wire::Problem, content_type = "application/problem+json")))]
async fn change(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<TierName>,
    JsonBody(request): JsonBody<TierChange>,
) -> Result<Json<Tier>, ApiError> {
    let tier = tiers::change(&core, &admin.actor(), &name, &request).await?;
    Ok(Json(tier))
}

/// Delete a tier
///
/// Machines and auth tokens in it go to `move-to`; without that, nothing may use the tier. Patches that had reached it
/// stay available in the tiers before it. The last tier left cannot be deleted.
#[utoipa::path(delete, path = "/tiers/{name}", tag = "tiers",
    params(("name" = String, Path, description = "The tier"), TierDeleteQuery),
    responses((status = 200, description = "What was moved", body = TierDeleted),
        (status = 409, description = "The tier is in use, or the last one", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn delete(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<TierName>,
    QueryParams(query): QueryParams<TierDeleteQuery>,
) -> Result<Json<TierDeleted>, ApiError> {
    let move_to = query.move_to.as_ref();
    let deleted = tiers::delete(&core, &admin.actor(), &name, move_to).await?;
    Ok(Json(deleted))
}
