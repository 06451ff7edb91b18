//! Capture mode: keeps requests of a machine or an address that an administrator asked for, secrets masked. While
//! nothing is captured it costs one look at an empty list.

use super::machine::MAX_BODY;
use crate::domain::MachineId;
use crate::service::Core;
use crate::service::captures::{self, Exchange};
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// Records the request and its answer if a capture wants them.
pub(super) async fn capture(
    State(core): State<Arc<Core>>,
    request: Request,
    next: Next,
) -> Response {
    let address = request
        .extensions()
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
    let Some(capture) = core
        .captures
        .wanted(machine(request.uri().path()).as_ref(), address)
    else {
        return next.run(request).await;
    };
    // A body that is too long or breaks off is the handler's to refuse; what came of it is enough for a record.
    let (parts, body) = request.into_parts();
    let patience = core.config.server.body_timeout;
    let Ok(Ok(body)) = tokio::time::timeout(patience, to_bytes(body, MAX_BODY)).await else {
        return next.run(Request::from_parts(parts, Body::empty())).await;
    };
    let (method, uri, headers) = (
        parts.method.clone(),
        parts.uri.to_string(),
        parts.headers.clone(),
    );
    let response = next
        .run(Request::from_parts(parts, Body::from(body.clone())))
        .await;
    let status = response.status().as_u16();
    let exchange = Exchange {
        method: method.as_str(),
        path: &uri,
        headers: &headers,
        body: &body,
        answer: Some((status, b"")),
    };
    if let Err(error) = captures::record(&core, capture, &exchange).await {
        tracing::warn!(%error, capture, "a request could not be recorded");
    }
    response
}

/// The machine in the path of the current client API.
fn machine(path: &str) -> Option<MachineId> {
    path.strip_prefix("/v1/client/")?
        .split('/')
        .next()?
        .parse()
        .ok()
}
