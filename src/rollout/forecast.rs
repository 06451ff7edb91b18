//! What a rollout would do if every machine that takes the patch is well: when each phase opens, how many machines it lets in,
//! and when it would be at its end. It is the engine itself that is asked, on a clock that runs ahead.

use super::advance::{Health, Move, Progress, advance};
use super::cohort::PLACES;
use crate::domain::policy::{Policy, Share, Span};
use jiff::{SignedDuration, Timestamp};

/// How far ahead is looked.
const FURTHEST: SignedDuration = SignedDuration::from_hours(24 * 120);

/// Where a rollout stands when the look ahead begins.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Now.
    pub now: Timestamp,
    /// Number of its phase.
    pub phase: usize,
    /// Places below this are let in.
    pub threshold: u64,
    /// Since when its phase is open, or when the phase began.
    pub phase_at: Timestamp,
    /// Machines that were offered it, and are well or will be.
    pub offered: u64,
}

impl Start {
    /// A rollout that begins now.
    pub fn begun(now: Timestamp) -> Self {
        Self {
            now,
            phase: 0,
            threshold: 0,
            phase_at: now,
            offered: 0,
        }
    }
}

/// When a phase opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opens {
    /// Number of the phase, from 0.
    pub phase: usize,
    /// Its share.
    pub share: Share,
    /// When its whole share is let in.
    pub at: Timestamp,
    /// Machines that are then let in.
    pub machines: u64,
}

/// What would become of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forecast {
    /// Phases that are still to open, in order.
    pub opens: Vec<Opens>,
    /// When it would be at its end; `None`: not within four months.
    pub ends_at: Option<Timestamp>,
    /// The most machines that are let in at once, all of which ask within one interval.
    pub most_at_once: u64,
}

/// Looks ahead for a tier of `population` machines that check in every `interval`.
pub fn forecast(policy: &Policy, start: &Start, population: u64, interval: Span) -> Forecast {
    let step = (interval.as_seconds() / 12).clamp(1, 600);
    let mut told = Forecast::default();
    let mut now = start.now;
    let (mut phase, mut phase_at) = (start.phase, start.phase_at);
    let (mut limit, mut widened_at) = (start.threshold, start.now);
    let mut offered = start.offered;
    let mut reported = start.offered;
    // What was offered at the steps of the last interval and is not reported yet.
    let mut on_the_way = std::collections::VecDeque::new();
    let end = start.now.checked_add(FURTHEST).unwrap_or(Timestamp::MAX);
    while now < end {
        let health = Health {
            population,
            offered,
            applied: reported,
            failed: 0,
            silent: 0,
        };
        let progress = Progress {
            policy,
            done: false,
            held_back: false,
            phase,
            threshold: limit,
            phase_at,
            widened_at,
            interval,
        };
        for made in advance(&progress, &health, now) {
            match made {
                Move::Widen {
                    threshold: to,
                    opened,
                } => {
                    let more = machines(to, population) - machines(limit, population);
                    told.most_at_once = told.most_at_once.max(more);
                    limit = to;
                    widened_at = now;
                    if opened {
                        phase_at = now;
                        told.opens.push(Opens {
                            phase,
                            share: policy.phase(phase).share,
                            at: now,
                            machines: machines(limit, population),
                        });
                    }
                }
                Move::Phase { phase: next } => {
                    phase = next;
                    phase_at = now;
                }
                Move::Complete => {
                    told.ends_at = Some(now);
                    return told;
                }
                Move::Halt(_) => return told,
            }
        }
        // Within an interval everybody asks, and within the next everybody reports.
        if policy.schedule.is_open(now) {
            let waiting = machines(limit, population).saturating_sub(offered);
            let asks = waiting.div_ceil((interval.as_seconds() / step / 2).max(1).unsigned_abs());
            offered += asks;
            on_the_way.push_back((now, asks));
        }
        while let Some((at, asked)) = on_the_way.front().copied() {
            if now.as_second() - at.as_second() < interval.as_seconds() {
                break;
            }
            reported += asked;
            on_the_way.pop_front();
        }
        now = now
            .saturating_add(SignedDuration::from_secs(step))
            .unwrap_or(end);
        // Nothing happens until it opens again, but for reports.
        if on_the_way.is_empty() && !policy.schedule.is_open(now) {
            now = policy.schedule.next_open(now).unwrap_or(end);
        }
    }
    told
}

/// Machines that a threshold lets in.
fn machines(threshold: u64, population: u64) -> u64 {
    (u128::from(population) * u128::from(threshold) / u128::from(PLACES)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::policy::{Freeze, Window};

    fn told(policy: &Policy, population: u64) -> String {
        let now = "2026-11-27T12:00:00Z".parse().unwrap();
        let told = forecast(policy, &Start::begun(now), population, Span::hours(1));
        let hours = |at: Timestamp| (at.as_second() - now.as_second()) / 3600;
        let opens = told
            .opens
            .iter()
            .map(|o| format!("{} {}h {}", o.share, hours(o.at), o.machines));
        let opens: Vec<_> = opens.collect();
        format!(
            "{}; end {:?}; most {}",
            opens.join(", "),
            told.ends_at.map(hours),
            told.most_at_once
        )
    }

    #[test]
    fn it_tells_when_a_healthy_rollout_would_end() {
        let policy = Policy::example();
        assert_eq!(
            told(&policy, 100_000),
            "10% 2h 9999, 50% 6h 50000, 100% 30h 100000; end Some(32); most 50000"
        );
        assert_eq!(
            told(&policy, 0),
            "10% 0h 0, 50% 4h 0, 100% 28h 0; end Some(30); most 0"
        );
        let mut capped = policy.clone();
        capped.machines_per_hour = Some(10_000);
        assert!(
            told(&capped, 100_000).contains("most 834"),
            "{}",
            told(&capped, 100_000)
        );
        let mut nightly = policy.clone();
        nightly.schedule.windows = vec![Window {
            days: vec![jiff::civil::Weekday::Friday],
            from: "22:00".parse().unwrap(),
            to: "04:00".parse().unwrap(),
        }];
        // Two phases fit into the first Friday night; the last one waits for the next.
        assert!(
            told(&nightly, 1000).contains("50% 14h 500, 100% 178h"),
            "{}",
            told(&nightly, 1000)
        );
        let mut frozen = policy;
        frozen.schedule.freezes = vec![Freeze {
            from: "2026-11-01T00:00".parse().unwrap(),
            until: "2030-01-01T00:00".parse().unwrap(),
            reason: String::new(),
        }];
        assert_eq!(told(&frozen, 1000), "; end None; most 0");
    }
}
