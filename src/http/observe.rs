//! Around every request: an id, a log line, the public metric of its duration, and an answer even to a panic.

use super::error::{ApiError, REQUEST_ID};
use super::origin::source;
use crate::service::{Core, ServiceError};
use crate::telemetry::security::{self, Deed, Event};
use crate::telemetry::traces;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::IntoResponse;
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Instant;
use tower_http::request_id::RequestId;
use tracing::field::Empty;
use tracing::{Instrument, Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Gives the request an id, runs it in a span of that id, and takes its duration.
pub(super) async fn observe(
    State(core): State<Arc<Core>>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let started = Instant::now();
    let id = request_id();
    let template = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let source = source(request.extensions());
    let machine = machine(request.uri());
    let trace = trace(
        request.headers(),
        template.as_ref().map_or("none", MatchedPath::as_str),
        &method,
        &id,
    );
    request.extensions_mut().insert(RequestId::new(id.clone()));
    let span = span(&id);
    let mut response = next
        .run(request)
        .instrument(span.clone())
        .instrument(trace.clone())
        .await;
    let status = mark(&mut response, id).as_u16();
    trace.record("http.response.status_code", status);
    if status >= 500 {
        trace.record("otel.status_code", "ERROR");
    }
    if let (StatusCode::UNAUTHORIZED, Some(machine)) = (response.status(), machine) {
        machine_refused(&machine, &source);
    }
    let seconds = started.elapsed().as_secs_f64();
    let template = template.as_ref().map(MatchedPath::as_str);
    core.metrics
        .http
        .observe(template, method.as_str(), status, seconds);
    span.in_scope(|| {
        // The path itself may hold a machine token (legacy API); the template does not.
        tracing::debug!(handler = template.unwrap_or("none"), %method, status, seconds, "answered");
    });
    response
}

/// Whether something is written of requests that go well: a log line or a trace.
pub(super) fn is_logged() -> bool {
    tracing::enabled!(Level::DEBUG) || traces::is_on()
}

/// The span of a request for traces, below that of the caller if it names one. Costs nothing while nobody collects them.
fn trace(headers: &HeaderMap, template: &str, method: &Method, id: &HeaderValue) -> Span {
    if !traces::is_on() {
        return Span::none();
    }
    let span = tracing::trace_span!(
        target: traces::TARGET,
        "request",
        otel.name = format!("{method} {template}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = %method,
        http.route = template,
        http.response.status_code = Empty,
        request_id = id.to_str().unwrap_or_default(),
    );
    let header = headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok());
    if let Some(parent) = traces::parent(header) {
        // It fails only for a span that nobody collects.
        let _ = span.set_parent(parent);
    }
    span
}

/// The machine that a path of the client API names; empty for the older paths, in which its token may stand.
fn machine(uri: &Uri) -> Option<String> {
    let path = uri.path();
    if let Some(rest) = path.strip_prefix("/v1/client/") {
        return rest
            .split('/')
            .next()
            .map(|id| id.chars().take(36).collect());
    }
    path.starts_with("/api/").then(String::new)
}

/// Tells of a machine that was refused.
pub(super) fn machine_refused(machine: &str, source: &str) {
    let deed = Deed {
        source,
        target: machine,
        ..Deed::default()
    };
    security::emit(Event::MachineRefused, deed);
}

/// The span that gives what is logged within it the request's id.
pub(super) fn span(id: &HeaderValue) -> Span {
    tracing::info_span!("request", request_id = id.to_str().unwrap_or_default())
}

/// Writes the id on the answer; returns the answer's status.
pub(super) fn mark(response: &mut Response<Body>, id: HeaderValue) -> StatusCode {
    response.headers_mut().insert(REQUEST_ID, id);
    response.status()
}

/// An id that no other request has: 48 random bits of this process and a number that counts up. It is a name to look
/// for in logs, not a secret.
pub(super) fn request_id() -> HeaderValue {
    static PROCESS: LazyLock<[u8; 6]> = LazyLock::new(|| {
        let mut bytes = [0; 6];
        // A random source that fails must not fail requests.
        let _ = openssl::rand::rand_bytes(&mut bytes);
        bytes
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut bytes = [0; 12];
    bytes[..6].copy_from_slice(&*PROCESS);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    bytes[6..].copy_from_slice(&number[2..]);
    let mut text = [0; 24];
    // Neither can fail: the length is twice the number of bytes, and all of it is hexadecimal digits.
    let _ = hex::encode_to_slice(bytes, &mut text);
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none"))
}

/// The answer when a handler panicked.
pub(super) fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::from(ServiceError::Internal(format!(
        "a handler panicked: {text}"
    )))
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_requests_have_the_same_id() {
        let ids: HashSet<HeaderValue> = (0..1000).map(|_| request_id()).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let text = id.to_str().unwrap();
            assert!(text.len() == 24 && hex::decode(text).is_ok(), "{text}");
        }
    }
}
