//! Machines, their history, and why each is offered what it is.

use super::extract::{Admin, Operator, Viewer};
use crate::domain::MachineId;
use crate::http::error::{ApiError, JsonBody, PathParam, QueryParams};
use crate::service::{Core, explain, fleet, labels, moves};
use crate::wire::admin::{
    Explanation, HistoryEntry, HistoryQuery, LabelOutcome, Machine, MachineLabel, MachineMove,
    MachineQuery, MachineRevoke, MoveOutcome, Page, SelectedLabel, SelectedMove,
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
        .routes(routes!(list))
        .routes(routes!(show, forget))
        .routes(routes!(move_to))
        .routes(routes!(move_selected))
        .routes(routes!(label))
        .routes(routes!(label_selected))
        .routes(routes!(revoke))
        .routes(routes!(history))
        .routes(routes!(explain_offer))
}

/// List machines
///
/// By id. A page looks at a bounded number of machines: with a filter that lets few through it may hold less than was
/// asked for, or nothing, and still have a cursor. Only a page without a cursor is the last.
#[utoipa::path(get, path = "/machines", tag = "machines", params(MachineQuery),
    responses((status = 200, description = "Machines", body = Page<Machine>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<MachineQuery>,
) -> Result<Json<Page<Machine>>, ApiError> {
    Ok(Json(fleet::list(&core, &query).await?))
}

/// Show a machine
#[utoipa::path(get, path = "/machines/{id}", tag = "machines",
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits")),
    responses((status = 200, description = "The machine", body = Machine)))]
async fn show(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<MachineId>,
) -> Result<Json<Machine>, ApiError> {
    Ok(Json(fleet::show(&core, id).await?))
}

/// Forget a machine
///
/// Needs the role operator. Deletes its state, its history, and the tier it was moved to; that it is revoked stays.
/// A machine that still has a good token comes back with its next check-in: revoke it first.
#[utoipa::path(delete, path = "/machines/{id}", tag = "machines",
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits")),
    responses((status = 204, description = "Nothing is known of the machine any more")))]
async fn forget(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<MachineId>,
) -> Result<StatusCode, ApiError> {
    fleet::forget(&core, &admin.actor(), id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Move a machine to a tier
///
/// Needs the role operator. The machine stays there whatever its auth token says.
#[utoipa::path(put, path = "/machines/{id}/tier", tag = "machines", request_body = MachineMove,
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits")),
    responses((status = 200, description = "The machine", body = Machine)))]
async fn move_to(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<MachineId>,
    JsonBody(request): JsonBody<MachineMove>,
) -> Result<Json<Machine>, ApiError> {
    Ok(Json(
        fleet::move_to(&core, &admin.actor(), id, &request).await?,
    ))
}

/// Move all machines that a selector means to a tier
///
/// Needs the role operator. They stay there whatever their auth tokens say. Machines that are enabled or labelled later
/// are not moved. With `dry-run` nothing changes, and the answer says what would.
#[utoipa::path(post, path = "/machines/move", tag = "machines", request_body = SelectedMove,
    responses((status = 200, description = "How many, and from which tiers", body = MoveOutcome)))]
async fn move_selected(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<SelectedMove>,
) -> Result<Json<MoveOutcome>, ApiError> {
    let outcome = moves::move_selected(&core, &admin.actor(), request).await?;
    Ok(Json(outcome))
}

/// Change a machine's labels
///
/// Needs the role operator. Labels set here stay when the machine registers again; those that its auth token gives are
/// written anew then. A machine has at most 32.
#[utoipa::path(patch, path = "/machines/{id}/labels", tag = "machines", request_body = MachineLabel,
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits")),
    responses((status = 200, description = "The machine", body = Machine)))]
async fn label(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<MachineId>,
    JsonBody(request): JsonBody<MachineLabel>,
) -> Result<Json<Machine>, ApiError> {
    let machine = labels::change(&core, &admin.actor(), id, request).await?;
    Ok(Json(machine))
}

/// Change the labels of all machines that a selector means
///
/// Needs the role operator. All or none are changed. With `dry-run` nothing changes, and the answer says what would.
#[utoipa::path(post, path = "/machines/label", tag = "machines", request_body = SelectedLabel,
    responses((status = 200, description = "How many machines", body = LabelOutcome)))]
async fn label_selected(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    JsonBody(request): JsonBody<SelectedLabel>,
) -> Result<Json<LabelOutcome>, ApiError> {
    let outcome = labels::change_selected(&core, &admin.actor(), request).await?;
    Ok(Json(outcome))
}

/// Revoke a machine
///
/// Needs the role operator. The tokens it was given so far are refused; it must be enabled again.
#[utoipa::path(post, path = "/machines/{id}/revoke", tag = "machines", request_body = MachineRevoke,
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits")),
    responses((status = 200, description = "The machine", body = Machine)))]
async fn revoke(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(id): PathParam<MachineId>,
    JsonBody(request): JsonBody<MachineRevoke>,
) -> Result<Json<Machine>, ApiError> {
    Ok(Json(
        fleet::revoke(&core, &admin.actor(), id, &request).await?,
    ))
}

/// A machine's history
///
/// Its check-ins, as far as they are kept, and its messages around the insertion of patches; newest first.
#[utoipa::path(get, path = "/machines/{id}/history", tag = "machines",
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits"), HistoryQuery),
    responses((status = 200, description = "Lines of history", body = Page<HistoryEntry>)))]
async fn history(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<MachineId>,
    QueryParams(query): QueryParams<HistoryQuery>,
) -> Result<Json<Page<HistoryEntry>>, ApiError> {
    Ok(Json(fleet::history(&core, id, &query).await?))
}

/// Explain what a machine is offered
///
/// What it would be answered if it asked now with what it last reported, and every reason that leads there.
#[utoipa::path(get, path = "/machines/{id}/explain", tag = "machines",
    params(("id" = String, Path, description = "The machine's id, 32 hexadecimal digits")),
    responses((status = 200, description = "The decision and its reasons", body = Explanation)))]
async fn explain_offer(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(id): PathParam<MachineId>,
) -> Result<Json<Explanation>, ApiError> {
    Ok(Json(explain::explain(&core, id).await?))
}
