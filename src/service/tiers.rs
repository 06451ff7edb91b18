//! Tiers: their order and their life.
//!
//! A patch that has reached a tier is available in it and in all before it, so the order decides who gets what. Two
//! rules follow. A move is refused if it would change in which tiers any patch is available: promote first, then move.
//! And when a tier is deleted, what was available in it stays available in the tiers before it; what had reached only
//! the deleted tier, which then was the first, has reached none afterwards and can be promoted again.
//! A new tier gets what has reached the tiers behind it.

use super::promotions::{Reach, reaches};
use super::sync::locked_tiers;
use super::{Core, ServiceError};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::tiers::{self as rows, Listed};
use crate::db::{DbError, Tx, rollouts};
use crate::domain::{PatchVersion, TierName};
use crate::rollout::Catalog;
use crate::wire::admin::{Tier, TierChange, TierCreate, TierDeleted};
use serde_json::json;
use std::collections::BTreeSet;

/// The most tiers there may be.
pub const MAX_TIERS: usize = 64;
/// How often a transaction that another one got in the way of is tried.
const ATTEMPTS: usize = 3;

/// Lists tiers, first to last.
pub async fn list(core: &Core) -> Result<Vec<Tier>, ServiceError> {
    let listed = rows::list(&core.db.conn().await?).await?;
    let snapshot = core.snapshots.get_full();
    let wire = |(position, row): (usize, Listed)| wire(&snapshot.catalog, position, row);
    Ok(listed.into_iter().enumerate().map(wire).collect())
}

fn wire(catalog: &Catalog, position: usize, row: Listed) -> Tier {
    let index = catalog.tier_index(row.id);
    let versions: BTreeSet<PatchVersion> = catalog
        .payloads()
        .iter()
        .filter(|p| index.is_some() && p.reach >= index)
        .map(|p| p.version)
        .collect();
    Tier {
        name: row.name,
        position: position as u32,
        machines: row.machines,
        auth_tokens: row.auth_tokens,
        patches: versions.len() as u64,
        newest_patch: versions.last().copied(),
        created_at: row.created_at,
    }
}

async fn show(core: &Core, name: &TierName) -> Result<Tier, ServiceError> {
    let tiers = list(core).await?;
    let found = tiers.into_iter().find(|tier| tier.name == *name);
    found.ok_or_else(|| ServiceError::not_found("tier", name))
}

/// The place of a tier in the order.
pub(super) fn place(order: &[rows::Tier], name: &TierName) -> Result<usize, ServiceError> {
    order
        .iter()
        .position(|tier| tier.name == *name)
        .ok_or_else(|| ServiceError::not_found("tier", name))
}

fn both(before: Option<&TierName>, after: Option<&TierName>) -> Result<(), ServiceError> {
    if before.is_some() && after.is_some() {
        return Err(ServiceError::Invalid(
            "give `before` or `after`, not both".to_owned(),
        ));
    }
    Ok(())
}

fn taken(name: &TierName) -> ServiceError {
    ServiceError::Conflict(format!(
        "there is a tier {name:?} already; choose another name",
        name = name.as_str()
    ))
}

/// Makes a tier.
pub async fn create(
    core: &Core,
    actor: &Actor,
    request: &TierCreate,
) -> Result<Tier, ServiceError> {
    both(request.before.as_ref(), request.after.as_ref())?;
    locked_tiers(core)?;
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        rows::lock(&tx).await?;
        let order = rows::order(&tx).await?;
        if order.iter().any(|tier| tier.name == request.name) {
            return Err(taken(&request.name));
        }
        if order.len() >= MAX_TIERS {
            return Err(ServiceError::Conflict(format!(
                "there are {MAX_TIERS} tiers, the most there may be; delete one first"
            )));
        }
        let at = match (&request.before, &request.after) {
            (Some(before), _) => place(&order, before)?,
            (None, Some(after)) => place(&order, after)? + 1,
            (None, None) => order.len(),
        };
        let id = rows::insert(&tx, &request.name, order.len() as i32).await?;
        let mut ids: Vec<i32> = order.iter().map(|tier| tier.id).collect();
        ids.insert(at, id);
        rows::set_order(&tx, &ids).await?;
        let entry = Entry {
            actor,
            action: "tier.create",
            target: request.name.as_str(),
            details: json!({ "position": at }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        tx.commit().await?;
        seq
    };
    core.changed(Some(Change::Catalog), seq).await;
    show(core, &request.name).await
}

/// Renames or moves a tier, or both. What stands so already changes nothing.
pub async fn change(
    core: &Core,
    actor: &Actor,
    name: &TierName,
    request: &TierChange,
) -> Result<Tier, ServiceError> {
    both(request.before.as_ref(), request.after.as_ref())?;
    if *request == TierChange::default() {
        return Err(ServiceError::Invalid(
            "nothing to change: give `name`, `before` or `after`".to_owned(),
        ));
    }
    locked_tiers(core)?;
    let new_name = request.name.as_ref().unwrap_or(name);
    let seq = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        rows::lock(&tx).await?;
        let order = rows::order(&tx).await?;
        let from = place(&order, name)?;
        let to = target(&order, from, request)?;
        if new_name == name && from == to {
            drop(tx);
            drop(conn);
            return show(core, name).await;
        }
        if new_name != name {
            if order.iter().any(|tier| tier.name == *new_name) {
                return Err(taken(new_name));
            }
            rows::rename(&tx, order[from].id, new_name).await?;
        }
        if from != to {
            reorder(&tx, actor, &order, from, to).await?;
        }
        let entry = Entry {
            actor,
            action: if from == to {
                "tier.rename"
            } else {
                "tier.move"
            },
            target: name.as_str(),
            details: json!({ "name": new_name, "from-position": from, "position": to }),
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        tx.commit().await?;
        seq
    };
    core.changed(Some(Change::Catalog), seq).await;
    show(core, new_name).await
}

/// The place a tier shall have, counted in the order after the move.
fn target(order: &[rows::Tier], from: usize, request: &TierChange) -> Result<usize, ServiceError> {
    let (neighbour, behind) = match (&request.before, &request.after) {
        (Some(before), _) => (place(order, before)?, false),
        (None, Some(after)) => (place(order, after)?, true),
        (None, None) => return Ok(from),
    };
    if neighbour == from {
        return Err(ServiceError::Invalid(
            "a tier cannot stand before or after itself; name another tier".to_owned(),
        ));
    }
    let at = if behind { neighbour + 1 } else { neighbour };
    Ok(if at > from { at - 1 } else { at })
}

/// Moves a tier, if every patch stays available in exactly the tiers where it is.
async fn reorder(
    tx: &Tx<'_>,
    actor: &Actor,
    order: &[rows::Tier],
    from: usize,
    to: usize,
) -> Result<(), ServiceError> {
    let reached = rows::reached(tx, None).await?;
    let reaches = reaches(order, &reached);
    let between = from.min(to)..from.max(to);
    // The first tiers up to the reach must be the first ones afterwards too.
    let torn: Vec<&Reach<'_>> = reaches
        .iter()
        .filter(|reach| between.contains(&reach.place))
        .collect();
    if let Some(first) = torn.first() {
        let last = &order[between.end].name;
        return Err(ServiceError::Conflict(format!(
            "moving tier {moved} would change where {n} {noun} available, among them {version} ({scope}), which has \
             reached {tier} and nothing later. Promote what is between to {last} first, or move another tier",
            moved = order[from].name,
            n = torn.len(),
            noun = if torn.len() == 1 {
                "patch is"
            } else {
                "patches are"
            },
            version = first.of.version,
            scope = first.of.scope,
            tier = order[first.place].name,
        )));
    }
    let mut moved = order.to_vec();
    let tier = moved.remove(from);
    moved.insert(to, tier);
    let ids: Vec<i32> = moved.iter().map(|tier| tier.id).collect();
    rows::set_order(tx, &ids).await?;
    // Where another tier stands now at a patch's reach, the patch must have reached that one.
    for reach in &reaches {
        let tier = &moved[reach.place];
        if tier.id != reach.of.tier_id {
            let (patch, scope) = (reach.of.patch_id, &reach.of.scope);
            let reason = "the order of tiers was changed";
            rows::promote(tx, patch, tier.id, scope, &actor.name, reason).await?;
        }
    }
    Ok(())
}

/// Deletes a tier. What uses it goes to `move_to`; without that, nothing may use it.
pub async fn delete(
    core: &Core,
    actor: &Actor,
    name: &TierName,
    move_to: Option<&TierName>,
) -> Result<TierDeleted, ServiceError> {
    locked_tiers(core)?;
    let mut attempt = 1;
    let (deleted, seq) = loop {
        match try_delete(core, actor, name, move_to).await {
            // A machine checked in or registered in this tier meanwhile.
            Err(Failure::Database(DbError::Retry(_) | DbError::Referenced(_)))
                if attempt < ATTEMPTS =>
            {
                attempt += 1;
            }
            Err(Failure::Database(error)) => return Err(error.into()),
            Err(Failure::Refused(error)) => return Err(error),
            Ok(done) => break done,
        }
    };
    core.changed(None, seq).await;
    Ok(deleted)
}

/// Kept apart, because some database errors are worth another attempt.
enum Failure {
    Database(DbError),
    Refused(ServiceError),
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        Self::Database(error)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Refused(error)
    }
}

async fn try_delete(
    core: &Core,
    actor: &Actor,
    name: &TierName,
    move_to: Option<&TierName>,
) -> Result<(TierDeleted, i64), Failure> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    rows::lock(&tx).await?;
    let order = rows::order(&tx).await?;
    let at = place(&order, name)?;
    let id = order[at].id;
    let neighbour = if at > 0 { at - 1 } else { 1 };
    let Some(neighbour) = order.get(neighbour) else {
        return Err(Failure::Refused(ServiceError::Conflict(format!(
            "{name} is the last tier left; there must be one"
        ))));
    };
    if rollouts::has_halted(&tx, id).await? {
        return Err(Failure::Refused(ServiceError::Conflict(format!(
            "a rollout halted in {name}; resume, abort or block it first, so that its patch does not go out again unseen \
             (`livepatch-admin rollout list --tier {name}`)"
        ))));
    }
    let target = match move_to {
        Some(to) if to == name => {
            return Err(Failure::Refused(ServiceError::Invalid(
                "`move-to` names the tier that is to be deleted; name another one".to_owned(),
            )));
        }
        Some(to) => &order[place(&order, to)?],
        None => {
            refuse_use(&tx, name, id).await?;
            // Revoked tokens still point at a tier; they admit to none.
            neighbour
        }
    };
    let orphans = if at == 0 {
        rows::only_here(&tx, id).await?
    } else {
        Vec::new()
    };
    let before = (at > 0).then(|| order[at - 1].id);
    let reason = format!("tier {name} was deleted");
    rows::forget_promotions(&tx, id, before, &actor.name, &reason).await?;
    let (machines, auth_tokens) = rows::move_users(&tx, id, target.id).await?;
    rows::delete(&tx, id).await?;
    let ids: Vec<i32> = order.iter().map(|t| t.id).filter(|i| *i != id).collect();
    rows::set_order(&tx, &ids).await?;
    let entry = Entry {
        actor,
        action: "tier.delete",
        target: name.as_str(),
        details: json!({
            "moved-to": move_to,
            "machines": machines,
            "auth-tokens": auth_tokens,
            "patches-in-no-tier": orphans,
        }),
    };
    let seq = audit::append(&tx, entry, Change::Catalog).await?;
    for also in [Change::Tokens, Change::Overrides] {
        audit::notify(&tx, also, seq).await?;
    }
    tx.commit().await?;
    let deleted = TierDeleted {
        name: name.clone(),
        moved_to: move_to.cloned(),
        machines,
        auth_tokens,
    };
    Ok((deleted, seq))
}

/// Refuses to make anything homeless.
async fn refuse_use(tx: &Tx<'_>, name: &TierName, id: i32) -> Result<(), Failure> {
    let usage = rows::usage(tx, id).await?;
    if usage.machines + usage.overrides + usage.auth_tokens + usage.sync_tokens == 0 {
        return Ok(());
    }
    Err(Failure::Refused(ServiceError::Conflict(format!(
        "tier {name} is used by {} machines, {} machines that were moved into it, {} auth tokens and {} sync tokens; \
         say with `move-to` which tier they go to",
        usage.machines, usage.overrides, usage.auth_tokens, usage.sync_tokens
    ))))
}
