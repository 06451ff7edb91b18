//! The old client's API. Paths, status codes and error texts are public; other software searches the texts for fixed
//! words, so they stay as they are.

use super::error::AsIs;
use super::machine::{self, ClientBody, ClientError, ClientUrl};
use crate::domain::MachineId;
use crate::domain::token::MachineClaims;
use crate::service::{Core, ServiceError, clients, contracts};
use crate::telemetry::TokenKind;
use crate::wire::{ClientReport, LegacyError, LegacyRegisterAnswer};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use jiff::Timestamp;
use std::sync::Arc;

/// Routes of the old API.
pub(super) fn routes() -> axum::Router<Arc<Core>> {
    axum::Router::new()
        .route("/api/machine-tokens", post(enable))
        .route("/api/machine/{token}", put(status))
}

fn refuse(error: LegacyError) -> Response {
    let mut response = (StatusCode::FORBIDDEN, Json(error)).into_response();
    response.extensions_mut().insert(AsIs);
    response
}

async fn enable(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    body: ClientBody,
) -> Result<Response, ClientError> {
    let report = ClientReport::parse(&body.0).map_err(machine::unreadable)?;
    machine::count_keys(&core, report.unknown_keys);
    let shown = machine::token(&headers);
    let Some(token) = core.contracts.shown(&report, shown.as_deref()) else {
        return Err(machine::no_token(report.resource_token.is_some()).into());
    };
    let id = report.machine_id.as_deref().unwrap_or_default();
    let machine: MachineId = id.parse().map_err(ServiceError::from)?;
    if clients::is_unsupported(&core, &report, Timestamp::now()) {
        return Ok(refuse(LegacyError::UNSUPPORTED_KERNEL));
    }
    let now = Timestamp::now();
    let (kind, result) = contracts::register(&core, machine, token, &report, now).await;
    machine::count_auth(&core, kind, &result);
    match result {
        Ok(answer) => {
            let answer = LegacyRegisterAnswer {
                machine_token: answer.machine_token,
                tier: answer.tier,
            };
            Ok(Json(answer).into_response())
        }
        Err(ServiceError::Unauthorized(why)) => {
            tracing::info!(why, "a client was refused");
            Ok(refuse(LegacyError::UNKNOWN_AUTH_TOKEN))
        }
        Err(ServiceError::Forbidden(why)) => Ok(refuse(LegacyError::other(why))),
        Err(error) => Err(error.into()),
    }
}

async fn status(
    State(core): State<Arc<Core>>,
    Path(token): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: ClientBody,
) -> Result<Response, ClientError> {
    let report = ClientReport::parse(&body.0).map_err(machine::unreadable)?;
    let admitted = admit(&core, &token);
    machine::count_auth(&core, TokenKind::Machine, &admitted);
    let Ok((claims, tier)) = admitted else {
        return Ok(refuse(LegacyError::INVALID_MACHINE_TOKEN));
    };
    let url = ClientUrl::new(&uri, &headers);
    let now = Timestamp::now();
    let address = |filename: &str| url.of(&core, filename, &claims.machine, now);
    let answer = clients::check_in(&core, &claims, tier, &report, address, now).await?;
    Ok(machine::json(answer))
}

/// The old path names no machine; the token does.
fn admit(core: &Core, token: &str) -> Result<(MachineClaims, i32), ServiceError> {
    let claims = core
        .machine_key
        .verify(token)
        .ok_or_else(|| machine::no_token(false))?;
    clients::authenticate(core, &claims.machine, token)
}
