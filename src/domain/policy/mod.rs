//! A tier's rollout policy as values: phases, gate, caps, schedule, promotion. What a person writes is in `wire`; what is
//! decided with it in `rollout`. A policy that was built by [`Policy::problems`]-free reading can be followed to its end.

mod check;
mod schedule;
mod share;
mod span;

pub use check::Problem;
pub use schedule::{Freeze, Opening, Schedule, Window, Zone};
pub use share::Share;
pub use span::Span;

use super::Selector;

/// How patches come out to a tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// One after the other; the last one is everybody.
    pub phases: Vec<Phase>,
    /// What must have been reported before more machines are let in, and when to stop.
    pub gate: Option<Gate>,
    /// At most so many machines are let in within an hour.
    pub machines_per_hour: Option<u32>,
    /// At most so many machines of one label value are at it at a time.
    pub label_caps: Vec<LabelCap>,
    /// Machines that are let in only in the last phase, whatever their place is.
    pub hold_back: Option<Selector>,
    /// When machines may be let in at all.
    pub schedule: Schedule,
    /// Whether what came to its end here goes on to the next tier by itself.
    pub auto_promote: bool,
    /// How long it must have been at its end before that.
    pub soak: Span,
    /// Whether a second person must approve before it begins.
    pub approval: bool,
}

/// A share of the machines, and how long it stays at that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Share of the tier's machines that the patch is meant for.
    pub share: Share,
    /// At least this long before the next phase.
    pub hold: Span,
}

/// When health is good enough to go on, and when it is so bad that all stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gate {
    /// So many machines must have reported (or all that were let in, where these are fewer).
    pub machines: u32,
    /// More failures than this share of the reports halt the rollout.
    pub failure_rate: Share,
    /// Only machines to which the patch was offered within this time before now count.
    pub window: Span,
}

/// At most so many machines with the same value of a label are at it at a time: offered, and not yet reported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LabelCap {
    /// The label's key, e.g. `rack`.
    pub label: String,
    /// Machines of one value.
    pub machines: u32,
}

impl Policy {
    /// The policy that documents show: 10% for 4 hours, 50% for a day, then everybody; at least 50 machines reported, at most
    /// 0.5% of them failed.
    pub fn example() -> Self {
        let phase = |percent: u32, hours: u64| Phase {
            share: Share::percent(percent),
            hold: Span::hours(hours),
        };
        Self {
            phases: vec![phase(10, 4), phase(50, 24), phase(100, 0)],
            gate: Some(Gate {
                machines: 50,
                failure_rate: Share::millionths(5_000),
                window: Span::hours(24),
            }),
            machines_per_hour: None,
            label_caps: Vec::new(),
            hold_back: None,
            schedule: Schedule::default(),
            auto_promote: false,
            soak: Span::hours(24),
            approval: false,
        }
    }

    /// The phase of this number, or the last one if the policy was shortened since.
    pub fn phase(&self, number: usize) -> Phase {
        let last = self.phases.len().saturating_sub(1);
        self.phases.get(number.min(last)).copied().unwrap_or(Phase {
            share: Share::ALL,
            hold: Span::default(),
        })
    }
}
