//! The main job over real sockets: a signed bundle goes in, and the right machines are offered it, by tier.

use crate::support::kmod::{bundle_name, real_bundle};
use crate::support::server::{Machine, TestServer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The codes of the reasons in an answer.
fn codes(answer: &Value) -> Vec<&str> {
    answer["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["code"].as_str().unwrap())
        .collect()
}

/// Waits until `probe` holds, and says how long that took. Bounded by the test's own patience.
async fn until(what: &str, mut probe: impl AsyncFnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !probe().await {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "{what} did not come about"
        );
        tokio::task::yield_now().await;
    }
    started.elapsed()
}

#[tokio::test]
async fn a_patch_reaches_machines_tier_by_tier() {
    let server = TestServer::with_two_patches().await;
    let beta = Machine::register(&server, 1, &server.token("for-beta", "beta").await).await;
    let stable = Machine::register(&server, 2, &server.token("for-stable", "stable").await).await;
    assert_eq!(
        codes(&beta.check(&server, None).await),
        ["not-in-tier", "not-in-tier", "none-available"]
    );

    server
        .admin("POST", "patches/107.1/promote", json!({ "tier": "beta" }))
        .await;
    let offer = beta.check(&server, None).await;
    let patch = &offer["patches"][0];
    assert_eq!(patch["version"], "107.1");
    assert_eq!(patch["filename"], bundle_name("107.1").to_string());
    assert_eq!(offer["tier"], "beta");
    assert_eq!(offer["stored"], true);
    assert_eq!(offer["check-interval"], 60);
    assert_eq!(stable.offered(&server, None).await, "");

    // The address works, the bytes are the ones announced.
    let bytes = server
        .http
        .get(patch["url"].as_str().unwrap())
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let sha256 = livepatch_onprem::domain::Sha256::of(&bytes).to_string();
    assert_eq!(patch["sha256"], sha256.as_str());
    assert_eq!(patch["size"], bytes.len());
    assert_eq!(
        bytes,
        std::fs::read(real_bundle("107.1", "patched")).unwrap()
    );
    assert_eq!(
        codes(&beta.check(&server, Some("107.1")).await),
        ["up-to-date"]
    );

    server
        .admin(
            "POST",
            "promote-all",
            json!({ "from": "edge", "to": "stable" }),
        )
        .await;
    assert_eq!(stable.offered(&server, None).await, "107.1");

    // A block: nobody is offered it, who has it falls back, and its file is no longer served.
    server
        .admin(
            "POST",
            "patches/107.1/block",
            json!({ "reason": "crashes" }),
        )
        .await;
    assert_eq!(stable.offered(&server, None).await, "106.1");
    assert_eq!(
        codes(&beta.check(&server, Some("107.1")).await),
        ["blocked", "offered"]
    );
    assert_eq!(
        server
            .http
            .get(patch["url"].as_str().unwrap())
            .send()
            .await
            .unwrap()
            .status(),
        403
    );
    server
        .admin("POST", "patches/107.1/unblock", json!({}))
        .await;
    assert_eq!(stable.offered(&server, None).await, "107.1");

    // A hold: nothing new, nothing taken back.
    server.admin("POST", "patches/107.1/hold", json!({})).await;
    assert_eq!(stable.offered(&server, None).await, "106.1");
    assert_eq!(
        codes(&beta.check(&server, Some("107.1")).await),
        ["keeps-higher"]
    );

    let explained = server
        .admin("GET", &format!("machines/{}/explain", beta.id), Value::Null)
        .await;
    assert_eq!(codes(&explained), ["keeps-higher"]);
    let audit = server.admin("GET", "audit/verify", Value::Null).await;
    assert_eq!(audit["ok"], true, "{audit}");
}

/// By notification, and not by the look at the head that comes every 15 seconds. How fast it is on a quiet machine (some
/// 20 ms) is for a benchmark to say: tests share their cores.
fn notified(took: Duration) {
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn changes_reach_another_replica_by_notification() {
    let server = TestServer::with_two_patches().await;
    let replica = server.beside(|_| {}).await;
    let token = server.token("edge", "edge").await;
    let machine = Machine::register(&server, 1, &token).await;
    let took = until("the token", async || {
        machine.try_check(&replica, None).await.status() == 200
    })
    .await;
    notified(took);
    assert_eq!(machine.offered(&replica, None).await, "107.1");

    server.admin("POST", "patches/107.1/block", json!({})).await;
    let took = until("the block", async || {
        machine.offered(&replica, None).await == "106.1"
    })
    .await;
    notified(took);

    let other = Machine::register(&server, 2, &token).await;
    server
        .admin(
            "POST",
            &format!("machines/{}/revoke", machine.id),
            json!({}),
        )
        .await;
    let took = until("revoking the machine", async || {
        machine.try_check(&replica, None).await.status() == 401
    })
    .await;
    notified(took);
    assert_eq!(other.try_check(&replica, None).await.status(), 200);

    server
        .admin(
            "PUT",
            &format!("machines/{}/tier", other.id),
            json!({ "tier": "stable" }),
        )
        .await;
    let took = until("the move", async || {
        other.check(&replica, None).await["tier"] == "stable"
    })
    .await;
    notified(took);

    server
        .admin("DELETE", "auth-tokens/edge", Value::Null)
        .await;
    let took = until("revoking the token", async || {
        other.try_check(&replica, None).await.status() == 401
    })
    .await;
    notified(took);
}

#[tokio::test]
async fn after_a_lost_connection_everything_is_read_again() {
    let server = TestServer::with_two_patches().await;
    let replica = server.beside(|_| {}).await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    until("the token", async || {
        machine.try_check(&replica, None).await.status() == 200
    })
    .await;
    let raw = server.db.raw().await;
    // Every connection of every server is cut, listeners too; the change is made before they are back.
    raw.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
        &[],
    )
    .await
    .unwrap();
    raw.batch_execute(
        "insert into blocks (patch_id, kind, actor) select id, 1, 'test' from patches order by version desc limit 1;
         update audit_head set seq = seq + 1",
    )
    .await
    .unwrap();
    until("the change made while nobody listened", async || {
        let answer = machine.try_check(&replica, None).await;
        answer.status() == 200
            && answer.json::<Value>().await.unwrap()["patches"][0]["version"] == "106.1"
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_in_the_database() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let mut machines = Vec::new();
    for n in 0..20 {
        machines.push(Machine::register(&server, n, &token).await);
    }
    // Many at once, some of them twice.
    let reports = (0..200).map(|n| {
        let machine = &machines[n % machines.len()];
        machine.check(&server, Some(if n < 180 { "106.1" } else { "107.1" }))
    });
    let answers = futures_util::future::join_all(reports).await;
    assert!(answers.iter().all(|answer| answer["stored"] == true));
    for machine in &machines {
        assert_eq!(machine.check(&server, Some("107.1")).await["stored"], true);
    }
    let raw = server.db.raw().await;
    let rows = raw
        .query("select m.patch, m.state, w.text, m.last_check is not null from machines m join words w on w.id = m.kernel_id", &[])
        .await
        .unwrap();
    assert_eq!(rows.len(), 20);
    for row in rows {
        assert_eq!(row.get::<_, i64>(0), (107 << 20) | 1);
        assert_eq!(row.get::<_, i16>(1), 1);
        assert!(row.get::<_, String>(2).contains('-'));
        assert!(row.get::<_, bool>(3));
    }
    let history: i64 = raw
        .query_one("select count(*) from machine_reports", &[])
        .await
        .unwrap()
        .get(0);
    // Of several reports of one machine in one group, the last is kept.
    assert!((40..=220).contains(&history), "{history}");
    let stray: i64 = raw
        .query_one("select count(*) from machine_reports_default", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(stray, 0);
}

#[tokio::test]
async fn a_machine_that_was_deleted_behind_our_back_comes_back_with_its_next_report() {
    let server = TestServer::with_two_patches().await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    let raw = server.db.raw().await;
    raw.execute("delete from machines", &[]).await.unwrap();
    assert_eq!(machine.check(&server, Some("106.1")).await["stored"], true);
    let row = raw
        .query_one(
            "select patch, offered, offered_at is not null from machines",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, i64>(0), row.get::<_, i64>(1)),
        ((106 << 20) | 1, (107 << 20) | 1)
    );
    assert!(row.get::<_, bool>(2));
}

#[tokio::test]
async fn a_damaged_object_is_not_sent_and_no_longer_offered() {
    let server = TestServer::with_two_patches().await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    let offer = machine.check(&server, None).await;
    let patch = &offer["patches"][0];
    let sha256 = patch["sha256"].as_str().unwrap();
    let object = server
        .folder
        .path()
        .join(format!("patches/objects/sha256/{}/{sha256}", &sha256[..2]));
    let good = std::fs::read(&object).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    std::fs::write(&object, &bad).unwrap();
    let url = patch["url"].as_str().unwrap();
    let answer = server.http.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(machine.offered(&server, None).await, "106.1");
    let again = machine.check(&server, None).await;
    assert_eq!(codes(&again), ["damaged", "offered"]);
    // Uploading it again heals it.
    server.upload(&real_bundle("107.1", "patched")).await;
    assert_eq!(machine.offered(&server, None).await, "107.1");
    assert_eq!(
        server
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap(),
        good
    );
}
