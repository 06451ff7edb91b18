//! The audit log: filters and pages; whatever is changed behind its back is found.

use crate::support::admin::TestAdmin;
use livepatch_onprem::db::audit::{Actor, Entry, append};
use livepatch_onprem::db::listen::Change;
use serde_json::{Value, json};

/// `n` entries: every third by `bob`, actions of tiers and patches in turns.
async fn entries(test: &TestAdmin, n: usize) {
    let mut conn = test.core.db.conn().await.unwrap();
    for number in 1..=n {
        let tx = conn.begin().await.unwrap();
        let actor = Actor {
            name: if number % 3 == 0 { "bob" } else { "alice" }.into(),
            source: "192.0.2.1".into(),
        };
        let entry = Entry {
            actor: &actor,
            action: if number % 2 == 0 {
                "tier.create"
            } else {
                "patch.promote"
            },
            target: &format!("t{}", number % 5),
            details: json!({ "n": number }),
        };
        append(&tx, entry, Change::Nothing).await.unwrap();
        tx.commit().await.unwrap();
    }
}

fn numbers(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|entry| entry["seq"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn entries_are_listed_newest_first_with_filters() {
    let test = TestAdmin::new().await;
    entries(&test, 12).await;
    let list = async |query: &str| test.get(&format!("/audit?{query}")).await.expect(200).body;
    assert_eq!(numbers(&list("").await), (1..=12).rev().collect::<Vec<_>>());
    assert_eq!(numbers(&list("actor=bob").await), [12, 9, 6, 3]);
    assert_eq!(numbers(&list("action=patch").await), [11, 9, 7, 5, 3, 1]);
    assert_eq!(
        numbers(&list("action=patch.promote&actor=bob").await),
        [9, 3]
    );
    assert_eq!(numbers(&list("action=pat").await), [0; 0]);
    assert_eq!(numbers(&list("target=t4").await), [9, 4]);
    assert_eq!(numbers(&list("until=2001-01-01T00:00:00Z").await), [0; 0]);
    assert_eq!(
        numbers(&list("since=2001-01-01T00:00:00Z&limit=1").await),
        [12]
    );
    let first = list("limit=5").await;
    let second = list(&format!(
        "limit=5&cursor={}",
        first["next-cursor"].as_str().unwrap()
    ))
    .await;
    assert_eq!(numbers(&second), [7, 6, 5, 4, 3]);
    let entry = &first["items"][0];
    assert_eq!(entry["details"], r#"{"n":12}"#);
    assert_eq!(entry["prev-hash"], first["items"][1]["hash"]);
}

#[tokio::test]
async fn a_whole_chain_verifies_in_steps() {
    let test = TestAdmin::new().await;
    let verdict = test.get("/audit/verify").await.expect(200).body;
    assert_eq!(
        verdict,
        json!({ "ok": true, "entries": 0, "head": "0".repeat(64) })
    );
    // More than are read at once.
    entries(&test, 2_001).await;
    let verdict = test.get("/audit/verify").await.expect(200).body;
    assert_eq!(
        (&verdict["ok"], &verdict["entries"]),
        (&json!(true), &json!(2_001))
    );
    let last = test.get("/audit?limit=1").await.expect(200).body;
    assert_eq!(verdict["head"], last["items"][0]["hash"]);
}

#[tokio::test]
async fn whatever_is_changed_behind_its_back_is_found() {
    let test = TestAdmin::new().await;
    entries(&test, 10).await;
    let rows = test.db.raw().await;
    rows.batch_execute("create table kept as select * from audit_log; create table kept_head as select * from audit_head")
        .await
        .unwrap();
    for (change, broken_at, word) in [
        (
            "update audit_log set actor = 'mallory' where seq = 4",
            4,
            "altered",
        ),
        (
            "update audit_log set source = '' where seq = 4",
            4,
            "altered",
        ),
        (
            "update audit_log set at = at + interval '1 microsecond' where seq = 10",
            10,
            "altered",
        ),
        (
            "update audit_log set details = '{\"n\": 1}' where seq = 1",
            1,
            "altered",
        ),
        // Text moved from one field to the next.
        (
            "update audit_log set actor = actor || 'x', source = substr(source, 2) where seq = 2",
            2,
            "altered",
        ),
        ("delete from audit_log where seq = 5", 5, "missing"),
        ("delete from audit_log where seq = 1", 1, "missing"),
        ("delete from audit_log where seq = 10", 10, "head"),
        ("delete from audit_log where seq > 3", 4, "head"),
        ("delete from audit_log", 1, "head"),
        ("update audit_head set seq = 9", 10, "head"),
        ("update audit_head set hash = sha256('x')", 11, "head"),
        (
            "insert into audit_log select 0, at, actor, source, action, target, details, prev_hash, hash from audit_log where seq = 1",
            1,
            "missing",
        ),
        (
            "insert into audit_log select 11, at, actor, source, action, target, details, prev_hash, hash from audit_log where seq = 10",
            11,
            "follow",
        ),
        (
            "update audit_log set hash = sha256('x') where seq = 6",
            6,
            "altered",
        ),
        (
            "update audit_log set hash = 'short' where seq = 6",
            6,
            "altered",
        ),
        (
            "update audit_log set prev_hash = sha256('x') where seq = 1",
            1,
            "begin",
        ),
        // Two entries exchanged.
        (
            "update audit_log set seq = -1 where seq = 3; update audit_log set seq = 3 where seq = 4; update audit_log set seq = 4 where seq = -1",
            3,
            "follow",
        ),
    ] {
        rows.batch_execute(change).await.unwrap();
        let verdict = test.get("/audit/verify").await.expect(200).body;
        assert_eq!(
            (&verdict["ok"], &verdict["broken-at"]),
            (&json!(false), &json!(broken_at)),
            "{change}: {verdict}"
        );
        let why = verdict["why"].as_str().unwrap();
        assert!(why.contains(word), "{change}: {why}");
        // The list stays usable, or says what is wrong.
        let listed = test.get("/audit").await;
        assert!(
            matches!(listed.status.as_u16(), 200 | 409),
            "{change}: {}",
            listed.body
        );
        rows.batch_execute(
            "truncate audit_log; insert into audit_log select * from kept; update audit_head h set seq = k.seq, hash = k.hash from kept_head k",
        )
        .await
        .unwrap();
        let verdict = test.get("/audit/verify").await.expect(200).body;
        assert_eq!(verdict["ok"], true);
    }
}
