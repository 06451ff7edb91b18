//! Events for webhooks: written with what happened, for those that want them, or not at all.

use crate::support::admin::TestAdmin;
use crate::support::intake::{content, file_name, trusting};
use crate::support::kmod;
use livepatch_onprem::db::{outbox, sync};
use livepatch_onprem::domain::EventKind;
use livepatch_onprem::wire::event::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::Path;

/// A server with a patch, and webhooks that want: everything, patches, quarantine; and one that is switched off.
async fn stocked() -> TestAdmin {
    let test = TestAdmin::new().await;
    test.plant_payloads(&[
        "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
        "livepatch-5.15.0-107.117-generic-108.1-amd64.tar.bz2",
    ])
    .await;
    let rows = test.db.raw().await;
    rows.batch_execute(
        "insert into webhooks (name, url, secret, events, created_by, disabled_at) values
            ('all', 'https://hooks.example/a', 'whsec_QUFB', '{}', 'admin', null),
            ('patches', 'https://hooks.example/b', 'whsec_QUFB', '{patch.*}', 'admin', null),
            ('quarantine', 'https://hooks.example/c', 'whsec_QUFB', '{payload.quarantined}', 'admin', null),
            ('off', 'https://hooks.example/d', 'whsec_QUFB', '{}', 'admin', now())",
    )
    .await
    .unwrap();
    test
}

/// What was written: for whom, and the events, in their order.
async fn written(test: &TestAdmin) -> Vec<(String, Value)> {
    let rows = test.db.raw().await;
    let rows = rows
        .query(
            "select w.name, o.kind, o.body from deliveries d join webhooks w on w.id = d.webhook_id
                join outbox o on o.id = d.event_id where d.state = 'pending' and d.attempts = 0 order by d.id",
            &[],
        )
        .await
        .unwrap();
    let read = |row: &tokio_postgres::Row| {
        let body: Value = serde_json::from_str(row.get(2)).unwrap();
        assert_eq!(body["type"], row.get::<_, &str>(1));
        let at: jiff::Timestamp = body["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(at).as_secs().abs() < 60);
        (row.get(0), body)
    };
    rows.iter().map(read).collect()
}

async fn count(test: &TestAdmin, table: &str) -> i64 {
    let rows = test.db.raw().await;
    let sql = format!("select count(*) from {table}");
    rows.query_one(&sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_is_done_to_a_patch_is_told_to_those_who_want_it() {
    let test = stocked().await;
    let scope = json!({"flavour": "generic"});
    let ask = json!({"tier": "beta", "scope": scope, "reason": "tested"});
    test.post("/patches/107.1/promote", ask.clone())
        .await
        .expect(200);
    let told = written(&test).await;
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["all", "patches"]);
    for (_, body) in &told {
        assert_eq!(body["type"], "patch.promoted");
        assert_eq!(
            body["data"],
            json!({"version": "107.1", "notice": "LSN-0107-1", "from": "edge", "tier": "beta",
                "scope": scope, "actor": "admin", "reason": "tested"})
        );
    }
    assert_eq!(count(&test, "outbox").await, 1);

    // What changes nothing is not told, nor is a look ahead.
    test.post("/patches/107.1/promote", ask).await.expect(200);
    let look = json!({"tier": "stable", "dry-run": true});
    test.post("/patches/107.1/promote", look).await.expect(200);
    assert_eq!(count(&test, "outbox").await, 1);

    let all = json!({"from": "edge", "to": "stable"});
    test.post("/promote-all", all).await.expect(200);
    for act in ["block", "block", "unblock", "hold", "resume"] {
        let ask = json!({"scope": {}, "reason": act});
        test.post(&format!("/patches/108.1/{act}"), ask)
            .await
            .expect(200);
    }
    let told = written(&test).await;
    let kinds: Vec<&str> = told
        .iter()
        .filter(|(name, _)| name == "patches")
        .map(|(_, body)| body["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "patch.promoted",
            "patch.promoted",
            "patch.promoted",
            "patch.promoted",
            "patch.blocked",
            "patch.unblocked",
            "patch.held",
            "patch.resumed"
        ],
        "{told:#?}"
    );
    let last = &told.last().unwrap().1["data"];
    assert_eq!(
        *last,
        json!({"version": "108.1", "notice": "LSN-0108-1", "actor": "admin", "reason": "resume"})
    );
}

#[tokio::test]
async fn what_did_not_commit_is_not_told() {
    let test = stocked().await;
    let rows = test.db.raw().await;
    // The transaction fails at its very end, after the event and the audit row.
    rows.batch_execute(
        "create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
         create constraint trigger refuse after insert on audit_log deferrable initially deferred
            for each row execute function refuse()",
    )
    .await
    .unwrap();
    let ask = json!({"tier": "beta"});
    let failed = test.post("/patches/107.1/promote", ask.clone()).await;
    assert_eq!(failed.status, 500);
    assert_eq!(count(&test, "outbox").await, 0);
    assert_eq!(count(&test, "deliveries").await, 0);
    rows.batch_execute("drop trigger refuse on audit_log")
        .await
        .unwrap();
    test.post("/patches/107.1/promote", ask).await.expect(200);
    assert_eq!(count(&test, "outbox").await, 1);
}

#[tokio::test]
async fn nobody_who_wants_it_no_event() {
    let test = stocked().await;
    let rows = test.db.raw().await;
    rows.batch_execute("delete from webhooks where name in ('all', 'patches')")
        .await
        .unwrap();
    let ask = json!({"tier": "beta"});
    test.post("/patches/107.1/promote", ask).await.expect(200);
    assert_eq!(count(&test, "outbox").await, 0);
}

/// A webhook that goes away while something happens does not get in its way.
#[tokio::test]
async fn a_webhook_that_is_being_removed_fails_nothing() {
    let test = stocked().await;
    let mut rows = test.db.raw().await;
    let removing = rows.transaction().await.unwrap();
    removing
        .batch_execute("delete from webhooks where name = 'all'")
        .await
        .unwrap();
    let promoting = test.post("/patches/107.1/promote", json!({"tier": "beta"}));
    let removed = async {
        // The promotion waits for it.
        let looking = test.db.raw().await;
        crate::support::process::until("the promotion waits", async || {
            let waiting = "select count(*) from pg_stat_activity
                where datname = current_database() and wait_event_type = 'Lock'";
            looking
                .query_one(waiting, &[])
                .await
                .unwrap()
                .get::<_, i64>(0)
                > 0
        })
        .await;
        removing.commit().await.unwrap();
    };
    let (promoted, ()) = tokio::join!(promoting, removed);
    promoted.expect(200);
    let told = written(&test).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "patches");
}

#[tokio::test]
async fn a_new_patch_and_a_refused_file_are_told() {
    let test = trusting().await;
    let rows = test.db.raw().await;
    rows.batch_execute(
        "insert into webhooks (name, url, secret, created_by) values ('all', 'https://hooks.example/', 'whsec_QUFB', 'admin')",
    )
    .await
    .unwrap();
    let name = "livepatch-5.15.0-107.117-generic-109.1-amd64.tar.bz2";
    for _ in 0..2 {
        let put = test.upload(name, b"no bundle".to_vec());
        assert_eq!(put.await.body["result"], "quarantined");
    }
    let good = kmod::real_bundle("107.1", "patched by 107.1");
    let put = test.upload(&file_name(&good), content(&good)).await;
    put.expect(201);
    let told = written(&test).await;
    assert_eq!(told.len(), 2, "the same file again is no news: {told:#?}");
    assert_eq!(told[1].1["type"], "patch.arrived");
    assert_eq!(
        told[1].1["data"],
        json!({"version": "107.1", "notice": "LSN-0107-1", "tier": "edge", "source": "upload", "actor": "operator"})
    );
    let data = &told[0].1["data"];
    assert_eq!(told[0].1["type"], "payload.quarantined");
    assert_eq!(
        (&data["filename"], &data["source"], &data["actor"]),
        (&json!(name), &json!("upload"), &json!("operator"))
    );
    assert!(data["reason"].as_str().unwrap().len() > 10, "{data}");
}

/// Every kind can be asked for by the statement that chooses who is told.
#[tokio::test]
async fn each_kind_and_each_group_chooses() {
    let test = TestAdmin::new().await;
    let mut conn = test.core.db.conn().await.unwrap();
    for kind in EventKind::ALL {
        for events in [kind.as_str().to_owned(), kind.group()] {
            let tx = conn.begin().await.unwrap();
            let rows = test.db.raw().await;
            rows.execute(
                "insert into webhooks (name, url, secret, events, created_by)
                    values ('one', 'https://hooks.example/', 'whsec_QUFB', array[$1], 'admin')",
                &[&events],
            )
            .await
            .unwrap();
            let told = outbox::emit(&tx, *kind, &json!({})).await;
            assert_eq!(told.unwrap(), 1, "{events}");
            drop(tx);
            rows.execute("delete from webhooks", &[]).await.unwrap();
        }
    }
    assert_eq!(count(&test, "outbox").await, 0);
}

/// A run of sync whose process died says so too, once somebody finds out, and one that could not begin.
#[tokio::test]
async fn a_run_of_sync_that_died_or_never_began_is_told() {
    let test = stocked().await;
    let rows = test.db.raw().await;
    rows.batch_execute(
        "insert into sync_runs (upstream, cause, actor, state) values ('peer https://up.example', 'trigger', 'anna', 'running')",
    )
    .await
    .unwrap();
    assert!(sync::free(&test.core.db, 0).await.unwrap());
    let row = rows
        .query_one(
            "insert into sync_runs (upstream, cause, actor) values ('peer https://up.example', 'interval', 'system') returning id",
            &[],
        )
        .await
        .unwrap();
    let mut conn = test.core.db.conn().await.unwrap();
    let tx = conn.begin().await.unwrap();
    sync::refuse(&tx, row.get(0), "the configuration is wrong")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let told: Vec<_> = written(&test).await;
    let told: Vec<&Value> = told.iter().map(|(_, body)| body).collect();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert_eq!(
        (&told[0]["type"], &told[0]["data"]["code"]),
        (&json!("sync.failed"), &json!("died"))
    );
    assert_eq!(told[0]["data"]["actor"], "anna");
    assert_eq!(
        (&told[1]["data"]["code"], &told[1]["data"]["error"]),
        (&json!("refused"), &json!("the configuration is wrong"))
    );
}

/// The text of the page that describes events to receivers.
fn page() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join("docs/reference/events.md")).unwrap()
}

/// The golden file is read as this type, comes out of it unchanged, and stands in the page.
fn frozen<T: Serialize + DeserializeOwned>(name: &str) {
    let path = format!(
        "{}/tests/fixtures/events/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).unwrap();
    let event: Event<T> = serde_json::from_str(&text).unwrap();
    assert_eq!(event.kind.as_str(), name);
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&event).unwrap(), file, "{name}");
    assert!(page().contains(&text), "{name} is not in the page as it is");
}

#[test]
fn what_is_sent_is_frozen_and_described() {
    frozen::<CoverageChanged>("coverage.changed");
    frozen::<PatchArrived>("patch.arrived");
    frozen::<PatchPromoted>("patch.promoted");
    frozen::<PatchStopped>("patch.blocked");
    frozen::<PayloadQuarantined>("payload.quarantined");
    frozen::<RolloutChanged>("rollout.halted");
    frozen::<SyncCompleted>("sync.completed");
    frozen::<SyncStopped>("sync.failed");
    frozen::<WebhookTest>("webhook.test");
    let page = page();
    for kind in EventKind::ALL {
        let line = format!("| `{kind}` | {} |", kind.about());
        assert!(page.contains(&line), "the page lacks {line}");
    }
}
