//! What is done to all machines that a selector means: labelled, moved, counted; and labels of single machines.

use crate::support::admin::TestAdmin;
use livepatch_onprem::domain::{MachineId, Role};
use serde_json::{Value, json};

const GENERIC: &str = "5.15.0-107.117-generic";
const AWS: &str = "5.15.0-1061.67-aws";

/// Runs SQL.
async fn sql(test: &TestAdmin, text: &str) {
    test.db.raw().await.batch_execute(text).await.unwrap();
}

/// One number.
async fn number(test: &TestAdmin, text: &str) -> i64 {
    let rows = test.db.raw().await;
    rows.query_one(text, &[]).await.unwrap().get(0)
}

async fn patch(test: &TestAdmin, path: &str, body: Value) -> crate::support::admin::Answer {
    test.ask(Role::Admin, "PATCH", path, Some(body)).await
}

/// 12 machines in `stable` and 6 in `beta`, all with an auth token's label `rack`: r0, r1 and r2 in turns.
async fn fleet(test: &TestAdmin) {
    test.plant_machines(12, "stable", GENERIC, None).await;
    test.plant_machines(6, "beta", AWS, None).await;
    sql(
        test,
        "insert into machine_labels (machine_id, key, value, from_token)
         select id, 'rack', 'r' || (row_number() over (order by tier_id, id)) % 3, true from machines",
    )
    .await;
}

/// Machines that a selector means.
async fn meant(test: &TestAdmin, selector: &str) -> usize {
    let path = format!("/machines?limit=1000&selector={selector}");
    let page = test.get(&path).await.expect(200).body;
    page["items"].as_array().unwrap().len()
}

async fn audit(test: &TestAdmin) -> (String, Value) {
    let rows = test.db.raw().await;
    let row = rows
        .query_one(
            "select action || ' ' || target, details::jsonb from audit_log order by seq desc limit 1",
            &[],
        )
        .await
        .unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn a_machines_labels_are_changed_and_bounded() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let machine = test.get("/machines?limit=1").await.expect(200).body["items"][0]["machine-id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/machines/{machine}/labels");
    let body = json!({ "set": { "rack": "r9", "example.com/site": "" }, "remove": ["none"], "reason": "moved" });
    let shown = patch(&test, &path, body.clone()).await.expect(200).body;
    assert_eq!(
        shown["labels"],
        json!({ "rack": "r9", "example.com/site": "" })
    );
    let (entry, details) = audit(&test).await;
    assert_eq!(entry, format!("machine.label {machine}"));
    assert_eq!(details, body);
    assert_eq!(meant(&test, "rack=r9").await, 1);
    // What stands so already is no change.
    let before = number(&test, "select count(*) from audit_log").await;
    patch(&test, &path, body).await.expect(200);
    assert_eq!(
        number(&test, "select count(*) from audit_log").await,
        before
    );
    let shown = patch(
        &test,
        &path,
        json!({ "remove": ["rack", "example.com/site"] }),
    )
    .await;
    assert!(shown.expect(200).body.get("labels").is_none());

    let many = |n: usize| -> Value {
        (0..n)
            .map(|i| (format!("k{i}"), json!("v")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    patch(&test, &path, json!({ "set": many(32) }))
        .await
        .expect(200);
    let full = patch(&test, &path, json!({ "set": { "one": "more" } }))
        .await
        .expect(409);
    assert!(
        full.detail().contains("more than 32 labels"),
        "{}",
        full.detail()
    );
    patch(
        &test,
        &path,
        json!({ "set": { "one": "more" }, "remove": ["k0"] }),
    )
    .await
    .expect(200);
    for (body, status, word) in [
        (json!({}), 400, "changes nothing"),
        (
            json!({ "set": { "a": "1" }, "remove": ["a"] }),
            400,
            "both set and taken away",
        ),
        (json!({ "set": { "tier": "1" } }), 422, "meaning of its own"),
        (json!({ "set": { "a": "\u{0}" } }), 422, "label value"),
        (json!({ "set": { "a": "b c" } }), 422, "label value"),
        (json!({ "set": { "\u{202e}a": "b" } }), 422, "label key"),
        (json!({ "set": { "a": 1 } }), 422, "string"),
        (json!({ "set": many(33) }), 422, "33 labels"),
        (
            json!({ "remove": ["a'; drop table machines --"] }),
            422,
            "label key",
        ),
        (json!({ "sets": {} }), 422, "sets"),
        (
            json!({ "set": { "a": "1" }, "reason": "x".repeat(501) }),
            400,
            "reason",
        ),
    ] {
        let answer = patch(&test, &path, body).await.expect(status);
        assert!(
            answer.detail().contains(word),
            "{word}: {}",
            answer.detail()
        );
    }
    let missing = format!("/machines/{}/labels", "e".repeat(32));
    patch(&test, &missing, json!({ "set": { "a": "1" } }))
        .await
        .expect(404);
    test.ask(
        Role::Viewer,
        "PATCH",
        &path,
        Some(json!({ "set": { "a": "1" } })),
    )
    .await
    .expect(403);
}

#[tokio::test]
async fn many_machines_are_labelled_at_once_or_not_at_all() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let body = json!({ "selector": "rack=r1", "set": { "rack": "r2", "canary": "yes" }, "remove": ["old"] });
    let mut dry = body.clone();
    dry["dry-run"] = json!(true);
    let said = test.post("/machines/label", dry).await.expect(200).body;
    assert_eq!(
        said,
        json!({ "selector": "rack=r1", "dry-run": true, "machines": 6, "changed": 6 })
    );
    assert_eq!(
        (meant(&test, "rack=r1").await, meant(&test, "canary").await),
        (6, 0)
    );
    let before = number(&test, "select count(*) from audit_log").await;

    // The selector speaks of what is changed, and of a label that one of the machines has beside it.
    sql(&test, "insert into machine_labels select machine_id, 'old', '' from machine_labels where value = 'r1' limit 1").await;
    let done = test
        .post("/machines/label", body.clone())
        .await
        .expect(200)
        .body;
    assert_eq!(
        done,
        json!({ "selector": "rack=r1", "dry-run": false, "machines": 6, "changed": 6 })
    );
    assert_eq!(
        (
            meant(&test, "rack=r1").await,
            meant(&test, "rack=r2,canary=yes,%21old").await
        ),
        (0, 6)
    );
    assert_eq!(
        number(&test, "select count(*) from audit_log").await,
        before + 1
    );
    let (entry, details) = audit(&test).await;
    assert_eq!(entry, "machine.label rack=r1");
    assert_eq!(
        (&details["machines"], &details["set"]["rack"]),
        (&json!(6), &json!("r2"))
    );
    // Nobody is meant any more, so nothing changes and nothing is written down.
    let none = test.post("/machines/label", body).await.expect(200).body;
    assert_eq!(
        (&none["machines"], &none["changed"]),
        (&json!(0), &json!(0))
    );
    // Those that have it from their token get it as a person's; only the others of the rack change.
    let own = json!({ "selector": "kernel=*", "set": { "rack": "r2" } });
    let done = test.post("/machines/label", own).await.expect(200).body;
    assert_eq!(
        (&done["machines"], &done["changed"]),
        (&json!(18), &json!(12))
    );
    assert_eq!(number(&test, "select count(*) from machine_labels where key = 'rack' and not from_token and value = 'r2'").await, 18);
    assert_eq!(
        number(&test, "select count(*) from audit_log").await,
        before + 2
    );

    // One machine is full: none is changed.
    sql(
        &test,
        "insert into machine_labels select machine_id, 'n' || n, '' from generate_series(1, 30) n,
            (select machine_id from machine_labels where key = 'canary' limit 1) m",
    )
    .await;
    let more = json!({ "selector": "rack=r2", "set": { "one": "more" } });
    let full = test.post("/machines/label", more).await.expect(409);
    assert!(
        full.detail()
            .contains("more than 32 labels; nothing was changed"),
        "{}",
        full.detail()
    );
    assert_eq!(meant(&test, "one").await, 0);
    let instead = json!({ "selector": "rack=r2", "set": { "one": "more" }, "remove": ["n1"] });
    test.post("/machines/label", instead).await.expect(200);
    assert_eq!(meant(&test, "one=more").await, 18);
    for (body, status, word) in [
        (
            json!({ "selector": "", "set": { "a": "1" } }),
            400,
            "every machine",
        ),
        (
            json!({ "selector": "a=1,a=2", "set": { "a": "1" } }),
            422,
            "cannot both",
        ),
        (json!({ "set": { "a": "1" } }), 422, "selector"),
        (json!({ "selector": "a" }), 400, "changes nothing"),
    ] {
        let answer = test.post("/machines/label", body).await.expect(status);
        assert!(
            answer.detail().contains(word),
            "{word}: {}",
            answer.detail()
        );
    }
}

#[tokio::test]
async fn machines_are_moved_by_selector_after_a_preview() {
    let test = TestAdmin::new().await;
    // 107.1 is in the first tier only.
    test.plant_payloads(&["livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2"])
        .await;
    fleet(&test).await;
    let mut body =
        json!({ "selector": "rack=r1", "tier": "edge", "reason": "a canary", "dry-run": true });
    let said = test
        .post("/machines/move", body.clone())
        .await
        .expect(200)
        .body;
    let from = json!([{ "tier": "beta", "machines": 2 }, { "tier": "stable", "machines": 4 }]);
    // The four in `stable` have its kernel and would be offered it; for the two others there is nothing.
    assert_eq!(
        said,
        json!({ "selector": "rack=r1", "tier": "edge", "dry-run": true, "machines": 6, "moved": 6, "from": from, "offered-else": 4 })
    );
    assert_eq!(
        number(&test, "select count(*) from machine_overrides").await,
        0
    );
    let seq = number(&test, "select count(*) from audit_log").await;
    body["dry-run"] = json!(false);
    let done = test
        .post("/machines/move", body.clone())
        .await
        .expect(200)
        .body;
    assert_eq!(
        (&done["moved"], &done["from"], &done["offered-else"]),
        (&json!(6), &from, &json!(4))
    );
    // One row in the log for all of them, and every snapshot knows them.
    assert_eq!(
        number(&test, "select count(*) from audit_log").await,
        seq + 1
    );
    let (entry, details) = audit(&test).await;
    assert_eq!(entry, "machine.move rack=r1");
    assert_eq!(
        details,
        json!({ "from": from, "to": "edge", "machines": 6, "reason": "a canary" })
    );
    let page = test.get("/machines?tier=edge").await.expect(200).body;
    let moved = page["items"].as_array().unwrap();
    assert_eq!(moved.len(), 6);
    let snapshot = test.core.snapshots.get_full();
    for machine in moved {
        assert_eq!(
            (&machine["moved"], &machine["labels"]["rack"]),
            (&json!(true), &json!("r1"))
        );
        let id: MachineId = machine["machine-id"].as_str().unwrap().parse().unwrap();
        let tier = snapshot.overrides[&id].tier_id.unwrap();
        assert_eq!(snapshot.catalog.tier_index(tier), Some(0));
    }
    // Again: all are there already. With others: those that are there are left alone.
    let again = test.post("/machines/move", body).await.expect(200).body;
    assert_eq!(
        (&again["machines"], &again["moved"]),
        (&json!(6), &json!(0))
    );
    assert_eq!(
        number(&test, "select count(*) from audit_log").await,
        seq + 1
    );
    let all = json!({ "selector": "rack", "tier": "edge" });
    let done = test.post("/machines/move", all).await.expect(200).body;
    assert_eq!(
        (&done["machines"], &done["moved"]),
        (&json!(18), &json!(12))
    );
    // A person's decision about one machine before is replaced by a later one about many.
    let back = json!({ "selector": "flavour=aws", "tier": "stable" });
    let done = test.post("/machines/move", back).await.expect(200).body;
    assert_eq!(done["from"], json!([{ "tier": "edge", "machines": 6 }]));
    assert_eq!(
        number(&test, "select count(*) from machine_overrides").await,
        18
    );
    for (body, status, word) in [
        (
            json!({ "selector": " ", "tier": "edge" }),
            400,
            "every machine",
        ),
        (json!({ "selector": "rack", "tier": "none" }), 404, "none"),
        (
            json!({ "selector": "rack=", "tier": "edge", "reason": "a\nb" }),
            400,
            "control",
        ),
        (
            json!({ "selector": "rack=*", "tier": "edge" }),
            422,
            "value",
        ),
    ] {
        let answer = test.post("/machines/move", body).await.expect(status);
        assert!(
            answer.detail().contains(word),
            "{word}: {}",
            answer.detail()
        );
    }
    let body = json!({ "selector": "rack", "tier": "edge", "dry-run": true });
    test.ask(Role::Viewer, "POST", "/machines/move", Some(body))
        .await
        .expect(403);
}

#[tokio::test]
async fn a_move_takes_no_offer_into_account_that_the_machine_runs_already() {
    let test = TestAdmin::new().await;
    test.plant_payloads(&[
        "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
        "livepatch-5.15.0-107.117-generic-108.1-amd64.tar.bz2",
    ])
    .await;
    test.post("/patches/107.1/promote", json!({ "tier": "stable" }))
        .await
        .expect(200);
    test.plant_machines(3, "edge", GENERIC, None).await;
    test.plant_machines(5, "edge", GENERIC, Some("107.1")).await;
    test.plant_machines(7, "edge", GENERIC, Some("108.1")).await;
    // To `stable`: three lose 108.1 for 107.1, five lose their offer of 108.1, seven keep what they run.
    let body = json!({ "selector": "arch=amd64", "tier": "stable", "dry-run": true });
    let said = test.post("/machines/move", body).await.expect(200).body;
    assert_eq!(
        (&said["moved"], &said["offered-else"]),
        (&json!(15), &json!(8))
    );
}

#[tokio::test]
async fn reports_narrow_to_a_selector() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    sql(
        &test,
        "update machines set state = 1, patch = (107 << 20) + 1, offered = (107 << 20) + 1",
    )
    .await;
    sql(&test, "update machines m set state = 2 from machine_labels l where l.machine_id = m.id and l.value = 'r1'").await;
    for (selector, total) in [
        ("rack=r1", 4),
        ("rack=r1,flavour=aws", 0),
        ("rack!=r1", 8),
        ("kernel=5.15*", 12),
        ("kernel=6*", 0),
        ("arch!=amd64", 0),
        ("%21rack", 0),
    ] {
        let path = format!("/reports/machines?tier=stable&selector={selector}");
        let report = test.get(&path).await.expect(200).body;
        assert_eq!(report["total"], total, "{selector}");
        assert_eq!(
            report["machines"]["items"].as_array().unwrap().len(),
            total,
            "{selector}"
        );
        let path = format!("/reports/patch-health?tier=stable&version=107.1&selector={selector}");
        let health = test.get(&path).await.expect(200).body;
        assert_eq!(health["machines"], total, "{selector}");
    }
    let path = "/reports/patch-health?tier=stable&version=107.1&selector=rack=r1";
    let health = test.get(path).await.expect(200).body;
    assert_eq!(
        (&health["failed"], &health["states"]),
        (&json!(4), &json!({ "apply-failed": 4 }))
    );
    let some = test
        .get("/reports/machines?tier=stable&state=applied&selector=rack")
        .await
        .expect(200)
        .body;
    assert_eq!(some["total"], 8);
    test.get("/reports/machines?tier=stable&selector=rack=r1,")
        .await
        .expect(400);
}

#[tokio::test]
async fn previews_coverage_and_reach_narrow_to_a_selector() {
    let test = TestAdmin::new().await;
    test.plant_payloads(&["livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2"])
        .await;
    fleet(&test).await;
    // What the promotion would mean for four of the twelve in `stable`; the others are not spoken of.
    let mut body = json!({ "tier": "stable", "dry-run": true, "selector": "rack=r1" });
    let said = test
        .post("/patches/107.1/promote", body.clone())
        .await
        .expect(200)
        .body;
    assert_eq!(said["machines"], 4, "{said}");
    assert_eq!(said["kernels-without-payload"][0]["machines"], 2);
    body["dry-run"] = json!(false);
    let refused = test.post("/patches/107.1/promote", body).await.expect(400);
    assert!(
        refused
            .detail()
            .contains("only narrows what a dry run counts"),
        "{}",
        refused.detail()
    );
    let path = "/patches/107.1/forecast?tier=stable&selector=rack=r1,flavour=generic";
    let told = test.get(path).await.expect(200).body;
    let stable = &told["tiers"][3];
    assert_eq!(
        (&stable["tier"], &stable["machines"]),
        (&json!("stable"), &json!(4))
    );
    assert!(
        told["kernels-without-payload"]
            .as_array()
            .unwrap()
            .is_empty()
    );

    // Four of `stable` were offered it, of which one fails; two of them are in the rack.
    sql(
        &test,
        "with few as (select m.id, l.value from machines m join machine_labels l on l.machine_id = m.id
            join tiers t on t.id = m.tier_id where t.name = 'stable' order by l.value, m.id limit 6)
         update machines m set tried = (107 << 20) + 1, tried_at = now() - interval '1 hour', last_check = now(), state = 2
         from few where few.id = m.id",
    )
    .await;
    let total = |reach: &Value| -> u64 {
        let totals = reach["totals"].as_array().unwrap();
        totals.iter().map(|t| t["machines"].as_u64().unwrap()).sum()
    };
    for (selector, expected) in [
        ("", 6),
        ("rack=r0", 4),
        ("rack=r1", 2),
        ("rack!=r0,flavour=generic", 2),
        ("flavour=aws", 0),
    ] {
        let path = format!("/patches/107.1/reach?selector={selector}");
        let reach = test.get(&path).await.expect(200).body;
        assert_eq!(total(&reach), expected, "{selector}");
        let items = reach["items"].as_array().unwrap();
        assert_eq!(items.len() as u64, expected, "{selector}");
    }

    for (query, machines, failed, groups) in [
        ("", 18, 6, json!(["beta", "stable"])),
        ("?selector=flavour=generic", 12, 6, json!(["stable"])),
        ("?selector=rack=r1", 6, 2, json!(["beta", "stable"])),
        (
            "?label=rack&selector=flavour=generic",
            12,
            6,
            json!(["r0", "r1", "r2"]),
        ),
        ("?label=rack&selector=rack!=r0", 12, 2, json!(["r1", "r2"])),
        ("?by=kernel&selector=rack=r1", 6, 2, json!([AWS, GENERIC])),
        ("?by=kernel&selector=none", 0, 0, json!([])),
    ] {
        let coverage = test
            .get(&format!("/coverage{query}"))
            .await
            .expect(200)
            .body;
        let total = &coverage["total"];
        assert_eq!(
            (&total["machines"], &total["failed"]),
            (&json!(machines), &json!(failed)),
            "{query}"
        );
        let names = coverage["groups"].as_array().unwrap().iter();
        let names: Vec<&Value> = names.map(|group| &group["name"]).collect();
        assert_eq!(json!(names), groups, "{query}");
    }
    let horizon = test
        .get("/coverage/horizon?selector=rack=r1")
        .await
        .expect(200)
        .body;
    let all = test.get("/coverage/horizon").await.expect(200).body;
    let unknown = |horizon: &Value| horizon["age-unknown"].as_u64().unwrap();
    assert_eq!((unknown(&horizon), unknown(&all)), (6, 18));
    test.get("/coverage?selector=rack=").await.expect(200);
    test.get("/coverage?selector=rack==r1==").await.expect(400);
}
