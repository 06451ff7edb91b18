//! `export`: what a tier has, as an archive for a site without network.
//!
//! The same state, asked for in the same way, gives the same bytes: version and time of signing are kept with the state that was
//! exported first, and used again until half of the archive's life is over. So a broken export goes on where it stopped.

use super::source;
use super::write::{Source, Target, WriteError, Written, write};
use crate::blob::Key;
use crate::db::airgap::{self as rows, Exported};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::domain::{Sha256, SigningKey, TierName};
use crate::index::{
    IntakeFilter, LayoutError, Load, Plan, State, StateError, VolumeEntry, plan, seal_manifest,
};
use crate::service::{Core, ServiceError};
use crate::upstream::archive::open_state;
use crate::upstream::volume::ArchiveError;
use crate::wire::archive::{ArchiveManifest, FilterRecord, Since};
use crate::wire::sync::{Head, Record, SignedHead};
use futures_util::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

/// States of one tier and filter that are kept, for `--since VERSION`.
const KEPT: i64 = 16;

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// The file, or the folder to put it in.
    pub output: PathBuf,
    /// The tier; the first one if not given, which has everything.
    pub tier: Option<TierName>,
    /// Which payloads.
    pub filter: IntakeFilter,
    /// What the other side has already.
    pub since: Option<SinceRef>,
    /// The most bytes of a volume.
    pub volume_size: Option<u64>,
    /// How long it may be imported.
    pub valid_for: SignedDuration,
}

/// An older archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinceRef {
    /// By its first volume.
    File(PathBuf),
    /// By the version of its index.
    Version(u64),
}

impl FromStr for SinceRef {
    type Err = String;

    /// A number is a version, anything else a file.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an archive or the version of one is expected".to_owned());
        }
        Ok(text
            .parse()
            .map_or_else(|_| Self::File(text.into()), Self::Version))
    }
}

/// What was written.
#[derive(Debug, Clone)]
pub struct ExportReport {
    /// What the archive says it is.
    pub manifest: ArchiveManifest,
    /// Payloads in it.
    pub payloads: u64,
    /// The volumes.
    pub volumes: Vec<Written>,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Something is wrong with what was asked, or with the database.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// It does not fit.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The older archive cannot be used.
    #[error("--since: {0}")]
    Since(#[from] ArchiveError),
}

impl From<crate::db::DbError> for ExportError {
    fn from(error: crate::db::DbError) -> Self {
        Self::Service(error.into())
    }
}

impl From<StateError> for ExportError {
    fn from(error: StateError) -> Self {
        Self::Service(ServiceError::Internal(error.to_string()))
    }
}

/// Writes an archive. `wrote` is told of bytes written and of how many there will be.
pub async fn export(
    core: &Core,
    actor: &Actor,
    options: &ExportOptions,
    now: Timestamp,
    mut wrote: impl FnMut(u64, u64),
) -> Result<ExportReport, ExportError> {
    // The database keeps microseconds; whole seconds are the same wherever they were.
    let now = now.round(Unit::Second).unwrap_or(now);
    let keys = source::signing_keys(core).await?;
    let (version, tier, whole) = source::state(core, options.tier.as_ref()).await?;
    let state = narrow(&whole, &options.filter)?;
    let text = state.text();
    let filter = FilterRecord::from(&options.filter);
    let digest = state.digest();
    let (version, issued_at) = numbered(
        core,
        options,
        Exported {
            tier: tier.as_str(),
            filter: &filter_text(&filter)?,
            version,
            digest: &digest,
            state: &text,
            issued_at: now,
            actor: &actor.name,
        },
    )
    .await?;
    let head = Head {
        format: crate::wire::sync::FORMAT,
        deployment: source::deployment(core).await?,
        tier,
        version,
        digest,
        bytes: text.len() as u64,
        payloads: state.payloads().count() as u64,
        issued_at,
        expires_at: issued_at + options.valid_for,
        keys: keys
            .iter()
            .map(SigningKey::public)
            .collect::<Result<_, _>>()
            .map_err(ServiceError::Internal)?,
    };
    let since = match &options.since {
        Some(since) => Some(older(core, since, &head, &filter, now).await?),
        None => None,
    };
    let load = Load {
        head,
        state: &state,
        filter,
        since,
        limit: options.volume_size,
    };
    let plan = plan(&load, |manifest| Ok(seal(manifest, &keys)?.len() as u64))?;
    let default = format!("livepatch-{}-{}.tar", load.head.tier, load.head.version);
    let target = Target::new(&options.output, &default, options.volume_size.is_some());
    let sealed = seal(&plan.manifest, &keys).map_err(ServiceError::Internal)?;
    let total = plan.manifest.volumes.iter().map(|v| v.bytes).sum();
    let source = Source {
        plan: &plan,
        manifest: &sealed,
        state: &text,
    };
    let open = |entry: VolumeEntry| async move {
        let key = Key::Payload(entry.sha256);
        let object = core.store.read_unverified(&key, entry.size).await;
        let object = object.map_err(|e| e.to_string())?;
        Ok(object.chunks.map_err(|e| e.to_string()).boxed())
    };
    let volumes = write(&source, &target, open, |piece| wrote(piece, total)).await?;
    note(core, actor, &plan, &volumes).await?;
    Ok(ExportReport {
        payloads: plan.payloads(),
        manifest: plan.manifest,
        volumes,
    })
}

/// A state with only the payloads that the filter admits; everything else stays.
fn narrow(state: &State, filter: &IntakeFilter) -> Result<State, ServiceError> {
    let internal = |e: String| ServiceError::Internal(e);
    let mut records = Vec::new();
    for record in state.records() {
        if let Record::Payload(payload) = &record {
            let name = payload.filename.parse();
            let name = name.map_err(|e: crate::domain::ParseError| internal(e.to_string()))?;
            if filter.admits(&name).is_err() {
                continue;
            }
        }
        records.push(record);
    }
    State::of(&records).map_err(|e| internal(e.to_string()))
}

fn seal(manifest: &ArchiveManifest, keys: &[SigningKey]) -> Result<Vec<u8>, String> {
    let sealed: SignedHead = seal_manifest(manifest, keys)?;
    serde_json::to_vec(&sealed).map_err(|e| e.to_string())
}

/// The version and time of signing of a state: those of before if it is the one that was exported last. Remembers it, also for
/// `--since`.
async fn numbered(
    core: &Core,
    options: &ExportOptions,
    mut exported: Exported<'_>,
) -> Result<(u64, Timestamp), ExportError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let newest = rows::newest_export(&tx, exported.tier, exported.filter).await?;
    if let Some((version, digest, issued_at)) = newest
        && digest == *exported.digest
    {
        exported.version = version;
        let half = issued_at + options.valid_for / 2;
        if issued_at <= exported.issued_at && exported.issued_at < half {
            exported.issued_at = issued_at;
        }
    }
    rows::keep_export(&tx, &exported, KEPT).await?;
    tx.commit().await?;
    Ok((exported.version, exported.issued_at))
}

/// What an older archive brought.
async fn older(
    core: &Core,
    since: &SinceRef,
    head: &Head,
    filter: &FilterRecord,
    now: Timestamp,
) -> Result<(Since, BTreeMap<String, Sha256>), ExportError> {
    let (since, state) = match since {
        SinceRef::File(path) => {
            let (path, trusted) = (path.clone(), head.keys.clone());
            let read = tokio::task::spawn_blocking(move || open_state(&path, &trusted, now)).await;
            let (manifest, state) =
                read.map_err(|e| ServiceError::Internal(format!("reading failed: {e}")))??;
            let index = manifest.index;
            if index.deployment != head.deployment {
                return Err(ServiceError::Invalid(format!(
                    "--since names an archive of deployment {}, this is {}",
                    index.deployment, head.deployment
                ))
                .into());
            }
            let since = Since {
                version: index.version,
                digest: index.digest,
            };
            (since, state)
        }
        SinceRef::Version(version) => kept(core, *version, &head.tier, filter).await?,
    };
    if since.version > head.version {
        return Err(ServiceError::Invalid(format!(
            "--since names version {}, but this server is at version {}: was it restored from a backup?",
            since.version, head.version
        ))
        .into());
    }
    let names = state.payloads().map(|p| (p.filename, p.sha256)).collect();
    Ok((since, names))
}

async fn kept(
    core: &Core,
    version: u64,
    tier: &TierName,
    filter: &FilterRecord,
) -> Result<(Since, State), ExportError> {
    let conn = core.db.conn().await?;
    let words = filter_text(filter)?;
    let Some((digest, text)) = rows::export(&conn, tier.as_str(), &words, version).await? else {
        let versions = rows::export_versions(&conn, tier.as_str(), &words).await?;
        let versions: Vec<String> = versions.iter().map(ToString::to_string).collect();
        let known = match versions.as_slice() {
            [] => "none is known".to_owned(),
            versions => format!("known are {}", versions.join(", ")),
        };
        return Err(ServiceError::Invalid(format!(
            "--since {version}: no archive of that version, tier {tier} and filter is remembered ({known}); give the archive itself instead"
        ))
        .into());
    };
    Ok((Since { version, digest }, State::parse(&text)?))
}

fn filter_text(filter: &FilterRecord) -> Result<String, ServiceError> {
    serde_json::to_string(filter).map_err(|e| ServiceError::Internal(e.to_string()))
}

/// Notes who took what out.
async fn note(
    core: &Core,
    actor: &Actor,
    plan: &Plan,
    volumes: &[Written],
) -> Result<(), ExportError> {
    let index = &plan.manifest.index;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let entry = Entry {
        actor,
        action: "archive.export",
        target: &index.version.to_string(),
        details: json!({
            "tier": index.tier,
            "digest": index.digest,
            "filter": plan.manifest.filter,
            "since": plan.manifest.since.as_ref().map(|since| since.version),
            "payloads": plan.payloads(),
            "bytes": volumes.iter().map(|v| v.bytes).sum::<u64>(),
            "volumes": volumes.len(),
        }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    Ok(tx.commit().await?)
}
