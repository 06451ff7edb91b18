//! Tiers: their order, and what a change of it means for patches, machines and tokens.

use crate::support::admin::TestAdmin;
use livepatch_onprem::db::tiers;
use livepatch_onprem::domain::Role;
use serde_json::json;

const GENERIC: &str = "5.15.0-107.117-generic";

fn payload(version: &str) -> String {
    format!("livepatch-{GENERIC}-{version}-amd64.tar.bz2")
}

async fn names(test: &TestAdmin) -> Vec<String> {
    let list = test.get("/tiers").await.expect(200);
    let items = list.body["items"].as_array().unwrap();
    for (position, item) in items.iter().enumerate() {
        assert_eq!(item["position"], position);
    }
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

/// The tiers in which a payload is available, by the snapshot.
fn available(test: &TestAdmin, version: &str) -> Vec<String> {
    let snapshot = test.core.snapshots.get_full();
    let payload = snapshot.catalog.by_filename(&payload(version)).unwrap();
    let reach = payload.reach.map_or(0, |index| usize::from(index) + 1);
    let mut names: Vec<String> = snapshot.catalog.tiers()[..reach]
        .iter()
        .map(|tier| tier.name.to_string())
        .collect();
    names.sort_unstable();
    names
}

async fn promote(test: &TestAdmin, version: &str, tier: &str) {
    let path = format!("/patches/{version}/promote");
    test.post(&path, json!({"tier": tier})).await.expect(200);
}

async fn change(test: &TestAdmin, tier: &str, body: serde_json::Value) -> u16 {
    let path = format!("/tiers/{tier}");
    let answer = test.ask(Role::Operator, "PATCH", &path, Some(body)).await;
    assert!(answer.status.as_u16() < 500, "{:#}", answer.body);
    answer.status.as_u16()
}

#[tokio::test]
async fn tiers_are_made_renamed_and_moved_while_nothing_depends_on_them() {
    let test = TestAdmin::new().await;
    assert_eq!(names(&test).await, ["edge", "beta", "candidate", "stable"]);
    let made = test.post("/tiers", json!({"name": "frozen"})).await;
    assert_eq!(made.expect(201).body["position"], 4);
    test.post("/tiers", json!({"name": "lab", "before": "edge"}))
        .await
        .expect(201);
    test.post("/tiers", json!({"name": "pilot", "after": "beta"}))
        .await
        .expect(201);
    let all = [
        "lab",
        "edge",
        "beta",
        "pilot",
        "candidate",
        "stable",
        "frozen",
    ];
    assert_eq!(names(&test).await, all);
    assert_eq!(change(&test, "frozen", json!({"before": "lab"})).await, 200);
    assert_eq!(
        change(&test, "edge", json!({"after": "stable", "name": "late"})).await,
        200
    );
    let all = [
        "frozen",
        "lab",
        "beta",
        "pilot",
        "candidate",
        "stable",
        "late",
    ];
    assert_eq!(names(&test).await, all);
    assert_eq!(
        test.last_audit().await,
        ("tier.move".to_owned(), "edge".to_owned())
    );
    let snapshot = test.core.snapshots.get_full();
    assert_eq!(snapshot.catalog.tiers()[6].name.as_str(), "late");

    let before = test.rows("audit_log").await;
    // What stands so already changes nothing, and what cannot be is refused.
    assert_eq!(change(&test, "lab", json!({"after": "frozen"})).await, 200);
    assert_eq!(change(&test, "lab", json!({"name": "lab"})).await, 200);
    for (tier, body, status) in [
        ("lab", json!({}), 400),
        ("lab", json!({"name": "beta"}), 409),
        ("lab", json!({"before": "lab"}), 400),
        ("lab", json!({"before": "beta", "after": "beta"}), 400),
        ("lab", json!({"before": "none"}), 404),
        ("none", json!({"name": "x"}), 404),
        ("NONE", json!({"name": "x"}), 400),
        ("lab", json!({"name": "A B"}), 422),
        ("lab", json!({"nam": "x"}), 422),
        ("lab", json!({"name": "x".repeat(64)}), 422),
        ("lab", json!([]), 422),
    ] {
        assert_eq!(
            change(&test, tier, body.clone()).await,
            status,
            "{tier} {body}"
        );
    }
    for (body, status) in [
        (json!({"name": "lab"}), 409),
        (json!({"name": "x", "before": "none"}), 404),
        (json!({"name": "x", "before": "lab", "after": "lab"}), 400),
        (json!({"name": 7}), 422),
        (json!({}), 422),
    ] {
        test.post("/tiers", body).await.expect(status);
    }
    assert_eq!(test.rows("audit_log").await, before);
    assert_eq!(names(&test).await, all);
}

#[tokio::test]
async fn there_are_sixty_four_at_most() {
    let test = TestAdmin::new().await;
    for n in 4..64 {
        test.post("/tiers", json!({"name": format!("t{n}")}))
            .await
            .expect(201);
    }
    let refused = test
        .post("/tiers", json!({"name": "more"}))
        .await
        .expect(409);
    assert!(refused.detail().contains("64"), "{}", refused.detail());
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_at_once_leave_an_order_without_gaps() {
    let test = TestAdmin::new().await;
    let made = (0..8).map(|n| {
        let test = &test;
        async move {
            let body = json!({"name": format!("t{n}"), "before": "stable"});
            test.post("/tiers", body).await.expect(201);
            change(test, &format!("t{n}"), json!({"before": "edge"})).await
        }
    });
    let statuses = futures_util::future::join_all(made).await;
    assert_eq!(statuses, [200; 8]);
    assert_eq!(names(&test).await.len(), 12);
}

#[tokio::test]
async fn a_move_never_changes_where_a_patch_is_available() {
    let test = TestAdmin::new().await;
    let versions = ["107.1", "108.1", "109.1"];
    let payloads = versions.map(payload);
    test.plant_payloads(&payloads.each_ref().map(String::as_str))
        .await;
    promote(&test, "107.1", "stable").await;
    promote(&test, "108.1", "candidate").await;
    let before = versions.map(|version| available(&test, version));

    // 109.1 has reached edge only: nothing may pass it. 108.1 stands between candidate and stable.
    for (tier, body) in [
        ("edge", json!({"after": "beta"})),
        ("stable", json!({"before": "edge"})),
        ("stable", json!({"before": "candidate"})),
    ] {
        let answer = test
            .ask(
                Role::Operator,
                "PATCH",
                &format!("/tiers/{tier}"),
                Some(body),
            )
            .await
            .expect(409);
        let detail = answer.detail();
        assert!(
            detail.contains("109.1") || detail.contains("108.1"),
            "{detail}"
        );
    }
    // Between beta and candidate nothing stands; 108.1 has never been promoted to beta by name.
    assert_eq!(
        change(&test, "beta", json!({"after": "candidate"})).await,
        200
    );
    assert_eq!(names(&test).await, ["edge", "candidate", "beta", "stable"]);
    assert_eq!(versions.map(|version| available(&test, version)), before);
}

#[tokio::test]
async fn a_tier_in_use_is_deleted_only_with_a_place_to_go() {
    let test = TestAdmin::new().await;
    test.plant_machines(3, "beta", GENERIC, None).await;
    let client = test.db.raw().await;
    client
        .batch_execute(
            "insert into auth_tokens (name, tier_id, hash, created_by, revoked_at)
             select n, t.id, sha256(n::bytea), 'x', r from tiers t,
             (values ('a', null::timestamptz), ('b', null), ('old', now())) as v(n, r) where t.name = 'beta';
             insert into machine_overrides (machine_id, tier_id, actor)
             select gen_random_uuid(), id, 'x' from tiers where name = 'beta'",
        )
        .await
        .unwrap();
    test.core.snapshots.reload(None, i64::MAX).await.unwrap();
    let list = test.get("/tiers").await;
    assert_eq!(
        (
            &list.body["items"][1]["machines"],
            &list.body["items"][1]["auth-tokens"]
        ),
        (&json!(3), &json!(2))
    );

    let refused = test.delete("/tiers/beta").await.expect(409);
    assert!(refused.detail().contains(
        "3 machines, 1 machines that were moved into it, 2 auth tokens and 0 sync tokens"
    ));
    test.delete("/tiers/beta?move-to=beta").await.expect(400);
    test.delete("/tiers/beta?move-to=none").await.expect(404);
    test.delete("/tiers/beta?moveto=stable").await.expect(400);
    test.delete("/tiers/none").await.expect(404);
    assert_eq!(test.audited("tier.delete").await, 0);

    let deleted = test.delete("/tiers/beta?move-to=stable").await.expect(200);
    let expected = json!({"name": "beta", "moved-to": "stable", "machines": 3, "auth-tokens": 2});
    assert_eq!(deleted.body, expected);
    assert_eq!(names(&test).await, ["edge", "candidate", "stable"]);
    let list = test.get("/tiers").await;
    assert_eq!(list.body["items"][2]["machines"], 3);
    // Tokens and overrides in the snapshot point at the new tier too.
    let snapshot = test.core.snapshots.get_full();
    let stable = snapshot.catalog.tiers()[2].id;
    assert_eq!(snapshot.tokens.get(1).unwrap().tier_id, stable);
    assert!(
        snapshot
            .overrides
            .values()
            .all(|o| o.tier_id == Some(stable))
    );
}

#[tokio::test]
async fn what_was_available_in_a_deleted_tier_stays_available_before_it() {
    let test = TestAdmin::new().await;
    let versions = ["107.1", "108.1"];
    let payloads = versions.map(payload);
    test.plant_payloads(&payloads.each_ref().map(String::as_str))
        .await;
    let body = json!({"tier": "candidate", "scope": {"flavour": "generic"}});
    test.post("/patches/107.1/promote", body).await.expect(200);
    test.delete("/tiers/candidate").await.expect(200);
    assert_eq!(available(&test, "107.1"), ["beta", "edge"]);
    assert_eq!(available(&test, "108.1"), ["edge"]);

    // Without the first tier, what had reached nothing else has reached nothing, and can be promoted again.
    test.delete("/tiers/edge").await.expect(200);
    assert_eq!(available(&test, "107.1"), ["beta"]);
    assert_eq!(available(&test, "108.1"), Vec::<String>::new());
    promote(&test, "108.1", "stable").await;
    assert_eq!(available(&test, "108.1"), ["beta", "stable"]);

    test.delete("/tiers/beta").await.expect(200);
    let last = test.delete("/tiers/stable").await.expect(409);
    assert!(
        last.detail().contains("there must be one"),
        "{}",
        last.detail()
    );
    assert_eq!(available(&test, "108.1"), ["stable"]);
}

#[tokio::test]
async fn the_way_to_each_tier_is_measured() {
    let test = TestAdmin::new().await;
    // Tier, hours that its highest patch took, hours for which one waits for it; whole hours, since the test takes time too.
    let lag = async || {
        let conn = test.core.db.conn().await.unwrap();
        let lag = tiers::lag(&conn).await.unwrap();
        let hours = |seconds: f64| (seconds / 3600.0).round();
        lag.into_iter()
            .map(|lag| (lag.tier, lag.took.map(hours), hours(lag.waiting)))
            .collect::<Vec<_>>()
    };
    let is = |rows: [(&str, Option<f64>, f64); 4]| {
        rows.map(|(tier, took, waits)| (tier.to_owned(), took, waits))
    };
    let nothing = ["edge", "beta", "candidate", "stable"].map(|tier| (tier, None, 0.0));
    assert_eq!(lag().await, is(nothing));

    let payloads = ["107.1", "108.1", "109.1"].map(payload);
    test.plant_payloads(&payloads.each_ref().map(String::as_str))
        .await;
    // They came 50, 20 and 5 hours ago, and reached edge at once; the others are promoted now.
    test.db
        .raw()
        .await
        .batch_execute(
            "update patches set created_at = now() - make_interval(hours =>
                case version >> 20 when 107 then 50 when 108 then 20 else 5 end);
            update promotions r set at = p.created_at from patches p where p.id = r.patch_id",
        )
        .await
        .unwrap();
    promote(&test, "107.1", "stable").await;
    promote(&test, "108.1", "candidate").await;
    let expected = is([
        ("edge", Some(0.0), 0.0),
        ("beta", Some(20.0), 5.0),
        ("candidate", Some(20.0), 5.0),
        ("stable", Some(50.0), 20.0),
    ]);
    assert_eq!(lag().await, expected);

    // What is held waits for nobody.
    test.post("/patches/108.1/hold", json!({}))
        .await
        .expect(200);
    test.post("/patches/109.1/block", json!({}))
        .await
        .expect(200);
    let expected = is([
        ("edge", Some(0.0), 0.0),
        ("beta", Some(20.0), 0.0),
        ("candidate", Some(20.0), 0.0),
        ("stable", Some(50.0), 0.0),
    ]);
    assert_eq!(lag().await, expected);
}
