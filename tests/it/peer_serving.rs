//! The API for other servers, as it answers: who may, what is in the index of a tier, states and differences, payloads,
//! reports.

use crate::support::PASSWORD;
use crate::support::kmod;
use crate::support::server::TestServer;
use jiff::Timestamp;
use livepatch_onprem::domain::{PublicKey, Sha256};
use livepatch_onprem::index::{State, accept};
use livepatch_onprem::service::peer::keys;
use livepatch_onprem::wire::sync::{DIFFERENCE, Head, Record, SignedHead, WHOLE};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

/// A new sync token for a tier.
pub(crate) async fn sync_token(server: &TestServer, name: &str, tier: &str) -> String {
    let made = server
        .admin("POST", "sync-tokens", json!({ "name": name, "tier": tier }))
        .await;
    made["token"].as_str().unwrap().to_owned()
}

async fn ask(server: &TestServer, token: &str, path: &str) -> Response {
    server
        .http
        .get(format!("{}/v1/sync/{path}", server.url))
        .bearer_auth(token)
        .send()
        .await
        .unwrap()
}

async fn head(server: &TestServer, token: &str) -> (SignedHead, Head) {
    let answer = ask(server, token, "head").await;
    assert_eq!(answer.status(), 200);
    let sealed: SignedHead = answer.json().await.unwrap();
    let key: Vec<PublicKey> = keys::signing(&server.core().db)
        .await
        .unwrap()
        .public()
        .unwrap();
    let head = accept(&sealed, &key, None, Timestamp::now()).unwrap();
    (sealed, head)
}

/// The state that a head names, whole.
async fn state(server: &TestServer, token: &str, head: &Head) -> State {
    let answer = ask(server, token, &format!("state?version={}", head.version)).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], WHOLE);
    let text = answer.text().await.unwrap();
    assert_eq!(Sha256::of(text.as_bytes()), head.digest);
    assert_eq!(text.len() as u64, head.bytes);
    let state = State::parse(&text).unwrap();
    assert_eq!(state.payloads().count() as u64, head.payloads);
    state
}

fn promotions(state: &State) -> Vec<(String, String)> {
    let pair = |record| match record {
        Record::Promotion(p) => Some((p.version.to_string(), p.tier.to_string())),
        _ => None,
    };
    state.records().filter_map(pair).collect()
}

fn names(state: &State) -> Vec<String> {
    state.payloads().map(|p| p.filename).collect()
}

async fn problem(answer: Response, status: u16) -> String {
    assert_eq!(answer.status().as_u16(), status);
    let body: Value = answer.json().await.unwrap();
    body["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_tier_is_shown_with_what_reached_it_and_as_a_difference() {
    let server = TestServer::with_two_patches().await;
    let edge = sync_token(&server, "all", "edge").await;
    let beta = sync_token(&server, "later", "beta").await;
    let (_, first) = head(&server, &edge).await;
    let all = state(&server, &edge, &first).await;
    let (old, new) = (kmod::bundle_name("106.1"), kmod::bundle_name("107.1"));
    assert_eq!(names(&all), [old.to_string(), new.to_string()]);
    assert_eq!(first.tier.as_str(), "edge");
    // Nothing has reached beta, but its tiers and the supported kernels are known there.
    let (_, empty) = head(&server, &beta).await;
    let none = state(&server, &beta, &empty).await;
    assert_eq!((names(&none).len(), empty.payloads), (0, 0));
    let tiers = |state: &State| -> Vec<(u32, String)> {
        let tier = |record| match record {
            Record::Tier(tier) => Some((tier.position, tier.name.to_string())),
            _ => None,
        };
        let mut tiers: Vec<_> = state.records().filter_map(tier).collect();
        tiers.sort();
        tiers
    };
    let names_of = |list: &[&str]| -> Vec<(u32, String)> {
        (0..).zip(list.iter().map(ToString::to_string)).collect()
    };
    assert_eq!(tiers(&none), names_of(&["beta", "candidate", "stable"]));
    assert_eq!(
        tiers(&all),
        names_of(&["edge", "beta", "candidate", "stable"])
    );
    assert!(all.records().any(|r| matches!(r, Record::Kernel(_))));

    // A promotion and a block with its reason.
    let body = json!({ "tier": "candidate" });
    server.admin("POST", "patches/106.1/promote", body).await;
    let body = json!({ "reason": "hangs" });
    server.admin("POST", "patches/106.1/block", body).await;
    let (_, later) = head(&server, &beta).await;
    assert!(later.version > empty.version);
    let now = state(&server, &beta, &later).await;
    assert_eq!(names(&now), [old.to_string()]);
    assert_eq!(
        promotions(&now),
        [("106.1".to_owned(), "candidate".to_owned())]
    );
    let block = |record| match record {
        Record::Block(block) => Some((block.version.to_string(), block.reason)),
        _ => None,
    };
    let blocks: Vec<_> = now.records().filter_map(block).collect();
    assert_eq!(blocks, [("106.1".to_owned(), "hangs".to_owned())]);

    // The difference leads from the one to the other; an unknown version gets the whole.
    let path = |since: u64| format!("state?version={}&since={since}", later.version);
    let answer = ask(&server, &beta, &path(empty.version)).await;
    assert_eq!(answer.headers()["content-type"], DIFFERENCE);
    let difference = answer.text().await.unwrap();
    assert_eq!(none.apply(&difference).unwrap(), now);
    for unknown in [0, later.version + 1] {
        let answer = ask(&server, &beta, &path(unknown)).await;
        assert_eq!(answer.headers()["content-type"], WHOLE);
        assert_eq!(answer.text().await.unwrap(), now.text());
    }
    // A version that is not kept has to be asked for by a new head.
    for (wrong, status) in [("version=1", 409), ("version=-1", 400), ("", 400)] {
        let answer = ask(&server, &beta, &format!("state?{wrong}")).await;
        problem(answer, status).await;
    }
    // Another replica makes the same of the same version.
    let beside = server.beside(|_| {}).await;
    let (_, same) = head(&beside, &beta).await;
    assert_eq!(
        (same.version, same.digest, same.deployment),
        (later.version, later.digest, later.deployment)
    );
}

#[tokio::test]
async fn heads_carry_a_tag_and_are_signed_for_a_time() {
    let server = TestServer::with(|config| {
        config.patch_sync.index_lifetime = std::time::Duration::from_hours(2);
    })
    .await;
    let token = sync_token(&server, "one", "edge").await;
    let answer = ask(&server, &token, "head").await;
    let tag = answer.headers()["etag"].to_str().unwrap().to_owned();
    let again = server
        .http
        .get(format!("{}/v1/sync/head", server.url))
        .bearer_auth(&token)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let (sealed, head) = head(&server, &token).await;
    assert_eq!(head.expires_at.duration_since(head.issued_at).as_hours(), 2);
    // Only the text that was signed counts.
    let mut altered = sealed.clone();
    altered.signed = altered.signed.replace("edge", "beta");
    let refused = accept(&altered, &head.keys, None, Timestamp::now()).unwrap_err();
    assert_eq!(refused.code(), "altered");
}

#[tokio::test]
async fn payloads_of_the_tier_come_whole_and_in_parts() {
    let server = TestServer::with_two_patches().await;
    let edge = sync_token(&server, "all", "edge").await;
    let beta = sync_token(&server, "later", "beta").await;
    let file = kmod::real_bundle("107.1", "patched");
    let content = std::fs::read(&file).unwrap();
    let path = format!("payloads/{}", file.file_name().unwrap().to_str().unwrap());
    let answer = ask(&server, &edge, &path).await;
    assert_eq!(answer.status(), 200);
    let tag = answer.headers()["etag"].clone();
    assert_eq!(tag, format!("\"{}\"", Sha256::of(&content)).as_str());
    assert_eq!(answer.bytes().await.unwrap(), content);
    let part = server
        .http
        .get(format!("{}/v1/sync/{path}", server.url))
        .bearer_auth(&edge)
        .header("range", "bytes=1000-")
        .header("if-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), content[1000..]);
    // What has not reached the tier is not there, for its token.
    let told = problem(ask(&server, &beta, &path).await, 404).await;
    assert!(told.contains("tier of this token"), "{told}");
    problem(ask(&server, &edge, "payloads/nothing").await, 404).await;
    // Blocked is not gone: the index says that it is blocked, and who lifts the block wants to have it.
    server
        .admin("POST", "patches/107.1/block", json!({ "reason": "x" }))
        .await;
    assert_eq!(ask(&server, &edge, &path).await.status(), 200);
}

#[tokio::test]
async fn damage_here_is_no_withdrawal_below() {
    let server = TestServer::with_two_patches().await;
    let token = sync_token(&server, "all", "edge").await;
    let (_, before) = head(&server, &token).await;
    let name = kmod::bundle_name("107.1").to_string();
    let rows = server.db.raw().await;
    let sql = "update payloads set damaged = 'flipped' where filename = $1";
    rows.execute(sql, &[&name]).await.unwrap();
    server
        .core()
        .snapshots
        .reload(None, i64::MAX)
        .await
        .unwrap();
    let (_, after) = head(&server, &token).await;
    assert_eq!(after.digest, before.digest);
    let answer = ask(&server, &token, &format!("payloads/{name}")).await;
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn only_living_sync_tokens_are_let_in() {
    let server = TestServer::start().await;
    let token = sync_token(&server, "one", "edge").await;
    let auth_token = server.token("machines", "edge").await;
    let bare = server.http.get(format!("{}/v1/sync/head", server.url));
    let told = problem(bare.send().await.unwrap(), 401).await;
    assert!(told.contains("lpy_"), "{told}");
    for (wrong, why) in [
        (
            "lpy_gggggggggggggggggggggggggggggggggggggggggggg",
            "not known",
        ),
        (auth_token.as_str(), "not known"),
    ] {
        for path in ["head", "state?version=1", "payloads/x"] {
            let told = problem(ask(&server, wrong, path).await, 401).await;
            assert!(told.contains(why), "{path}: {told}");
        }
    }
    assert_eq!(ask(&server, &token, "head").await.status(), 200);
    let listed = server.admin("GET", "sync-tokens", Value::Null).await;
    let item = &listed["items"][0];
    assert!(item["last-used"].is_string(), "{item}");
    // It expires by itself after 90 days.
    let until: Timestamp = item["valid-until"].as_str().unwrap().parse().unwrap();
    let made: Timestamp = item["created-at"].as_str().unwrap().parse().unwrap();
    assert_eq!((until.duration_since(made).as_hours() + 1) / 24, 90);
    let rows = server.db.raw().await;
    let past = "update sync_tokens set valid_until = now() - interval '1 second'";
    rows.execute(past, &[]).await.unwrap();
    let reload = || server.core().snapshots.reload(None, i64::MAX);
    reload().await.unwrap();
    let told = problem(ask(&server, &token, "head").await, 401).await;
    assert!(told.contains("expired"), "{told}");
    let unlimited = server
        .admin(
            "POST",
            "sync-tokens",
            json!({ "name": "two", "tier": "edge", "no-expiry": true }),
        )
        .await;
    assert!(unlimited.get("valid-until").is_none());
    let second = unlimited["token"].as_str().unwrap();
    assert_eq!(ask(&server, second, "head").await.status(), 200);
    server.admin("DELETE", "sync-tokens/two", Value::Null).await;
    let told = problem(ask(&server, second, "head").await, 401).await;
    assert!(told.contains("revoked"), "{told}");
    // Neither the table nor the log holds a token.
    let sql = "select count(*) from (select t::text as line from sync_tokens t union all select a::text from audit_log a) l
        where line like '%lpy_%'";
    let held: i64 = rows.query_one(sql, &[]).await.unwrap().get(0);
    assert_eq!(held, 0);
}

#[tokio::test]
async fn reports_are_kept_and_listed() {
    let server = TestServer::start().await;
    let token = sync_token(&server, "berlin", "edge").await;
    let tell = |report: Value| {
        server
            .http
            .post(format!("{}/v1/sync/report", server.url))
            .bearer_auth(&token)
            .json(&report)
            .send()
    };
    let report = json!({ "deployment": "site-7", "machines": "100-499" });
    assert_eq!(tell(report).await.unwrap().status(), 204);
    let machine =
        json!({ "machine": Sha256([7; 32]), "tier": "edge", "state": "applied", "patch": "107.1" });
    let report = json!({ "deployment": "site-7", "machines": "123", "machine-reports": [machine] });
    assert_eq!(tell(report).await.unwrap().status(), 204);
    let peers = server.admin("GET", "sync-peers", Value::Null).await;
    let items = peers["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    let seen = &items[0];
    assert_eq!(
        (
            &seen["deployment"],
            &seen["via"],
            &seen["machines"],
            &seen["machine-reports"]
        ),
        (&json!("site-7"), &json!("berlin"), &json!("123"), &json!(1))
    );
    for (wrong, status) in [
        (json!({ "deployment": "", "machines": "1" }), 400),
        (json!({ "deployment": "a\nb", "machines": "1" }), 400),
        (json!({ "deployment": "a", "machines": "many" }), 400),
        (json!({ "deployment": "a" }), 422),
        (json!([]), 422),
    ] {
        problem(tell(wrong).await.unwrap(), status).await;
    }
}

#[tokio::test]
async fn a_tier_that_is_pulled_is_not_deleted_unnoticed() {
    let server = TestServer::start().await;
    sync_token(&server, "berlin", "beta").await;
    let answer = server
        .http
        .delete(format!("{}/v1/admin/tiers/beta", server.url))
        .basic_auth("admin", Some(PASSWORD))
        .send()
        .await
        .unwrap();
    let told = problem(answer, 409).await;
    assert!(told.contains("1 sync tokens"), "{told}");
    server
        .admin("DELETE", "tiers/beta?move-to=stable", Value::Null)
        .await;
    let listed = server.admin("GET", "sync-tokens", Value::Null).await;
    assert_eq!(listed["items"][0]["tier"], "stable");
}
