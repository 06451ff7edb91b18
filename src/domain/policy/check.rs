//! What is wrong with a policy: things that contradict each other, or of which nothing would ever come.

use super::{Policy, Share, Span};
use jiff::Timestamp;
use std::collections::HashSet;

/// Where in a policy something is wrong, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the key, e.g. `phases[1].share`.
    pub at: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// The most phases, windows, freezes and caps; more is a mistake.
const MOST: usize = 100;

impl Policy {
    /// What is wrong with it at this moment, if machines check in every `interval`; empty if it can be followed.
    pub fn problems(&self, now: Timestamp, interval: Span) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut say = |at: String, why: String| found.push(Problem { at, why });
        self.check_phases(&mut say);
        self.check_gate(interval, &mut say);
        if self.machines_per_hour == Some(0) {
            say(
                "machines-per-hour".into(),
                "0 lets nobody in; leave it out to have no cap".into(),
            );
        }
        if self.hold_back.is_some() && self.phases.len() < 2 {
            say(
                "hold-back".into(),
                "with a single phase nobody is held back; give it at least two phases".into(),
            );
        }
        let mut labels = HashSet::new();
        for (index, cap) in self.label_caps.iter().enumerate() {
            if cap.machines == 0 {
                say(
                    format!("label-caps[{index}].machines"),
                    "0 lets nobody in; leave the cap out instead".into(),
                );
            }
            if !labels.insert(&cap.label) {
                say(
                    format!("label-caps[{index}].label"),
                    format!("{} has a cap already", cap.label),
                );
            }
        }
        self.check_schedule(now, &mut say);
        let lists = [
            ("phases", self.phases.len()),
            ("label-caps", self.label_caps.len()),
            ("windows", self.schedule.windows.len()),
            ("freezes", self.schedule.freezes.len()),
        ];
        for (what, length) in lists {
            if length > MOST {
                say(
                    what.into(),
                    format!("{length} entries; at most {MOST} are taken"),
                );
            }
        }
        found
    }

    fn check_phases(&self, say: &mut impl FnMut(String, String)) {
        let mut before = Share::NONE;
        for (index, phase) in self.phases.iter().enumerate() {
            if phase.share <= before {
                let why = if index == 0 {
                    "a phase of nobody; the first share must be more than 0%".to_owned()
                } else {
                    format!(
                        "{} follows {before}; each phase must be wider than the one before",
                        phase.share
                    )
                };
                say(format!("phases[{index}].share"), why);
            }
            before = before.max(phase.share);
        }
        match self.phases.last() {
            None => say(
                "phases".into(),
                "at least one phase is needed; to let everybody in at once write 100%".into(),
            ),
            Some(last) if last.share != Share::ALL => say(
                format!("phases[{}].share", self.phases.len() - 1),
                format!(
                    "the last phase is {}; it must be 100%, or the rollout would never come to its end",
                    last.share
                ),
            ),
            Some(_) => {}
        }
    }

    fn check_gate(&self, interval: Span, say: &mut impl FnMut(String, String)) {
        let Some(gate) = self.gate else { return };
        if gate.machines == 0 {
            say(
                "gate.machines".into(),
                "a gate of 0 machines checks nothing; leave the gate out instead".into(),
            );
        }
        if gate.failure_rate == Share::ALL {
            say(
                "gate.failure-rate".into(),
                "100% never halts; leave the gate out instead".into(),
            );
        }
        let shortest = Span::seconds(3 * interval.as_seconds().unsigned_abs());
        if gate.window < shortest {
            say(
                "gate.window".into(),
                format!(
                    "machines check in every {interval}, say at the next check-in what came of an offer, and count as silent after two: an offer \
                     would be out of {} before that, and the gate could never see it fail; give it at least {shortest}",
                    gate.window
                ),
            );
        }
    }

    fn check_schedule(&self, now: Timestamp, say: &mut impl FnMut(String, String)) {
        let schedule = &self.schedule;
        let mut broken = false;
        for (index, window) in schedule.windows.iter().enumerate() {
            if window.days.is_empty() {
                broken = true;
                say(
                    format!("windows[{index}].days"),
                    "no day; the window would never open".into(),
                );
            }
        }
        for (index, freeze) in schedule.freezes.iter().enumerate() {
            if freeze.until <= freeze.from {
                broken = true;
                say(
                    format!("freezes[{index}].until"),
                    format!(
                        "{} is not after {}; the freeze would never be on",
                        freeze.until, freeze.from
                    ),
                );
            }
        }
        if !broken && schedule.next_open(now).is_none() {
            say(
                "windows".into(),
                "with these windows and freezes it would never be open".into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::policy::{LabelCap, Window};

    fn problems(change: impl FnOnce(&mut Policy)) -> Vec<String> {
        let mut policy = Policy::example();
        change(&mut policy);
        let now = "2026-11-28T00:00:00Z".parse().unwrap();
        let found = policy.problems(now, Span::hours(1));
        found
            .into_iter()
            .map(|p| format!("{}: {}", p.at, p.why))
            .collect()
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        for (change, expected) in [
            (
                (|p| p.phases.swap(0, 1)) as fn(&mut Policy),
                "phases[1].share: 10% follows 50%",
            ),
            (|p| p.phases.clear(), "phases: at least one"),
            (
                |p| p.phases.truncate(2),
                "phases[1].share: the last phase is 50%",
            ),
            (
                |p| p.phases[0].share = Share::NONE,
                "phases[0].share: a phase of nobody",
            ),
            (|p| p.gate.as_mut().unwrap().machines = 0, "gate.machines"),
            (
                |p| p.gate.as_mut().unwrap().failure_rate = Share::ALL,
                "gate.failure-rate",
            ),
            (
                |p| p.gate.as_mut().unwrap().window = Span::seconds(60),
                "gate.window: machines check in every 1h",
            ),
            (|p| p.machines_per_hour = Some(0), "machines-per-hour: 0"),
            (
                |p| {
                    p.label_caps = vec![LabelCap {
                        label: "rack".into(),
                        machines: 0,
                    }];
                },
                "label-caps[0].machines: 0",
            ),
            (
                |p| {
                    p.label_caps = vec![
                        LabelCap {
                            label: "rack".into(),
                            machines: 1,
                        },
                        LabelCap {
                            label: "rack".into(),
                            machines: 2,
                        },
                    ];
                },
                "label-caps[1].label: rack",
            ),
            (
                |p| {
                    let window = Window {
                        days: vec![],
                        from: "01:00".parse().unwrap(),
                        to: "02:00".parse().unwrap(),
                    };
                    p.schedule.windows = vec![window];
                },
                "windows[0].days: no day",
            ),
        ] {
            let found = problems(change);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{expected}: {found:?}"
            );
        }
    }
}
