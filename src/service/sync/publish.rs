//! The one transaction that makes a run visible.

use super::believed;
use super::error::RunError;
use super::fetch::{self, Fetched};
use super::run::{Found, Work};
use super::{holds, mirror};
use crate::db::audit::{self, Entry};
use crate::db::listen::Change;
use crate::db::sync as rows;
use crate::db::{DbError, Tx, catalog, outbox, patches, staged, tiers};
use crate::domain::{EventKind, PatchVersion, Scope};
use crate::index::State;
use crate::rollout::support::{SupportRow, SupportTable};
use crate::service::failpoint::failpoint;
use crate::service::{ServiceError, events};
use crate::wire::admin::{SyncItemResult, SyncOutcome, SyncPhase};
use crate::wire::event::SyncCompleted;
use crate::wire::sync::Record;
use serde_json::json;

/// How often a transaction that another one got in the way of is tried.
const ATTEMPTS: usize = 3;

/// Makes everything visible, and records that the run is done.
pub(super) async fn publish(
    work: &Work<'_>,
    found: &Found,
    fetched: Fetched,
) -> Result<(), RunError> {
    work.record.phase(work.core, SyncPhase::Publishing).await?;
    drop_left_over(work, found).await?;
    let mut attempt = 1;
    let seq = loop {
        match once(work, found, &fetched.names).await {
            Err(Failure::Database(DbError::Retry(_) | DbError::Referenced(_)))
                if attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(Failure::Database(error)) => return Err(error.into()),
            Err(Failure::Run(error)) => return Err(error),
            Ok(seq) => break seq,
        }
    };
    failpoint("publish-after-commit");
    let metrics = &work.core.metrics.sync;
    metrics.last_success.set(jiff::Timestamp::now().as_second());
    if let Some(seq) = seq.max(fetched.seq) {
        // Tiers that were taken over touch everything a snapshot holds.
        let change = (!work.run.mirror).then_some(Change::Catalog);
        work.core.changed(change, seq).await;
    }
    Ok(())
}

/// Kept apart, because some database errors are worth another attempt.
pub(super) enum Failure {
    Database(DbError),
    Run(RunError),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Service(error) => error.into(),
            other => Self::Run(other),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Run(RunError::Service(error))
    }
}

/// Removes what earlier runs staged and upstream does not have any more.
async fn drop_left_over(work: &Work<'_>, found: &Found) -> Result<(), RunError> {
    let wanted: Vec<&str> = found
        .names
        .iter()
        .filter(|(_, offered)| work.run.filter.admits(&offered.name).is_ok())
        .map(|(name, _)| name.as_str())
        .collect();
    let left = staged::left_over(&work.core.db.conn().await?, &work.name, &wanted).await?;
    for id in left {
        fetch::discard(work.core, id).await?;
    }
    Ok(())
}

async fn once(work: &Work<'_>, found: &Found, names: &[String]) -> Result<Option<i64>, Failure> {
    let mut conn = work.core.db.conn().await?;
    let tx = conn.begin().await?;
    work.fence.check(&tx).await?;
    let mut outcome = work.record.account().outcome;
    let mut items = work.record.items();
    let state = found.listing.index.as_ref().map(|(_, state)| state);
    if work.run.mirror {
        tiers::lock(&tx).await?;
    } else {
        tiers::lock_shared(&tx).await?;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    show(work, &tx, &names, &mut outcome, &mut items).await?;
    holds::place(work, &tx, found, &mut outcome, &mut items).await?;
    if let Some(state) = state {
        outcome.kernels_changed = kernels(work, &tx, state).await?;
        if work.run.mirror {
            outcome.tiers_changed = mirror::apply(work, &tx, state, &found.moves).await?;
        }
    }
    believe(work, &tx, found).await?;
    let Some(id) = work.record.id else {
        return Err(ServiceError::Internal("a run without a record".to_owned()).into());
    };
    rows::add_items(&tx, id, &items).await?;
    work.record.outcome(|o| *o = outcome.clone());
    work.record
        .progress(|progress| progress.phase = SyncPhase::Ended);
    if !rows::finish(&tx, id, "done", &work.record.text()?, None).await? {
        return Err(Failure::Run(RunError::Superseded));
    }
    tell(work, &tx, id, &outcome).await?;
    let seq = if changed(&outcome) {
        let entry = Entry {
            actor: &work.run.actor,
            action: "sync.publish",
            target: &work.name,
            details: json!({
                "run": id,
                "cause": work.run.cause.as_str(),
                "added": outcome.added,
                "new-patches": outcome.new_patches,
                "withdrawn": outcome.withdrawn,
                "returned": outcome.returned,
                "blocks-placed": outcome.blocks_placed,
                "blocks-lifted": outcome.blocks_lifted,
                "kernels-changed": outcome.kernels_changed,
                "tiers-changed": outcome.tiers_changed,
                "index-version": found.listing.index.as_ref().map(|(head, _)| head.version),
            }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        if outcome.tiers_changed {
            for also in [Change::Tokens, Change::Overrides] {
                audit::notify(&tx, also, seq).await?;
            }
        }
        Some(seq)
    } else {
        None
    };
    failpoint("publish-before-commit");
    tx.commit().await?;
    Ok(seq)
}

/// New patches that an event names.
const NAMED: usize = 100;

/// Tells webhooks of the end of the run.
async fn tell(
    work: &Work<'_>,
    tx: &Tx<'_>,
    run: i64,
    outcome: &SyncOutcome,
) -> Result<(), DbError> {
    let new = outcome.new_patches.iter().rev();
    let data = SyncCompleted {
        run,
        upstream: work.name.clone(),
        cause: work.run.cause.as_str().to_owned(),
        actor: work.run.actor.name.clone(),
        changed: changed(outcome),
        added: outcome.added,
        quarantined: outcome.quarantined,
        withdrawn: outcome.withdrawn,
        returned: outcome.returned,
        new_patches: new.take(NAMED).copied().collect(),
    };
    outbox::emit(tx, EventKind::SyncCompleted, &data).await?;
    Ok(())
}

/// Whether anything that people see changed.
fn changed(outcome: &SyncOutcome) -> bool {
    outcome.added + outcome.withdrawn + outcome.returned > 0
        || outcome.blocks_placed + outcome.blocks_lifted > 0
        || outcome.kernels_changed
        || outcome.tiers_changed
}

/// Shows what is staged; patches that nobody has seen before enter the first tier.
async fn show(
    work: &Work<'_>,
    tx: &Tx<'_>,
    names: &[&str],
    outcome: &mut SyncOutcome,
    items: &mut Vec<rows::Item>,
) -> Result<(), Failure> {
    let touched = staged::staged_patches(tx, names).await?;
    let unseen = patches::unseen(tx, &touched).await?;
    let shown = staged::publish(tx, names).await?;
    outcome.added = shown.len() as u64;
    for (filename, bytes) in shown {
        items.push(rows::Item {
            filename,
            result: "added".to_owned(),
            reason: String::new(),
            bytes,
        });
    }
    outcome.new_patches = unseen.iter().map(|(_, version)| *version).collect();
    outcome.new_patches.sort_unstable();
    let first = tiers::order(tx).await?.into_iter().next();
    let first = first.filter(|_| !work.run.mirror);
    let (all, actor) = (Scope::default(), &work.run.actor.name);
    for (patch, version) in &unseen {
        if let Some(first) = &first {
            tiers::promote(tx, *patch, first.id, &all, actor, "new patch").await?;
        }
        let tier = first.as_ref().map(|tier| &tier.name);
        events::arrived(tx, *version, tier, &work.name, actor).await?;
    }
    Ok(())
}

/// Takes over the table of supported kernels, if upstream has one and it differs.
async fn kernels(work: &Work<'_>, tx: &Tx<'_>, state: &State) -> Result<bool, Failure> {
    let mut theirs: Vec<SupportRow> = state
        .records()
        .filter_map(|record| match record {
            Record::Kernel(kernel) => Some(SupportRow {
                release: kernel.release,
                codename: kernel.codename,
                architecture: kernel.architecture,
                series: kernel.series,
                kind: kernel.kind,
                flavours: kernel.flavours,
                months: kernel.months,
                end_of_life: kernel.end_of_life,
            }),
            _ => None,
        })
        .collect();
    if theirs.is_empty() {
        return Ok(false);
    }
    let key = |row: &SupportRow| (row.codename.clone(), row.architecture, row.series.clone());
    theirs.sort_by_key(key);
    theirs.dedup_by_key(|row| key(row));
    let mut ours = catalog::support(tx).await?;
    ours.sort_by_key(key);
    if ours == theirs {
        return Ok(false);
    }
    staged::replace_support(tx, &theirs).await?;
    let (ours, theirs) = (SupportTable::new(ours), SupportTable::new(theirs));
    let reason = format!("as in {}", work.name);
    let difference = ours.difference(&theirs);
    events::coverage(tx, &difference, &work.run.actor.name, &reason).await?;
    Ok(true)
}

/// Keeps what is believed from now on.
async fn believe(work: &Work<'_>, tx: &Tx<'_>, found: &Found) -> Result<(), Failure> {
    let filter = serde_json::to_string(&work.run.filter)
        .map_err(|e| ServiceError::Internal(format!("the filter cannot be written: {e}")))?;
    let (known, state) = match believed::known(&found.listing)? {
        Some((known, state)) => (Some(known), state),
        None => (None, super::plan::lines(&found.names)),
    };
    rows::succeed(
        tx,
        &work.name,
        known.as_deref(),
        &state,
        &filter,
        work.run.mirror,
    )
    .await?;
    Ok(())
}

/// Names a patch in a remark about a payload.
pub(super) fn remark(
    items: &mut Vec<rows::Item>,
    filename: &str,
    result: SyncItemResult,
    version: PatchVersion,
) {
    let (result, reason) = match result {
        SyncItemResult::Withdrawn => (
            "withdrawn",
            format!("upstream does not have it any more; {version} is held for it"),
        ),
        _ => (
            "returned",
            format!("upstream has it again; the hold of {version} for it is lifted"),
        ),
    };
    items.push(rows::Item {
        filename: filename.to_owned(),
        result: result.to_owned(),
        reason,
        bytes: 0,
    });
}
