//! The way back: how the fleet of an isolated site fares, signed, carried out by hand, and kept where patches come from.

use super::source;
use crate::db::airgap as rows;
use crate::db::audit::{self, Actor, Entry};
use crate::db::deployments;
use crate::db::listen::Change;
use crate::domain::PublicKey;
use crate::index::{Known, Refusal, accept_status, seal_status};
use crate::service::peer::{count_word, is_count, own_report};
use crate::service::{Core, ServiceError, text};
use crate::wire::archive::{FORMAT, FleetGroup, FleetStatus, IntakeRecord};
use crate::wire::sync::{Record, SignedHead};
use jiff::Timestamp;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// The longest status that is read, in bytes: a hundred thousand machines.
const MAX_STATUS: u64 = 128 << 20;
/// Groups of machines that are told.
const MAX_GROUPS: usize = 20_000;
/// The most characters of a deployment's name for itself.
const MAX_ID: usize = 100;
/// What stands in the place of a sync token.
const VIA: &str = "archive";

/// Why a status is not taken, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Something is wrong with what was asked, or with the database.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The file cannot be read or written.
    #[error("{} cannot be {what}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// It is too long.
    #[error("{} has more than {MAX_STATUS} bytes; a fleet's status is shorter", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It is not believed.
    #[error("{}: {}", path.display(), reworded(refusal))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why not.
        refusal: Refusal,
    },
    /// There is a newer one.
    #[error("{deployment} has told of {known} already; this status is of {got}, which is older")]
    Older {
        /// Whose.
        deployment: String,
        /// Kept.
        known: Timestamp,
        /// Brought now.
        got: Timestamp,
    },
}

/// A refusal speaks of an index.
fn reworded(refusal: &Refusal) -> String {
    refusal.to_string().replacen("the index", "the status", 1)
}

impl From<crate::db::DbError> for StatusError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Service(error.into())
    }
}

/// What the fleet's status is now.
async fn status(core: &Core, now: Timestamp) -> Result<FleetStatus, ServiceError> {
    let report = own_report(core).await?;
    let strategy = core.config.patch_sync.machine_count;
    let conn = core.db.conn().await?;
    let mut groups = rows::fleet_groups(&conn, MAX_GROUPS as i64 + 1).await?;
    if groups.len() > MAX_GROUPS {
        tracing::warn!("only the first {MAX_GROUPS} groups of machines are told");
        groups.truncate(MAX_GROUPS);
    }
    let mut intake = Vec::new();
    for (upstream, known) in rows::known_like(&conn, "").await? {
        // What cannot be read was written by another release, and is of no use to the reader.
        if let Ok(known) = serde_json::from_str::<Known>(&known) {
            intake.push(IntakeRecord {
                upstream,
                version: known.version,
                issued_at: known.issued_at,
            });
        }
    }
    drop(conn);
    let (_, _, state) = source::state(core, None).await?;
    let blocks = state.records().filter_map(|record| match record {
        Record::Block(block) => Some(block),
        _ => None,
    });
    Ok(FleetStatus {
        format: FORMAT,
        deployment: report.deployment,
        issued_at: now,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        intake,
        machines: report.machines,
        groups: groups
            .into_iter()
            .map(|group| FleetGroup {
                tier: group.tier,
                kernel: group.kernel,
                architecture: group.architecture,
                state: group.state.to_string(),
                patch: group.patch,
                machines: count_word(strategy, group.machines),
                last_seen: group.last_check,
            })
            .collect(),
        blocks: blocks.collect(),
        machine_reports: report.machine_reports,
    })
}

/// Writes the fleet's status, signed, to a file.
pub async fn export_status(
    core: &Core,
    actor: &Actor,
    path: &Path,
    now: Timestamp,
) -> Result<FleetStatus, StatusError> {
    let status = status(core, now).await?;
    let keys = source::signing_keys(core).await?;
    let sealed = seal_status(&status, &keys).map_err(ServiceError::Internal)?;
    let bytes = serde_json::to_vec(&sealed).map_err(|e| ServiceError::Internal(e.to_string()))?;
    write_whole(path, &bytes).map_err(|source| StatusError::File {
        path: path.to_owned(),
        what: "written",
        source,
    })?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let entry = Entry {
        actor,
        action: "status.export",
        target: &status.deployment,
        details: json!({ "machines": status.machines, "machine-reports": status.machine_reports.len() }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    tx.commit().await?;
    Ok(status)
}

/// A file is whole or not there.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    // To be read by whoever carries it, as any other file.
    let plain = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(plain)?;
    file.persist(path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Keeps the status of another deployment. `keys` are good besides those that are trusted here.
pub async fn import_status(
    core: &Core,
    actor: &Actor,
    path: &Path,
    keys: &[PublicKey],
    now: Timestamp,
) -> Result<FleetStatus, StatusError> {
    let mut trusted = source::trusted_keys(core).await?;
    trusted.extend(keys);
    let status = read(path, &trusted, now)?;
    let deployment = &status.deployment;
    text::name("deployment", deployment, MAX_ID)?;
    let counts = status.groups.iter().map(|group| &group.machines);
    if !counts
        .chain([&status.machines])
        .all(|count| is_count(count))
    {
        let why = "machines must be a number such as 1234 or a range such as 1000-1999".to_owned();
        return Err(ServiceError::Invalid(why).into());
    }
    let whole =
        serde_json::to_string(&status).map_err(|e| ServiceError::Internal(e.to_string()))?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if let Some(kept) = rows::deployment(&tx, deployment).await?
        && let Ok(kept) = serde_json::from_str::<FleetStatus>(&kept)
        && kept.issued_at > status.issued_at
    {
        return Err(StatusError::Older {
            deployment: status.deployment,
            known: kept.issued_at,
            got: status.issued_at,
        });
    }
    deployments::put(&tx, deployment, VIA, &status.machines, &whole).await?;
    let entry = Entry {
        actor,
        action: "status.import",
        target: deployment,
        details: json!({ "machines": status.machines, "issued-at": status.issued_at }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    tx.commit().await?;
    Ok(status)
}

fn read(path: &Path, trusted: &[PublicKey], now: Timestamp) -> Result<FleetStatus, StatusError> {
    let unreadable = |source| StatusError::File {
        path: path.to_owned(),
        what: "read",
        source,
    };
    let refused = |refusal| StatusError::Refused {
        path: path.to_owned(),
        refusal,
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(refused(Refusal::Unreadable(
            "it is not a plain file".to_owned(),
        )));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_STATUS + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_STATUS {
        return Err(StatusError::TooLong {
            path: path.to_owned(),
        });
    }
    let sealed: SignedHead =
        serde_json::from_slice(&bytes).map_err(|e| refused(Refusal::Unreadable(e.to_string())))?;
    accept_status(&sealed, trusted, now).map_err(refused)
}
