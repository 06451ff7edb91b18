//! What the machine-facing surfaces share: the machine in the path, bounded bodies, tokens in every place where clients
//! are known or expected to put them, and errors in the words that clients know.

use super::error::{ApiError, AsIs};
use super::origin::scheme;
use crate::domain::MachineId;
use crate::domain::token::MachineClaims;
use crate::service::{Core, ServiceError, clients, delivery};
use crate::telemetry::TokenKind;
use crate::wire::ReportError;
use crate::wire::legacy::UNAUTHORIZED;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::FutureExt;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

/// The largest body of a client, in bytes. Real reports are below 20 KiB.
pub(super) const MAX_BODY: usize = 256 << 10;

/// An error on its way to a client: 401 is the plain word that clients know (public), the rest are problems.
#[derive(Debug)]
pub(super) struct ClientError(pub(super) ServiceError);

impl From<ServiceError> for ClientError {
    fn from(error: ServiceError) -> Self {
        Self(error)
    }
}

impl IntoResponse for ClientError {
    fn into_response(self) -> Response {
        if let ServiceError::Unauthorized(why) = &self.0 {
            tracing::info!(why, "a client was refused");
            let mut response = (StatusCode::UNAUTHORIZED, UNAUTHORIZED).into_response();
            response
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response.extensions_mut().insert(AsIs);
            return response;
        }
        ApiError::from(self.0).into_response()
    }
}

/// The machine id in the path.
#[derive(Debug)]
pub(super) struct MachinePath(pub(super) MachineId);

impl FromRequestParts<Arc<Core>> for MachinePath {
    type Rejection = ClientError;

    async fn from_request_parts(parts: &mut Parts, core: &Arc<Core>) -> Result<Self, ClientError> {
        let Path(text): Path<String> = Path::from_request_parts(parts, core)
            .await
            .map_err(|e| ServiceError::Invalid(e.body_text()))?;
        Ok(Self(id(&text)?))
    }
}

/// The machine that a path names.
pub(super) fn id(text: &str) -> Result<MachineId, ServiceError> {
    Ok(text.parse()?)
}

/// A client's body: bounded in bytes and in time.
#[derive(Debug)]
pub(super) struct ClientBody(pub(super) Bytes);

impl FromRequest<Arc<Core>> for ClientBody {
    type Rejection = ClientError;

    async fn from_request(request: Request, core: &Arc<Core>) -> Result<Self, ClientError> {
        Ok(Self(body(core, request.into_body()).await?))
    }
}

/// Reads a client's body, bounded in bytes and in time.
pub(super) async fn body<B>(core: &Core, body: B) -> Result<Bytes, ServiceError>
where
    B: HttpBody<Data = Bytes> + Send,
    B::Error: Into<axum::BoxError>,
{
    let mut body = pin!(Limited::new(body, MAX_BODY));
    // Nearly always the whole body came together with the head: then there is nothing to wait for or to put together.
    let first = match body.as_mut().frame().now_or_never() {
        Some(Some(frame)) => frame.map_err(broken)?.into_data().unwrap_or_default(),
        Some(None) => return Ok(Bytes::new()),
        None => Bytes::new(),
    };
    if body.is_end_stream() {
        return Ok(first);
    }
    let patience = core.config.server.body_timeout;
    let rest = tokio::time::timeout(patience, body.collect()).await;
    let rest = rest.map_err(|_| {
        ServiceError::Timeout(format!(
            "the body did not arrive within {} s",
            patience.as_secs()
        ))
    })?;
    let rest = rest.map_err(broken)?.to_bytes();
    Ok(if rest.is_empty() {
        first
    } else if first.is_empty() {
        rest
    } else {
        [first, rest].concat().into()
    })
}

fn broken(error: axum::BoxError) -> ServiceError {
    if is_too_long(error.as_ref()) {
        return ServiceError::TooLarge(format!("a body of at most {MAX_BODY} bytes is taken here"));
    }
    ServiceError::Invalid(format!("the body broke off: {error}"))
}

fn is_too_long(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(cause) = source {
        if cause.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// The token of an `Authorization` header: `Bearer`, `Macaroon`, or the password of `Basic`.
pub(super) fn token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("macaroon") {
        return Some(Cow::Borrowed(rest));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
        let (_, password) = decoded.split_once(':')?;
        return Some(Cow::Owned(password.to_owned()));
    }
    None
}

/// Nothing that proves who asks.
pub(super) fn no_token(resource_token: bool) -> ServiceError {
    ServiceError::Unauthorized(if resource_token {
        "a resource token was shown; this server does not ask the contracts service (contracts.enabled)".to_owned()
    } else {
        "no token was shown".to_owned()
    })
}

/// Checks the machine token in the header, or else the one in the body.
pub(super) fn authenticated(
    core: &Core,
    machine: &MachineId,
    headers: &HeaderMap,
    in_body: Option<&str>,
) -> Result<(MachineClaims, i32), ServiceError> {
    let started = std::time::Instant::now();
    let shown = token(headers).or(in_body.map(Cow::Borrowed));
    let result = match shown {
        Some(token) => clients::authenticate(core, machine, &token),
        None => Err(no_token(false)),
    };
    core.metrics
        .auth
        .duration
        .observe(TokenKind::Machine, started.elapsed().as_secs_f64());
    count_auth(core, TokenKind::Machine, &result);
    result
}

/// Counts an authentication.
pub(super) fn count_auth<T>(core: &Core, kind: TokenKind, result: &Result<T, ServiceError>) {
    match result {
        Ok(_) => core.metrics.auth.authorized.inc(kind),
        Err(ServiceError::Unauthorized(_)) => core.metrics.auth.failures.inc(kind),
        Err(_) => {}
    }
}

/// Counts keys that no known shape has.
pub(super) fn count_keys(core: &Core, unknown: u32) {
    if unknown > 0 {
        core.metrics.clients.unknown_keys.inc_by(u64::from(unknown));
    }
}

/// An answer in JSON that is rendered already.
pub(super) fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// A body that cannot be read.
pub(super) fn unreadable(error: ReportError) -> ServiceError {
    ServiceError::Invalid(error.to_string())
}

/// How the client reached us, for download addresses where no template is configured.
#[derive(Debug)]
pub(super) struct ClientUrl<'a> {
    uri: &'a Uri,
    headers: &'a HeaderMap,
}

impl<'a> ClientUrl<'a> {
    /// By the request's target and headers.
    pub(super) fn new(uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self { uri, headers }
    }

    fn host(&self) -> Option<&'a str> {
        // The host is given back to nobody but this client, so that a false one harms only who sends it.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        self.uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| self.headers.get(HOST)?.to_str().ok())
            .filter(|host| !host.is_empty() && host.len() < 256 && host.chars().all(plain))
    }

    /// The address of a file for a machine, signed if that is configured.
    pub(super) fn of(
        &self,
        core: &Core,
        filename: &str,
        machine: &MachineId,
        now: Timestamp,
    ) -> String {
        let address = self.plain(core, filename);
        match delivery::signature(core, filename, machine, now) {
            Some(query) if address.contains('?') => format!("{address}&{query}"),
            Some(query) => format!("{address}?{query}"),
            None => address,
        }
    }

    /// By the template, or as the client reached us.
    fn plain(&self, core: &Core, filename: &str) -> String {
        let template = &core.config.server.url_template;
        if !template.is_empty() {
            return template.replace("{filename}", filename);
        }
        let scheme = scheme(core, self.headers);
        match self.host() {
            Some(host) => format!("{scheme}://{host}/v1/patches/{filename}"),
            None => format!("/v1/patches/{filename}"),
        }
    }
}
