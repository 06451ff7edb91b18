//! The rollout engine: what lets machines in, what makes a rollout go on and stop, and what must hold whatever happens.

use jiff::{SignedDuration, Timestamp};
use livepatch_onprem::domain::policy::{Freeze, LabelCap, Policy, Share, Span, Window};
use livepatch_onprem::domain::{Architecture, MachineId, PatchVersion, Scope, Sha256};
use livepatch_onprem::rollout::advance::{Health, Move, Progress, advance, open_seconds};
use livepatch_onprem::rollout::cohort::{PLACES, place, places_for, share_of, threshold};
use livepatch_onprem::rollout::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

const KERNEL: &str = "5.15.0-107.117-generic";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn v(text: &str) -> PatchVersion {
    text.parse().unwrap()
}

fn machine(number: u64) -> MachineId {
    MachineId(u128::from(number + 1).to_be_bytes())
}

/// One tier, with id 1, and patches 106.1 and 107.1 in it.
fn catalog() -> Catalog {
    let mut rows = CatalogRows::default();
    let name = "stable".parse().unwrap();
    rows.tiers.push(Tier { id: 1, name });
    for (id, version) in [(1, "106.1"), (2, "107.1")] {
        let version = v(version);
        rows.patches.push(PatchRow { id, version });
        rows.payloads.push(PayloadRow {
            id: i64::from(id),
            patch_id: id,
            kernel: KERNEL.parse().unwrap(),
            architecture: Architecture::Amd64,
            filename: format!("livepatch-{KERNEL}-{version}-amd64.tar.bz2"),
            sha256: Sha256([1; 32]),
            size: 1,
            fixes: [].into(),
            obsolete: false,
            damaged: false,
        });
        rows.promotions.push(PromotionRow {
            patch_id: id,
            tier_id: 1,
            scope: Scope::default(),
        });
    }
    Catalog::build(rows)
}

fn rollout(version: &str, state: RolloutState, threshold: u64) -> Rollout {
    Rollout {
        id: 1,
        version: v(version),
        tier_id: 1,
        scope: Scope::default(),
        state,
        phase: 0,
        threshold,
        limits: HashMap::new(),
    }
}

/// 106.1 has come to everybody; 107.1 stands as given.
fn rollouts(policy: Policy, of_107: impl IntoIterator<Item = Rollout>) -> Rollouts {
    let old = rollout("106.1", RolloutState::Done, PLACES);
    Rollouts::new([(1, Arc::new(policy))], of_107.into_iter().chain([old]))
}

/// What a machine is offered, and why not more.
fn offer(rollouts: &Rollouts, machine: MachineId, now: Timestamp) -> (String, Vec<&'static str>) {
    let catalog = catalog();
    let facts = Facts {
        tier: 0,
        kernel: KERNEL,
        architecture: Some(Architecture::Amd64),
        applied: None,
        build_date: None,
        machine,
        now,
        today: jiff::civil::date(2026, 1, 15),
    };
    let decision = decide(&catalog, rollouts, &facts).unwrap();
    let offered = decision.payload.map(|p| p.version.to_string());
    let skips = decision.skips().map(|skip| skip.code.as_str()).collect();
    (offered.unwrap_or_default(), skips)
}

#[test]
fn a_rollout_decides_what_is_offered_and_why_not() {
    use RolloutState::*;
    let now = at("2026-11-27T12:00:00Z");
    let policy = Policy::example;
    let story = |rollouts: &Rollouts| {
        let (offered, skips) = offer(rollouts, machine(7), now);
        format!("{offered} [{}]", skips.join(", "))
    };
    let of = |state, threshold| rollouts(policy(), [rollout("107.1", state, threshold)]);
    let mine = place(v("107.1"), &machine(7));
    assert_eq!(story(&rollouts(policy(), [])), "106.1 [rollout-not-begun]");
    assert_eq!(story(&of(Running, mine + 1)), "107.1 []");
    assert_eq!(story(&of(Running, mine)), "106.1 [not-yet]");
    assert_eq!(story(&of(Paused, PLACES)), "106.1 [rollout-paused]");
    assert_eq!(story(&of(Halted, PLACES)), "106.1 [halted]");
    assert_eq!(story(&of(Aborted, PLACES)), "106.1 [rollout-aborted]");
    assert_eq!(
        story(&of(AwaitingApproval, PLACES)),
        "106.1 [awaiting-approval]"
    );
    assert_eq!(story(&of(Done, 0)), "107.1 []");

    // A halt in another tier, and one that has no policy any more, stops it here too.
    let elsewhere = Rollout {
        tier_id: 9,
        ..rollout("107.1", Halted, 0)
    };
    let both = [rollout("107.1", Running, PLACES), elsewhere.clone()];
    assert_eq!(story(&rollouts(policy(), both)), "106.1 [halted]");
    assert_eq!(
        story(&Rollouts::new([], [elsewhere])),
        "106.1 [halted]",
        "without a policy"
    );
    // Of a halt that speaks of other kernels only, this one hears nothing.
    let aws = Rollout {
        tier_id: 9,
        scope: Scope::parse(None, Some("aws"), None).unwrap(),
        ..rollout("107.1", Halted, 0)
    };
    let both = [rollout("107.1", Running, PLACES), aws];
    assert_eq!(story(&rollouts(policy(), both)), "107.1 []");

    let mut frozen = policy();
    frozen.schedule.freezes = vec![Freeze {
        from: "2026-11-27T00:00".parse().unwrap(),
        until: "2026-11-28T00:00".parse().unwrap(),
        reason: String::new(),
    }];
    let open = [rollout("107.1", Running, PLACES)];
    assert_eq!(story(&rollouts(frozen, open)), " [frozen, frozen]");
    let mut nightly = policy();
    nightly.schedule.windows = vec![Window {
        days: vec![jiff::civil::Weekday::Friday],
        from: "22:00".parse().unwrap(),
        to: "04:00".parse().unwrap(),
    }];
    let open = [rollout("107.1", Done, PLACES)];
    assert_eq!(
        story(&rollouts(nightly, open)),
        " [outside-window, outside-window]"
    );
}

#[test]
fn a_label_value_that_is_busy_waits() {
    let now = at("2026-11-27T12:00:00Z");
    let mut policy = Policy::example();
    policy.label_caps = vec![LabelCap {
        label: "rack".to_owned(),
        machines: 1,
    }];
    let mine = place(v("107.1"), &machine(7));
    let with = |limit: Option<u64>| {
        let mut running = rollout("107.1", RolloutState::Running, PLACES);
        let value = ("rack".to_owned(), "r1".to_owned());
        running
            .limits
            .extend(limit.map(|limit| (value.clone(), limit)));
        let labels = [("rack".to_owned(), machine(7), "r1".to_owned())];
        rollouts(policy.clone(), [running]).with_labels(labels)
    };
    assert_eq!(offer(&with(None), machine(7), now).1, ["label-cap"]);
    assert_eq!(offer(&with(Some(mine)), machine(7), now).1, ["label-cap"]);
    assert_eq!(offer(&with(Some(mine + 1)), machine(7), now).0, "107.1");
    // A machine without the label is not held up by it.
    assert_eq!(offer(&with(None), machine(8), now).0, "107.1");
}

#[test]
fn machines_that_a_selector_means_are_held_back_until_the_last_phase() {
    let now = at("2026-11-27T12:00:00Z");
    let with = |selector: &str, phase: usize| {
        let mut policy = Policy::example();
        policy.hold_back = Some(selector.parse().unwrap());
        let running = Rollout {
            phase,
            ..rollout("107.1", RolloutState::Running, PLACES)
        };
        let labels = [("role".to_owned(), machine(7), "database".to_owned())];
        rollouts(policy, [running]).with_labels(labels)
    };
    let story = |selector, phase, number| offer(&with(selector, phase), machine(number), now).1;
    assert_eq!(story("role=database", 1, 7), ["held-back"]);
    assert_eq!(story("role", 0, 7), ["held-back"]);
    assert_eq!(story("kernel=5.15.0-*,arch=amd64", 0, 8), ["held-back"]);
    for (selector, phase, number) in [
        ("role=database", 2, 7),
        ("role=database", 1, 8),
        ("role=web", 1, 7),
        ("flavour=aws", 0, 7),
    ] {
        assert!(
            story(selector, phase, number).is_empty(),
            "{selector} {phase} {number}"
        );
    }
}

/// A rollout that is followed on a virtual clock.
struct Followed {
    policy: Policy,
    phase: usize,
    threshold: u64,
    phase_at: Timestamp,
    widened_at: Timestamp,
    done: bool,
}

impl Followed {
    fn begun(policy: Policy, now: Timestamp) -> Self {
        Self {
            policy,
            phase: 0,
            threshold: 0,
            phase_at: now,
            widened_at: now,
            done: false,
        }
    }

    fn look(&mut self, health: Health, now: Timestamp) -> Vec<Move> {
        let progress = Progress {
            policy: &self.policy,
            done: self.done,
            held_back: false,
            phase: self.phase,
            threshold: self.threshold,
            phase_at: self.phase_at,
            widened_at: self.widened_at,
            interval: Span::hours(1),
        };
        let moves = advance(&progress, &health, now);
        for made in &moves {
            match made {
                Move::Widen { threshold, opened } => {
                    self.threshold = *threshold;
                    self.widened_at = now;
                    if *opened {
                        self.phase_at = now;
                    }
                }
                Move::Phase { phase } => {
                    self.phase = *phase;
                    self.phase_at = now;
                }
                Move::Complete => self.done = true,
                Move::Halt(_) => {}
            }
        }
        moves
    }
}

fn health(offered: u64, applied: u64, failed: u64, silent: u64) -> Health {
    Health {
        population: 100_000,
        offered,
        applied,
        failed,
        silent,
    }
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[test]
fn a_healthy_rollout_walks_through_its_phases() {
    let start = at("2026-11-27T00:00:00Z");
    let mut rollout = Followed::begun(Policy::example(), start);
    // First a probe of twice the gate's machines.
    let probe = places_for(100, 100_000);
    let widen = |threshold, opened| Move::Widen { threshold, opened };
    assert_eq!(
        rollout.look(health(0, 0, 0, 0), start),
        [widen(probe, false)]
    );
    assert_eq!(rollout.look(health(100, 49, 0, 0), start + hours(1)), []);
    // Enough have reported, but of the others it is not known yet whether they fell silent.
    assert_eq!(rollout.look(health(100, 60, 0, 0), start + hours(1)), []);
    let tenth = threshold(Share::percent(10));
    assert_eq!(
        rollout.look(health(100, 100, 0, 0), start + hours(2)),
        [widen(tenth, true)]
    );
    // Four hours at 10%, then 50% at once, for a day.
    assert_eq!(
        rollout.look(health(9_000, 8_000, 0, 0), start + hours(5)),
        []
    );
    let t = start + hours(6);
    assert_eq!(
        rollout.look(health(9_000, 8_900, 0, 0), t),
        [Move::Phase { phase: 1 }]
    );
    let half = threshold(Share::percent(50));
    assert_eq!(
        rollout.look(health(9_000, 8_900, 0, 0), t),
        [widen(half, true)]
    );
    assert_eq!(
        rollout.look(health(49_000, 48_000, 9, 0), t + hours(23)),
        []
    );
    let t = t + hours(24);
    assert_eq!(
        rollout.look(health(49_000, 48_000, 9, 0), t),
        [Move::Phase { phase: 2 }]
    );
    assert_eq!(
        rollout.look(health(49_000, 48_000, 9, 0), t),
        [widen(PLACES, true)]
    );
    // It is not at its end before everybody could have reported.
    assert_eq!(rollout.look(health(90_000, 80_000, 9, 0), t + hours(1)), []);
    assert_eq!(
        rollout.look(health(99_000, 98_000, 9, 0), t + hours(2)),
        [Move::Complete]
    );
    // And for a while longer it can still halt.
    assert_eq!(rollout.look(health(99_000, 98_000, 9, 0), t + hours(3)), []);
    let moves = rollout.look(health(99_000, 98_000, 900, 0), t + hours(3));
    assert!(matches!(moves[..], [Move::Halt(_)]), "{moves:?}");
}

#[test]
fn it_halts_on_failures_and_on_silence_and_says_so_in_numbers() {
    let start = at("2026-11-27T00:00:00Z");
    let halted = |health: Health| {
        let mut rollout = Followed::begun(Policy::example(), start);
        let moves = rollout.look(health, start);
        moves
            .iter()
            .any(|m| matches!(m, Move::Halt(_)))
            .then(|| moves[0].to_string())
    };
    assert_eq!(halted(health(100, 60, 0, 0)), None);
    assert_eq!(halted(health(1_000, 995, 5, 0)), None, "0.5% is allowed");
    assert_eq!(
        halted(health(1_000, 993, 4, 2)).unwrap(),
        "halted: 6 of 999 machines failed (4 reported a failure, 2 went silent): 0.6006% of 999, more than the 0.5% that the gate allows"
    );
    // A single failure among the first is counted as one of the gate's 50.
    assert_eq!(
        halted(health(3, 0, 1, 0)).unwrap(),
        "halted: 1 of 1 machines failed (1 reported a failure, 0 went silent): 2%, counted as of 50, more than the 0.5% that the gate \
         allows"
    );
    let mut patient = Policy::example();
    patient.gate.as_mut().unwrap().failure_rate = Share::percent(5);
    let mut rollout = Followed::begun(patient, start);
    assert!(!matches!(
        rollout.look(health(3, 0, 2, 0), start)[..],
        [Move::Halt(_)]
    ));
    assert!(matches!(
        rollout.look(health(3, 0, 3, 0), start)[..],
        [Move::Halt(_)]
    ));
}

#[test]
fn small_tiers_go_on_when_all_that_are_there_have_reported() {
    let start = at("2026-11-27T00:00:00Z");
    let few = |offered, applied| Health {
        population: 12,
        ..health(offered, applied, 0, 0)
    };
    let mut rollout = Followed::begun(Policy::example(), start);
    assert!(matches!(
        rollout.look(few(0, 0), start)[..],
        [Move::Widen { opened: true, .. }]
    ));
    assert_eq!(
        rollout.look(few(2, 1), start + hours(5)),
        [],
        "one has not said what came of it"
    );
    assert_eq!(
        rollout.look(few(2, 2), start + hours(5)),
        [Move::Phase { phase: 1 }]
    );
}

#[test]
fn closed_windows_and_clocks_that_step_let_nobody_in() {
    let start = at("2026-11-27T12:00:00Z");
    let mut policy = Policy::example();
    policy.machines_per_hour = Some(1_000);
    let mut rollout = Followed::begun(policy.clone(), start);
    let grown = |rollout: &mut Followed, now| {
        let before = rollout.threshold;
        rollout.look(health(0, 0, 0, 0), now);
        share_of(rollout.threshold - before).of(100_000)
    };
    assert_eq!(grown(&mut rollout, start), 0);
    // A thousand an hour are 16 a minute; a jump of the clock counts as five minutes at most, one backwards as nothing.
    assert_eq!(
        grown(&mut rollout, start + SignedDuration::from_secs(60)),
        16
    );
    assert_eq!(
        grown(&mut rollout, start + SignedDuration::from_hours(24 * 30)),
        83
    );
    assert_eq!(grown(&mut rollout, start), 0);

    policy.machines_per_hour = None;
    policy.schedule.windows = vec![Window {
        days: vec![jiff::civil::Weekday::Friday],
        from: "22:00".parse().unwrap(),
        to: "04:00".parse().unwrap(),
    }];
    let mut rollout = Followed::begun(policy.clone(), start);
    assert_eq!(rollout.look(health(0, 0, 0, 0), start), []);
    assert!(
        !rollout
            .look(health(0, 0, 0, 0), start + hours(10))
            .is_empty()
    );
    // Failures halt it also while the window is closed.
    let moves = rollout.look(health(60, 30, 20, 0), start + hours(20));
    assert!(matches!(moves[..], [Move::Halt(_)]), "{moves:?}");
    let week = start + hours(24 * 7);
    assert_eq!(open_seconds(&policy.schedule, start, week), 6 * 3600);
}

#[test]
fn every_patch_has_other_first_machines() {
    let first = |version: &str| -> std::collections::HashSet<u64> {
        let tenth = threshold(Share::percent(10));
        (0..10_000)
            .filter(|n| place(v(version), &machine(*n)) < tenth)
            .collect()
    };
    let (a, b) = (first("107.1"), first("108.1"));
    // Of 10,000 machines 10% of 10% are first both times: 100, give or take.
    let both = a.intersection(&b).count();
    assert!(
        (55..=155).contains(&both),
        "{both} machines are first both times"
    );
}

proptest! {
    #[test]
    fn the_share_is_as_large_as_it_says(percent in 1u32..100, major in 1u32..500, first in any::<u32>()) {
        let version = PatchVersion { major, minor: 1 };
        let limit = threshold(Share::percent(percent));
        let machines = 4_000u64;
        let inside = (0..machines).filter(|n| place(version, &machine(u64::from(first) + n)) < limit).count() as f64;
        let p = f64::from(percent) / 100.0;
        let (mean, deviation) = (machines as f64 * p, (machines as f64 * p * (1.0 - p)).sqrt());
        prop_assert!((inside - mean).abs() <= 5.5 * deviation, "{inside} of {machines} at {percent}%");
    }

    #[test]
    fn widening_takes_no_offer_back(ids in prop::collection::vec(any::<u64>(), 1..50), mut steps in prop::collection::vec(0..=PLACES, 2..6)) {
        steps.sort_unstable();
        let now = at("2026-11-27T12:00:00Z");
        for id in ids {
            let mut was = false;
            for step in &steps {
                let rollouts = rollouts(Policy::example(), [rollout("107.1", RolloutState::Running, *step)]);
                let is = offer(&rollouts, MachineId(u128::from(id).to_be_bytes()), now).0 == "107.1";
                prop_assert!(is || !was);
                was = is;
            }
        }
    }

    #[test]
    fn whatever_is_reported_it_never_goes_back_and_stops_when_it_must(
        looks in prop::collection::vec((0u64..200, 0u64..200, 0u64..3, 0u64..2, 0i64..20_000), 1..60),
    ) {
        let mut now = at("2026-11-27T00:00:00Z");
        let mut rollout = Followed::begun(Policy::example(), now);
        for (offered, applied, failed, silent, seconds) in looks {
            now += SignedDuration::from_secs(seconds);
            let health = health(offered + applied + failed + silent, applied, failed, silent);
            let (phase, threshold, done) = (rollout.phase, rollout.threshold, rollout.done);
            let moves = rollout.look(health, now);
            prop_assert!(rollout.phase >= phase && rollout.threshold >= threshold);
            prop_assert!(rollout.phase <= phase + 1);
            let bad = failed + silent;
            let must = bad * 200 > (applied + bad).max(50);
            prop_assert_eq!(must, matches!(moves[..], [Move::Halt(_)]), "{:?} {:?}", health, moves);
            prop_assert!(!must || (rollout.threshold == threshold && rollout.done == done));
        }
    }
}
