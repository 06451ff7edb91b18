//! Around every request: an id, a log line, the public metric of its duration, and an answer even to a panic.

use super::error::{ApiError, REQUEST_ID};
use crate::service::{Core, ServiceError};
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Response};
use axum::middleware::Next;
use axum::response::IntoResponse;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;
use tower_http::request_id::RequestId;
use tracing::Instrument;

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
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.extensions_mut().insert(RequestId::new(value));
    }
    let span = tracing::info_span!("request", request_id = %id);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let seconds = started.elapsed().as_secs_f64();
    let template = template.as_ref().map(MatchedPath::as_str);
    let status = response.status().as_u16();
    core.metrics
        .http
        .observe(template, method.as_str(), status, seconds);
    span.in_scope(|| {
        // The path itself may hold a machine token (legacy API); the template does not.
        tracing::debug!(handler = template.unwrap_or("none"), %method, status, seconds, "answered");
    });
    response
}

/// 96 random bits; a random source that fails must not fail the request.
fn request_id() -> String {
    let mut bytes = [0u8; 12];
    let _ = openssl::rand::rand_bytes(&mut bytes);
    hex::encode(bytes)
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
