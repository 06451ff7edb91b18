//! Downloads: which file names are served, redirects instead of bytes, and what follows when an object is bad.

use super::{Core, ServiceError};
use crate::blob::{BlobError, Key};
use crate::domain::Sha256;
use crate::rollout::Standing;
use std::sync::Arc;
use std::time::Duration;

/// A payload that may be downloaded.
#[derive(Debug, Clone)]
pub struct Found {
    /// Database id.
    pub id: i64,
    /// File name.
    pub filename: Arc<str>,
    /// Content.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
}

/// Finds the payload of a file name. What is blocked is refused, so that a machine that was offered it a moment ago
/// does not get it any more; held and not yet promoted ones are served, because clients may be on their way.
pub fn find(core: &Core, filename: &str) -> Result<Found, ServiceError> {
    let snapshot = core.snapshots.get();
    let payload = snapshot
        .catalog
        .by_filename(filename)
        .ok_or_else(|| ServiceError::not_found("patch file", filename))?;
    match payload.standing {
        Standing::Blocked => Err(ServiceError::Forbidden(format!(
            "{filename} is blocked and no longer served"
        ))),
        Standing::Damaged => Err(ServiceError::Unavailable(format!(
            "{filename} does not verify in the storage; `livepatch-admin storage verify` says more"
        ))),
        Standing::Free | Standing::Held => Ok(Found {
            id: payload.id,
            filename: Arc::clone(&payload.filename),
            sha256: payload.sha256,
            size: payload.size,
        }),
    }
}

/// Where to send the client instead, if the configuration says so: a presigned address of a private bucket, or the
/// address that `server.url-template` gives.
pub async fn redirect(core: &Core, found: &Found) -> Result<Option<String>, ServiceError> {
    let presign = core.config.patch_storage.s3.presign;
    if presign > Duration::ZERO {
        let key = Key::Payload(found.sha256);
        let url = core
            .store
            .presign_get(&key, presign)
            .await
            .map_err(|e| unavailable(&e))?;
        if let Some(url) = url {
            return Ok(Some(url.to_string()));
        }
    }
    let server = &core.config.server;
    if server.redirect_downloads && !server.url_template.is_empty() {
        return Ok(Some(
            server.url_template.replace("{filename}", &found.filename),
        ));
    }
    Ok(None)
}

fn unavailable(error: &BlobError) -> ServiceError {
    ServiceError::Unavailable(error.to_string())
}

/// What to answer when an object could not be sent. A bad object is noted, so that it is no longer offered.
pub async fn failed(core: &Core, found: &Found, error: &BlobError) -> ServiceError {
    if error.is_bad_object() {
        core.metrics
            .ingest
            .verification_failures
            .inc(crate::telemetry::Verification::Object);
        tracing::error!(%error, filename = %found.filename, "an object does not verify; it is no longer offered");
        if let Err(error) = super::storage::report_damaged(core, found.id, &error.to_string()).await
        {
            tracing::error!(%error, filename = %found.filename, "the damage could not be noted");
        }
        return ServiceError::Unavailable(format!(
            "{} does not verify in the storage",
            found.filename
        ));
    }
    unavailable(error)
}
