//! The client API, current form (`/v1/client/...`) and kernel support. Which of it is public and which is ours stands
//! in `docs/reference/compatibility.md`.

use super::error::ApiError;
use super::machine::{self, ClientBody, ClientError, ClientUrl, MachinePath};
use crate::domain::MachineId;
use crate::service::{Core, clients, contracts};
use crate::telemetry::TokenKind;
use crate::wire::{ClientReport, PingReport, SupportedAnswer, SupportedQuery};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body::Body as HttpBody;
use jiff::Timestamp;
use std::borrow::Cow;
use std::sync::Arc;

/// Where machines check in.
pub(super) const UPDATES: &str = "/v1/client/{id}/updates";

/// Routes that machines use; all pass through the governor.
pub(super) fn routes() -> axum::Router<Arc<Core>> {
    axum::Router::new()
        .route("/v1/client/{id}", post(register).delete(deregister))
        .route("/v1/client/{id}/info", get(info))
        .route(UPDATES, post(updates))
        .route("/v1/client/{id}/pings", post(pings))
        .route("/v1/api/kernels/supported", get(supported))
}

async fn register(
    State(core): State<Arc<Core>>,
    MachinePath(machine): MachinePath,
    headers: HeaderMap,
    body: ClientBody,
) -> Result<Response, ClientError> {
    let report = ClientReport::parse(&body.0).map_err(machine::unreadable)?;
    machine::count_keys(&core, report.unknown_keys);
    let shown = machine::token(&headers);
    let Some(token) = core.contracts.shown(&report, shown.as_deref()) else {
        core.metrics.auth.failures.inc(TokenKind::None);
        return Err(machine::no_token(report.resource_token.is_some()).into());
    };
    let now = Timestamp::now();
    let (kind, result) = contracts::register(&core, machine, token, &report, now).await;
    machine::count_auth(&core, kind, &result);
    Ok(Json(result?).into_response())
}

async fn deregister(
    State(core): State<Arc<Core>>,
    MachinePath(machine): MachinePath,
    headers: HeaderMap,
) -> Result<StatusCode, ClientError> {
    machine::authenticated(&core, &machine, &headers, None)?;
    clients::deregister(&core, machine).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn info(
    State(core): State<Arc<Core>>,
    MachinePath(machine): MachinePath,
    headers: HeaderMap,
) -> Result<Response, ClientError> {
    let token = machine::token(&headers).ok_or_else(|| machine::no_token(false))?;
    let answer = clients::info(&core, machine, &token, Timestamp::now()).await?;
    Ok(Json(answer).into_response())
}

async fn updates(
    State(core): State<Arc<Core>>,
    MachinePath(machine): MachinePath,
    request: Request,
) -> Result<Response, ClientError> {
    let (parts, body) = request.into_parts();
    check_in(&core, machine, &parts, body).await
}

/// A check-in, whichever way it came: through the router or, nearly always, past it.
pub(super) async fn check_in<B>(
    core: &Core,
    machine: MachineId,
    parts: &Parts,
    body: B,
) -> Result<Response, ClientError>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<axum::BoxError>,
{
    let body = machine::body(core, body).await?;
    let report = ClientReport::parse(&body).map_err(machine::unreadable)?;
    let shown = report
        .machine_token
        .as_ref()
        .map(super::super::wire::token::Token::expose);
    let (claims, tier) = machine::authenticated(core, &machine, &parts.headers, shown)?;
    let url = ClientUrl::new(&parts.uri, &parts.headers);
    let now = Timestamp::now();
    let address = |filename: &str| url.of(core, filename, &claims.machine, now);
    let answer = clients::check_in(core, &claims, tier, &report, address, now).await?;
    Ok(machine::json(answer))
}

async fn pings(
    State(core): State<Arc<Core>>,
    MachinePath(machine): MachinePath,
    headers: HeaderMap,
    body: ClientBody,
) -> Result<StatusCode, ClientError> {
    let ping = PingReport::parse(&body.0).map_err(machine::unreadable)?;
    machine::count_keys(&core, ping.unknown_keys);
    let shown = ping
        .machine_token
        .as_ref()
        .map(super::super::wire::token::Token::expose);
    let (_, tier) = machine::authenticated(&core, &machine, &headers, shown)?;
    clients::ping(&core, machine, tier, &ping).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn supported(
    State(core): State<Arc<Core>>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Json<SupportedAnswer>, ApiError> {
    let Query(pairs) = query?;
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (Cow::Owned(name), Cow::Owned(value)));
    let query = SupportedQuery::from_pairs(pairs);
    let supported = clients::kernel_support(&core, &query, Timestamp::now())?;
    Ok(Json(SupportedAnswer { supported }))
}
