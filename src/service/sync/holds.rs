//! What upstream withdrew, blocked and held: holds and blocks here, placed by sync and lifted by sync, so that a person's own stay
//! a person's.
//!
//! Nothing is deleted. A payload that upstream had and does not have any more is held: who runs it keeps it, nobody else is
//! offered it. If a person resumes it, it stays so.

use super::error::RunError;
use super::publish::{Failure, remark};
use super::run::{Found, Work};
use crate::bundle::BundleName;
use crate::db::sync::Item;
use crate::db::{DbError, Tx, patches, staged};
use crate::domain::{EventKind, PatchVersion, Scope};
use crate::rollout::BlockKind;
use crate::service::{ServiceError, events};
use crate::wire::admin::{SyncItemResult, SyncOutcome};
use crate::wire::sync::{BlockWord, Record};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Who holds what upstream does not have any more. Names of administrators hold no slash.
pub const WITHDRAWN: &str = "sync/withdrawn";
/// Who takes over the blocks and holds of upstream.
pub const UPSTREAM: &str = "sync/upstream";

/// A visible payload.
struct Visible {
    name: BundleName,
    filename: String,
    patch: i32,
}

/// Holds, blocks and lifts.
pub(super) async fn place(
    work: &Work<'_>,
    tx: &Tx<'_>,
    found: &Found,
    outcome: &mut SyncOutcome,
    items: &mut Vec<Item>,
) -> Result<(), Failure> {
    let visible: Vec<Visible> = staged::visible(tx)
        .await?
        .into_iter()
        .filter_map(|(_, filename, patch, _)| {
            let name = filename.parse().ok()?;
            Some(Visible {
                name,
                filename,
                patch,
            })
        })
        .collect();
    let ids = staged::patch_ids(tx).await?;
    let versions = ids.iter().map(|(version, id)| (*id, *version)).collect();
    let teller = Teller { tx, versions };
    withdrawn(work, &teller, found, &visible, outcome, items).await?;
    if found.listing.index.is_some() {
        mirrored(work, &teller, found, &ids, outcome).await?;
    }
    Ok(())
}

/// Places and lifts, and tells webhooks.
struct Teller<'a> {
    tx: &'a Tx<'a>,
    versions: HashMap<i32, PatchVersion>,
}

impl Teller<'_> {
    /// Blocks or holds; `false` if it stood so.
    async fn place(
        &self,
        patch: i32,
        kind: BlockKind,
        scope: &Scope,
        (actor, reason): (&str, &str),
    ) -> Result<bool, DbError> {
        let placed = patches::block(self.tx, patch, kind, scope, actor, reason).await?;
        if placed {
            let event = match kind {
                BlockKind::Block => EventKind::PatchBlocked,
                BlockKind::Hold => EventKind::PatchHeld,
            };
            self.tell(event, patch, scope, (actor, reason)).await?;
        }
        Ok(placed)
    }

    /// Lifts what stands.
    async fn lift(
        &self,
        (id, patch, block): &(i64, i32, patches::Block),
        by: (&str, &str),
    ) -> Result<(), DbError> {
        staged::lift(self.tx, *id, by.0).await?;
        let event = match block.kind {
            BlockKind::Block => EventKind::PatchUnblocked,
            BlockKind::Hold => EventKind::PatchResumed,
        };
        self.tell(event, *patch, &block.scope, by).await
    }

    async fn tell(
        &self,
        event: EventKind,
        patch: i32,
        scope: &Scope,
        (actor, reason): (&str, &str),
    ) -> Result<(), DbError> {
        let Some(version) = self.versions.get(&patch) else {
            return Ok(());
        };
        let act = events::Act {
            version: *version,
            scope,
            actor,
            reason,
        };
        events::stopped(self.tx, event, act).await
    }
}

/// A hold that is to stand: patch and scope.
type Desired = BTreeMap<(i32, String), Scope>;

fn key(patch: i32, scope: &Scope) -> (i32, String) {
    (patch, format!("{scope:?}"))
}

async fn withdrawn(
    work: &Work<'_>,
    teller: &Teller<'_>,
    found: &Found,
    visible: &[Visible],
    outcome: &mut SyncOutcome,
    items: &mut Vec<Item>,
) -> Result<(), Failure> {
    let standing = staged::blocks_of(teller.tx, WITHDRAWN).await?;
    let covered = |payload: &Visible| {
        standing.iter().any(|(_, patch, block)| {
            *patch == payload.patch
                && block
                    .scope
                    .covers(&payload.name.kernel, payload.name.architecture)
        })
    };
    // A driver without an index may have been asked for less than before.
    let counts = |payload: &Visible| {
        found.listing.index.is_some() || work.run.filter.admits(&payload.name).is_ok()
    };
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for payload in visible {
        let here = found.names.contains_key(&payload.filename);
        let was = covered(payload);
        let lost = found.had.contains_key(&payload.filename) && counts(payload);
        if here {
            if was {
                outcome.returned += 1;
                let version = payload.name.version;
                let result = SyncItemResult::Returned;
                remark(items, &payload.filename, result, version);
            }
        } else if was || lost {
            gone.insert(&payload.filename);
            if !was {
                outcome.withdrawn += 1;
                let version = payload.name.version;
                let result = SyncItemResult::Withdrawn;
                remark(items, &payload.filename, result, version);
            }
        }
    }
    let mut by_patch: HashMap<i32, (Vec<&Visible>, usize)> = HashMap::new();
    for payload in visible {
        let (of, lost) = by_patch.entry(payload.patch).or_default();
        of.push(payload);
        *lost += usize::from(gone.contains(payload.filename.as_str()));
    }
    let mut desired = Desired::new();
    for (patch, (payloads, lost)) in by_patch {
        if lost == payloads.len() {
            desired.insert(key(patch, &Scope::default()), Scope::default());
        } else if lost > 0 {
            for payload in payloads {
                if gone.contains(payload.filename.as_str()) {
                    let scope = Scope {
                        kernel: Some(payload.name.kernel.clone()),
                        flavour: None,
                        architecture: Some(payload.name.architecture),
                    };
                    desired.insert(key(patch, &scope), scope);
                }
            }
        }
    }
    let again = format!("{} has it again", work.name);
    for stands in &standing {
        let (_, patch, block) = stands;
        if desired.remove(&key(*patch, &block.scope)).is_none() {
            teller.lift(stands, (WITHDRAWN, &again)).await?;
        }
    }
    let reason = format!(
        "withdrawn upstream: {} does not have it any more",
        work.name
    );
    for ((patch, _), scope) in desired {
        let by = (WITHDRAWN, reason.as_str());
        teller.place(patch, BlockKind::Hold, &scope, by).await?;
    }
    Ok(())
}

/// Takes over the blocks and holds that stand upstream, and lifts those that do not any more.
async fn mirrored(
    work: &Work<'_>,
    teller: &Teller<'_>,
    found: &Found,
    ids: &HashMap<PatchVersion, i32>,
    outcome: &mut SyncOutcome,
) -> Result<(), Failure> {
    let Some((_, state)) = &found.listing.index else {
        return Ok(());
    };
    let mut desired: BTreeMap<(i32, i16, String), (BlockKind, Scope, String)> = BTreeMap::new();
    for record in state.records() {
        let Record::Block(block) = record else {
            continue;
        };
        let Some(patch) = ids.get(&block.version) else {
            continue;
        };
        let kind = match block.kind {
            BlockWord::Block => BlockKind::Block,
            BlockWord::Hold => BlockKind::Hold,
        };
        let scope = block
            .scope
            .scope()
            .map_err(|e| RunError::Service(ServiceError::from(e)))?;
        let reason = if block.reason.is_empty() {
            format!("stopped by {}", work.name)
        } else {
            block.reason
        };
        let (patch, name) = key(*patch, &scope);
        desired.insert((patch, kind as i16, name), (kind, scope, reason));
    }
    let lifted = format!("{} does not stop it any more", work.name);
    for stands in &staged::blocks_of(teller.tx, UPSTREAM).await? {
        let (_, patch, block) = stands;
        let (patch, name) = key(*patch, &block.scope);
        if desired.remove(&(patch, block.kind as i16, name)).is_none() {
            teller.lift(stands, (UPSTREAM, &lifted)).await?;
            outcome.blocks_lifted += 1;
        }
    }
    for ((patch, _, _), (kind, scope, reason)) in desired {
        if teller
            .place(patch, kind, &scope, (UPSTREAM, &reason))
            .await?
        {
            outcome.blocks_placed += 1;
        }
    }
    Ok(())
}
