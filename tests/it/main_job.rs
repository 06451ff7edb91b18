//! The main job over real sockets: a signed bundle goes in, and the right machines are offered it, by tier.

use crate::support::kmod::{bundle_name, real_bundle};
use crate::support::server::{Machine, TestServer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A server with two real patches in its first tier.
async fn with_two_patches() -> TestServer {
    let server = TestServer::start().await;
    for version in ["106.1", "107.1"] {
        let outcome = server.upload(&real_bundle(version, "patched")).await;
        assert_eq!(outcome["result"], "stored", "{outcome}");
    }
    server
}

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
    let server = with_two_patches().await;
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

#[tokio::test]
async fn changes_reach_another_replica_within_a_second() {
    let server = with_two_patches().await;
    let replica = server.beside(|_| {}).await;
    let token = server.token("edge", "edge").await;
    let machine = Machine::register(&server, 1, &token).await;
    let took = until("the token", async || {
        machine.try_check(&replica, None).await.status() == 200
    })
    .await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(machine.offered(&replica, None).await, "107.1");

    server.admin("POST", "patches/107.1/block", json!({})).await;
    let took = until("the block", async || {
        machine.offered(&replica, None).await == "106.1"
    })
    .await;
    assert!(took < Duration::from_secs(1), "{took:?}");

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
    assert!(took < Duration::from_secs(1), "{took:?}");
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
    assert!(took < Duration::from_secs(1), "{took:?}");

    server
        .admin("DELETE", "auth-tokens/edge", Value::Null)
        .await;
    let took = until("revoking the token", async || {
        other.try_check(&replica, None).await.status() == 401
    })
    .await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn after_a_lost_connection_everything_is_read_again() {
    let server = with_two_patches().await;
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
    let server = with_two_patches().await;
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
    let server = with_two_patches().await;
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
async fn tokens_are_what_they_claim() {
    let server = with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let one = Machine::register(&server, 1, &token).await;
    let two = Machine::register(&server, 2, &token).await;
    let url = |id: &str, path: &str| format!("{}/v1/client/{id}{path}", server.url);
    let unauthorized = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.text().await.unwrap(), "unauthorized");
    };
    // Another machine's token, no token, an auth token where a machine token belongs, garbage.
    unauthorized(
        server
            .http
            .post(url(&one.id, "/updates"))
            .bearer_auth(&two.token)
            .json(&one.report(None)),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, "/updates"))
            .json(&one.report(None)),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, "/updates"))
            .bearer_auth(&token)
            .json(&one.report(None)),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, ""))
            .json(&json!({ "auth-token": "lpa_nonsense" })),
    )
    .await;
    unauthorized(
        server
            .http
            .post(url(&one.id, ""))
            .json(&json!({ "auth-token": one.token })),
    )
    .await;
    unauthorized(server.http.delete(url(&one.id, "")).bearer_auth(&two.token)).await;
    // The token may come as password, as macaroon, or in the body.
    for request in [
        server
            .http
            .post(url(&one.id, "/updates"))
            .basic_auth("", Some(&one.token)),
        server
            .http
            .post(url(&one.id, "/updates"))
            .header("Authorization", format!("Macaroon {}", one.token)),
    ] {
        assert_eq!(
            request
                .json(&one.report(None))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    let mut report = one.report(None);
    report["machine_token"] = json!(one.token);
    assert_eq!(
        server
            .http
            .post(url(&one.id, "/updates"))
            .json(&report)
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    // Information, before and after registration, and leaving.
    let new = format!("{:032x}", 99);
    let info: Value = server
        .http
        .get(url(&new, "/info"))
        .bearer_auth(&token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (info["tier"].as_str(), info.get("enabled-at")),
        (Some("edge"), None)
    );
    let info: Value = server
        .http
        .get(url(&one.id, "/info"))
        .bearer_auth(&one.token)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(
        info["enabled-at"].is_string() && info["last-check"].is_string(),
        "{info}"
    );
    let gone = server
        .http
        .delete(url(&one.id, ""))
        .bearer_auth(&one.token)
        .send()
        .await
        .unwrap();
    assert_eq!(gone.status(), 204);
    // An expired token enables nobody new; who is enabled stays so.
    let made = server
        .admin(
            "POST",
            "auth-tokens",
            json!({ "name": "brief", "tier": "edge", "valid-until": "2099-01-01T00:00:00Z" }),
        )
        .await;
    let brief = made["token"].as_str().unwrap().to_owned();
    let three = Machine::register(&server, 3, &brief).await;
    let raw = server.db.raw().await;
    raw.batch_execute(
        "update auth_tokens set valid_until = now() - interval '1 s' where name = 'brief'",
    )
    .await
    .unwrap();
    server
        .core()
        .snapshots
        .reload(None, i64::MAX)
        .await
        .unwrap();
    unauthorized(
        server
            .http
            .post(url(&format!("{:032x}", 4), ""))
            .json(&json!({ "auth-token": brief })),
    )
    .await;
    assert_eq!(three.try_check(&server, None).await.status(), 200);
}

#[tokio::test]
async fn the_old_clients_are_answered_in_their_words() {
    let server = with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let id = format!("{:032x}", 7);
    let enable = async |body: Value| {
        server
            .http
            .post(format!("{}/api/machine-tokens", server.url))
            .json(&body)
            .send()
            .await
            .unwrap()
    };
    let answer = enable(json!({ "auth-token": "wrong", "machine-id": id })).await;
    assert_eq!(answer.status(), 403);
    assert_eq!(
        answer.text().await.unwrap(),
        r#"{"error":"Unknown Auth-Token"}"#
    );
    let answer = enable(json!({ "machine-id": id })).await;
    assert_eq!(
        (answer.status().as_u16(), answer.text().await.unwrap()),
        (401, "unauthorized".to_owned())
    );
    let odd = json!({ "auth-token": token, "machine-id": id, "architecture": "amd64", "kernel": "6.5.0-1.2-generic" });
    let answer = enable(odd).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.text().await.unwrap().contains("unsupported kernel"));
    let answer: Value = enable(json!({ "auth-token": token, "machine-id": id }))
        .await
        .json()
        .await
        .unwrap();
    let machine_token = answer["machine-token"].as_str().unwrap();
    let status = json!({
        "client-version": "9.1.0", "machine-id": id, "architecture": "x86_64",
        "status": [{ "kernel": crate::support::kmod::kernel().to_string(), "running": true,
            "livepatch": { "checkState": "needs-check", "patchState": "unapplied", "version": "" } }],
    });
    let put = async |token: &str| {
        server
            .http
            .put(format!("{}/api/machine/{token}", server.url))
            .json(&status)
            .send()
            .await
            .unwrap()
    };
    let answer: Value = put(machine_token).await.json().await.unwrap();
    assert_eq!(answer["patches"][0]["version"], "107.1", "{answer}");
    let answer = put("wrong").await;
    assert_eq!(answer.status(), 403);
    assert_eq!(
        answer.text().await.unwrap(),
        r#"{"error":"Invalid Machine Token"}"#
    );
    // The old path for files, too.
    let old = format!("{}/patches/{}", server.url, bundle_name("107.1"));
    assert_eq!(server.http.head(&old).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn kernel_support_is_told_to_anybody() {
    let server = TestServer::start().await;
    let ask = async |query: &str| {
        let url = format!("{}/v1/api/kernels/supported?{query}", server.url);
        server
            .http
            .get(url)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let jammy = "kernel-version=5.15&flavour=generic&architecture=amd64&codename=jammy";
    assert_eq!(
        ask(&format!("{jammy}&build-date=unknown")).await,
        r#"{"Supported":"supported"}"#
    );
    let old = ask(&format!("{jammy}&build-date=2024-02-07T10:00:00%2B00:00")).await;
    assert_eq!(old, r#"{"Supported":"kernel-upgrade-required"}"#);
    assert_eq!(
        ask("kernel-version=6.5&flavour=generic&architecture=amd64&codename=jammy").await,
        r#"{"Supported":"unsupported"}"#
    );
    assert!(
        ask("flavour=generic")
            .await
            .contains("kernel-version is missing")
    );
    assert!(ask("kernel-version=five").await.contains("kernel series"));
}

#[tokio::test]
async fn a_damaged_object_is_not_sent_and_no_longer_offered() {
    let server = with_two_patches().await;
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

#[tokio::test]
async fn pings_are_stored_and_counted_within_bounds() {
    let server = with_two_patches().await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    let ping = async |body: Value| {
        let url = format!("{}/v1/client/{}/pings", server.url, machine.id);
        server
            .http
            .post(url)
            .bearer_auth(&machine.token)
            .json(&body)
            .send()
            .await
            .unwrap()
            .status()
    };
    let kernel = crate::support::kmod::kernel().to_string();
    let known = json!({ "ping-type": "ping_err", "kernel": kernel, "patch-version": "107.1", "architecture": "amd64",
        "patch-state": "apply-failed", "message": "insmod: \u{0}bad" });
    assert_eq!(ping(known).await, 204);
    assert_eq!(
        ping(json!({ "ping-type": "made-up", "kernel": "made-up", "patch-version": "9.9" })).await,
        204
    );
    let raw = server.db.raw().await;
    let rows = raw
        .query("select ping_type, message from pings order by at", &[])
        .await
        .unwrap();
    assert_eq!(rows[0].get::<_, String>(0), "ping_err");
    assert_eq!(rows[0].get::<_, String>(1), "insmod: bad");
    assert_eq!(rows[1].get::<_, String>(0), "other");
    let metrics = server.core().metrics.encode();
    assert!(
        metrics.contains(&format!("kernel=\"{kernel}\"")),
        "{metrics}"
    );
    assert!(!metrics.contains("made-up"));
}
