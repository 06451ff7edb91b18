//! Rollouts shown: as a list, one with everything that is known of it, and what would become of a patch.

use super::health;
use super::{interval, policies_of};
use crate::db::rollouts::{self as rows, RolloutRow};
use crate::db::tiers::{self, Tier};
use crate::domain::policy::{Opening, Policy, Share};
use crate::domain::{PatchVersion, Selector, TierName};
use crate::rollout::RolloutState;
use crate::rollout::advance::Health;
use crate::rollout::cohort::share_of;
use crate::rollout::forecast::{Start, forecast};
use crate::service::{Core, ServiceError, census};
use crate::wire::admin::{
    ForecastQuery, KernelGap, PatchForecast, PhaseForecast, RolloutDetail, RolloutEntry,
    RolloutEvent, RolloutForecast, RolloutGate, RolloutHealth, RolloutKernel, RolloutQuery,
    TierForecast,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Entries of a timeline that are shown.
const EVENTS: i64 = 200;

fn entry(
    row: &RolloutRow,
    tier: &TierName,
    policy: Option<&Policy>,
    now: Timestamp,
) -> RolloutEntry {
    let moving = row.state == RolloutState::Running;
    let schedule = policy.map(|policy| &policy.schedule);
    let opening = match schedule.map(|schedule| schedule.at(now)) {
        _ if !moving => "closed",
        None | Some(Opening::Open) => "open",
        Some(Opening::Frozen(_)) => "frozen",
        Some(Opening::OutsideWindow) => "outside-window",
    };
    let shut = moving && opening != "open";
    RolloutEntry {
        id: row.id,
        version: row.version,
        tier: tier.clone(),
        scope: row.scope.clone().into(),
        state: row.state.as_str().to_owned(),
        phase: row.phase as u32 + 1,
        phases: policy.map_or(0, |policy| policy.phases.len() as u32),
        share: share_of(row.threshold).to_string(),
        opening: opening.to_owned(),
        opens_at: schedule
            .filter(|_| shut)
            .and_then(|schedule| schedule.next_open(now)),
        zone: schedule
            .map_or("UTC", |schedule| schedule.zone.name())
            .to_owned(),
        begun_at: row.begun_at,
        phase_at: row.phase_at,
        ended_at: row.ended_at.filter(|ended| *ended > row.begun_at),
        requested_by: row.requested_by.clone(),
        approved_by: row.approved_by.clone(),
        reason: row.reason.clone(),
    }
}

impl From<&Health> for RolloutHealth {
    fn from(health: &Health) -> Self {
        Self {
            machines: health.population,
            offered: health.offered,
            applied: health.applied,
            failed: health.failed,
            silent: health.silent,
            pending: health.pending(),
        }
    }
}

/// Everything that lists are made of.
struct Shown {
    now: Timestamp,
    order: Vec<Tier>,
    policies: HashMap<i32, Arc<Policy>>,
}

impl Shown {
    async fn read(run: &impl crate::db::Run) -> Result<Self, ServiceError> {
        Ok(Self {
            now: rows::now(run).await?,
            order: tiers::order(run).await?,
            policies: policies_of(run).await?.into_iter().collect(),
        })
    }

    fn tier(&self, id: i32) -> Option<&Tier> {
        self.order.iter().find(|tier| tier.id == id)
    }
}

/// Rollouts, newest first.
pub async fn list(core: &Core, query: &RolloutQuery) -> Result<Vec<RolloutEntry>, ServiceError> {
    let conn = core.db.conn().await?;
    let shown = Shown::read(&conn).await?;
    let all = rows::list(&conn, None).await?;
    let ended = |row: &RolloutRow| matches!(row.state, RolloutState::Done | RolloutState::Aborted);
    Ok(all
        .iter()
        .rev()
        .filter(|row| query.all || !ended(row))
        .filter(|row| query.version.is_none_or(|version| version == row.version))
        .filter_map(|row| {
            let tier = shown.tier(row.tier_id)?;
            let wanted = query.tier.as_ref().is_none_or(|name| *name == tier.name);
            let policy = shown.policies.get(&row.tier_id).map(AsRef::as_ref);
            wanted.then(|| entry(row, &tier.name, policy, shown.now))
        })
        .collect())
}

/// One rollout as it stands in lists.
pub async fn one(core: &Core, id: i64) -> Result<RolloutEntry, ServiceError> {
    let gone = || ServiceError::not_found("rollout", id);
    let conn = core.db.conn().await?;
    let shown = Shown::read(&conn).await?;
    let row = rows::list(&conn, Some(id)).await?.pop().ok_or_else(gone)?;
    let tier = shown.tier(row.tier_id).ok_or_else(gone)?;
    let policy = shown.policies.get(&row.tier_id).map(AsRef::as_ref);
    Ok(entry(&row, &tier.name, policy, shown.now))
}

/// One rollout with what machines report, its timeline and what would become of it.
pub async fn detail(core: &Core, id: i64) -> Result<RolloutDetail, ServiceError> {
    let gone = || ServiceError::not_found("rollout", id);
    let conn = core.db.conn().await?;
    let shown = Shown::read(&conn).await?;
    let row = rows::list(&conn, Some(id)).await?.pop().ok_or_else(gone)?;
    let events = rows::events(&conn, id, EVENTS).await?;
    drop(conn);
    let tier = shown.tier(row.tier_id).ok_or_else(gone)?;
    // A tier that has no policy any more still shows what machines report of the patch.
    let policy = shown.policies.get(&row.tier_id).cloned();
    let example = Policy::example();
    let asked = policy.as_deref().unwrap_or(&example);
    let reports = health::shown(core, &row, asked, shown.now).await?;
    let catalog = Arc::clone(&core.snapshots.get_full().catalog);
    let total = reports.total(&row, &catalog);
    let gate = policy.as_ref().and_then(|policy| policy.gate).map(|gate| {
        let of = total.reports().max(u64::from(gate.machines));
        RolloutGate {
            machines: gate.machines,
            reported: total.reports(),
            failure_rate: gate.failure_rate.to_string(),
            failing: Share::of_counts(total.failures(), of).to_string(),
        }
    });
    let ahead = policy
        .as_ref()
        .filter(|_| row.state == RolloutState::Running)
        .map(|policy| {
            ahead(
                core,
                policy,
                &start(&row, &total, shown.now),
                total.population,
            )
        });
    Ok(RolloutDetail {
        rollout: entry(&row, &tier.name, policy.as_deref(), shown.now),
        health: (&total).into(),
        as_of: reports.as_of,
        gate,
        kernels: reports
            .kernels(&row)
            .iter()
            .map(|(kernel, architecture, health)| RolloutKernel {
                kernel: kernel.clone(),
                architecture: *architecture,
                health: health.into(),
            })
            .collect(),
        events: events
            .into_iter()
            .map(|event| RolloutEvent {
                at: event.at,
                kind: event.kind,
                actor: event.actor,
                text: event.text,
            })
            .collect(),
        forecast: ahead,
    })
}

fn start(row: &RolloutRow, health: &Health, now: Timestamp) -> Start {
    Start {
        now,
        phase: row.phase,
        threshold: row.threshold,
        phase_at: row.phase_at,
        offered: health.offered,
    }
}

/// What would become of a rollout in a tier of so many machines.
pub(super) fn ahead(core: &Core, policy: &Policy, start: &Start, machines: u64) -> RolloutForecast {
    let told = forecast(policy, start, machines, interval(core));
    RolloutForecast {
        phases: told
            .opens
            .iter()
            .map(|opens| PhaseForecast {
                phase: opens.phase as u32 + 1,
                share: opens.share.to_string(),
                at: opens.at,
                machines: opens.machines,
            })
            .collect(),
        ends_at: told.ends_at,
        peak_downloads_per_second: per_second(core, told.most_at_once),
    }
}

/// Machines that are let in at once ask within one interval.
fn per_second(core: &Core, machines: u64) -> f64 {
    machines as f64 / interval(core).as_duration().as_secs_f64().max(1.0)
}

/// Machines in a tier.
pub(super) async fn machines_in(core: &Core, tier_id: i32) -> Result<u64, ServiceError> {
    let census = census::current(core).await?;
    let here = census.rows.iter().filter(|group| group.tier_id == tier_id);
    Ok(here.map(|group| group.machines).sum())
}

/// What a patch means in one tier.
#[derive(Default)]
struct Touched {
    machines: u64,
    kernels: HashSet<String>,
    bytes: u64,
}

/// How a patch would come to each tier: as things stand, or as if it were promoted to `query.tier` now.
pub async fn of_patch(
    core: &Core,
    version: PatchVersion,
    query: &ForecastQuery,
) -> Result<PatchForecast, ServiceError> {
    let snapshot = core.snapshots.get_full();
    let payloads = snapshot.catalog.payloads();
    if !payloads.iter().any(|payload| payload.version == version) {
        return Err(ServiceError::not_found("patch", version));
    }
    let conn = core.db.conn().await?;
    let shown = Shown::read(&conn).await?;
    let rollouts = rows::list(&conn, None).await?;
    drop(conn);
    let (touched, gaps) = touched(core, version, query.selector.as_ref()).await?;
    let reach = payloads
        .iter()
        .filter(|payload| payload.version == version)
        .filter_map(|payload| payload.reach.map(usize::from))
        .max();
    let asked = query.tier.as_ref().map(|name| {
        let place = shown.order.iter().position(|tier| tier.name == *name);
        place.ok_or_else(|| ServiceError::not_found("tier", name))
    });
    let reach = reach.max(asked.transpose()?);
    let mut tiers = Vec::new();
    // When the patch comes to the next tier by itself.
    let mut next: Option<Timestamp> = None;
    for (place, tier) in shown.order.iter().enumerate() {
        let policy = shown.policies.get(&tier.id);
        let none = Touched::default();
        let here = touched.get(&tier.id).unwrap_or(&none);
        let row = rollouts
            .iter()
            .find(|row| row.version == version && row.tier_id == tier.id);
        let at = if reach >= Some(place) {
            Some(shown.now)
        } else {
            next
        };
        let begins = match (row, policy) {
            (Some(row), _) => row.state.as_str(),
            (None, None) if reach >= Some(place) => "available",
            (None, _) if reach >= Some(place) => "promoted",
            (None, _) if next.is_some() => "promoted",
            (None, _) => "by-hand",
        };
        let stands =
            row.is_some_and(|row| !matches!(row.state, RolloutState::Running | RolloutState::Done));
        let told = match (policy, at) {
            (Some(policy), Some(at)) if !stands => {
                let start = match row {
                    Some(row) => Start {
                        now: shown.now,
                        phase: row.phase,
                        threshold: row.threshold,
                        phase_at: row.phase_at,
                        offered: share_of(row.threshold).of(here.machines),
                    },
                    None => Start::begun(at),
                };
                if row.is_some_and(|row| row.state == RolloutState::Done) {
                    RolloutForecast {
                        ends_at: row.and_then(|row| row.ended_at),
                        ..RolloutForecast::default()
                    }
                } else {
                    ahead(core, policy, &start, here.machines)
                }
            }
            (None, Some(at)) => RolloutForecast {
                ends_at: Some(at + SignedDuration::from_secs(interval(core).as_seconds())),
                phases: Vec::new(),
                peak_downloads_per_second: per_second(core, here.machines),
            },
            _ => RolloutForecast::default(),
        };
        next = policy
            .filter(|policy| policy.auto_promote)
            .zip(told.ends_at)
            .and_then(|(policy, ends)| {
                let soaked = ends + SignedDuration::from_secs(policy.soak.as_seconds());
                policy.schedule.next_open(soaked.max(shown.now))
            });
        tiers.push(TierForecast {
            tier: tier.name.clone(),
            begins: begins.to_owned(),
            at: row.map(|row| row.begun_at).or(at),
            machines: here.machines,
            kernels: here.kernels.len() as u64,
            bytes: here.bytes,
            forecast: told,
            zone: policy
                .map_or("UTC", |policy| policy.schedule.zone.name())
                .to_owned(),
        });
    }
    Ok(PatchForecast {
        version,
        tiers,
        kernels_without_payload: gaps,
    })
}

/// Machines that would be offered the patch, by tier, and kernels for which it has no payload.
async fn touched(
    core: &Core,
    version: PatchVersion,
    selector: Option<&Selector>,
) -> Result<(HashMap<i32, Touched>, Vec<KernelGap>), ServiceError> {
    let snapshot = core.snapshots.get_full();
    let census = census::selected(core, None, selector, None).await?;
    let mut tiers: HashMap<i32, Touched> = HashMap::new();
    let mut gaps: BTreeMap<(String, Option<crate::domain::Architecture>), u64> = BTreeMap::new();
    for (_, group) in &census.rows {
        let Some(kernel) = group.kernel.as_deref() else {
            continue;
        };
        let payloads = group
            .architecture
            .map_or(&[][..], |arch| snapshot.catalog.for_kernel(kernel, arch));
        let Some(payload) = payloads.iter().find(|payload| payload.version == version) else {
            let key = (kernel.to_owned(), group.architecture);
            *gaps.entry(key).or_default() += group.machines;
            continue;
        };
        let runs = group.patch.filter(|_| group.state.runs_patch());
        if runs.is_none_or(|runs| runs < version) {
            let tier = tiers.entry(group.tier_id).or_default();
            tier.machines += group.machines;
            tier.kernels.insert(kernel.to_owned());
            tier.bytes += group.machines * payload.size;
        }
    }
    let mut gaps: Vec<KernelGap> = gaps
        .into_iter()
        .map(|((kernel, architecture), machines)| KernelGap {
            kernel,
            architecture,
            machines,
        })
        .collect();
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.machines));
    Ok((tiers, gaps))
}
