//! Promotion: how far patches have come, and taking them further.
//!
//! A patch, or the part of it under a scope, has reached the last tier for which a promotion of that scope or a wider
//! one stands. It only goes forward: to take it back there are block and hold, which stop it everywhere at once.

use super::events;
use super::failpoint::failpoint;
use super::preview::{self, Step};
use super::sync::locked_tiers;
use super::tiers::place;
use super::{Core, ServiceError};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::tiers::{self as rows, Reached, Tier};
use crate::db::{Tx, patches};
use crate::domain::{PatchVersion, Scope, Selector, TierName};
use crate::wire::admin::{PromoteAllRequest, PromoteOutcome, PromoteRequest, PromotedPatch};
use serde_json::json;

/// How far a patch has come under a scope.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a> {
    /// The promotion that says so.
    pub(super) of: &'a Reached,
    /// The tier's place in the order.
    pub(super) place: usize,
}

fn place_of(order: &[Tier], id: i32) -> Option<usize> {
    order.iter().position(|tier| tier.id == id)
}

/// The promotions that count: those that no other one of the same patch contains and outreaches.
pub(super) fn reaches<'a>(order: &[Tier], reached: &'a [Reached]) -> Vec<Reach<'a>> {
    let all: Vec<Reach<'a>> = reached
        .iter()
        .filter_map(|of| place_of(order, of.tier_id).map(|place| Reach { of, place }))
        .collect();
    let outdone = |this: &Reach<'_>, other: &Reach<'_>| {
        this.of.patch_id == other.of.patch_id
            && other.of.scope.contains(&this.of.scope)
            && (other.place > this.place
                || (other.place == this.place && other.of.scope != this.of.scope))
    };
    // Promotions are read patch by patch, and each has a few.
    all.chunk_by(|a, b| a.of.patch_id == b.of.patch_id)
        .flat_map(|of_patch| {
            of_patch
                .iter()
                .filter(|this| !of_patch.iter().any(|other| outdone(this, other)))
        })
        .copied()
        .collect()
}

/// How far everything under a scope has come.
fn reach_of(reaches: &[Reach<'_>], scope: &Scope) -> Option<usize> {
    reaches
        .iter()
        .filter(|reach| reach.of.scope.contains(scope))
        .map(|reach| reach.place)
        .max()
}

/// A step with the patch's id.
type Planned = (i32, Step);

/// Promotes a patch, or the part of it under a scope. If it has reached exactly that tier already, nothing changes.
pub async fn promote(
    core: &Core,
    actor: &Actor,
    version: PatchVersion,
    request: &PromoteRequest,
) -> Result<PromoteOutcome, ServiceError> {
    let scope: Scope = request.scope.clone().try_into()?;
    let why = reason(request.reason.as_deref())?;
    if !request.dry_run {
        locked_tiers(core)?;
        if request.selector.is_some() {
            return Err(ServiceError::Invalid(
                "a promotion is for all machines of a tier; a selector only narrows what a dry run counts".to_owned(),
            ));
        }
    }
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    rows::lock_shared(&tx).await?;
    let order = rows::order(&tx).await?;
    let to = place(&order, &request.tier)?;
    let found = patches::lock(&tx, version).await?;
    let patch_id = found.ok_or_else(|| ServiceError::not_found("patch", version))?;
    let reached = rows::reached(&tx, Some(patch_id)).await?;
    let from = reach_of(&reaches(&order, &reached), &scope);
    if let Some(from) = from.filter(|from| *from > to) {
        return Err(ServiceError::Conflict(format!(
            "{version} ({scope}) has reached {}, which is after {}, so it is available there already; a patch is not \
             promoted backwards. To stop it use `patch block` or `patch hold`",
            order[from].name, request.tier
        )));
    }
    let step = Step {
        version,
        scope,
        from,
        to,
    };
    let steps = if from == Some(to) {
        Vec::new()
    } else {
        vec![(patch_id, step)]
    };
    let audit = Audit {
        action: "patch.promote",
        target: version.to_string(),
        details: json!({ "tier": request.tier, "scope": request.scope, "reason": why }),
    };
    let dry_run = request.dry_run;
    let change = Promotion {
        core,
        actor,
        order,
        why,
        dry_run,
        selector: request.selector.as_ref(),
    };
    let seq = change.write(tx, &steps, audit).await?;
    drop(conn);
    change.answer(steps, seq).await
}

/// Takes everything that has reached `from`, but not yet `to`, to `to`, each part under the scope it had.
pub async fn promote_all(
    core: &Core,
    actor: &Actor,
    request: &PromoteAllRequest,
) -> Result<PromoteOutcome, ServiceError> {
    let why = reason(request.reason.as_deref())?;
    if !request.dry_run {
        locked_tiers(core)?;
    }
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    rows::lock_shared(&tx).await?;
    let order = rows::order(&tx).await?;
    let (first, to) = (place(&order, &request.from)?, place(&order, &request.to)?);
    if first >= to {
        return Err(ServiceError::Invalid(format!(
            "{} does not stand before {}; the order is {}",
            request.from,
            request.to,
            names(&order)
        )));
    }
    let reached = rows::reached(&tx, None).await?;
    let steps: Vec<Planned> = reaches(&order, &reached)
        .iter()
        .filter(|reach| (first..to).contains(&reach.place))
        .map(|reach| {
            let step = Step {
                version: reach.of.version,
                scope: reach.of.scope.clone(),
                from: Some(reach.place),
                to,
            };
            (reach.of.patch_id, step)
        })
        .collect();
    let versions: Vec<PatchVersion> = steps.iter().map(|(_, step)| step.version).collect();
    let audit = Audit {
        action: "patch.promote-all",
        target: request.to.to_string(),
        details: json!({ "from": request.from, "patches": versions, "reason": why }),
    };
    let dry_run = request.dry_run;
    let change = Promotion {
        core,
        actor,
        order,
        why,
        dry_run,
        selector: None,
    };
    let seq = change.write(tx, &steps, audit).await?;
    drop(conn);
    change.answer(steps, seq).await
}

/// The longest reason that is taken, in bytes.
const MAX_REASON: usize = 1000;

/// A reason as given, bounded; empty if there is none.
pub(super) fn reason(given: Option<&str>) -> Result<String, ServiceError> {
    let text = given.unwrap_or_default().trim();
    if text.len() > MAX_REASON || text.chars().any(char::is_control) {
        return Err(ServiceError::Invalid(format!(
            "the reason must be one line of at most {MAX_REASON} bytes"
        )));
    }
    Ok(text.to_owned())
}

fn names(order: &[Tier]) -> String {
    let names: Vec<&str> = order.iter().map(|tier| tier.name.as_str()).collect();
    names.join(", ")
}

struct Audit {
    action: &'static str,
    target: String,
    details: serde_json::Value,
}

/// What both kinds of promotion share.
struct Promotion<'a> {
    core: &'a Core,
    actor: &'a Actor,
    order: Vec<Tier>,
    why: String,
    dry_run: bool,
    /// Whose machines are counted; all without one.
    selector: Option<&'a Selector>,
}

impl Promotion<'_> {
    /// Writes the steps and commits; does nothing in a dry run or without steps.
    async fn write(
        &self,
        tx: Tx<'_>,
        steps: &[Planned],
        audit: Audit,
    ) -> Result<Option<i64>, ServiceError> {
        if self.dry_run || steps.is_empty() {
            return Ok(None);
        }
        for (patch_id, step) in steps {
            let tier = self.order[step.to].id;
            let name = &self.actor.name;
            rows::promote(&tx, *patch_id, tier, &step.scope, name, &self.why).await?;
            let act = events::Act {
                version: step.version,
                scope: &step.scope,
                actor: name,
                reason: &self.why,
            };
            let from = step.from.map(|place| &self.order[place].name);
            events::promoted(&tx, act, from, &self.order[step.to].name).await?;
        }
        let entry = Entry {
            actor: self.actor,
            action: audit.action,
            target: &audit.target,
            details: audit.details,
        };
        let seq = audit::append(&tx, entry, Change::Catalog).await?;
        failpoint("promote-before-commit");
        tx.commit().await?;
        failpoint("promote-after-commit");
        Ok(Some(seq))
    }

    /// Says what the steps mean, from the catalog as it was before them.
    async fn answer(
        self,
        steps: Vec<Planned>,
        seq: Option<i64>,
    ) -> Result<PromoteOutcome, ServiceError> {
        let before = self.core.snapshots.get_full();
        if let Some(seq) = seq {
            self.core.changed(Some(Change::Catalog), seq).await;
        }
        let steps: Vec<Step> = steps.into_iter().map(|(_, step)| step).collect();
        let effect = preview::effect(self.core, &before.catalog, &steps, self.selector).await?;
        let name = |place: usize| -> TierName { self.order[place].name.clone() };
        Ok(PromoteOutcome {
            dry_run: self.dry_run,
            patches: steps
                .into_iter()
                .map(|step| PromotedPatch {
                    version: step.version,
                    from: step.from.map(name),
                    to: name(step.to),
                    scope: step.scope.into(),
                })
                .collect(),
            payloads: effect.payloads,
            machines: effect.machines,
            bytes: effect.bytes,
            kernels_without_payload: effect.gaps,
        })
    }
}

/// The last tier that a whole patch has reached, of its promotions.
pub(super) fn whole_reach(promotions: &[patches::Promotion]) -> Option<TierName> {
    promotions
        .iter()
        .filter(|p| p.scope.is_all())
        .max_by_key(|p| p.position)
        .map(|p| p.tier.clone())
}
