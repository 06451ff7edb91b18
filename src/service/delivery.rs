//! Downloads: which file names are served, redirects instead of bytes, and what follows when an object is bad.

use super::{Core, ServiceError, clients};
use crate::blob::{BlobError, Key};
use crate::domain::{MachineId, Sha256};
use crate::rollout::Standing;
use jiff::Timestamp;
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

/// What is added to the address of a download: whose it is, until when, and the proof. `None` unless downloads are signed.
pub fn signature(
    core: &Core,
    filename: &str,
    machine: &MachineId,
    now: Timestamp,
) -> Option<String> {
    let server = &core.config.server;
    if !server.signed_downloads {
        return None;
    }
    let until = now.as_second() + server.signed_validity.as_secs() as i64;
    let proof = core.machine_key.sign_download(filename, machine, until);
    Some(format!(
        "machine={machine}&expires={until}&signature={proof}"
    ))
}

/// What a download shows: the address's own proof, or a machine's token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown<'a> {
    /// `machine` of the address.
    pub machine: Option<&'a str>,
    /// `expires` of the address, in unix seconds.
    pub expires: Option<&'a str>,
    /// `signature` of the address.
    pub signature: Option<&'a str>,
    /// Token of the request.
    pub token: Option<&'a str>,
}

/// Refuses a download that shows nothing that lets it, where downloads are signed.
pub fn admit(
    core: &Core,
    filename: &str,
    shown: Shown<'_>,
    now: Timestamp,
) -> Result<(), ServiceError> {
    if !core.config.server.signed_downloads {
        return Ok(());
    }
    if let Some(token) = shown.token
        && let Some(claims) = core.machine_key.verify(token)
    {
        return clients::authenticate(core, &claims.machine, token).map(|_| ());
    }
    let refused = |why: &str| Err(ServiceError::Unauthorized(why.to_owned()));
    let (Some(machine), Some(expires), Some(signature)) =
        (shown.machine, shown.expires, shown.signature)
    else {
        return refused(
            "downloads are signed here: take the address from a check-in's answer as it is, or show the machine's token",
        );
    };
    let (Ok(machine), Ok(until)) = (machine.parse::<MachineId>(), expires.parse::<i64>()) else {
        return refused("the signed address was changed; ask for a new one by checking in");
    };
    if !core
        .machine_key
        .is_download(signature, filename, &machine, until)
    {
        return refused("the signed address was changed; ask for a new one by checking in");
    }
    if until < now.as_second() {
        return refused("the signed address has expired; ask for a new one by checking in");
    }
    Ok(())
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
