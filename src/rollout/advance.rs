//! `advance`: what becomes of a rollout now, given what its machines report. Pure; the leader writes what comes out.
//!
//! A rollout halts as soon as more machines failed than the gate allows, whatever else holds. It goes on only while the schedule
//! is open: a phase is opened at once, but for the first, of which only twice as many machines as the gate asks for are let in
//! until enough of these have reported well, and none of them has fallen silent. The next phase follows when the phase has stood open as long as it must and enough reported.

use super::cohort::{PLACES, places_for, share_of, threshold};
use crate::domain::policy::{Gate, Policy, Schedule, Share, Span};
use jiff::Timestamp;
use std::fmt;

/// How many machines more than the gate asks for are let in first: twice as many, since not every one reports at once.
const PROBE: u64 = 2;
/// With a cap per hour it is widened a little at a time, and not more often than this.
const SHORTEST_STEP: i64 = 60;
/// No two steps are counted as further apart than this, so that a clock that steps, or a window that opens, lets nobody in at once.
const LONGEST_STEP: i64 = 300;

/// What is known of a rollout that runs, or came to its end lately.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The tier's policy.
    pub policy: &'a Policy,
    /// Whether it came to its end.
    pub done: bool,
    /// Machines wait because of a cap per label value.
    pub held_back: bool,
    /// Number of its phase.
    pub phase: usize,
    /// Places below this are let in.
    pub threshold: u64,
    /// Since when the whole share of the phase is let in, or when the phase began.
    pub phase_at: Timestamp,
    /// When its threshold was last changed, or when it began.
    pub widened_at: Timestamp,
    /// How often machines check in.
    pub interval: Span,
}

/// What machines report of a patch in a tier. Only machines that were known before it began and were offered the patch count,
/// each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// Machines of the tier that there is a payload for.
    pub population: u64,
    /// Machines that were offered the patch within the gate's window.
    pub offered: u64,
    /// Of these: it is applied.
    pub applied: u64,
    /// Of these: it failed, by their state or a ping.
    pub failed: u64,
    /// Of these: did not check in for twice their interval, and have not reported.
    pub silent: u64,
}

impl Health {
    /// Machines of which is known what came of it.
    pub fn reports(&self) -> u64 {
        self.applied + self.failed + self.silent
    }

    /// Machines that count against it.
    pub fn failures(&self) -> u64 {
        self.failed + self.silent
    }

    /// Machines of which nothing is known yet.
    pub fn pending(&self) -> u64 {
        self.offered.saturating_sub(self.reports())
    }
}

impl std::ops::AddAssign for Health {
    fn add_assign(&mut self, other: Self) {
        self.population += other.population;
        self.offered += other.offered;
        self.applied += other.applied;
        self.failed += other.failed;
        self.silent += other.silent;
    }
}

/// Why a rollout halted, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halt {
    /// What was reported.
    pub health: Health,
    /// The gate that was not kept.
    pub gate: Gate,
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Health { failed, silent, .. } = self.health;
        let (failures, reports) = (self.health.failures(), self.health.reports());
        let of = reports.max(u64::from(self.gate.machines));
        write!(
            f,
            "{failures} of {reports} machines failed ({failed} reported a failure, {silent} went silent): {}{} of {of}, more than the \
             {} that the gate allows",
            Share::of_counts(failures, of),
            if of > reports { ", counted as" } else { "" },
            self.gate.failure_rate,
        )
    }
}

/// What becomes of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// It lets more machines in, up to this place. With `opened` its phase's whole share is let in from now on.
    Widen {
        /// The new threshold.
        threshold: u64,
        /// Whether that is the phase's share.
        opened: bool,
    },
    /// It goes on to its next phase.
    Phase {
        /// The phase's number.
        phase: usize,
    },
    /// It stops.
    Halt(Halt),
    /// It has come to its end.
    Complete,
}

/// Whether so many failures halt a rollout. Before as many machines reported as the gate asks for, the failures are counted
/// as if they had: one failure of the first three machines is no third of the fleet.
pub fn breaks(gate: &Gate, health: &Health) -> bool {
    let of = health.reports().max(u64::from(gate.machines));
    gate.failure_rate.exceeded(health.failures(), of)
}

/// Seconds for which a schedule was open between two moments.
pub fn open_seconds(schedule: &Schedule, from: Timestamp, to: Timestamp) -> i64 {
    let mut open = 0;
    let mut at = from;
    while at < to {
        let Some(begin) = schedule.next_open(at).filter(|begin| *begin < to) else {
            break;
        };
        let end = schedule.next_close(begin).map_or(to, |end| end.min(to));
        open += end.as_second() - begin.as_second();
        at = end;
    }
    open
}

/// Decides what becomes of a rollout. The moves are to be made in this order, all or none.
pub fn advance(progress: &Progress<'_>, health: &Health, now: Timestamp) -> Vec<Move> {
    let policy = progress.policy;
    if let Some(gate) = policy.gate.filter(|gate| breaks(gate, health)) {
        return vec![Move::Halt(Halt {
            health: *health,
            gate,
        })];
    }
    if progress.done || !policy.schedule.is_open(now) {
        return Vec::new();
    }
    let phase = policy.phase(progress.phase);
    let share = threshold(phase.share);
    // Every machine that is there has checked in since, and could say what came of it at the check-in after.
    let since = open_seconds(&policy.schedule, progress.phase_at, now);
    let settled = since >= 2 * progress.interval.as_seconds() && health.pending() == 0;
    let enough = policy
        .gate
        .is_none_or(|gate| health.reports() >= u64::from(gate.machines) || settled);
    if progress.threshold < share {
        let probed =
            enough && (health.pending() == 0 || since >= 3 * progress.interval.as_seconds());
        let widest = widest(progress, health, probed, now).min(share);
        return if widest > progress.threshold {
            vec![Move::Widen {
                threshold: widest,
                opened: widest == share,
            }]
        } else {
            Vec::new()
        };
    }
    let held = now.as_second() - progress.phase_at.as_second() >= phase.hold.as_seconds();
    if !held || !enough {
        return Vec::new();
    }
    if progress.phase + 1 < policy.phases.len() {
        let next = progress.phase + 1;
        return vec![Move::Phase { phase: next }];
    }
    // At the end there is nobody left to wait for; what machines report for a while longer can still halt it.
    let everybody = health.population > 0 && health.reports() >= health.population;
    let waited = everybody || since >= 2 * progress.interval.as_seconds();
    if !progress.held_back && (waited || policy.gate.is_none()) {
        vec![Move::Complete]
    } else {
        Vec::new()
    }
}

/// How far it may be opened now, whatever the phase's share is.
fn widest(progress: &Progress<'_>, health: &Health, probed: bool, now: Timestamp) -> u64 {
    let mut widest = PLACES;
    if let Some(gate) = progress
        .policy
        .gate
        .filter(|_| progress.phase == 0 && !probed)
    {
        let probe = PROBE * u64::from(gate.machines);
        widest = widest.min(places_for(probe, health.population));
    }
    if let Some(cap) = progress.policy.machines_per_hour {
        let seconds = now.as_second() - progress.widened_at.as_second();
        let seconds = if seconds < SHORTEST_STEP {
            0
        } else {
            seconds.min(LONGEST_STEP).unsigned_abs()
        };
        let all = places_for(u64::from(cap), health.population);
        let more = u128::from(all) * u128::from(seconds) / 3600;
        let more = u64::try_from(more).unwrap_or(PLACES);
        widest = widest.min(progress.threshold.saturating_add(more));
    }
    widest
}

/// What a move means, for the log and for people.
impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Widen { threshold, .. } => {
                write!(f, "{} of the machines are let in", share_of(*threshold))
            }
            Self::Phase { phase } => write!(f, "phase {} begins", phase + 1),
            Self::Halt(halt) => write!(f, "halted: {halt}"),
            Self::Complete => write!(f, "everybody is let in"),
        }
    }
}
