//! Two server processes on one database: a promotion at one is soon felt at the other, also if that one was stopped
//! meanwhile. And one process under five times the load that it takes.

use crate::support::kmod;
use crate::support::ledger::{self, Ledger, Outcome, runs};
use crate::support::process::{PATIENCE, Server, Site, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Takes a patch version to the tier `stable`.
async fn promote(server: &Server, version: &str) {
    let path = format!("patches/{version}/promote");
    let promoted = server.admin("POST", &path, json!({ "tier": "stable" }));
    promoted.await.unwrap().expect(200);
}

#[tokio::test]
async fn two_replicas_agree_on_a_promotion() {
    let site = Site::new().await;
    let (one, other) = (site.start().await, site.start().await);
    let runs = runs(5);
    let mut acknowledged = Ledger::default();
    for n in 1..=2 * runs {
        let (name, bytes) = kmod::bundle_in_memory(&format!("107.{n}"), true);
        one.upload(&name, bytes.clone()).await.unwrap().expect(201);
        acknowledged.note(ledger::file("stored", &name, &bytes));
    }
    let auth_token = one.token("stable", "stable").await;
    let token = one.registered(1, &auth_token).await;
    acknowledged.note(ledger::registered(1));
    let known = async || other.check(1, &token, None).await.unwrap().status == 200;
    until("the token at the other replica", known).await;
    let (mut slowest, mut woken) = (Duration::ZERO, Duration::ZERO);
    for n in 1..=runs {
        // Both at work.
        let version = format!("107.{}", 2 * n - 1);
        promote(&one, &version).await;
        let agreed = async || other.offered(1, &token).await == version;
        slowest = slowest.max(until("the promotion at the other replica", agreed).await);
        assert_eq!(
            one.offered(1, &token).await,
            version,
            "answered, so felt here"
        );
        // The other one stands still, and wakes after the promotion.
        let version = format!("107.{}", 2 * n);
        other.signal("STOP");
        promote(&one, &version).await;
        assert_eq!(one.offered(1, &token).await, version);
        other.signal("CONT");
        let agreed = async || other.offered(1, &token).await == version;
        woken = woken.max(until("the promotion after waking", agreed).await);
    }
    let promoted = "select count(*) from promotions p join tiers t on t.id = p.tier_id where t.name = 'stable'";
    let rows = site.raw().await.query_one(promoted, &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), i64::from(2 * runs));
    let verdict = other.admin("GET", "audit/verify", Value::Null).await;
    assert_eq!(verdict.unwrap().expect(200)["ok"], true);
    let lost = acknowledged.lost(&site).await;
    let count = acknowledged.len() + 2 * runs as usize;
    for (scenario, slowest, lost) in [
        ("two replicas and a promotion", slowest, lost),
        (
            "a replica stopped by SIGSTOP during a promotion",
            woken,
            Vec::new(),
        ),
    ] {
        Outcome {
            scenario: scenario.to_owned(),
            runs,
            acknowledged: count,
            lost,
            slowest,
        }
        .told();
        assert!(slowest < Duration::from_secs(10), "{scenario}: {slowest:?}");
    }
    one.stop().await;
    other.stop().await;
}

/// What the server takes at once in the test of overload, worked on and waiting.
const PLACES: u32 = 8;

#[tokio::test]
async fn five_times_overload_is_shed_and_over_soon() {
    let mut site = Site::new().await;
    site.set("LP_SERVER_CONCURRENCY_LIMIT", (PLACES / 2).to_string());
    site.set("LP_SERVER_BURST_LIMIT", (PLACES / 2).to_string());
    let server = site.start().await;
    let auth_token = server.token("machines", "edge").await;
    let mut acknowledged = Ledger::default();
    let mut tokens = Vec::new();
    for machine in 1..=u128::from(5 * PLACES) {
        tokens.push(server.registered(machine, &auth_token).await);
        acknowledged.note(ledger::registered(machine));
    }
    let machines = tokens.iter().zip(1u128..).map(async |(token, machine)| {
        let (mut noted, mut shed) = (Ledger::default(), 0);
        for number in 1..=40 {
            let version = format!("{number}.1");
            let answer = server.check(machine, token, Some(&version)).await.unwrap();
            match answer.status {
                200 if answer.body["stored"] == true => {
                    noted.note(ledger::check_in(machine, number));
                }
                // The database was too slow for a moment: said, so nothing is promised.
                200 => {}
                429 | 503 => {
                    assert!(answer.retry_after, "{answer:?}");
                    shed += 1;
                }
                _ => panic!("{answer:?}"),
            }
        }
        (noted, shed)
    });
    let machines = futures_util::future::join_all(machines);
    // Administration and health are not starved meanwhile.
    let others = async {
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            let started = Instant::now();
            assert_eq!(server.page("readyz").await.0, 200);
            let listed = server.admin("GET", "patches", Value::Null).await;
            listed.unwrap().expect(200);
            longest = longest.max(started.elapsed());
        }
        longest
    };
    let (loads, longest) = tokio::join!(machines, others);
    let ended = Instant::now();
    let mut shed = 0;
    for (noted, refused) in loads {
        acknowledged.add(noted);
        shed += refused;
    }
    let stored = async || {
        let answer = server.check(1, &tokens[0], Some("1000.1")).await.unwrap();
        answer.status == 200
    };
    until("a check-in after the overload", stored).await;
    let recovered = ended.elapsed();
    assert!(shed > 0, "nothing was shed");
    assert!(longest < PATIENCE, "{longest:?}");
    println!(
        "overload: {shed} shed, the slowest page of health and administration took {longest:?}"
    );
    Outcome {
        scenario: "five times overload".to_owned(),
        runs: 1,
        acknowledged: acknowledged.len(),
        lost: acknowledged.lost(&site).await,
        slowest: recovered,
    }
    .told();
    server.stop().await;
}
