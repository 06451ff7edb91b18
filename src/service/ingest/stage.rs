//! Taking in for a sync: first the object of each payload, then the rows of many in one transaction.
//!
//! Whether one row is committed or fifty makes little difference to the database, and whoever fetches need not wait for it. A
//! crash between the two leaves objects without rows, as a crash at that place always did; the next run writes them again.

use super::spool::Spooled;
use super::store::{self, row};
use super::{Good, Origin, Taken, count, outcome, process, receive, store_object, turn};
use crate::bundle::BundleName;
use crate::db::{DbError, patches, payloads, staged};
use crate::domain::PatchVersion;
use crate::service::failpoint::failpoint;
use crate::service::{Core, ServiceError};
use crate::wire::admin::IngestResult;
use bytes::Bytes;
use futures_util::Stream;
use std::collections::HashSet;
use std::io;

/// A payload whose object is stored and verified, and whose row is not written yet.
#[derive(Debug)]
pub(in crate::service) struct Verified {
    pub(in crate::service) name: BundleName,
    spooled: Spooled,
    good: Good,
}

/// What came of a bundle before its row.
#[derive(Debug)]
pub(in crate::service) enum Passed {
    /// It needs none any more.
    Done(Taken),
    /// It waits for [`stage`].
    Verified(Box<Verified>),
}

/// As [`super::take`] for a sync, up to the row. Right only for a file name that no row is known of; if one appears meanwhile,
/// [`stage`] finds it.
pub(in crate::service) async fn pass(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    body: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Passed, ServiceError> {
    let passed = receive_and_pass(core, origin, name, body).await;
    match passed {
        Ok(Ok(verified)) => Ok(Passed::Verified(Box::new(verified))),
        Ok(Err(taken)) => {
            let result = Ok(taken);
            count(core, &result);
            result.map(Passed::Done)
        }
        Err(error) => {
            let result = Err(error);
            count(core, &result);
            result.map(Passed::Done)
        }
    }
}

async fn receive_and_pass(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    body: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Result<Verified, Taken>, ServiceError> {
    let _receiving = turn(&core.gate.receiving, name).await?;
    let spooled = receive(core, origin, name, body).await?;
    let _working = turn(&core.gate.working, name).await?;
    let stored = store_object(core, origin, name, &spooled).await?;
    Ok(stored.map(|good| Verified {
        name: name.clone(),
        spooled,
        good,
    }))
}

/// Writes the rows of payloads that have passed, all of them in one transaction; what became of each, in the order given.
pub(in crate::service) async fn stage(
    core: &Core,
    origin: &Origin<'_>,
    group: &[Verified],
) -> Vec<Result<Taken, ServiceError>> {
    let mut results = Vec::with_capacity(group.len());
    match insert(core, origin, group).await {
        Ok(inserted) => {
            for verified in group {
                results.push(settle(core, origin, verified, &inserted).await);
            }
        }
        Err(DbError::Unavailable(why)) => {
            results.extend(
                group
                    .iter()
                    .map(|_| Err(DbError::Unavailable(why.clone()).into())),
            );
        }
        // One of them must not cost the others their rows.
        Err(error) => {
            tracing::warn!(%error, payloads = group.len(), "rows are written one by one");
            for verified in group {
                let alone = insert(core, origin, std::slice::from_ref(verified)).await;
                results.push(match alone {
                    Ok(inserted) => settle(core, origin, verified, &inserted).await,
                    Err(error) => Err(error.into()),
                });
            }
        }
    }
    for result in &results {
        count(core, result);
    }
    results
}

/// As [`stage`] for a single one; `None` if a row of its name is there.
pub(super) async fn one(
    core: &Core,
    origin: &Origin<'_>,
    name: &BundleName,
    spooled: &Spooled,
    good: Good,
) -> Result<Option<Taken>, ServiceError> {
    let verified = Verified {
        name: name.clone(),
        spooled: spooled.clone(),
        good,
    };
    let inserted = insert(core, origin, std::slice::from_ref(&verified)).await?;
    Ok((!inserted.is_empty()).then(|| taken(&verified)))
}

/// What became of a payload whose row was written, or met another of its name.
async fn settle(
    core: &Core,
    origin: &Origin<'_>,
    verified: &Verified,
    inserted: &HashSet<String>,
) -> Result<Taken, ServiceError> {
    if !inserted.contains(&verified.name.to_string()) {
        return process(core, origin, &verified.name, &verified.spooled).await;
    }
    Ok(taken(verified))
}

fn taken(verified: &Verified) -> Taken {
    let filename = verified.name.to_string();
    let mut outcome = outcome(&filename, &verified.spooled, IngestResult::Stored);
    outcome.warning.clone_from(&verified.good.warning);
    Taken { outcome, seq: None }
}

/// The names of those whose rows were written; the others are there already.
async fn insert(
    core: &Core,
    origin: &Origin<'_>,
    group: &[Verified],
) -> Result<HashSet<String>, DbError> {
    let mut attempt = 1;
    loop {
        match try_insert(core, origin, group).await {
            Err(DbError::Retry(_)) if attempt < store::ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

async fn try_insert(
    core: &Core,
    origin: &Origin<'_>,
    group: &[Verified],
) -> Result<HashSet<String>, DbError> {
    let mut versions: Vec<PatchVersion> = group.iter().map(|v| v.name.version).collect();
    versions.sort_unstable();
    versions.dedup();
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let ids = patches::ensure_all(&tx, &versions).await?;
    let named: Vec<(String, &Verified)> = group.iter().map(|v| (v.name.to_string(), v)).collect();
    let mut rows: Vec<payloads::New<'_>> = named
        .iter()
        .filter_map(|(filename, v)| {
            let id = ids.get(&v.name.version)?;
            Some(row(origin, &v.name, filename, &v.spooled, &v.good, *id))
        })
        .collect();
    // In one order, so that two who write the same rows do not wait for each other.
    rows.sort_by_key(|row| row.filename);
    let inserted = staged::insert(&tx, &rows).await?;
    failpoint("stage-before-commit");
    tx.commit().await?;
    failpoint("stage-after-commit");
    Ok(inserted.into_iter().collect())
}
