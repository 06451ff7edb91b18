//! The API for other servers, `/v1/sync/...` (ours): a signed head, a state or how it differs, payloads, and a report back.

use super::error::{ApiError, JsonBody, PathParam, QueryParams};
use super::origin::source;
use crate::service::peer::{self, Caller, Told};
use crate::service::{Core, ServiceError, delivery};
use crate::telemetry::TokenKind;
use crate::telemetry::security::{self, Deed, Event};
use crate::wire::sync::{DIFFERENCE, PeerReport, WHOLE};
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;

/// The longest report, in bytes: a hundred thousand machines.
const MAX_REPORT: usize = 32 << 20;

/// Routes for other servers; all pass through the governor.
pub(super) fn routes() -> axum::Router<Arc<Core>> {
    axum::Router::new()
        .route("/v1/sync/head", get(head))
        .route("/v1/sync/state", get(state))
        .route("/v1/sync/payloads/{filename}", get(payload))
        .route(
            "/v1/sync/report",
            post(report).layer(DefaultBodyLimit::max(MAX_REPORT)),
        )
}

/// Another server that has shown a sync token.
#[derive(Debug)]
struct Peer(Caller);

impl FromRequestParts<Arc<Core>> for Peer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, ApiError> {
        let token = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(token) = token else {
            core.metrics.auth.failures.inc(TokenKind::None);
            refused(parts);
            return Err(ServiceError::Unauthorized(
                "show a sync token: `Authorization: Bearer lpy_...`".to_owned(),
            )
            .into());
        };
        let caller = peer::authenticate(core, token, Timestamp::now());
        if caller.is_ok() {
            core.metrics.auth.authorized.inc(TokenKind::Sync);
        } else {
            core.metrics.auth.failures.inc(TokenKind::Sync);
            refused(parts);
        }
        Ok(Self(caller?))
    }
}

fn refused(parts: &Parts) {
    let deed = Deed {
        source: &source(&parts.extensions),
        target: parts.uri.path(),
        ..Deed::default()
    };
    security::emit(Event::SyncTokenRefused, deed);
}

async fn head(
    State(core): State<Arc<Core>>,
    Peer(caller): Peer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (json, tag) = peer::signed_head(&core, &caller, Timestamp::now()).await?;
    let same = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|value| value.as_bytes() == tag.as_bytes());
    let meta = [(ETAG, tag), (CACHE_CONTROL, "no-cache".to_owned())];
    if same {
        return Ok((StatusCode::NOT_MODIFIED, meta).into_response());
    }
    Ok((meta, [(CONTENT_TYPE, "application/json")], json).into_response())
}

/// Which state.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Which {
    /// Of this version, which a head names.
    version: u64,
    /// As a difference from this version, if that is known.
    since: Option<u64>,
}

async fn state(
    State(core): State<Arc<Core>>,
    Peer(caller): Peer,
    QueryParams(which): QueryParams<Which>,
) -> Result<Response, ApiError> {
    let told = peer::state_of(&core, &caller, which.version, which.since).await?;
    let (form, body) = match told {
        Told::Whole(text) => (WHOLE, Body::from(text)),
        Told::Difference(text) => (DIFFERENCE, Body::from(text)),
    };
    Ok(([(CONTENT_TYPE, form)], body).into_response())
}

async fn payload(
    State(core): State<Arc<Core>>,
    Peer(caller): Peer,
    PathParam(filename): PathParam<String>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let found = peer::find(&core, &caller, &filename)?;
    match crate::blob::respond(&method, &headers, &found.as_payload(), &core.cache).await {
        Ok(response) => Ok(response.map(Body::new)),
        Err(error) => Err(delivery::failed(&core, &found, &error).await.into()),
    }
}

async fn report(
    State(core): State<Arc<Core>>,
    Peer(caller): Peer,
    JsonBody(report): JsonBody<PeerReport>,
) -> Result<StatusCode, ApiError> {
    peer::take_report(&core, &caller, &report).await?;
    Ok(StatusCode::NO_CONTENT)
}
