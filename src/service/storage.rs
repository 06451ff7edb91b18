//! Payloads as they lie in the storage: the list, the search for new tarballs, and the comparison of every object with
//! its hash.

use super::ingest::{self, Origin};
use super::jobs::{Report, item};
use super::{Core, ServiceError, paging, quarantine};
use crate::blob::{BlobError, FoundPath, Key};
use crate::bundle::BundleName;
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::payloads::{self, Filter, Listed, ObjectOf};
use crate::domain::{Scope, TierName};
use crate::rollout::Catalog;
use crate::telemetry::Verification;
use crate::wire::admin::{
    IngestResult, JobItem, JobItemResult, Page, PayloadEntry, PayloadQuery, RefreshRequest,
    SignatureState,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Rows that are read from the database at once.
const BATCH: usize = 500;
/// How often the snapshot is read again while many payloads come in.
const RELOAD_EVERY: Duration = Duration::from_secs(1);

/// Lists payloads by file name.
pub async fn list(core: &Core, query: &PayloadQuery) -> Result<Page<PayloadEntry>, ServiceError> {
    let after: Option<BundleName> = paging::after("payloads", query.cursor.as_deref())?;
    let after = after.map(|name| name.to_string());
    let flavour = Scope::parse(None, query.flavour.as_deref(), None)?.flavour;
    let filter = Filter {
        after,
        version: query.version,
        kernel: query.kernel.clone(),
        architecture: query.architecture,
        flavour,
    };
    let limit = paging::limit(query.limit);
    let rows = payloads::page(&core.db.conn().await?, &filter, limit as i64 + 1).await?;
    let snapshot = core.snapshots.get_full();
    let place = |row: &Listed| paging::encode("payloads", &[&row.filename]);
    Ok(paging::page(rows, limit, place, |row| {
        entry(row, &snapshot.catalog)
    }))
}

/// A payload as listed; its tier is the catalog's word.
pub(super) fn entry(row: Listed, catalog: &Catalog) -> PayloadEntry {
    let reach = catalog.by_filename(&row.filename).and_then(|p| p.reach);
    let tier = reach.and_then(|index| catalog.tiers().get(usize::from(index)));
    PayloadEntry {
        tier: tier.map(|tier| TierName::clone(&tier.name)),
        filename: row.filename,
        version: row.version,
        kernel: row.kernel,
        architecture: row.architecture,
        size: row.size,
        sha256: row.sha256,
        signer: row.signer,
        signature: match row.signature {
            1 => SignatureState::Good,
            2 => SignatureState::NotGood,
            _ => SignatureState::NotChecked,
        },
        source: row.source,
        added_at: row.added_at,
        added_by: row.added_by,
        warning: row.warning,
        damaged: row.damaged,
    }
}

/// Notes that a payload's object is not what it should be, so that it is not offered any more. Called by whoever reads
/// an object and finds it so ([`BlobError::is_bad_object`]). Returns whether that was news.
pub async fn report_damaged(core: &Core, payload_id: i64, why: &str) -> Result<bool, ServiceError> {
    let actor = Actor {
        name: "system".to_owned(),
        source: "download".to_owned(),
    };
    mark_damaged(core, &actor, payload_id, why).await
}

async fn mark_damaged(
    core: &Core,
    actor: &Actor,
    payload_id: i64,
    why: &str,
) -> Result<bool, ServiceError> {
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let Some((filename, sha256, _)) = payloads::mark_damaged(&tx, payload_id, why).await?
        else {
            return Ok(false);
        };
        let entry = Entry {
            actor,
            action: "payload.damaged",
            target: &filename,
            details: json!({ "sha256": sha256, "reason": why }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        tx.commit().await?;
        core.cache.invalidate(sha256).await;
        seq
    };
    core.metrics
        .ingest
        .verification_failures
        .inc(Verification::Object);
    tracing::error!(
        payload_id,
        why,
        "a payload's object is damaged; it is not offered any more"
    );
    core.changed(Some(Change::Catalog), seq).await;
    Ok(true)
}

async fn clear_damaged(core: &Core, actor: &Actor, payload_id: i64) -> Result<(), ServiceError> {
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let Some((filename, sha256, damage)) = payloads::clear_damaged(&tx, payload_id).await?
        else {
            return Ok(());
        };
        let entry = Entry {
            actor,
            action: "payload.heal",
            target: &filename,
            details: json!({ "sha256": sha256, "source": "verify", "damage": damage }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        tx.commit().await?;
        seq
    };
    core.changed(Some(Change::Catalog), seq).await;
    Ok(())
}

/// The job behind `storage verify`: reads and hashes every payload's object.
pub(super) async fn verify(
    core: &Core,
    actor: &Actor,
    report: &Report,
) -> Result<(), ServiceError> {
    report.total(payloads::count(&core.db.conn().await?).await?);
    let width = core.config.ingest.parallelism.max(1) as usize;
    let mut after = 0;
    loop {
        let rows = payloads::objects(&core.db.conn().await?, after, BATCH as i64).await?;
        let Some(last) = rows.last() else {
            return Ok(());
        };
        after = last.id;
        stream::iter(rows)
            .for_each_concurrent(width, |row| async move {
                let (bytes, found) = match verify_one(core, actor, &row).await {
                    Ok(found) => (row.size, found),
                    Err(error) => (0, failed(&row.filename, &error)),
                };
                let named = found.result != JobItemResult::Verified;
                report.item(core, bytes, found, named).await;
            })
            .await;
    }
}

async fn verify_one(core: &Core, actor: &Actor, row: &ObjectOf) -> Result<JobItem, ServiceError> {
    let key = Key::Payload(row.sha256);
    let damage = match core.store.rehash(&key, row.size).await {
        Ok(found) if found.sha256 == row.sha256 => {
            if row.damaged.is_none() {
                return Ok(item(&row.filename, JobItemResult::Verified));
            }
            clear_damaged(core, actor, row.id).await?;
            return Ok(item(&row.filename, JobItemResult::Repaired));
        }
        Ok(found) => (
            JobItemResult::Damaged,
            format!(
                "{key} has {found}, {} bytes with SHA-256 {} expected",
                row.size, row.sha256
            ),
        ),
        Err(error @ BlobError::NotFound { .. }) => (JobItemResult::Missing, error.to_string()),
        Err(error) if error.is_bad_object() => (JobItemResult::Damaged, error.to_string()),
        Err(error) => return Err(error.into()),
    };
    let (result, reason) = damage;
    mark_damaged(core, actor, row.id, &reason).await?;
    let mut found = item(&row.filename, result);
    found.reason = Some(reason);
    Ok(found)
}

fn failed(name: &str, error: &ServiceError) -> JobItem {
    let mut item = item(name, JobItemResult::Failed);
    item.reason = Some(error.to_string());
    item
}

/// The job behind `storage refresh`: takes in tarballs that were put into the storage outside our own folders.
pub(super) async fn refresh(
    core: &Core,
    actor: &Actor,
    request: &RefreshRequest,
    report: &Report,
) -> Result<(), ServiceError> {
    let found: Vec<(FoundPath, u64)> = core.store.list_found().try_collect().await?;
    report.total(found.len() as u64);
    let width = core.config.ingest.parallelism.max(1) as usize;
    let progress = Progress::new();
    for batch in found.chunks(BATCH) {
        let names: Vec<&str> = batch.iter().map(|(path, _)| path.file_name()).collect();
        let rows = payloads::find_all(&core.db.conn().await?, &names).await?;
        let known: HashMap<String, u64> = rows
            .into_iter()
            .filter(|(_, _, damaged)| !damaged)
            .map(|(name, size, _)| (name, size))
            .collect();
        let (known, progress) = (&known, &progress);
        stream::iter(batch)
            .for_each_concurrent(width, |(path, size)| async move {
                let same = known.get(path.file_name()) == Some(size);
                let (bytes, done) =
                    refresh_one(core, actor, request, path, *size, same, progress).await;
                let quiet = [JobItemResult::AlreadyThere, JobItemResult::Ignored];
                let named = !quiet.contains(&done.result);
                report.item(core, bytes, done, named).await;
            })
            .await;
    }
    if let Some(seq) = progress.newest() {
        core.changed(Some(Change::Catalog), seq).await;
    }
    Ok(())
}

/// Changes made so far, and when the snapshot was last brought up to them.
struct Progress(Mutex<(Option<i64>, Instant)>);

impl Progress {
    fn new() -> Self {
        Self(Mutex::new((None, Instant::now())))
    }

    /// Notes a change; says whether it is time to bring the snapshot up to it.
    fn note(&self, seq: i64) -> bool {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0 = guard.0.max(Some(seq));
        let due = guard.1.elapsed() >= RELOAD_EVERY;
        if due {
            guard.1 = Instant::now();
        }
        due
    }

    fn newest(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Deals with one found tarball; returns the bytes read and what became of it. `same`: a payload of this name and size
/// is stored and well.
async fn refresh_one(
    core: &Core,
    actor: &Actor,
    request: &RefreshRequest,
    path: &FoundPath,
    size: u64,
    same: bool,
    progress: &Progress,
) -> (u64, JobItem) {
    let Ok(name) = path.file_name().parse::<BundleName>() else {
        return (0, item(path.as_str(), JobItemResult::Ignored));
    };
    if request.dry_run {
        let result = if same {
            JobItemResult::AlreadyThere
        } else {
            JobItemResult::Stored
        };
        let mut item = item(path.as_str(), result);
        item.reason = (!same).then(|| "dry run: it would be examined and taken in".to_owned());
        return (0, item);
    }
    // Only its content says that a file is the one stored, so one that is to be removed is always read.
    if same && !request.remove_originals {
        return (0, item(path.as_str(), JobItemResult::AlreadyThere));
    }
    match take_found(core, actor, request, path, size, &name, progress).await {
        Ok(item) => (size, item),
        Err(error) => (0, failed(path.as_str(), &error)),
    }
}

async fn take_found(
    core: &Core,
    actor: &Actor,
    request: &RefreshRequest,
    path: &FoundPath,
    size: u64,
    name: &BundleName,
    progress: &Progress,
) -> Result<JobItem, ServiceError> {
    let most = core.config.ingest.max_bundle_bytes;
    if size > most {
        return Err(ingest::too_large(name, most));
    }
    let key = Key::Found(path.clone());
    let object = core.store.read_unverified(&key, most).await?;
    let origin = Origin {
        actor,
        source: "refresh",
        declared: None,
        size: Some(size),
        release: None,
        staged: None,
    };
    let body = object.chunks.map_err(quarantine::io_error);
    let taken = ingest::take(core, &origin, name, body).await?;
    if let Some(seq) = taken.seq
        && progress.note(seq)
    {
        core.changed(Some(Change::Catalog), seq).await;
    }
    if request.remove_originals {
        super::failpoint::failpoint("refresh-before-removal");
        core.store.delete(&key).await?;
    }
    let outcome = taken.outcome;
    let result = match outcome.result {
        IngestResult::Stored => JobItemResult::Stored,
        IngestResult::AlreadyThere => JobItemResult::AlreadyThere,
        IngestResult::Quarantined => JobItemResult::Quarantined,
    };
    Ok(JobItem {
        item: path.as_str().to_owned(),
        result,
        code: outcome.code,
        reason: outcome.reason.or(outcome.warning),
        quarantine_id: outcome.quarantine_id,
    })
}
