//! Patches: the list, and what stops one. Blocks and holds are lifted with the scope they were set with.

use super::events;
use super::failpoint::failpoint;
use super::promotions::{reason, whole_reach};
use super::{Core, ServiceError, paging, storage};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::patches::{self as rows, Group};
use crate::db::payloads;
use crate::domain::{EventKind, KernelVersion, PatchVersion, Scope};
use crate::rollout;
use crate::wire::admin::{
    Block, BlockKind, BlockOutcome, BlockRequest, Page, PageQuery, Patch, PatchDetail, Promotion,
};
use serde_json::json;

/// Lists patches, highest version first.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<Patch>, ServiceError> {
    let below = paging::after("patches", query.cursor.as_deref())?;
    let limit = paging::limit(query.limit);
    let patches = read(core, below, None, limit as i64 + 1).await?;
    let place = |patch: &Patch| paging::encode("patches", &[&patch.version]);
    Ok(paging::page(patches, limit, place, |patch| patch))
}

/// Shows a patch with its payloads.
pub async fn show(core: &Core, version: PatchVersion) -> Result<PatchDetail, ServiceError> {
    let patch = read(core, None, Some(version), 1).await?.pop();
    let patch = patch.ok_or_else(|| ServiceError::not_found("patch", version))?;
    let listed = payloads::of_patch(&core.db.conn().await?, version).await?;
    let snapshot = core.snapshots.get_full();
    let entry = |row| storage::entry(row, &snapshot.catalog);
    Ok(PatchDetail {
        patch,
        payloads: listed.into_iter().map(entry).collect(),
    })
}

async fn read(
    core: &Core,
    below: Option<PatchVersion>,
    only: Option<PatchVersion>,
    limit: i64,
) -> Result<Vec<Patch>, ServiceError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin_read().await?;
    let listed = rows::page(&tx, below, only, limit).await?;
    let ids: Vec<i32> = listed.iter().map(|row| row.id).collect();
    let mut promotions = rows::promotions(&tx, &ids).await?;
    let mut blocks = rows::blocks(&tx, &ids).await?;
    tx.commit().await?;
    let patch = |row: rows::Listed| {
        let promotions = promotions.remove(&row.id).unwrap_or_default();
        Patch {
            version: row.version,
            notice: row.version.notice(),
            payloads: row.payloads,
            kernels: row.kernels,
            damaged: row.damaged,
            reach: whole_reach(&promotions),
            promotions: promotions.into_iter().map(promotion).collect(),
            blocks: wire_blocks(blocks.remove(&row.id).unwrap_or_default()),
            first_seen: row.created_at,
        }
    };
    Ok(listed.into_iter().map(patch).collect())
}

fn promotion(row: rows::Promotion) -> Promotion {
    Promotion {
        tier: row.tier,
        scope: row.scope.into(),
        at: row.at,
        actor: row.actor,
        reason: row.reason,
    }
}

fn wire_blocks(rows: Vec<rows::Block>) -> Vec<Block> {
    let block = |row: rows::Block| Block {
        kind: match row.kind {
            rollout::BlockKind::Block => BlockKind::Block,
            rollout::BlockKind::Hold => BlockKind::Hold,
        },
        scope: row.scope.into(),
        at: row.at,
        actor: row.actor,
        reason: row.reason,
    };
    rows.into_iter().map(block).collect()
}

/// What is done about a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Withdraws it.
    Block,
    /// Lifts a block.
    Unblock,
    /// Offers it to nobody anew.
    Hold,
    /// Lifts a hold.
    Resume,
}

impl Act {
    fn kind(self) -> rollout::BlockKind {
        match self {
            Self::Block | Self::Unblock => rollout::BlockKind::Block,
            Self::Hold | Self::Resume => rollout::BlockKind::Hold,
        }
    }

    fn event(self) -> EventKind {
        match self {
            Self::Block => EventKind::PatchBlocked,
            Self::Unblock => EventKind::PatchUnblocked,
            Self::Hold => EventKind::PatchHeld,
            Self::Resume => EventKind::PatchResumed,
        }
    }

    fn action(self) -> &'static str {
        match self {
            Self::Block => "patch.block",
            Self::Unblock => "patch.unblock",
            Self::Hold => "patch.hold",
            Self::Resume => "patch.resume",
        }
    }
}

/// Blocks, unblocks, holds or resumes a patch. What stands so already changes nothing.
pub async fn act(
    core: &Core,
    actor: &Actor,
    version: PatchVersion,
    act: Act,
    request: &BlockRequest,
) -> Result<BlockOutcome, ServiceError> {
    let scope: Scope = request.scope.clone().try_into()?;
    let why = reason(request.reason.as_deref())?;
    let (patch_id, seq) = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let found = rows::lock(&tx, version).await?;
        let id = found.ok_or_else(|| ServiceError::not_found("patch", version))?;
        let (kind, name) = (act.kind(), &actor.name);
        let changed = match act {
            Act::Block | Act::Hold => rows::block(&tx, id, kind, &scope, name, &why).await?,
            Act::Unblock | Act::Resume => rows::lift(&tx, id, kind, &scope, name).await?,
        };
        let mut seq = None;
        if changed {
            let told = events::Act {
                version,
                scope: &scope,
                actor: name,
                reason: &why,
            };
            events::stopped(&tx, act.event(), told).await?;
            let entry = Entry {
                actor,
                action: act.action(),
                target: &version.to_string(),
                details: json!({ "scope": request.scope, "reason": why }),
            };
            seq = Some(audit::append(&tx, entry, Change::Catalog).await?);
            failpoint("block-before-commit");
            tx.commit().await?;
            failpoint("block-after-commit");
        }
        (id, seq)
    };
    if let Some(seq) = seq {
        core.changed(Some(Change::Catalog), seq).await;
    }
    let conn = core.db.conn().await?;
    let mut blocks = rows::blocks(&conn, &[patch_id]).await?;
    let fleet = rows::fleet(&conn, None, Some(version)).await?;
    Ok(BlockOutcome {
        version,
        changed: seq.is_some(),
        blocks: wire_blocks(blocks.remove(&patch_id).unwrap_or_default()),
        machines_running: running(&fleet, &scope),
    })
}

/// Machines of these under the scope. One whose kernel cannot be read is under no narrower scope than all.
fn running(fleet: &[Group], scope: &Scope) -> u64 {
    let under = |group: &&Group| {
        let kernel = group.kernel.parse::<KernelVersion>().ok();
        let known = kernel.zip(group.architecture);
        scope.is_all() || known.is_some_and(|(kernel, arch)| scope.covers(&kernel, arch))
    };
    fleet.iter().filter(under).map(|group| group.machines).sum()
}
