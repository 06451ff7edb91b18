//! Moving all machines that a selector means to a tier, and what that would mean for them.
//!
//! A move is a decision about the machines that are there now, as a move of a single one is: a machine that is enabled or
//! labelled later goes where its auth token says.

use super::fleet::selected;
use super::labels::narrow;
use super::{Core, ServiceError, text};
use crate::db::audit::{self, Actor, Entry};
use crate::db::fleet::{self as machines, By};
use crate::db::listen::Change;
use crate::db::patches::Group;
use crate::db::selected as rows;
use crate::rollout::{Catalog, Payload, Standing};
use crate::wire::admin::{MoveOutcome, SelectedMove, TierMachines};
use serde_json::json;
use std::collections::HashMap;

/// Moves them, or says what that would change.
pub async fn move_selected(
    core: &Core,
    actor: &Actor,
    request: SelectedMove,
) -> Result<MoveOutcome, ServiceError> {
    let reason = text::reason(request.reason.as_deref())?;
    narrow(&request.selector)?;
    let (outcome, seq) = {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin().await?;
        let tier_id = machines::tier_id(&tx, &request.tier)
            .await?
            .ok_or_else(|| ServiceError::not_found("tier", &request.tier))?;
        let filter = selected(core, &tx, &request.selector).await?;
        let groups = rows::groups(&tx, &filter).await?;
        let snapshot = core.snapshots.get_full();
        let mut outcome = preview(&snapshot.catalog, &groups, tier_id, &request);
        if request.dry_run || outcome.moved == 0 {
            return Ok(outcome);
        }
        let by = By {
            actor: &actor.name,
            reason,
        };
        // Machines come and go between the two statements; what is told is what was done.
        let from = rows::move_to(&tx, &filter, tier_id, by).await?;
        outcome.moved = from.iter().map(|(_, machines)| machines).sum();
        outcome.from = named(&snapshot.catalog, &from.into_iter().collect());
        let entry = Entry {
            actor,
            action: "machine.move",
            target: &request.selector.to_string(),
            details: json!({ "from": outcome.from, "to": request.tier, "machines": outcome.moved, "reason": reason }),
        };
        let seq = audit::append(&tx, entry, Change::Overrides).await?;
        tx.commit().await?;
        (outcome, seq)
    };
    core.changed(Some(Change::Overrides), seq).await;
    Ok(outcome)
}

/// Machines by tier, in the order of tiers.
fn named(catalog: &Catalog, machines: &HashMap<i32, u64>) -> Vec<TierMachines> {
    let known = catalog.tiers().iter().filter_map(|tier| {
        machines.get(&tier.id).map(|machines| TierMachines {
            tier: tier.name.clone(),
            machines: *machines,
        })
    });
    known.collect()
}

fn preview(
    catalog: &Catalog,
    groups: &[Group],
    tier_id: i32,
    request: &SelectedMove,
) -> MoveOutcome {
    let to = catalog.tier_index(tier_id);
    let mut from: HashMap<i32, u64> = HashMap::new();
    let mut offered_else = 0;
    for group in groups.iter().filter(|group| group.tier_id != tier_id) {
        *from.entry(group.tier_id).or_default() += group.machines;
        let before = offered(catalog, group, catalog.tier_index(group.tier_id));
        if before != offered(catalog, group, to) {
            offered_else += group.machines;
        }
    }
    MoveOutcome {
        selector: request.selector.clone(),
        tier: request.tier.clone(),
        dry_run: request.dry_run,
        machines: groups.iter().map(|group| group.machines).sum(),
        moved: from.values().sum(),
        from: named(catalog, &from),
        offered_else,
    }
}

/// The payload that these machines are offered in a tier, if it is open to all of them.
fn offered(catalog: &Catalog, group: &Group, tier: Option<u16>) -> Option<i64> {
    let (tier, architecture) = (tier?, group.architecture?);
    let payloads = catalog.for_kernel(&group.kernel, architecture);
    let open = |p: &&Payload| p.standing == Standing::Free && p.reach.is_some_and(|r| r >= tier);
    let best = payloads.iter().find(open)?;
    group
        .applied
        .is_none_or(|applied| best.version > applied)
        .then_some(best.id)
}
