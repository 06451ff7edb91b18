//! The engine on a virtual clock over a fleet that exists only here: what a policy does when a patch is good, and when it is bad.
//!
//! Every machine checks in once an interval, each at its own moment of it. Who is offered the patch applies it and says at the next
//! check-in what came of it. The engine looks once a minute. Nothing is random: the same input gives the same timeline.

use super::advance::{Health, Move, Progress, advance};
use super::cohort::{PLACES, place, share_of, threshold};
use crate::domain::fault::{Fault, Harm};
use crate::domain::policy::{Policy, Share, Span, Zone};
use crate::domain::{MachineId, PatchVersion, Sha256};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write;

/// A minute, in seconds: how often the engine looks, and how exactly machines' check-ins fall.
const MINUTE: i64 = 60;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The tier's policy; `None`: promoted by hand, to all at once.
    pub policy: Option<Policy>,
    /// Machines.
    pub machines: u32,
    /// How often they check in; whole minutes.
    pub interval: Span,
    /// The patch.
    pub version: PatchVersion,
    /// What is wrong with it.
    pub fault: Option<Fault>,
    /// When it is promoted.
    pub start: Timestamp,
    /// How long is looked.
    pub limit: Span,
    /// Promoted by hand: after how long somebody notices a bad patch and stops it.
    pub noticed_after: Span,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// When.
    pub at: Timestamp,
    /// What, for people.
    pub text: String,
    /// Machines that were offered the patch until then.
    pub offered: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// What happened, in order.
    pub timeline: Vec<Happened>,
    /// Machines in all.
    pub machines: u64,
    /// Machines that were offered the patch.
    pub offered: u64,
    /// Of these, it is applied.
    pub applied: u64,
    /// Of these, it failed.
    pub failed: u64,
    /// Of these, went silent.
    pub silent: u64,
    /// Whether it was stopped.
    pub halted: bool,
    /// When it halted or came to its end.
    pub ended_at: Option<Timestamp>,
}

impl Outcome {
    /// What happened, a line each, and what came of it; times as the clocks of a zone show them.
    pub fn transcript(&self, zone: &Zone) -> String {
        let mut text = String::new();
        for happened in &self.timeline {
            let at = zone.show(happened.at);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{at}  {:>9} offered  {}",
                happened.offered, happened.text
            );
        }
        let known = self.applied + self.failed + self.silent;
        let _ = writeln!(
            text,
            "reached {} of {} machines ({}): {} applied, {} failed, {} silent, {} on the way",
            self.offered,
            self.machines,
            Share::of_counts(self.offered, self.machines),
            self.applied,
            self.failed,
            self.silent,
            self.offered - known
        );
        text
    }
}

/// How a machine stands; small, because there may be a million.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    Waits,
    /// Was offered it at this minute, and will say what came of it at its next check-in.
    Offered(u32),
    Applied,
    Failed,
    /// Was offered it at this minute and will never check in again.
    Silent(u32),
}

/// Counts by the minute at which machines were offered the patch, so that the gate's window can slide.
#[derive(Default, Clone, Copy)]
struct Minute {
    offered: u32,
    applied: u32,
    failed: u32,
    silent: u32,
}

/// A rollout as it stands in the simulation.
struct Rollout<'s> {
    policy: &'s Policy,
    phase: usize,
    threshold: u64,
    phase_at: Timestamp,
    widened_at: Timestamp,
}

struct World<'s> {
    scenario: &'s Scenario,
    /// Machines by the minute of the interval at which they check in.
    due: Vec<Vec<u32>>,
    stand: Vec<Stand>,
    places: Vec<u32>,
    minutes: Vec<Minute>,
    outcome: Outcome,
}

/// The id of a machine of the simulation.
fn id(number: u32) -> MachineId {
    let digest = Sha256::of(&[b"simulated".as_slice(), &number.to_be_bytes()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.0[..16]);
    MachineId(bytes)
}

/// Runs a scenario to its end or to its limit.
pub fn simulate(scenario: &Scenario) -> Outcome {
    World::new(scenario).run()
}

impl<'s> World<'s> {
    fn new(scenario: &'s Scenario) -> Self {
        let count = (scenario.interval.as_seconds() / MINUTE).max(1) as usize;
        let mut due = vec![Vec::new(); count];
        for number in 0..scenario.machines {
            // Spread evenly over the interval, in an order that has nothing to do with places.
            let minute =
                (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % count;
            due[minute].push(number);
        }
        Self {
            due,
            stand: vec![Stand::Waits; scenario.machines as usize],
            places: (0..scenario.machines)
                .map(|number| place(scenario.version, &id(number)) as u32)
                .collect(),
            minutes: Vec::new(),
            outcome: Outcome {
                machines: u64::from(scenario.machines),
                ..Outcome::default()
            },
            scenario,
        }
    }

    fn tell(&mut self, at: Timestamp, text: String) {
        let offered = self.outcome.offered;
        self.outcome.timeline.push(Happened { at, text, offered });
    }

    fn run(mut self) -> Outcome {
        let start = self.scenario.start;
        let mut rollout = self.scenario.policy.as_ref().map(|policy| Rollout {
            policy,
            phase: 0,
            threshold: 0,
            phase_at: start,
            widened_at: start,
        });
        let how = if rollout.is_some() {
            "its rollout begins"
        } else {
            "offered to all at once"
        };
        self.tell(
            start,
            format!("{} is promoted; {how}", self.scenario.version),
        );
        for minute in 0..(self.scenario.limit.as_seconds() / MINUTE) as u32 {
            let now = start.saturating_add(SignedDuration::from_secs(i64::from(minute) * MINUTE));
            let now = now.unwrap_or(Timestamp::MAX);
            self.minutes.push(Minute::default());
            self.silence(minute);
            let open = match &mut rollout {
                Some(rollout) => {
                    if self.look(rollout, minute, now) {
                        break;
                    }
                    let open = rollout.policy.schedule.is_open(now);
                    if open { rollout.threshold } else { 0 }
                }
                None => PLACES,
            };
            self.check_in(minute, open);
            if rollout.is_none() && self.ended_by_hand(minute, now) {
                break;
            }
        }
        self.outcome
    }

    /// Who checks in at this minute says what came of an offer, or is offered the patch if its place is let in.
    fn check_in(&mut self, minute: u32, open: u64) {
        let turn = minute as usize % self.due.len();
        let machines = std::mem::take(&mut self.due[turn]);
        for &number in &machines {
            let Some(stand) = self.stand.get_mut(number as usize) else {
                continue;
            };
            match *stand {
                Stand::Waits if u64::from(self.places[number as usize]) < open => {
                    self.minutes[minute as usize].offered += 1;
                    self.outcome.offered += 1;
                    let harm = self
                        .scenario
                        .fault
                        .filter(|fault| fault.strikes(self.scenario.version, &id(number)));
                    *stand = match harm.map(|fault| fault.harm) {
                        Some(Harm::Crashes) => Stand::Silent(minute),
                        _ => Stand::Offered(minute),
                    };
                }
                Stand::Offered(since) => {
                    let bad = self
                        .scenario
                        .fault
                        .is_some_and(|fault| fault.strikes(self.scenario.version, &id(number)));
                    let counts = &mut self.minutes[since as usize];
                    if bad {
                        counts.failed += 1;
                        self.outcome.failed += 1;
                        *stand = Stand::Failed;
                    } else {
                        counts.applied += 1;
                        self.outcome.applied += 1;
                        *stand = Stand::Applied;
                    }
                }
                _ => {}
            }
        }
        self.due[turn] = machines;
    }

    /// Machines that were offered it two intervals ago and never came back count as silent from now on.
    fn silence(&mut self, minute: u32) {
        let wait = 2 * self.due.len() as u32;
        let Some(since) = minute.checked_sub(wait + 1) else {
            return;
        };
        let turn = since as usize % self.due.len();
        for &number in &self.due[turn] {
            if self.stand[number as usize] == Stand::Silent(since) {
                self.minutes[since as usize].silent += 1;
                self.outcome.silent += 1;
            }
        }
    }

    /// One look of the engine; whether it ended.
    fn look(&mut self, rollout: &mut Rollout<'_>, minute: u32, now: Timestamp) -> bool {
        let window = rollout
            .policy
            .gate
            .map_or(i64::MAX, |gate| gate.window.as_seconds() / MINUTE);
        let first = i64::from(minute).saturating_sub(window).max(0) as usize;
        let mut health = Health {
            population: u64::from(self.scenario.machines),
            ..Health::default()
        };
        for counts in &self.minutes[first..] {
            health.offered += u64::from(counts.offered);
            health.applied += u64::from(counts.applied);
            health.failed += u64::from(counts.failed);
            health.silent += u64::from(counts.silent);
        }
        let progress = Progress {
            policy: rollout.policy,
            done: false,
            held_back: false,
            phase: rollout.phase,
            threshold: rollout.threshold,
            phase_at: rollout.phase_at,
            widened_at: rollout.widened_at,
            interval: self.scenario.interval,
        };
        for made in advance(&progress, &health, now) {
            match made {
                Move::Widen { threshold, opened } => {
                    rollout.threshold = threshold;
                    rollout.widened_at = now;
                    if opened {
                        rollout.phase_at = now;
                    }
                    if rollout.policy.machines_per_hour.is_none() || opened {
                        self.tell(
                            now,
                            format!("{} of the machines are let in", share_of(threshold)),
                        );
                    }
                }
                Move::Phase { phase } => {
                    rollout.phase = phase;
                    rollout.phase_at = now;
                    if rollout.policy.machines_per_hour.is_none() {
                        let share = threshold(rollout.policy.phase(phase).share);
                        rollout.threshold = rollout.threshold.max(share);
                    }
                    self.tell(
                        now,
                        format!(
                            "phase {} begins: {} of the machines are let in",
                            phase + 1,
                            share_of(rollout.threshold)
                        ),
                    );
                }
                Move::Halt(_) | Move::Complete => {
                    self.outcome.halted = made != Move::Complete;
                    self.outcome.ended_at = Some(now);
                    self.tell(now, made.to_string());
                    return true;
                }
            }
        }
        false
    }

    /// Without a policy it goes on until everybody has it, or somebody notices.
    fn ended_by_hand(&mut self, minute: u32, now: Timestamp) -> bool {
        let noticed = self.scenario.fault.is_some()
            && i64::from(minute) * MINUTE >= self.scenario.noticed_after.as_seconds();
        if noticed {
            self.outcome.halted = true;
            self.outcome.ended_at = Some(now);
            self.tell(now, "somebody notices and blocks it".to_owned());
            return true;
        }
        let all = self.outcome.applied + self.outcome.failed + self.outcome.silent
            == self.outcome.machines;
        if all {
            self.outcome.ended_at = Some(now);
            self.tell(now, "everybody has it".to_owned());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(policy: Option<Policy>) -> Scenario {
        Scenario {
            policy,
            machines: 100_000,
            interval: Span::hours(1),
            version: "107.1".parse().unwrap(),
            fault: None,
            start: "2026-11-27T08:00:00Z".parse().unwrap(),
            limit: Span::hours(24 * 7),
            noticed_after: Span::seconds(90 * 60),
        }
    }

    #[test]
    fn a_good_patch_comes_to_everybody() {
        let good = simulate(&scenario(Some(Policy::example())));
        assert!(!good.halted && good.ended_at.is_some(), "{good:?}");
        assert_eq!((good.offered, good.failed, good.silent), (100_000, 0, 0));
    }
}
