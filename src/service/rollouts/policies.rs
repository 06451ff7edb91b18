//! Policies of tiers: shown, set, unset, planned and applied as a whole.
//!
//! When a tier gets its first policy, everything that is available in it stays so: it counts as rolled out. When it loses its
//! policy, everybody is let in again, and rollouts that were under way are at their end.

use super::record::{self, Story};
use super::tick::same;
use super::{interval, show};
use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::rollouts::{self as rows, PolicyRow};
use crate::db::tiers::{self, Tier};
use crate::db::{Run, Tx};
use crate::domain::TierName;
use crate::domain::policy::{Opening, Policy};
use crate::rollout::RolloutState;
use crate::rollout::cohort::PLACES;
use crate::service::promotions::reason;
use crate::service::sync::locked_tiers;
use crate::service::{Core, ServiceError};
use crate::wire::admin::{
    PolicyChange, PolicyEntry, PolicyOutcome, PolicyPlan, PolicySet, PolicySpec,
};
use jiff::Timestamp;
use serde_json::json;
use std::collections::HashMap;

/// Policies as they stand, in the order of the tiers.
pub async fn list(core: &Core) -> Result<Vec<PolicyEntry>, ServiceError> {
    let conn = core.db.conn().await?;
    let order = tiers::order(&conn).await?;
    let mut policies = by_tier(&conn).await?;
    order
        .iter()
        .filter_map(|tier| Some((tier, policies.remove(&tier.id)?)))
        .map(|(tier, row)| entry(tier, row))
        .collect()
}

/// A tier's policy.
pub async fn of(core: &Core, name: &TierName) -> Result<PolicyEntry, ServiceError> {
    let conn = core.db.conn().await?;
    let tier = tier(&tiers::order(&conn).await?, name)?;
    let row = by_tier(&conn).await?.remove(&tier.id);
    entry(&tier, row.ok_or_else(|| none(name))?)
}

fn none(name: &TierName) -> ServiceError {
    ServiceError::not_found("policy of tier", name)
}

async fn by_tier(run: &impl Run) -> Result<HashMap<i32, PolicyRow>, ServiceError> {
    let rows = rows::policies(run).await?;
    Ok(rows.into_iter().map(|row| (row.tier_id, row)).collect())
}

fn tier(order: &[Tier], name: &TierName) -> Result<Tier, ServiceError> {
    let found = order.iter().find(|tier| tier.name == *name);
    found
        .cloned()
        .ok_or_else(|| ServiceError::not_found("tier", name))
}

fn spec(row: &PolicyRow) -> Result<PolicySpec, ServiceError> {
    serde_json::from_str(&row.spec)
        .map_err(|e| ServiceError::Internal(format!("the policy of tier {}: {e}", row.tier_id)))
}

fn entry(tier: &Tier, row: PolicyRow) -> Result<PolicyEntry, ServiceError> {
    Ok(PolicyEntry {
        tier: tier.name.clone(),
        policy: spec(&row)?,
        set_at: row.set_at,
        actor: row.actor,
        reason: row.reason,
    })
}

/// Reads a policy and refuses one that nothing would come of, with everything that is wrong in it.
fn checked(core: &Core, tier: &TierName, spec: &PolicySpec) -> Result<Policy, ServiceError> {
    let read = spec.read();
    let problems = match &read {
        Ok(policy) => policy.problems(Timestamp::now(), interval(core)),
        Err(problems) => problems.clone(),
    };
    if problems.is_empty()
        && let Ok(policy) = read
    {
        return Ok(policy);
    }
    let texts: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.at, problem.why))
        .collect();
    Err(ServiceError::Invalid(format!(
        "the policy for tier {tier} cannot be followed: {}",
        texts.join("; ")
    )))
}

/// Sets a tier's policy. One that stands so already changes nothing.
pub async fn set(
    core: &Core,
    actor: &Actor,
    name: &TierName,
    request: &PolicySet,
) -> Result<PolicyEntry, ServiceError> {
    let why = reason(request.reason.as_deref())?;
    checked(core, name, &request.policy)?;
    locked_tiers(core)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    tiers::lock_shared(&tx).await?;
    let tier = tier(&tiers::order(&tx).await?, name)?;
    let before = by_tier(&tx).await?.remove(&tier.id);
    let seq = write_set(&tx, actor, &tier, before.as_ref(), &request.policy, &why).await?;
    if let Some(seq) = seq {
        tx.commit().await?;
        drop(conn);
        core.changed(Some(Change::Rollouts), seq).await;
    } else {
        drop(tx);
        drop(conn);
    }
    of(core, name).await
}

/// Takes a tier's policy away.
pub async fn unset(
    core: &Core,
    actor: &Actor,
    name: &TierName,
    given: Option<&str>,
) -> Result<(), ServiceError> {
    let why = reason(given)?;
    locked_tiers(core)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    tiers::lock_shared(&tx).await?;
    let tier = tier(&tiers::order(&tx).await?, name)?;
    let seq = write_unset(&tx, actor, &tier, &why).await?;
    let seq = seq.ok_or_else(|| none(name))?;
    tx.commit().await?;
    drop(conn);
    core.changed(Some(Change::Rollouts), seq).await;
    Ok(())
}

async fn write_set(
    tx: &Tx<'_>,
    actor: &Actor,
    tier: &Tier,
    before: Option<&PolicyRow>,
    policy: &PolicySpec,
    why: &str,
) -> Result<Option<i64>, ServiceError> {
    let before_spec = before.map(spec).transpose()?;
    if before_spec.as_ref() == Some(policy) {
        return Ok(None);
    }
    let text = serde_json::to_string(policy)
        .map_err(|e| ServiceError::Internal(format!("a policy could not be written: {e}")))?;
    rows::set_policy(tx, tier.id, &text, &actor.name, why).await?;
    let mut kept = 0;
    if before.is_none() {
        kept = keep_available(tx, tier).await?;
    }
    let entry = Entry {
        actor,
        action: "policy.set",
        target: tier.name.as_str(),
        details: json!({ "before": before_spec, "policy": policy, "available": kept, "reason": why }),
    };
    Ok(Some(audit::append(tx, entry, Change::Rollouts).await?))
}

/// Notes of everything that is available in the tier that there is nothing to roll out; returns of how much.
async fn keep_available(tx: &Tx<'_>, tier: &Tier) -> Result<usize, ServiceError> {
    let order = tiers::order(tx).await?;
    let place = |id: i32| order.iter().position(|tier| tier.id == id);
    let here = place(tier.id);
    let mut kept = 0;
    for promoted in rows::promoted(tx).await? {
        if place(promoted.tier_id) >= here {
            let why = "it was available before the tier had a policy";
            let made = rows::begin(tx, &promoted, tier.id, RolloutState::Done, why).await?;
            kept += usize::from(made.is_some());
        }
    }
    Ok(kept)
}

async fn write_unset(
    tx: &Tx<'_>,
    actor: &Actor,
    tier: &Tier,
    why: &str,
) -> Result<Option<i64>, ServiceError> {
    if !rows::unset_policy(tx, tier.id).await? {
        return Ok(None);
    }
    let text = format!("the policy was taken away by {}", actor.name);
    for row in rows::list(tx, None).await? {
        let under_way = matches!(
            row.state,
            RolloutState::AwaitingApproval | RolloutState::Running | RolloutState::Paused
        );
        if row.tier_id != tier.id || !under_way {
            continue;
        }
        let mut to = same(&row);
        to.state = RolloutState::Done;
        to.threshold = PLACES;
        to.reason = &text;
        let story = Story {
            action: "rollout.complete",
            text: &text,
            tier: &tier.name,
            actor,
        };
        record::change(tx, &row, &to, &story).await?;
    }
    let entry = Entry {
        actor,
        action: "policy.unset",
        target: tier.name.as_str(),
        details: json!({ "reason": why }),
    };
    Ok(Some(audit::append(tx, entry, Change::Rollouts).await?))
}

/// What these policies would change, and what that means. Nothing is written.
async fn plan(core: &Core, request: &PolicyPlan) -> Result<PolicyOutcome, ServiceError> {
    let conn = core.db.conn().await?;
    let order = tiers::order(&conn).await?;
    let standing = by_tier(&conn).await?;
    drop(conn);
    known(&order, request)?;
    let mut changes = Vec::new();
    for tier in &order {
        let before = standing.get(&tier.id).map(spec).transpose()?;
        let after = request.policies.get(&tier.name);
        let policy = after
            .map(|spec| checked(core, &tier.name, spec))
            .transpose()?;
        let action = match (&before, after) {
            (None, None) => continue,
            (None, Some(_)) => "set",
            (Some(_), None) => "unset",
            (Some(before), Some(after)) if before == after => "none",
            (Some(_), Some(_)) => "change",
        };
        let means = if action == "none" {
            Vec::new()
        } else {
            meaning(core, tier, before.is_some(), policy.as_ref()).await?
        };
        changes.push(PolicyChange {
            tier: tier.name.clone(),
            action: action.to_owned(),
            before,
            after: after.cloned(),
            means,
        });
    }
    Ok(PolicyOutcome {
        dry_run: true,
        changes,
    })
}

/// Makes these the policies of all tiers, in one transaction, or says what that would change.
pub async fn apply(
    core: &Core,
    actor: &Actor,
    request: &PolicyPlan,
) -> Result<PolicyOutcome, ServiceError> {
    let why = reason(request.reason.as_deref())?;
    let mut outcome = plan(core, request).await?;
    if request.dry_run {
        return Ok(outcome);
    }
    locked_tiers(core)?;
    outcome.dry_run = false;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    tiers::lock_shared(&tx).await?;
    let order = tiers::order(&tx).await?;
    known(&order, request)?;
    let standing = by_tier(&tx).await?;
    let mut last = None;
    for tier in &order {
        let before = standing.get(&tier.id);
        let seq = match request.policies.get(&tier.name) {
            Some(policy) => write_set(&tx, actor, tier, before, policy, &why).await?,
            None if before.is_some() => write_unset(&tx, actor, tier, &why).await?,
            None => None,
        };
        last = seq.or(last);
    }
    if let Some(seq) = last {
        tx.commit().await?;
        drop(conn);
        core.changed(Some(Change::Rollouts), seq).await;
    }
    Ok(outcome)
}

/// Refuses policies for tiers that do not exist.
fn known(order: &[Tier], request: &PolicyPlan) -> Result<(), ServiceError> {
    let unknown = request
        .policies
        .keys()
        .find(|name| order.iter().all(|tier| tier.name != **name));
    unknown.map_or(Ok(()), |name| Err(ServiceError::not_found("tier", name)))
}

/// What a policy means for the tier's machines, a sentence each.
async fn meaning(
    core: &Core,
    tier: &Tier,
    had_one: bool,
    policy: Option<&Policy>,
) -> Result<Vec<String>, ServiceError> {
    let machines = show::machines_in(core, tier.id).await?;
    let snapshot = core.snapshots.get_full();
    let under_way: Vec<String> = snapshot
        .rollouts
        .all()
        .filter(|rollout| rollout.tier_id == tier.id && rollout.state == RolloutState::Running)
        .map(|rollout| rollout.version.to_string())
        .collect();
    let Some(policy) = policy else {
        let mut means = vec![format!(
            "whatever reaches {} is offered to its {machines} machines at once, at any time",
            tier.name
        )];
        if !under_way.is_empty() {
            means.push(format!(
                "{}, which is being rolled out, is offered to all of them now",
                under_way.join(", ")
            ));
        }
        return Ok(means);
    };
    let now = Timestamp::now();
    let zone = &policy.schedule.zone;
    let mut means = Vec::new();
    if !had_one {
        means.push(format!(
            "what is available in {} stays available to its {machines} machines; what is promoted from now on comes to them by phases",
            tier.name
        ));
    }
    match policy.schedule.at(now) {
        Opening::Open => {}
        Opening::Frozen(freeze) => means.push(format!(
            "it is frozen now, until {} ({zone}): no machine is offered anything new",
            freeze.until
        )),
        Opening::OutsideWindow => {
            let opens = policy.schedule.next_open(now);
            means.push(format!(
                "no window is open now: no machine is offered anything new{}",
                opens.map_or(String::new(), |at| format!(" until {}", zone.show(at)))
            ));
        }
    }
    let told = show::ahead(
        core,
        policy,
        &crate::rollout::forecast::Start::begun(now),
        machines,
    );
    let ends = match told.ends_at {
        Some(at) => format!("it would come to its end on {}", zone.show(at)),
        None => "it would not come to its end within four months".to_owned(),
    };
    let phases: Vec<String> = told
        .phases
        .iter()
        .map(|phase| {
            format!(
                "{} ({} machines) on {}",
                phase.share,
                phase.machines,
                zone.show(phase.at)
            )
        })
        .collect();
    means.push(format!(
        "a healthy patch that is promoted now would be at {}; {ends}",
        if phases.is_empty() {
            "nobody".to_owned()
        } else {
            phases.join(", ")
        }
    ));
    if let Some(gate) = policy
        .gate
        .filter(|gate| u64::from(gate.machines) > machines)
    {
        means.push(format!(
            "the tier has {machines} machines, fewer than the {} that the gate asks for: each phase waits until all that were let in \
             have reported",
            gate.machines
        ));
    }
    if !under_way.is_empty() {
        means.push(format!(
            "{}, which is being rolled out, goes on under the new policy; no offer is taken back",
            under_way.join(", ")
        ));
    }
    Ok(means)
}
