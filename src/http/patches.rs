//! Downloads. Conditions, ranges and digests are `blob`'s; here a file name becomes a payload, or a redirect.

use super::error::ApiError;
use crate::blob::PayloadRef;
use crate::service::{Core, delivery};
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
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
