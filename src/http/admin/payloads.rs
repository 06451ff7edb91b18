//! Payloads: the list and uploads. An upload is the tarball itself as the body, streamed through the one door.

use super::body::patient;
use super::extract::{Admin, Operator, Viewer};
use crate::domain::Sha256;
use crate::http::error::{ApiError, PathParam, QueryParams};
use crate::service::{Core, ServiceError, ingest, storage};
use crate::wire::admin::{
    CONTENT_SHA256, IngestOutcome, IngestResult, Page, PayloadEntry, PayloadHeadQuery,
    PayloadQuery, REPR_DIGEST, parse_repr_digest,
};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Routes of this file, below the admin API's base.
pub(super) fn routes() -> OpenApiRouter<Arc<Core>> {
    OpenApiRouter::default()
        .routes(routes!(list))
        .routes(routes!(upload, check))
}

/// List payloads
///
/// By file name.
#[utoipa::path(get, path = "/payloads", tag = "payloads", params(PayloadQuery),
    responses((status = 200, description = "Payloads", body = Page<PayloadEntry>)))]
async fn list(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    QueryParams(query): QueryParams<PayloadQuery>,
) -> Result<Json<Page<PayloadEntry>>, ApiError> {
    Ok(Json(storage::list(&core, &query).await?))
}

/// Whether exactly this content is stored
#[utoipa::path(head, path = "/payloads/{filename}", tag = "payloads",
    params(("filename" = String, Path, description = "Canonical's file name"), PayloadHeadQuery),
    responses((status = 204, description = "It is, and it is whole"),
        (status = 404, description = "It is not, or it is damaged; upload it")))]
async fn check(
    State(core): State<Arc<Core>>,
    _: Admin<Viewer>,
    PathParam(filename): PathParam<String>,
    QueryParams(query): QueryParams<PayloadHeadQuery>,
) -> Result<StatusCode, ApiError> {
    if ingest::has(&core, &filename, query.sha256).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ServiceError::not_found("whole payload of this content named", filename).into())
}

/// Upload a bundle
///
/// The body is the tarball. Its digest may be declared in `Repr-Digest` (RFC 9530) or `X-Content-SHA256`. Sending the
/// same file again changes nothing. A bundle that is whole but wrong is kept in quarantine with the reason (202).
#[utoipa::path(put, path = "/payloads/{filename}", tag = "payloads",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    params(("filename" = String, Path, description = "Canonical's file name"),
        ("repr-digest" = Option<String>, Header, description = "`sha-256=:<base64>:`"),
        ("x-content-sha256" = Option<String>, Header, description = "The same as 64 hexadecimal digits")),
    responses((status = 201, description = "Verified and stored", body = IngestOutcome),
        (status = 200, description = "The same content was stored before", body = IngestOutcome),
        (status = 202, description = "Refused and kept in quarantine", body = IngestOutcome),
        (status = 413, description = "Larger than `ingest.max-bundle-bytes`; not kept", body = crate::wire::Problem,
            content_type = "application/problem+json")))]
async fn upload(
    State(core): State<Arc<Core>>,
    admin: Admin<Operator>,
    PathParam(filename): PathParam<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<IngestOutcome>), ApiError> {
    let declared = declared(&headers)?;
    let most = core.config.ingest.max_bundle_bytes;
    refuse_long(&headers, &filename, most)?;
    let body = patient(body, core.config.server.body_timeout, most);
    let actor = admin.actor();
    let outcome = ingest::bundle(&core, &actor, "upload", &filename, declared, body).await?;
    let status = match outcome.result {
        IngestResult::Stored => StatusCode::CREATED,
        IngestResult::AlreadyThere => StatusCode::OK,
        IngestResult::Quarantined => StatusCode::ACCEPTED,
    };
    Ok((status, Json(outcome)))
}

/// The digest that the sender declares.
fn declared(headers: &HeaderMap) -> Result<Option<Sha256>, ServiceError> {
    let text = |name: &'static str| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => Err(ServiceError::Invalid(format!(
            "the header {name} holds other bytes than plain text"
        ))),
    };
    let digest = match text(REPR_DIGEST)? {
        Some(value) => parse_repr_digest(value)?,
        None => None,
    };
    let plain: Option<Sha256> = match text(CONTENT_SHA256)? {
        Some(value) => Some(value.trim().parse()?),
        None => None,
    };
    match (digest, plain) {
        (Some(a), Some(b)) if a != b => Err(ServiceError::Invalid(format!(
            "{REPR_DIGEST} and {CONTENT_SHA256} declare different digests; send one of them"
        ))),
        (a, b) => Ok(a.or(b)),
    }
}

/// Refuses a body that says itself that it is too long, before any of it is read.
fn refuse_long(headers: &HeaderMap, filename: &str, most: u64) -> Result<(), ServiceError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    let length: Option<u64> = length.and_then(|text| text.parse().ok());
    match length {
        Some(length) if length > most => Err(ServiceError::TooLarge(format!(
            "{filename:.200} has {length} bytes; ingest.max-bundle-bytes allows {most}"
        ))),
        _ => Ok(()),
    }
}
