//! Whole runs from another server: through a front that lies, and down a chain of three.

use crate::peer_serving::sync_token;
use crate::support::PASSWORD;
use crate::support::front::{Asked, Do, Front, Got};
use crate::support::kmod;
use crate::support::process::comes;
use crate::support::server::{Machine, TestServer};
use crate::sync::{ended, triggered};
use livepatch_onprem::config::{Config, MachineCount, SyncDriver};
use livepatch_onprem::domain::Secret;
use serde_json::{Value, json};
use std::time::Duration;

/// Pulls from this address with this token.
fn from(url: &str, token: String) -> impl Fn(&mut Config) + use<> {
    let url = url.to_owned();
    move |config| {
        let sync = &mut config.patch_sync;
        sync.enabled = true;
        sync.driver = SyncDriver::Peer;
        sync.upstream_url.clone_from(&url);
        sync.token = Secret::new(&token);
        sync.flavours = Vec::new();
        sync.stall_timeout = Duration::from_secs(10);
        // Only when a test asks.
        sync.interval = Duration::from_hours(1000);
    }
}

async fn versions(server: &TestServer) -> Vec<String> {
    let page = server.admin("GET", "patches", Value::Null).await;
    let items = page["items"].as_array().unwrap();
    let version = |patch: &Value| patch["version"].as_str().unwrap().to_owned();
    items.iter().map(version).collect()
}

/// The report of the run at the start, once it has ended.
async fn first_run(server: &TestServer) -> Value {
    let id = comes("the first run", async || {
        let page = server.admin("GET", "sync/reports", Value::Null).await;
        let last = page["items"].as_array().unwrap().last();
        last.map(|run| run["id"].as_i64().unwrap())
            .ok_or("none began")
    });
    ended(server, id.await).await
}

/// A run that must come to its end.
async fn done(server: &TestServer) -> Value {
    let report = triggered(server).await;
    assert_eq!(report["run"]["state"], "done", "{report:#}");
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_half_is_seen_and_the_next_run_completes() {
    let top = TestServer::with_two_patches().await;
    let front = Front::before(&top.url).await;
    let token = sync_token(&top, "below", "edge").await;
    // From the first look on, one of the two payloads comes altered.
    let bad = kmod::bundle_name("107.1").to_string();
    let altered = bad.clone();
    front.set(move |asked: &Asked| {
        if asked.path.ends_with(&altered) {
            Do::alter(|got: &mut Got| got.body[50] ^= 1)
        } else {
            Do::Pass
        }
    });
    let below = TestServer::with(|config| {
        from(&front.url, token)(config);
        config.patch_sync.machine_count = MachineCount::Unit;
        config.patch_sync.send_machine_reports = true;
        config.patch_sync.id = "site-7".to_owned();
    })
    .await;
    let first = first_run(&below).await;
    assert_eq!(first["run"]["state"], "failed", "{first:#}");
    let text = first.to_string();
    assert!(text.contains("SHA-256") && text.contains(&bad), "{first:#}");
    assert!(versions(&below).await.is_empty());
    let peers = top.admin("GET", "sync-peers", Value::Null).await;
    assert_eq!(peers["items"], json!([]));

    // Cut again and again, it comes all the same; what was whole is not asked for again.
    let machine = Machine::register(&below, 1, &below.token("edge", "edge").await).await;
    let cut = bad.clone();
    front.set(move |asked| {
        if asked.path.ends_with(&cut) && asked.nth < 3 {
            Do::Cut(700)
        } else {
            Do::Pass
        }
    });
    let second = done(&below).await;
    assert_eq!(second["outcome"]["resumed"], 1, "{second:#}");
    assert_eq!(versions(&below).await, ["107.1", "106.1"]);
    let good = kmod::bundle_name("106.1").to_string();
    let asked = front.asked();
    assert!(!asked.iter().any(|a| a.path.ends_with(&good)), "{asked:?}");
    assert_eq!(machine.offered(&below, None).await, "107.1");

    // Nothing new: one look, and a report up with the machine, whose id nobody can read there.
    front.set(|_| Do::Pass);
    let third = done(&below).await;
    assert_eq!(third["outcome"]["fetched"], 0, "{third:#}");
    // Reports follow the ends of runs, also that of the run before.
    let mut paths: Vec<String> = front.asked().into_iter().map(|a| a.path).collect();
    paths.retain(|path| path != "/v1/sync/report");
    assert_eq!(paths, ["/v1/sync/head"]);
    // The report follows the end of the run.
    let seen = comes("a report of the machine", async || {
        let peers = top.admin("GET", "sync-peers", Value::Null).await;
        let seen = &peers["items"][0];
        let has_come = seen["machines"] == "1" && seen["machine-reports"] == 1;
        has_come.then(|| seen.clone()).ok_or(peers)
    })
    .await;
    assert_eq!(
        (&seen["deployment"], &seen["via"]),
        (&json!("site-7"), &json!("below"))
    );
    let rows = top.db.raw().await;
    let sql = "select report from deployments";
    let kept: String = rows.query_one(sql, &[]).await.unwrap().get(0);
    assert!(kept.contains("\"machine\":") && !kept.contains(&machine.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_shown_with_their_reason_and_change_nothing() {
    let top = TestServer::with_two_patches().await;
    let front = Front::before(&top.url).await;
    let token = sync_token(&top, "below", "edge").await;
    let below = TestServer::with(from(&front.url, token.clone())).await;
    let first = first_run(&below).await;
    assert_eq!(first["run"]["state"], "done", "{first:#}");
    let url = format!("{}/v1/sync/head", top.url);
    let old = top.http.get(&url).bearer_auth(&token).send().await.unwrap();
    let old = old.bytes().await.unwrap().to_vec();
    top.admin("POST", "patches/107.1/promote", json!({ "tier": "beta" }))
        .await;
    done(&below).await;
    let before = versions(&below).await;
    let refused = async |code: &str, rule: Do| {
        front.set(move |asked| {
            if asked.is_head() {
                rule.clone()
            } else {
                Do::Pass
            }
        });
        let report = triggered(&below).await;
        assert_eq!(report["run"]["state"], "failed", "{report:#}");
        assert_eq!(report["run"]["code"], code, "{report:#}");
        assert_eq!(versions(&below).await, before);
    };
    refused("rollback", Do::Instead(Got::new(200, old))).await;
    let flip = Do::alter(|got| {
        let text = String::from_utf8(got.body.clone()).unwrap();
        got.body = text
            .replace("\\\"tier\\\":\\\"edge", "\\\"tier\\\":\\\"beta")
            .into_bytes();
    });
    refused("altered", flip).await;
    let mut elsewhere = Got::new(302, "");
    let location = ("location".to_owned(), "http://127.0.0.1:1/".to_owned());
    elsewhere.headers.push(location);
    refused("nonsense", Do::Instead(elsewhere)).await;
    refused("denied", Do::Instead(Got::new(401, "gone"))).await;
    let status = below.admin("GET", "sync/status", Value::Null).await;
    assert!(status.to_string().contains("denied"), "{status:#}");
    front.set(|_| Do::Pass);
    done(&below).await;
}

/// Confirms what waits, and waits for the run that follows.
async fn confirmed(server: &TestServer) {
    let status = server.admin("GET", "sync/status", Value::Null).await;
    let digest = status["pending"]["digest"].clone();
    assert!(digest.is_string(), "{status:#}");
    let body = json!({ "digest": digest });
    server.admin("POST", "sync/confirm", body).await;
    let report = triggered(server).await;
    assert_eq!(report["run"]["state"], "done", "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_at_the_top_reaches_the_bottom_of_a_chain() {
    let top = TestServer::with_two_patches().await;
    let token = sync_token(&top, "middle", "edge").await;
    let middle = TestServer::with(|config| {
        from(&top.url, token)(config);
        config.patch_sync.sync_tiers = true;
    })
    .await;
    // Taking tiers over is shown to a person first.
    let first = first_run(&middle).await;
    assert_eq!(first["run"]["state"], "waiting", "{first:#}");
    confirmed(&middle).await;
    // The middle one hands on only what is in stable.
    let token = sync_token(&middle, "bottom", "stable").await;
    let bottom = TestServer::with(from(&middle.url, token)).await;
    let first = first_run(&bottom).await;
    assert_eq!(first["run"]["state"], "done", "{first:#}");
    assert!(versions(&bottom).await.is_empty());
    let auth = bottom.token("machines", "edge").await;
    let machine = Machine::register(&bottom, 1, &auth).await;
    assert_eq!(machine.offered(&bottom, None).await, "");

    top.admin("POST", "patches/107.1/promote", json!({ "tier": "stable" }))
        .await;
    done(&middle).await;
    let standing = middle.admin("GET", "patches/107.1", Value::Null).await;
    assert!(standing.to_string().contains("stable"), "{standing:#}");
    done(&bottom).await;
    assert_eq!(versions(&bottom).await, ["107.1"]);
    assert_eq!(machine.offered(&bottom, None).await, "107.1");
    // Who takes tiers over does not promote by hand.
    let by_hand = middle
        .http
        .post(format!("{}/v1/admin/patches/106.1/promote", middle.url))
        .basic_auth("admin", Some(PASSWORD))
        .json(&json!({ "tier": "beta" }))
        .send()
        .await
        .unwrap();
    assert_eq!(by_hand.status(), 409);

    // What is withdrawn at the top is not offered at the bottom any more.
    let why = json!({ "reason": "hangs on some machines" });
    top.admin("POST", "patches/107.1/block", why).await;
    done(&middle).await;
    done(&bottom).await;
    assert_eq!(machine.offered(&bottom, None).await, "");
    let standing = bottom.admin("GET", "patches/107.1", Value::Null).await;
    assert!(
        standing.to_string().contains("hangs on some"),
        "{standing:#}"
    );
    top.admin("POST", "patches/107.1/unblock", json!({})).await;
    done(&middle).await;
    done(&bottom).await;
    assert_eq!(machine.offered(&bottom, None).await, "107.1");
}
