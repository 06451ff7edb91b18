//! Signing in at the identity provider and coming back, where one is configured.

use super::error::PageError;
use super::session::set_cookie;
use super::{BASE, cookies};
use crate::http::origin::{scheme, source};
use crate::service::{Core, ServiceError, identity};
use crate::upstream::oidc_code::Journey;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{HOST, SET_COOKIE};
use axum::http::{Extensions, HeaderMap, HeaderValue, Uri};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;
use std::sync::Arc;

/// The cookie of whoever is on the way.
const NAME: &str = "livepatch-way";
/// How long the way may take, in seconds.
const PATIENCE: u32 = 600;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/oidc/login", get(set_out))
        .route("/console/oidc/callback", get(arrive))
}

/// Where the provider sends a browser back to: this console, as the browser knows it. The provider knows which of them are good.
fn callback(core: &Core, uri: &Uri, headers: &HeaderMap) -> Result<String, ServiceError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let host = uri
        .authority()
        .map(axum::http::uri::Authority::as_str)
        .or_else(|| headers.get(HOST)?.to_str().ok())
        .filter(|host| !host.is_empty() && host.len() < 256 && host.chars().all(plain))
        .ok_or_else(|| ServiceError::Invalid("the request names no host".to_owned()))?;
    let scheme = scheme(core, headers);
    Ok(format!("{scheme}://{host}{BASE}/oidc/callback"))
}

fn way(core: &Core, headers: &HeaderMap, value: &str, seconds: u32) -> HeaderValue {
    let path = format!("{BASE}/oidc");
    cookies::made(NAME, value, &path, Some(seconds), scheme(core, headers))
}

async fn set_out(
    State(core): State<Arc<Core>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let redirect = callback(&core, &uri, &headers)?;
    let (url, journey) = identity::set_out(&core, &redirect)?.ok_or_else(|| {
        ServiceError::Invalid(
            "nobody signs in at an identity provider here; see auth.oauth.client-id".to_owned(),
        )
    })?;
    let cookie = way(&core, &headers, &journey.text(), PATIENCE);
    Ok(([(SET_COOKIE, cookie)], Redirect::to(&url)).into_response())
}

#[derive(Debug, Deserialize)]
struct Arrival {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

fn journey(headers: &HeaderMap) -> Option<Journey> {
    Journey::read(cookies::find(headers, NAME)?)
}

async fn arrive(
    State(core): State<Arc<Core>>,
    Query(arrival): Query<Arrival>,
    uri: Uri,
    extensions: Extensions,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let refused = |why: &str| PageError::from(ServiceError::Unauthorized(why.to_owned()));
    let journey = journey(&headers).ok_or_else(|| {
        refused("this browser did not set out to sign in, or too long ago; begin again")
    })?;
    if arrival.state.as_deref() != Some(journey.state.as_str()) {
        return Err(refused(
            "this is not the answer to the sign-in that was begun; begin again",
        ));
    }
    if let Some(error) = arrival.error {
        let error: String = error
            .chars()
            .filter(char::is_ascii_graphic)
            .take(60)
            .collect();
        return Err(refused(&format!(
            "the identity provider says {error:?}; begin again"
        )));
    }
    let code = arrival
        .code
        .ok_or_else(|| refused("the identity provider sent no code; begin again"))?;
    let redirect = callback(&core, &uri, &headers)?;
    let from = source(&extensions);
    let answer = identity::arrive(&core, &code, &redirect, &journey, from).await?;
    let cookies = AppendHeaders([
        (
            SET_COOKIE,
            set_cookie(&core, &headers, answer.token.expose()),
        ),
        (SET_COOKIE, way(&core, &headers, "", 0)),
    ]);
    Ok((cookies, Redirect::to(BASE)).into_response())
}
