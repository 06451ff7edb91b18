//! Capture mode: only what was asked for, only so long and so many, and no secret in it.

use crate::support::admin::{Answer, TestAdmin};
use axum::http::HeaderMap;
use livepatch_onprem::domain::{MachineId, Role};
use livepatch_onprem::service::captures::{Captures, Exchange, record};
use serde_json::{Value, json};
use std::net::IpAddr;

const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn machine() -> MachineId {
    MACHINE.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn start(test: &TestAdmin, body: Value) -> Answer {
    test.ask(Role::Operator, "POST", "/captures", Some(body))
        .await
}

#[tokio::test]
async fn only_what_was_asked_for_is_wanted() {
    let test = TestAdmin::new().await;
    let captures = &test.core.captures;
    let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
    assert_eq!(captures.wanted(Some(&machine()), here), None);
    let both = json!({ "machine-id": MACHINE, "address": "192.0.2.1", "for": 60 });
    let id = start(&test, both).await.expect(201).body["id"]
        .as_i64()
        .unwrap();
    assert_eq!(captures.wanted(Some(&machine()), here), Some(id));
    assert_eq!(
        captures.wanted(Some(&machine()), address("::ffff:192.0.2.1")),
        Some(id)
    );
    assert_eq!(captures.wanted(Some(&machine()), there), None);
    assert_eq!(captures.wanted(None, here), None);
    assert_eq!(captures.wanted(Some(&MachineId([1; 16])), here), None);
    let second = start(&test, json!({ "address": "192.0.2.2", "for": 60 }))
        .await
        .expect(201);
    let second = second.body["id"].as_i64().unwrap();
    assert_eq!(captures.wanted(None, there), Some(second));
    // Another replica that reads them sees the same.
    let other = Captures::load(&test.core.db).await.unwrap();
    assert_eq!(other.wanted(None, there), Some(second));
    test.delete(&format!("/captures/{second}"))
        .await
        .expect(204);
    assert_eq!(captures.wanted(None, there), None);
    // Time is looked at with every request.
    let rows = test.db.raw().await;
    rows.execute(
        "update captures set until = now() + interval '20 milliseconds'",
        &[],
    )
    .await
    .unwrap();
    captures.reload(&test.core.db).await.unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while captures.wanted(Some(&machine()), here).is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let listed = test.get("/captures").await.expect(200).body;
    assert_eq!(listed["items"][0]["active"], false);
}

#[tokio::test]
async fn a_capture_holds_requests_without_their_secrets() {
    let test = TestAdmin::new().await;
    let id = start(
        &test,
        json!({ "machine-id": MACHINE, "for": 3600, "max-records": 2 }),
    )
    .await
    .expect(201)
    .body["id"]
        .as_i64()
        .unwrap();
    let canary = "canary-4711-secret";
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {canary}").parse().unwrap());
    headers.insert("cookie", format!("a={canary}").parse().unwrap());
    headers.insert("user-agent", "canonical-livepatch/10.8.1".parse().unwrap());
    let body = format!(
        r#"{{"Machine-Token":"{canary}","Status":[{{"Kernel":"5.15.0-107.117-generic","auth_token":"{canary}"}}]}}"#
    );
    let answer = format!(r#"{{"machine-token":"{canary}","tier":"stable"}}"#);
    let exchange = Exchange {
        method: "POST",
        path: &format!("/v1/client/{MACHINE}?token={canary}"),
        headers: &headers,
        body: body.as_bytes(),
        answer: Some((200, answer.as_bytes())),
    };
    assert_eq!(
        test.core
            .captures
            .wanted(Some(&machine()), address("192.0.2.1")),
        Some(id)
    );
    record(&test.core, id, &exchange).await.unwrap();
    record(&test.core, id, &exchange).await.unwrap();
    // It is full: nothing more is wanted, and nothing more is taken.
    assert_eq!(
        test.core
            .captures
            .wanted(Some(&machine()), address("192.0.2.1")),
        None
    );
    record(&test.core, id, &exchange).await.unwrap();

    let shown = test.get(&format!("/captures/{id}")).await.expect(200).body;
    assert_eq!(
        (&shown["capture"]["records"], &shown["capture"]["active"]),
        (&json!(2), &json!(false))
    );
    let records = shown["records"].as_array().unwrap();
    assert_eq!(records.len(), 2);
    assert_eq!(
        records[0]["record"],
        json!({
            "method": "POST",
            "path": format!("/v1/client/{MACHINE}?token=[masked]"),
            "headers": [["authorization", "Bearer [masked]"], ["cookie", "[masked]"], ["user-agent", "canonical-livepatch/10.8.1"]],
            "body": { "Machine-Token": "[masked]", "Status": [{ "Kernel": "5.15.0-107.117-generic", "auth_token": "[masked]" }] },
            "answer": { "status": 200, "body": { "machine-token": "[masked]", "tier": "stable" } },
        })
    );
    let rows = test.db.raw().await;
    let stored: String = rows
        .query_one("select string_agg(record, '') from capture_records", &[])
        .await
        .unwrap()
        .get(0);
    assert!(!stored.contains(canary));

    test.delete(&format!("/captures/{id}")).await.expect(204);
    test.get(&format!("/captures/{id}")).await.expect(404);
    test.delete(&format!("/captures/{id}")).await.expect(404);
    // A request that was on its way is dropped.
    record(&test.core, id, &exchange).await.unwrap();
    let left: i64 = rows
        .query_one("select count(*) from capture_records", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_bound_holds_for_requests_at_once() {
    let test = TestAdmin::new().await;
    let id = start(
        &test,
        json!({ "address": "192.0.2.1", "for": 60, "max-records": 5 }),
    )
    .await
    .expect(201)
    .body["id"]
        .as_i64()
        .unwrap();
    let headers = HeaderMap::new();
    let exchange = Exchange {
        method: "GET",
        path: "/",
        headers: &headers,
        body: b"",
        answer: None,
    };
    let all = (0..20).map(|_| record(&test.core, id, &exchange));
    for done in futures_util::future::join_all(all).await {
        done.unwrap();
    }
    let shown = test.get(&format!("/captures/{id}")).await.expect(200).body;
    assert_eq!(shown["records"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn captures_are_bounded_and_cleaned_up() {
    let test = TestAdmin::new().await;
    for (body, word) in [
        (json!({ "for": 60 }), "machine-id"),
        (json!({ "address": "192.0.2.1", "for": 0 }), "24 hours"),
        (json!({ "address": "192.0.2.1", "for": 86_401 }), "24 hours"),
        (
            json!({ "address": "192.0.2.1", "for": 60, "max-records": 0 }),
            "max-records",
        ),
        (
            json!({ "address": "192.0.2.1", "for": 60, "max-records": 501 }),
            "max-records",
        ),
    ] {
        let answer = start(&test, body).await.expect(400);
        assert!(answer.detail().contains(word), "{}", answer.detail());
    }
    start(&test, json!({ "address": "nowhere", "for": 60 }))
        .await
        .expect(422);
    for n in 1..=20 {
        start(
            &test,
            json!({ "address": format!("192.0.2.{n}"), "for": 60 }),
        )
        .await
        .expect(201);
    }
    let answer = start(&test, json!({ "address": "192.0.2.99", "for": 60 }))
        .await
        .expect(409);
    assert!(
        answer.detail().contains("20 captures"),
        "{}",
        answer.detail()
    );
    let page = test.get("/captures?limit=15").await.expect(200).body;
    let cursor = page["next-cursor"].as_str().unwrap();
    let rest = test
        .get(&format!("/captures?limit=15&cursor={cursor}"))
        .await
        .expect(200)
        .body;
    assert_eq!(rest["items"].as_array().unwrap().len(), 5);
    // What ended more than a week ago goes when the next one starts.
    let rows = test.db.raw().await;
    rows.execute(
        "update captures set until = now() - interval '8 days' where id <= 3",
        &[],
    )
    .await
    .unwrap();
    start(&test, json!({ "address": "192.0.2.99", "for": 60 }))
        .await
        .expect(201);
    let left: i64 = rows
        .query_one("select count(*) from captures", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 18);
}
