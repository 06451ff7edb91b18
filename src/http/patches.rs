//! Downloads. Conditions, ranges and digests are `blob`'s; here a file name becomes a payload, or a redirect.

use super::admin::extract::Source;
use super::error::ApiError;
use super::machine;
use crate::blob::PayloadRef;
use crate::service::Core;
use crate::service::delivery::{self, Shown};
use crate::telemetry::security::{self, Deed, Event};
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::Arc;

/// Routes of downloads; all pass through the governor.
pub(super) fn routes() -> axum::Router<Arc<Core>> {
    axum::Router::new()
        .route("/v1/patches/{filename}", get(download))
        .route("/patches/{filename}", get(download))
}

async fn download(
    State(core): State<Arc<Core>>,
    Path(filename): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    Source(source): Source,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let text = |name: &str| query.get(name).map(String::as_str);
    let token = machine::token(&headers);
    let shown = Shown {
        machine: text("machine"),
        expires: text("expires"),
        signature: text("signature"),
        token: token.as_deref(),
    };
    delivery::admit(&core, &filename, shown, Timestamp::now()).inspect_err(|_| {
        let deed = Deed {
            actor: shown.machine.unwrap_or_default(),
            source: &source,
            target: &filename,
            ..Deed::default()
        };
        security::emit(Event::DownloadRefused, deed);
    })?;
    let found = delivery::find(&core, &filename)?;
    if let Some(url) = delivery::redirect(&core, &found).await? {
        let mut response = StatusCode::FOUND.into_response();
        let location = HeaderValue::try_from(url).map_err(|e| {
            crate::service::ServiceError::Internal(format!("redirect address: {e}"))
        })?;
        response.headers_mut().insert(LOCATION, location);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    let payload = PayloadRef {
        filename: &found.filename,
        sha256: found.sha256,
        size: found.size,
    };
    match crate::blob::respond(&method, &headers, &payload, &core.cache).await {
        Ok(response) => Ok(response.map(axum::body::Body::new)),
        Err(error) => Err(delivery::failed(&core, &found, &error).await.into()),
    }
}
