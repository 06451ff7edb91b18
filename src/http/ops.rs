//! Operations: health, readiness, versions, metrics. None asks who calls; none tells a secret.

use super::error::AsIs;
use crate::service::{Core, health};
use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json};
use serde_json::json;
use std::sync::Arc;

/// What every address answers at its root.
pub(super) fn root() -> axum::Router<Arc<Core>> {
    axum::Router::new().route("/", get(sentence))
}

/// Routes of operations.
pub(super) fn routes() -> axum::Router<Arc<Core>> {
    axum::Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/debug/info", get(info))
        .route("/debug/status", get(status))
        .route("/metrics", get(metrics))
}

/// The sentence that Canonical's server answers too, with our name (public form).
async fn sentence() -> String {
    format!(
        "Livepatch On-Prem Open Health service, version v{}",
        env!("CARGO_PKG_VERSION")
    )
}

async fn info(State(core): State<Arc<Core>>) -> Response {
    Json(json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": format!("v{}", env!("CARGO_PKG_VERSION")),
        "snapshot-version": core.snapshots.get().version,
    }))
    .into_response()
}

async fn ready(State(core): State<Arc<Core>>) -> Response {
    if core.stopping.is_cancelled() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            Extension(AsIs),
            "stopping\n",
        )
            .into_response();
    }
    "ready\n".into_response()
}

async fn status(State(core): State<Arc<Core>>) -> Response {
    let (code, body) = health::status(&core).await;
    let code = if code {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Extension(AsIs), Json(body)).into_response()
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    health::sample(&core).await;
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        core.metrics.encode(),
    )
        .into_response()
}
