//! The one door in: upload, storage refresh, release from quarantine, and whatever else brings bundles, come through here.
//!
//! The order is fixed: file name, spool and hash, examination, object, then one transaction with the payload, the
//! patch's entry into the first tier and the audit row. No row points at an object that was not verified. A crash at any
//! step leaves at most an object without a row, which a later attempt reuses. What is whole but wrong is kept in
//! quarantine with the reason; what is not even whole (too large, broken off, another digest than declared) is refused.

mod judge;
mod spool;
mod stage;
mod store;

use super::failpoint::failpoint;
use super::{Core, ServiceError};
use crate::blob::{BlobError, Key};
use crate::bundle::{BundleName, Workspace};
use crate::config;
use crate::db::audit::Actor;
use crate::db::listen::Change;
use crate::db::payloads;
use crate::domain::Sha256;
use crate::telemetry::{IngestOutcome as Counted, Verification};
use crate::wire::admin::{IngestOutcome, IngestResult};
use bytes::Bytes;
use futures_util::Stream;
use judge::{Fault, Good, NAME_TAKEN};
use spool::{SpoolError, Spooled};
pub(super) use stage::{Passed, Verified, pass, stage};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long a bundle may wait for its turn.
const PATIENCE: Duration = Duration::from_mins(1);

/// Bounds what is worked on at once.
#[derive(Debug)]
pub struct Gate {
    /// Bundles being received, each with at most a mebibyte in memory.
    receiving: Semaphore,
    /// Bundles being examined and stored.
    working: Semaphore,
    width: usize,
    /// Memory that bundles were unpacked in, for those that wait.
    workspaces: Mutex<Vec<Workspace>>,
}

impl Gate {
    /// A gate as wide as `ingest.parallelism`. Four times as many may be received, so that a slow sender holds up nobody.
    pub fn new(config: &config::Ingest) -> Self {
        let width = config.parallelism.max(1) as usize;
        Self {
            receiving: Semaphore::new(width * 4),
            working: Semaphore::new(width),
            width,
            workspaces: Mutex::default(),
        }
    }

    /// Memory to unpack in. Making it anew for each bundle costs a tenth of unpacking it.
    fn workspace(&self) -> Workspace {
        let mut kept = self
            .workspaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        kept.pop().unwrap_or_default()
    }

    /// Keeps it for the next bundle, if others are on their way.
    fn give_back(&self, workspace: Workspace) {
        let alone = self.receiving.available_permits() + 1 >= self.width * 4;
        let mut kept = self
            .workspaces
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if alone {
            kept.clear();
        } else {
            kept.push(workspace);
        }
    }
}

async fn turn<'a>(
    semaphore: &'a Semaphore,
    name: &BundleName,
) -> Result<SemaphorePermit<'a>, ServiceError> {
    let turn = tokio::time::timeout(PATIENCE, semaphore.acquire()).await;
    turn.ok().and_then(Result::ok).ok_or_else(|| {
        ServiceError::Unavailable(format!(
            "{name} was not taken in: other bundles have kept the server busy for a minute; send it again later"
        ))
    })
}

/// Where a bundle comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// Who brings it.
    pub(super) actor: &'a Actor,
    /// How: `upload`, `refresh`, `sync`, `import`.
    pub(super) source: &'a str,
    /// What its bytes should be, where that was said.
    pub(super) declared: Option<Sha256>,
    /// How many bytes it should have, where that was said. Only a hint.
    pub(super) size: Option<u64>,
    /// The quarantined file that is tried again.
    pub(super) release: Option<i64>,
    /// The sync run that makes it visible later; `None`: it becomes visible at once.
    pub(super) staged: Option<i64>,
}

/// What was done, and which change a snapshot must contain to show it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) outcome: IngestOutcome,
    pub(super) seq: Option<i64>,
}

/// Takes a bundle in. `source` is `upload`, `refresh`, `sync` or `import`; an error in `body` means that it broke off.
/// When this returns, the snapshot contains the payload.
///
/// Fails with [`ServiceError::Invalid`] if the name is no bundle's, the body is empty, broke off, or is not what was
/// `declared`; with [`ServiceError::TooLarge`] beyond `ingest.max-bundle-bytes`. A bundle that is whole but wrong is an
/// outcome, not an error.
pub async fn bundle(
    core: &Core,
    actor: &Actor,
    source: &str,
    filename: &str,
    declared: Option<Sha256>,
    body: impl Stream<Item = io::Result<Bytes>>,
) -> Result<IngestOutcome, ServiceError> {
    let name = name_of(filename)?;
    let origin = Origin {
        actor,
        source,
        declared,
        size: None,
        release: None,
        staged: None,
    };
    let taken = take(core, &origin, &name, body).await?;
    if let Some(seq) = taken.seq {
        core.changed(Some(Change::Catalog), seq).await;
    }
    Ok(taken.outcome)
}

/// Reads a bundle's file name.
pub(super) fn name_of(filename: &str) -> Result<BundleName, ServiceError> {
    Ok(filename.parse::<BundleName>()?)
}

/// Whether exactly this content is stored under this name and is not damaged.
pub async fn has(core: &Core, filename: &str, sha256: Sha256) -> Result<bool, ServiceError> {
    let name = name_of(filename)?;
    let known = payloads::find(&core.db.conn().await?, &name.to_string()).await?;
    Ok(known.is_some_and(|known| {
        known.sha256 == sha256 && known.damaged.is_none() && known.staged.is_none()
    }))
}

/// As [`bundle`], without waiting for the snapshot.
pub(super) async fn take(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    body: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Taken, ServiceError> {
    let result = receive_and_process(core, origin, name, body).await;
    count(core, &result);
    result
}

/// Counts what became of a bundle.
fn count(core: &Core, result: &Result<Taken, ServiceError>) {
    core.metrics.ingest.outcomes.inc(match result {
        Ok(taken) => match taken.outcome.result {
            IngestResult::Stored => Counted::Stored,
            IngestResult::AlreadyThere => Counted::AlreadyThere,
            IngestResult::Quarantined => Counted::Quarantined,
        },
        Err(ServiceError::Invalid(_) | ServiceError::TooLarge(_) | ServiceError::Timeout(_)) => {
            Counted::Refused
        }
        Err(_) => Counted::Failed,
    });
}

async fn receive_and_process(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    body: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Taken, ServiceError> {
    let _receiving = turn(&core.gate.receiving, name).await?;
    let spooled = receive(core, origin, name, body).await?;
    let _working = turn(&core.gate.working, name).await?;
    process(core, origin, name, &spooled).await
}

/// Receives a bundle into the spool, whole and as it was declared.
async fn receive(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    body: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Spooled, ServiceError> {
    let config = &core.config.ingest;
    let directory = config.spool_directory.as_deref();
    let spooled = spool::receive(body, origin.size, config.max_bundle_bytes, directory)
        .await
        .map_err(|e| refusal(name, e))?;
    check_declared(name, origin, &spooled)?;
    Ok(spooled)
}

fn check_declared(
    name: &BundleName,
    origin: &Origin<'_>,
    spooled: &Spooled,
) -> Result<(), ServiceError> {
    if spooled.expect.size == 0 {
        return Err(ServiceError::Invalid(format!(
            "{name} was sent without content; send the tarball as the body"
        )));
    }
    let got = spooled.expect.sha256;
    match origin.declared {
        Some(declared) if declared != got => Err(ServiceError::Invalid(format!(
            "{name} arrived with SHA-256 {got}, but {declared} was declared: it was changed on the way or read while it \
             was written; nothing was stored, send it again"
        ))),
        _ => Ok(()),
    }
}

/// An error of the spool in words.
fn refusal(name: &BundleName, error: SpoolError) -> ServiceError {
    match error {
        SpoolError::TooLarge(limit) => too_large(name, limit),
        SpoolError::Broken(at, error) => match error.downcast::<BlobError>() {
            Ok(blob) => blob.into(),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                ServiceError::Timeout(format!(
                    "{name} did not go on after {at} bytes: {error}; nothing was stored, send it again"
                ))
            }
            Err(error) => ServiceError::Invalid(format!(
                "{name} broke off after {at} bytes: {error}; nothing was stored, send it again"
            )),
        },
        SpoolError::Local(error) if error.kind() == io::ErrorKind::StorageFull => {
            ServiceError::Full(format!(
                "there is no room to spool {name}: {error}; free space or name another folder in ingest.spool-directory, \
             nothing was stored"
            ))
        }
        SpoolError::Local(error) => ServiceError::Unavailable(format!(
            "{name} could not be spooled: {error}; free space or name another folder in ingest.spool-directory, \
             nothing was stored"
        )),
    }
}

/// The refusal of a bundle beyond the limit.
pub(super) fn too_large(name: &BundleName, limit: u64) -> ServiceError {
    ServiceError::TooLarge(format!(
        "{name} has more than {limit} bytes, the limit of ingest.max-bundle-bytes; nothing was stored"
    ))
}

/// How often it is begun anew because the row that was met went away.
const ATTEMPTS: usize = 3;

/// From the spool to the answer.
async fn process(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    spooled: &Spooled,
) -> Result<Taken, ServiceError> {
    for _ in 0..ATTEMPTS {
        let known = payloads::find(&core.db.conn().await?, &name.to_string()).await?;
        let taken = match known {
            Some(known) => meet(core, origin, name, spooled, &known).await?,
            None => fresh(core, origin, name, spooled).await?,
        };
        if let Some(taken) = taken {
            return Ok(taken);
        }
    }
    Err(ServiceError::Unavailable(format!(
        "{name} was not taken in: it is being removed at the same time; send it again later"
    )))
}

/// A bundle whose name is not known.
async fn fresh(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    spooled: &Spooled,
) -> Result<Option<Taken>, ServiceError> {
    let good = match store_object(core, origin, name, spooled).await? {
        Ok(good) => good,
        Err(quarantined) => return Ok(Some(quarantined)),
    };
    if origin.staged.is_some() {
        return stage::one(core, origin, name, spooled, good).await;
    }
    match store::insert(core, origin, name, spooled, &good).await? {
        Ok(taken) => Ok(Some(taken)),
        // Another upload of the same name was faster.
        Err(known) => meet(core, origin, name, spooled, &known).await,
    }
}

/// Examines a bundle and stores the object of one that may be served; what may not goes to quarantine, which is the inner error.
async fn store_object(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    spooled: &Spooled,
) -> Result<Result<Good, Taken>, ServiceError> {
    let good = match judge::judge(core, name, spooled).await? {
        Ok(good) => good,
        Err(fault) => {
            let check = if fault.code.starts_with("sign") {
                Verification::Signature
            } else {
                Verification::Content
            };
            core.metrics.ingest.verification_failures.inc(check);
            let filename = name.to_string();
            let taken = store::quarantine(core, origin, &filename, spooled, &fault).await?;
            return Ok(Err(taken));
        }
    };
    failpoint("ingest-before-object");
    let key = Key::Payload(spooled.expect.sha256);
    // An object that is there without a row would have to be read and hashed before it could be believed. It hardly ever is,
    // and writing it again is as good.
    core.store
        .put_over(&key, spooled.content.clone(), spooled.expect)
        .await
        .map_err(not_kept)?;
    failpoint("ingest-after-object");
    Ok(Ok(good))
}

/// An object that is not right just after it was stored was altered by the storage or on the way to it: sending the bundle
/// again is right, and no fault of what was sent.
fn not_kept(error: BlobError) -> ServiceError {
    if error.is_bad_object() {
        return ServiceError::Unavailable(error.to_string());
    }
    error.into()
}

/// A bundle whose name is known already. `None`: its row has gone away meanwhile.
async fn meet(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    spooled: &Spooled,
    known: &payloads::Known,
) -> Result<Option<Taken>, ServiceError> {
    let filename = name.to_string();
    let got = spooled.expect;
    if known.sha256 != got.sha256 {
        let fault = Fault {
            code: NAME_TAKEN,
            reason: format!(
                "{filename} is stored with SHA-256 {}, this file has {}; a payload is never replaced by another content. \
                 Compare both with upstream",
                known.sha256, got.sha256
            ),
        };
        let taken = store::quarantine(core, origin, &filename, spooled, &fault).await?;
        return Ok(Some(taken));
    }
    let key = Key::Payload(got.sha256);
    let whole = known.damaged.is_none() && core.store.head(&key).await? == Some(got.size);
    let taken = if whole {
        Taken {
            outcome: outcome(&filename, spooled, IngestResult::AlreadyThere),
            seq: None,
        }
    } else {
        store::heal(core, origin, &filename, spooled, known).await?
    };
    if known.staged.is_none() || known.staged == origin.staged {
        return Ok(Some(taken));
    }
    store::unhide(core, origin, &filename, spooled, known).await
}

/// An outcome without remarks.
fn outcome(filename: &str, spooled: &Spooled, result: IngestResult) -> IngestOutcome {
    IngestOutcome {
        filename: filename.to_owned(),
        sha256: spooled.expect.sha256,
        size: spooled.expect.size,
        result,
        code: None,
        reason: None,
        quarantine_id: None,
        warning: None,
    }
}
