//! `import`: an archive is verified whole, compared with what is here, and only then taken in.

use super::changes::{Changes, changes};
use super::source;
use crate::db::airgap as rows;
use crate::domain::{PublicKey, Sha256};
use crate::index::{IntakeFilter, Known, Refusal, State, comes_after};
use crate::service::{Core, ServiceError};
use crate::upstream::Upstream as _;
use crate::upstream::archive::{self, Archive};
use crate::upstream::volume::{self, ArchiveError};
use crate::wire::sync::PayloadRecord;
use jiff::Timestamp;
use std::collections::HashSet;
use std::path::PathBuf;

/// Names that are looked up at once.
const BATCH: usize = 2_000;
/// Missing payloads that a message names.
const NAMED: usize = 5;

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Volumes, or folders with volumes.
    pub paths: Vec<PathBuf>,
    /// Keys that are good besides those that are trusted here.
    pub keys: Vec<PublicKey>,
    /// Take also what has expired or is older than what was taken in before, for this reason.
    pub accept_old: Option<String>,
}

/// Why an archive is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Something is wrong with what was asked, or with the database.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// It cannot be read, or is not what was written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Nobody is trusted.
    #[error(
        "no key is trusted here. Have the administrator of the exporting server read out `livepatch-server keys show` (by telephone, not from this medium), then trust it: `livepatch-server keys trust KEY --name NAME`, or give it once with --key"
    )]
    NobodyTrusted,
    /// It is older than what was taken in before.
    #[error(
        "this is an older archive: {0}. If that is meant, give --accept-old with the reason, which is kept in the audit log"
    )]
    Older(Refusal),
    /// It has expired.
    #[error(
        "this archive expired at {expires_at}: bring a newer one. If there is none, give --accept-old with the reason, which is kept in the audit log"
    )]
    Expired {
        /// Until when it held.
        expires_at: Timestamp,
    },
    /// It carries only a part, and the rest is not here.
    #[error(
        "{missing} of its payloads are neither in this archive nor here, such as {}. It carries only what came after version {since}: import the archive of that version first, or have one written without --since",
        names.join(", ")
    )]
    Incomplete {
        /// How many.
        missing: usize,
        /// Some of them.
        names: Vec<String>,
        /// The version that it builds on.
        since: u64,
    },
}

impl ImportError {
    /// A word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Service(_) => "failed",
            Self::Archive(error) => error.code(),
            Self::NobodyTrusted => "nobody-trusted",
            Self::Older(_) => "rollback",
            Self::Expired { .. } => "freeze",
            Self::Incomplete { .. } => "incomplete",
        }
    }
}

impl From<crate::db::DbError> for ImportError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Service(error.into())
    }
}

/// An archive that was verified and may be taken in.
#[derive(Debug)]
pub struct Opened {
    /// The archive.
    pub archive: Archive,
    /// What it would change.
    pub changes: Changes,
}

/// Verifies an archive: signature, volumes, every hash, its age, and that what it does not carry is here. Changes nothing. `read` is
/// told of every piece that was read and of how much there is.
pub async fn open(
    core: &Core,
    options: &ImportOptions,
    now: Timestamp,
    mut read: impl FnMut(u64, u64) + Send + 'static,
) -> Result<Opened, ImportError> {
    let trusted = trusted(core, options).await?;
    let (paths, late) = (options.paths.clone(), options.accept_old.is_some());
    let opened =
        tokio::task::spawn_blocking(move || archive::open(&paths, &trusted, now, late, &mut read));
    let opened = opened
        .await
        .map_err(|e| ServiceError::Internal(format!("reading an archive failed: {e}")))?;
    let archive = opened.map_err(refused)?;
    let before = before(core, &archive, late).await?;
    let here = here(core, archive.state()).await?;
    complete(&archive, &here)?;
    let changes = changes(&archive, &before, &here.served)?;
    Ok(Opened { archive, changes })
}

async fn trusted(core: &Core, options: &ImportOptions) -> Result<Vec<PublicKey>, ImportError> {
    let mut trusted = source::trusted_keys(core).await?;
    trusted.extend(&options.keys);
    if trusted.is_empty() {
        return Err(ImportError::NobodyTrusted);
    }
    Ok(trusted)
}

fn refused(error: ArchiveError) -> ImportError {
    match error {
        ArchiveError::Refused {
            refusal: Refusal::Expired { expires_at },
            ..
        } => ImportError::Expired { expires_at },
        error => error.into(),
    }
}

/// The archives among what was given, the older first: each with the files that it has.
pub async fn archives(
    core: &Core,
    options: &ImportOptions,
    now: Timestamp,
) -> Result<Vec<ImportOptions>, ImportError> {
    let trusted = trusted(core, options).await?;
    let (paths, late) = (options.paths.clone(), options.accept_old.is_some());
    let found = tokio::task::spawn_blocking(move || volume::archives(&paths, &trusted, now, late));
    let found = found
        .await
        .map_err(|e| ServiceError::Internal(format!("reading an archive failed: {e}")))?;
    let of = |paths| ImportOptions {
        paths,
        ..options.clone()
    };
    Ok(found.map_err(refused)?.into_iter().map(of).collect())
}

/// The state of the archive of this series that was taken in last. Fails if this one is older than any of its deployment and tier.
async fn before(core: &Core, archive: &Archive, late: bool) -> Result<State, ImportError> {
    let conn = core.db.conn().await?;
    let head = archive.head();
    let all = format!("archive of {} {}", head.deployment, head.tier);
    let narrowed = format!("{all} filter ");
    for (name, text) in rows::known_like(&conn, &all).await? {
        // Not a tier whose name only begins like this one's.
        if name != all && !name.starts_with(&narrowed) {
            continue;
        }
        let known: Known = serde_json::from_str(&text)
            .map_err(|e| ServiceError::Internal(format!("what is known of {name}: {e}")))?;
        let verdict = if name == archive.name() {
            comes_after(archive.manifest(), &known)
        } else if head.version < known.version {
            // Another filter of the same deployment: its content differs, its time does not.
            Err(Refusal::Rollback {
                known: known.version,
                got: head.version,
            })
        } else {
            Ok(())
        };
        if let Err(refusal) = verdict
            && !late
        {
            return Err(ImportError::Older(refusal));
        }
    }
    let Some((Some(_), text)) = rows::upstream(&conn, &archive.name()).await? else {
        return Ok(State::default());
    };
    Ok(State::parse(&text).map_err(|e| ServiceError::Internal(e.to_string()))?)
}

/// What of a state is here.
#[derive(Debug, Default)]
struct Here {
    /// Can be served.
    served: HashSet<(String, Sha256)>,
    /// Lies in quarantine.
    set_aside: HashSet<(String, Sha256)>,
}

async fn here(core: &Core, state: &State) -> Result<Here, ImportError> {
    let names: Vec<String> = state.payloads().map(|p| p.filename).collect();
    let conn = core.db.conn().await?;
    let mut here = Here::default();
    for batch in names.chunks(BATCH) {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        here.served.extend(rows::present(&conn, &batch).await?);
        here.set_aside.extend(rows::set_aside(&conn, &batch).await?);
    }
    Ok(here)
}

/// Whether everything that the archive does not carry is here. What our own checks refused counts as here: it would be refused again.
fn complete(archive: &Archive, here: &Here) -> Result<(), ImportError> {
    let since = archive.manifest().since.as_ref().map_or(0, |s| s.version);
    let gone = |payload: &PayloadRecord| {
        let name = (payload.filename.clone(), payload.sha256);
        !archive.carries(&payload.filename)
            && !here.served.contains(&name)
            && !here.set_aside.contains(&name)
    };
    let missing: Vec<String> = archive
        .state()
        .payloads()
        .filter(gone)
        .map(|payload| payload.filename)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ImportError::Incomplete {
        missing: missing.len(),
        names: missing.into_iter().take(NAMED).collect(),
        since,
    })
}

/// What is wanted of an archive: everything. Who wrote it chose what is in it.
pub const fn everything() -> IntakeFilter {
    IntakeFilter {
        architectures: Vec::new(),
        flavours: Vec::new(),
        minimum_kernel: None,
        kernel_prefixes: Vec::new(),
        only: None,
    }
}
