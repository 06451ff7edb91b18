//! The leader's pass: begins the rollouts of what was promoted, asks the engine what becomes of those that run, writes it, and
//! promotes what came to its end.

use super::health::{self, is_watched};
use super::labels::{self, Memory, Raised};
use super::record::{self, Story};
use super::{interval, policies_of};
use crate::db::audit::{self, Actor, Entry};
use crate::db::leader::fence;
use crate::db::listen::Change;
use crate::db::rollouts::{self as rows, Changed, Promoted, RolloutRow};
use crate::db::tiers::{self, Tier};
use crate::db::{Tx, patches};
use crate::domain::policy::Policy;
use crate::domain::{PatchVersion, TierName};
use crate::rollout::RolloutState;
use crate::rollout::advance::{Move, Progress, advance};
use crate::rollout::cohort::{PLACES, threshold};
use crate::service::failpoint::failpoint;
use crate::service::{Core, ServiceError, events};
use crate::telemetry::RolloutGauge;
use jiff::Timestamp;
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Who it is in the audit log when nobody asked. Names of administrators hold no slash.
const ENGINE: &str = "rollout/engine";

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    /// Rollouts that are not at their end.
    pub open: usize,
    /// Changes that were written.
    pub changes: usize,
    /// The epoch has passed: another replica leads.
    pub superseded: bool,
}

/// Everything a pass decides from, in one state of the database.
struct Seen {
    now: Timestamp,
    order: Vec<Tier>,
    policies: HashMap<i32, Arc<Policy>>,
    rollouts: Vec<RolloutRow>,
    promoted: Vec<Promoted>,
    stopped: HashSet<i32>,
}

impl Seen {
    async fn read(core: &Core) -> Result<Self, ServiceError> {
        let mut conn = core.db.conn().await?;
        let tx = conn.begin_read().await?;
        let policies: HashMap<_, _> = policies_of(&tx).await?.into_iter().collect();
        let seen = Self {
            now: rows::now(&tx).await?,
            order: tiers::order(&tx).await?,
            rollouts: rows::list(&tx, None).await?,
            promoted: if policies.is_empty() {
                Vec::new()
            } else {
                rows::promoted(&tx).await?
            },
            stopped: rows::stopped(&tx).await?.into_iter().collect(),
            policies,
        };
        tx.commit().await?;
        Ok(seen)
    }

    /// Shows the rollouts that are not at their end in the metrics.
    fn show(&self, core: &Core) {
        let open: Vec<_> = (self.rollouts.iter())
            .filter(|row| is_open(row))
            .filter_map(|row| Some((row, row.version.to_string(), self.name(row.tier_id)?)))
            .collect();
        let gauges = open.iter().map(|(row, patch, tier)| RolloutGauge {
            patch,
            tier: tier.as_str(),
            state: row.state.as_str(),
            phase: row.phase as i64 + 1,
            share: row.threshold as f64 / PLACES as f64,
        });
        core.metrics.rollouts.show(gauges);
    }

    fn place(&self, tier_id: i32) -> Option<usize> {
        self.order.iter().position(|tier| tier.id == tier_id)
    }

    fn name(&self, tier_id: i32) -> Option<&TierName> {
        let tier = self.order.iter().find(|tier| tier.id == tier_id)?;
        Some(&tier.name)
    }

    /// What reached tiers with a policy, or is available there because it reached a later one, and has no rollout there.
    fn to_begin(&self) -> Vec<(&Promoted, &Tier, &Policy)> {
        let mut begin: Vec<(&Promoted, &Tier, &Policy)> = Vec::new();
        for promoted in &self.promoted {
            let Some(reach) = self.place(promoted.tier_id) else {
                continue;
            };
            for tier in &self.order[..=reach] {
                let Some(policy) = self.policies.get(&tier.id) else {
                    continue;
                };
                let known = self.rollouts.iter().any(|row| {
                    row.patch_id == promoted.patch_id
                        && row.tier_id == tier.id
                        && row.scope.contains(&promoted.scope)
                });
                let planned = begin.iter().any(|(other, at, _)| {
                    other.patch_id == promoted.patch_id
                        && at.id == tier.id
                        && other.scope.contains(&promoted.scope)
                });
                if !known && !planned {
                    begin.push((promoted, tier, policy));
                }
            }
        }
        begin
    }

    /// Rollouts at which machines' reports are looked at, with their policies.
    fn watched(&self) -> Vec<(&RolloutRow, &Policy)> {
        self.rollouts
            .iter()
            .filter_map(|row| Some((row, self.policies.get(&row.tier_id)?.as_ref())))
            .filter(|(row, policy)| is_watched(row, policy, self.now))
            .collect()
    }

    /// Rollouts whose patch goes on to the next tier: at their end for as long as the policy says, and not there yet.
    fn to_promote(&self) -> Vec<(&RolloutRow, &Tier)> {
        self.rollouts
            .iter()
            .filter(|row| row.state == RolloutState::Done && !self.stopped.contains(&row.patch_id))
            .filter_map(|row| {
                let policy = self.policies.get(&row.tier_id)?;
                let soaked = row.ended_at.is_some_and(|ended| {
                    // What was there before the policy was never rolled out under it.
                    ended > row.begun_at
                        && self.now.as_second() - ended.as_second() >= policy.soak.as_seconds()
                });
                let next = self.order.get(self.place(row.tier_id)? + 1)?;
                let halted = self.rollouts.iter().any(|other| {
                    other.patch_id == row.patch_id && other.state == RolloutState::Halted
                });
                let there = self.promoted.iter().any(|promoted| {
                    promoted.patch_id == row.patch_id
                        && self.place(promoted.tier_id) > self.place(row.tier_id)
                        && promoted.scope.contains(&row.scope)
                });
                let open = policy.schedule.is_open(self.now);
                (policy.auto_promote && soaked && open && !halted && !there).then_some((row, next))
            })
            .collect()
    }
}

/// Whether anything can still become of it.
fn is_open(row: &RolloutRow) -> bool {
    !matches!(row.state, RolloutState::Done | RolloutState::Aborted)
}

/// What is to be written.
#[derive(Debug)]
enum Planned<'s> {
    Begin(&'s Promoted, &'s Tier, &'s Policy),
    Moves(&'s RolloutRow, &'s Policy, Vec<Move>),
    Labels(&'s RolloutRow, Raised),
    Promote(&'s RolloutRow, &'s Tier),
}

/// Looks at everything once. Nothing is written if this epoch of leadership has passed.
pub async fn pass(core: &Core, epoch: i64, memory: &mut Memory) -> Result<Pass, ServiceError> {
    let seen = Seen::read(core).await?;
    let watched = seen.watched();
    let reports = health::of(core, &watched, seen.now).await?;
    let catalog = Arc::clone(&core.snapshots.get_full().catalog);
    seen.show(core);
    let mut planned: Vec<Planned<'_>> = seen
        .to_begin()
        .into_iter()
        .map(|(promoted, tier, policy)| Planned::Begin(promoted, tier, policy))
        .collect();
    for (row, policy) in watched {
        let stopped = seen.stopped.contains(&row.patch_id);
        let raised = if stopped {
            Raised::default()
        } else {
            labels::look(core, row, policy, &catalog, memory).await?
        };
        let progress = Progress {
            policy,
            // One that is paused, or whose patch is blocked or held, can only halt.
            done: stopped || row.state != RolloutState::Running,
            held_back: raised.waiting,
            phase: row.phase,
            threshold: row.threshold,
            phase_at: row.phase_at,
            widened_at: row.widened_at,
            interval: interval(core),
        };
        let moves = advance(&progress, &reports.total(row, &catalog), seen.now);
        if !moves.is_empty() {
            planned.push(Planned::Moves(row, policy, moves));
        }
        if raised.changed || !raised.limits.is_empty() {
            planned.push(Planned::Labels(row, raised));
        }
    }
    let promotions = seen.to_promote().into_iter();
    planned.extend(promotions.map(|(row, tier)| Planned::Promote(row, tier)));
    let mut pass = Pass {
        open: seen.rollouts.iter().filter(|row| is_open(row)).count(),
        ..Pass::default()
    };
    for plan in planned {
        match write(core, epoch, &seen, &plan).await? {
            Written::Superseded => {
                pass.superseded = true;
                break;
            }
            Written::Nothing => {}
            Written::Changed(change, seq) => {
                pass.changes += 1;
                let moves = match &plan {
                    Planned::Moves(_, _, moves) => moves.as_slice(),
                    _ => &[],
                };
                if moves.iter().any(|made| matches!(made, Move::Halt(_))) {
                    core.metrics.rollouts.halts.inc();
                }
                core.changed(Some(change), seq).await;
                if change == Change::Catalog {
                    core.changed(Some(Change::Rollouts), seq).await;
                }
            }
        }
    }
    Ok(pass)
}

enum Written {
    Changed(Change, i64),
    Nothing,
    Superseded,
}

async fn write(
    core: &Core,
    epoch: i64,
    seen: &Seen,
    plan: &Planned<'_>,
) -> Result<Written, ServiceError> {
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !fence(&tx, epoch).await? {
        return Ok(Written::Superseded);
    }
    let engine = Actor {
        name: ENGINE.to_owned(),
        source: String::new(),
    };
    let (change, seq) = match plan {
        Planned::Begin(promoted, tier, policy) => {
            let seq = begin(&tx, &engine, promoted, tier, policy).await?;
            (Change::Rollouts, seq)
        }
        Planned::Moves(row, policy, moves) => {
            let Some(tier) = seen.name(row.tier_id) else {
                return Ok(Written::Nothing);
            };
            let seq = moved(&tx, &engine, row, policy, moves, tier).await?;
            (Change::Rollouts, seq)
        }
        Planned::Labels(row, raised) => {
            let Some(tier) = seen.name(row.tier_id) else {
                return Ok(Written::Nothing);
            };
            let seq = labelled(&tx, &engine, row, raised, tier).await?;
            (Change::Rollouts, seq)
        }
        Planned::Promote(row, tier) => {
            let seq = promote(&tx, &engine, row, tier).await?;
            (Change::Catalog, seq)
        }
    };
    let Some(seq) = seq else {
        return Ok(Written::Nothing);
    };
    failpoint("rollout-before-commit");
    tx.commit().await?;
    failpoint("rollout-after-commit");
    Ok(Written::Changed(change, seq))
}

async fn begin(
    tx: &Tx<'_>,
    engine: &Actor,
    promoted: &Promoted,
    tier: &Tier,
    policy: &Policy,
) -> Result<Option<i64>, ServiceError> {
    let state = if policy.approval {
        RolloutState::AwaitingApproval
    } else {
        RolloutState::Running
    };
    let Some(id) = rows::begin(tx, promoted, tier.id, state, "").await? else {
        return Ok(None);
    };
    let text = match state {
        RolloutState::AwaitingApproval => {
            format!(
                "promoted by {}; it awaits the approval of somebody else",
                promoted.actor
            )
        }
        _ => format!("promoted by {}; the rollout begins", promoted.actor),
    };
    told(tx, engine, id, &tier.name, "rollout.begin", &text).await
}

/// Tells of a rollout that was just made.
async fn told(
    tx: &Tx<'_>,
    actor: &Actor,
    id: i64,
    tier: &TierName,
    action: &'static str,
    text: &str,
) -> Result<Option<i64>, ServiceError> {
    let Some(row) = rows::list(tx, Some(id)).await?.pop() else {
        return Ok(None);
    };
    let story = Story {
        action,
        text,
        tier,
        actor,
    };
    Ok(Some(record::tell(tx, &row, &same(&row), &story).await?))
}

/// The rollout as it stands, to change a part of it.
pub(super) fn same(row: &RolloutRow) -> Changed<'_> {
    Changed {
        state: row.state,
        phase: row.phase,
        threshold: row.threshold,
        reason: &row.reason,
        new_phase: false,
        count_anew: false,
        approved_by: None,
    }
}

async fn moved(
    tx: &Tx<'_>,
    engine: &Actor,
    row: &RolloutRow,
    policy: &Policy,
    moves: &[Move],
    tier: &TierName,
) -> Result<Option<i64>, ServiceError> {
    let mut to = same(row);
    let mut action = "rollout.widen";
    let texts: Vec<String> = moves.iter().map(Move::to_string).collect();
    let text = texts.join("; ");
    for made in moves {
        match made {
            Move::Widen { threshold, opened } => {
                to.threshold = *threshold;
                to.new_phase |= *opened;
            }
            Move::Phase { phase } => {
                action = "rollout.advance";
                to.phase = *phase;
                to.new_phase = true;
                // Without a cap the whole share is let in at once.
                if policy.machines_per_hour.is_none() {
                    to.threshold = to.threshold.max(threshold(policy.phase(*phase).share));
                }
            }
            Move::Halt(_) => {
                action = "rollout.halt";
                to.state = RolloutState::Halted;
                to.reason = &text;
            }
            Move::Complete => {
                action = "rollout.complete";
                to.state = RolloutState::Done;
            }
        }
    }
    let story = Story {
        action,
        text: &text,
        tier,
        actor: engine,
    };
    let seq = record::change(tx, row, &to, &story).await?;
    if seq.is_some() && to.state == RolloutState::Halted {
        tracing::error!(rollout = row.id, version = %row.version, %tier, "{text}");
    } else if seq.is_some() {
        tracing::info!(rollout = row.id, version = %row.version, %tier, "{text}");
    }
    Ok(seq)
}

/// Raises thresholds of label values. Where only the labels of machines changed, replicas read them again and nothing is told.
async fn labelled(
    tx: &Tx<'_>,
    engine: &Actor,
    row: &RolloutRow,
    raised: &Raised,
    tier: &TierName,
) -> Result<Option<i64>, ServiceError> {
    if raised.limits.is_empty() {
        audit::notify(tx, Change::Rollouts, i64::MAX).await?;
        return Ok(Some(i64::MAX));
    }
    for (value, threshold) in &raised.limits {
        rows::raise_limit(tx, row.id, value, *threshold).await?;
    }
    let values: Vec<String> = raised
        .limits
        .iter()
        .map(|((key, value), _)| format!("{key}={value}"))
        .collect();
    let text = format!("the next machines of {} are let in", values.join(", "));
    let story = Story {
        action: "rollout.widen",
        text: &text,
        tier,
        actor: engine,
    };
    Ok(Some(record::tell(tx, row, &same(row), &story).await?))
}

async fn promote(
    tx: &Tx<'_>,
    engine: &Actor,
    row: &RolloutRow,
    to: &Tier,
) -> Result<Option<i64>, ServiceError> {
    tiers::lock_shared(tx).await?;
    // Whatever was decided about the patch or the tiers in the meantime counts.
    let order = tiers::order(tx).await?;
    if !order.iter().any(|tier| tier.id == to.id) || patches::lock(tx, row.version).await?.is_none()
    {
        return Ok(None);
    }
    let stopped = rows::stopped(tx).await?.contains(&row.patch_id);
    let now = rows::lock(tx, row.id).await?;
    if stopped || now.is_none_or(|now| now.state != RolloutState::Done) {
        return Ok(None);
    }
    let why = "its rollout in the tier before came to its end, and its soak time is over";
    if !tiers::promote(tx, row.patch_id, to.id, &row.scope, &engine.name, why).await? {
        return Ok(None);
    }
    let text = format!("promoted to {}: {why}", to.name);
    rows::tell(tx, row.id, "promote", &engine.name, &text).await?;
    let version: PatchVersion = row.version;
    let told = events::Act {
        version,
        scope: &row.scope,
        actor: &engine.name,
        reason: why,
    };
    let from = order.iter().find(|tier| tier.id == row.tier_id);
    events::promoted(tx, told, from.map(|tier| &tier.name), &to.name).await?;
    let entry = Entry {
        actor: engine,
        action: "patch.promote",
        target: &version.to_string(),
        details: json!({ "tier": to.name, "scope": row.scope.to_string(), "reason": why, "rollout": row.id }),
    };
    Ok(Some(audit::append(tx, entry, Change::Catalog).await?))
}
