//! Quarantine: what was refused at the door, until a person decides: release it (it goes through the door again, under
//! the policy of now) or drop it.

use super::ingest::{self, Origin};
use super::{Core, ServiceError, paging};
use crate::blob::{BlobError, Key};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::quarantine as held;
use crate::domain::Sha256;
use crate::wire::admin::{IngestOutcome, IngestResult, Page, PageQuery, QuarantineEntry};
use futures_util::TryStreamExt as _;
use serde_json::json;
use std::io;

/// Lists quarantined files, newest first.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<QuarantineEntry>, ServiceError> {
    let before = paging::after("quarantine", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let conn = core.db.conn().await?;
    let rows = held::page(&conn, before, limit as i64 + 1).await?;
    let place = |row: &held::Held| paging::encode("quarantine", &[&row.id]);
    Ok(paging::page(rows, limit, place, entry))
}

fn entry(row: held::Held) -> QuarantineEntry {
    QuarantineEntry {
        id: row.id,
        filename: row.filename,
        sha256: row.sha256,
        size: row.size,
        code: row.code,
        reason: row.reason,
        source: row.source,
        actor: row.actor,
        at: row.at,
    }
}

async fn find(core: &Core, id: i64) -> Result<held::Held, ServiceError> {
    let row = held::get(&core.db.conn().await?, id).await?;
    row.ok_or_else(|| ServiceError::not_found("quarantined file", id))
}

/// Shows one quarantined file.
pub async fn show(core: &Core, id: i64) -> Result<QuarantineEntry, ServiceError> {
    Ok(entry(find(core, id).await?))
}

/// Takes a quarantined file through the door again. [`ServiceError::Conflict`] if it still fails, or if the kept object
/// is no longer what it was.
pub async fn release(core: &Core, actor: &Actor, id: i64) -> Result<IngestOutcome, ServiceError> {
    let row = find(core, id).await?;
    let name = ingest::name_of(&row.filename)?;
    let key = Key::Quarantine(row.sha256);
    let bad = |why: &dyn std::fmt::Display| {
        ServiceError::Conflict(format!(
            "quarantined file {id} ({}) cannot be released: {why}; drop it and bring the file again",
            row.filename
        ))
    };
    // Hashed before it counts as the file that was refused: a damaged object must not be judged in its place.
    match core.store.rehash(&key, row.size).await {
        Ok(found) if found.sha256 == row.sha256 => {}
        Ok(found) => return Err(bad(&format!("its object has SHA-256 {} now", found.sha256))),
        Err(error) if error.is_bad_object() => return Err(bad(&error)),
        Err(error) => return Err(error.into()),
    }
    let object = core.store.read_unverified(&key, row.size).await?;
    let origin = Origin {
        actor,
        source: &row.source,
        declared: Some(row.sha256),
        size: Some(row.size),
        release: Some(id),
        staged: None,
    };
    let body = object.chunks.map_err(io_error);
    let taken = ingest::take(core, &origin, &name, body).await?;
    if let Some(seq) = taken.seq {
        core.changed(Some(Change::Catalog), seq).await;
    }
    let outcome = taken.outcome;
    if outcome.result == IngestResult::Quarantined {
        let reason = outcome.reason.unwrap_or_default();
        let code = outcome.code.unwrap_or_default();
        return Err(ServiceError::Conflict(format!(
            "quarantined file {id} ({}) still fails and stays: {code}: {reason}",
            row.filename
        )));
    }
    if outcome.result == IngestResult::AlreadyThere {
        // The same content is stored already, so there is nothing left to decide.
        remove(core, actor, id, "quarantine.release").await?;
    }
    Ok(outcome)
}

/// An error of the store as one of a stream; the door takes it out again.
pub(super) fn io_error(error: BlobError) -> io::Error {
    io::Error::other(error)
}

/// Removes a quarantined file.
pub async fn drop_file(core: &Core, actor: &Actor, id: i64) -> Result<(), ServiceError> {
    if remove(core, actor, id, "quarantine.drop").await? {
        return Ok(());
    }
    Err(ServiceError::not_found("quarantined file", id))
}

/// Removes the row and, if no other row has this content, the object. `false` if there is no such row.
async fn remove(
    core: &Core,
    actor: &Actor,
    id: i64,
    action: &'static str,
) -> Result<bool, ServiceError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let Some(row) = held::get(&tx, id).await? else {
        return Ok(false);
    };
    held::lock(&tx, &row.sha256).await?;
    if held::delete(&tx, id).await?.is_none() {
        return Ok(false);
    }
    if held::count_content(&tx, &row.sha256).await? == 0 {
        // Before the commit: under the lock nobody can need it again, and a row whose object is gone can be dropped.
        core.store.delete(&Key::Quarantine(row.sha256)).await?;
    }
    let entry = Entry {
        actor,
        action,
        target: &row.filename,
        details: json!({ "id": id, "sha256": row.sha256, "code": row.code, "reason": row.reason }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    tx.commit().await?;
    Ok(true)
}

/// Removes the kept object of a content that was released, unless another row has it. What cannot be removed now stays
/// until that content is dropped the next time; that is harmless.
pub(super) async fn drop_object(core: &Core, sha256: &Sha256) {
    let result: Result<(), ServiceError> = async {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        held::lock(&tx, sha256).await?;
        if held::count_content(&tx, sha256).await? == 0 {
            core.store.delete(&Key::Quarantine(*sha256)).await?;
        }
        Ok(tx.commit().await?)
    }
    .await;
    if let Err(error) = result {
        tracing::warn!(%error, %sha256, "a released file's object could not be removed from quarantine");
    }
}
