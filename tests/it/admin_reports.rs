//! Reports: counts that agree with the machines behind them.

use crate::support::admin::TestAdmin;
use jiff::Timestamp;
use livepatch_onprem::service::census;
use serde_json::{Value, json};

/// In `stable`: 6 applied 107.1 (one with a bug), 3 failed at it, 2 run 106.1 and were offered nothing. One in `beta`.
async fn fleet(test: &TestAdmin) {
    let rows = test.db.raw().await;
    rows.batch_execute(
        "insert into words (kind, text) values (1, 'a-1-generic'), (1, 'b-1-generic');
         create function v(n bigint) returns bigint immutable language sql as 'select (n << 20) + 1';
         insert into machines (id, tier_id, registered_at, kernel_id, architecture, patch, offered, state)
         select gen_random_uuid(), t.id, now(), k.id, 1, m.patch, m.offered, m.state
         from (values ('stable', 'a-1-generic', v(107), 0, 1, 4), ('stable', 'b-1-generic', v(107), 0, 1, 1),
                ('stable', 'b-1-generic', v(107), 0, 7, 1), ('stable', 'b-1-generic', 0, v(107), 2, 3),
                ('stable', 'a-1-generic', v(106), 0, 1, 2), ('beta', 'a-1-generic', v(107), 0, 1, 1),
                ('stable', null, v(107), 0, 0, 1))
            as m(tier, kernel, patch, offered, state, n)
         join tiers t on t.name = m.tier left join words k on k.text = m.kernel, generate_series(1, m.n)",
    )
    .await
    .unwrap();
}

/// Takes away when the machines were counted: just now.
fn as_of(report: &mut Value) {
    let at = report.as_object_mut().unwrap().remove("as-of").unwrap();
    let at: Timestamp = at.as_str().unwrap().parse().unwrap();
    let age = Timestamp::now().duration_since(at);
    assert!(age.as_secs() < 60, "{age:?}");
}

#[tokio::test]
async fn machines_are_counted_by_version_and_state() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let report = test
        .get("/reports/machines?tier=stable&limit=2")
        .await
        .expect(200)
        .body;
    assert_eq!(report["total"], 12);
    assert_eq!(
        report["counts"],
        json!([
            { "version": "107.1", "state": "unknown", "machines": 1 },
            { "version": "107.1", "state": "applied", "machines": 5 },
            { "version": "107.1", "state": "applied-with-bug", "machines": 1 },
            { "version": "106.1", "state": "applied", "machines": 2 },
            { "state": "apply-failed", "machines": 3 },
        ])
    );
    assert_eq!(report["machines"]["items"].as_array().unwrap().len(), 2);
    let cursor = report["machines"]["next-cursor"].as_str().unwrap();
    let rest = test
        .get(&format!(
            "/reports/machines?tier=stable&limit=1000&cursor={cursor}"
        ))
        .await
        .expect(200)
        .body;
    assert_eq!(rest["machines"]["items"].as_array().unwrap().len(), 10);
    assert_eq!(rest["total"], 12);
    let some = test
        .get("/reports/machines?tier=stable&version=107.1&state=applied")
        .await
        .expect(200)
        .body;
    assert_eq!(some["total"], 5);
    assert_eq!(some["machines"]["items"].as_array().unwrap().len(), 5);
    let mut none = test
        .get("/reports/machines?tier=edge")
        .await
        .expect(200)
        .body;
    as_of(&mut none);
    assert_eq!(
        none,
        json!({ "tier": "edge", "total": 0, "counts": [], "machines": { "items": [] } })
    );
    test.get("/reports/machines?tier=none").await.expect(404);
    let missing = test.get("/reports/machines").await.expect(400);
    assert!(missing.detail().contains("tier"), "{}", missing.detail());
}

#[tokio::test]
async fn patch_health_shows_where_it_fails() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let mut report = test
        .get("/reports/patch-health?tier=stable&version=107.1")
        .await
        .expect(200)
        .body;
    as_of(&mut report);
    assert_eq!(
        report,
        json!({
            "tier": "stable", "version": "107.1", "machines": 10, "failed": 4, "failed-share": 0.4,
            "states": { "unknown": 1, "applied": 5, "apply-failed": 3, "applied-with-bug": 1 },
            "kernels": [
                { "kernel": "b-1-generic", "architecture": "amd64", "machines": 5, "failed": 4,
                    "states": { "applied": 1, "apply-failed": 3, "applied-with-bug": 1 } },
                { "kernel": "a-1-generic", "architecture": "amd64", "machines": 4, "failed": 0, "states": { "applied": 4 } },
                { "kernel": "unknown", "architecture": "amd64", "machines": 1, "failed": 0, "states": { "unknown": 1 } },
            ],
        })
    );
    let none = test
        .get("/reports/patch-health?tier=stable&version=99.1")
        .await
        .expect(200)
        .body;
    assert_eq!(
        (&none["machines"], &none["failed-share"]),
        (&json!(0), &json!(0.0))
    );
}

#[tokio::test]
async fn a_large_fleet_is_counted_beside_the_requests_and_a_small_one_for_each() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    let add = async |machines: u64| {
        let sql = format!(
            "insert into machines (id, tier_id, registered_at)
             select gen_random_uuid(), t.id, now() from tiers t, generate_series(1, {machines}) where t.name = 'edge'"
        );
        rows.batch_execute(&sql).await.unwrap();
    };
    let total = async || {
        let report = test.get("/reports/machines?tier=edge&limit=1").await;
        let report = report.expect(200).body;
        (report["total"].as_u64().unwrap(), report["as-of"].clone())
    };
    add(5).await;
    assert_eq!(total().await.0, 5);
    add(census::DEAR).await;
    assert!(test.core.counts.due_in().is_none());
    let (many, as_of) = total().await;
    assert_eq!(many, census::DEAR + 5);
    // From here on counts are kept, until they are counted anew.
    assert!(test.core.counts.due_in().is_some());
    add(1).await;
    assert_eq!(total().await, (many, as_of.clone()));
    census::count_anew(&test.core).await.unwrap();
    let (more, later) = total().await;
    assert_eq!(more, many + 1);
    let at = |text: &Value| text.as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(at(&later) > at(&as_of));
}
