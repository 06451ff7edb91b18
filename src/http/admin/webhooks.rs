//! Webhooks and their deliveries.

use super::extract::{Admin, Administrator, Operator, Viewer};
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, webhooks};
use crate::wire::admin::{
    Page, Webhook, WebhookCreate, WebhookCreated, WebhookDelivery, WebhookDeliveryQuery,
    WebhookRetried, WebhookRetry,
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
        .routes(routes!(list, create))
        .routes(routes!(remove))
        .routes(routes!(test))
        .routes(routes!(enable))
        .routes(routes!(disable))
        .routes(routes!(retry))
        .routes(routes!(deliveries))
        .routes(routes!(delivery))
}

/// List webhooks
///
/// By name, all of them. Secrets are not shown; of the URL, only the role admin sees the path and what follows it.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks",
    responses((status = 200, description = "Webhooks", body = Page<Webhook>)))]
async fn list(
    State(core): State<Arc<Core>>,
    admin: Admin<Viewer>,
) -> Result<Json<Page<Webhook>>, ApiError> {
    Ok(Json(webhooks::list(&core, admin.caller.role).await?))
}

/// Make a webhook
///
/// Needs the role admin. The secret that deliveries are signed with is shown only in this answer.
#[utoipa::path(post, path = "/webhooks", tag = "webhooks", request_body = WebhookCreate,
    responses((status = 201, description = "The webhook and its secret", body = WebhookCreated)))]
async fn create(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    JsonBody(request): JsonBody<WebhookCreate>,
) -> Result<(StatusCode, Json<WebhookCreated>), ApiError> {
    let created = webhooks::create(&core, &admin.actor(), request).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Remove a webhook
///
/// Needs the role admin. What waits for it is not delivered any more, and its deliveries are forgotten.
#[utoipa::path(delete, path = "/webhooks/{name}", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 204, description = "The webhook is gone")))]
async fn remove(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
) -> Result<StatusCode, ApiError> {
    webhooks::remove(&core, &admin.actor(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Try a webhook out
///
/// Needs the role admin. An event `webhook.test` is sent to it as any other is, but only once; what comes of it is seen at the
/// delivery that is answered.
#[utoipa::path(post, path = "/webhooks/{name}/test", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 202, description = "The delivery that will be tried", body = WebhookDelivery)))]
async fn test(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
) -> Result<(StatusCode, Json<WebhookDelivery>), ApiError> {
    let delivery = webhooks::test(&core, &admin.actor(), &name).await?;
    Ok((StatusCode::ACCEPTED, Json(delivery)))
}

/// Switch a webhook on
///
/// Needs the role admin. What waited for it is delivered.
#[utoipa::path(post, path = "/webhooks/{name}/enable", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 200, description = "The webhook as it stands", body = Webhook)))]
async fn enable(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Webhook>, ApiError> {
    Ok(Json(
        webhooks::switch(&core, &admin.actor(), &name, true).await?,
    ))
}

/// Switch a webhook off
///
/// Needs the role admin. It is told of nothing that happens from now on; what waits for it stays until it is switched on.
#[utoipa::path(post, path = "/webhooks/{name}/disable", tag = "webhooks",
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 200, description = "The webhook as it stands", body = Webhook)))]
async fn disable(
    State(core): State<Arc<Core>>,
    admin: Admin<Administrator>,
    PathParam(name): PathParam<String>,
) -> Result<Json<Webhook>, ApiError> {
    Ok(Json(
        webhooks::switch(&core, &admin.actor(), &name, false).await?,
    ))
}

/// Send again what failed
///
/// Needs the role operator. Dead letters and what waits for another try are due now, with their attempts counted anew.
#[utoipa::path(post, path = "/webhooks/{name}/retry", tag = "webhooks", request_body = WebhookRetry,
    params(("name" = String, Path, description = "The webhook's name")),
    responses((status = 200, description = "How many are due", body = WebhookRetried)))]
async fn retry(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(name): PathParam<String>,
    JsonBody(request): JsonBody<WebhookRetry>,
) -> Result<Json<WebhookRetried>, ApiError> {
    Ok(Json(
        webhooks::retry(&core, &admin.actor(), &name, &request).await?,
    ))
}

/// List deliveries to webhooks
///
/// Newest first; `state=dead` lists the dead letters. Those that ended are kept for `webhooks.retention-days`.
#[utoipa::path(get, path = "/webhook-deliveries", tag = "webhook-deliveries", operation_id = "list",
    params(WebhookDeliveryQuery),
    responses((status = 200, description = "Deliveries", body = Page<WebhookDelivery>)))]
async fn deliveries(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<WebhookDeliveryQuery>,
) -> Result<Json<Page<WebhookDelivery>>, ApiError> {
    Ok(Json(webhooks::deliveries(&core, &query).await?))
}

/// Show a delivery to a webhook
///
/// With what is sent.
#[utoipa::path(get, path = "/webhook-deliveries/{id}", tag = "webhook-deliveries", operation_id = "show",
    params(("id" = i64, Path, description = "The delivery's id")),
    responses((status = 200, description = "The delivery", body = WebhookDelivery)))]
async fn delivery(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<i64>,
) -> Result<Json<WebhookDelivery>, ApiError> {
    Ok(Json(webhooks::show(&core, id).await?))
}
