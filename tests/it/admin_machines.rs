//! Machines: lists, filters, pages; moved, revoked, forgotten; their history.

use crate::support::admin::TestAdmin;
use livepatch_onprem::domain::MachineId;
use serde_json::{Value, json};

/// Machines 1 to 40: every second in `beta`, states and patches in turns, three kernels.
async fn fleet(test: &TestAdmin) {
    let rows = test.db.raw().await;
    rows.batch_execute(
        "insert into words (kind, text) values (1, '5.15.0-107.117-generic'), (1, '6.8.0-1047.50-aws'),
            (1, '5.15.0-1060.66-aws-fips'), (2, '10.8.1'), (3, 'A processor');
         insert into machines (id, tier_id, registered_at, last_check, kernel_id, client_version_id, cpu_model_id,
            patch, offered, offered_at, architecture, state, outcome, support, boot_time, build_date)
         select lpad(to_hex(n), 32, '0')::uuid, t.id, timestamptz '2025-01-01Z' + n * interval '1 hour', now(),
            k.id, c.id, p.id, (107 << 20) + n % 2, (107 << 20) + 1, now(), 1 + n % 2, n % 5, 1 + n % 7, 1,
            timestamptz '2025-01-01Z', date '2024-02-07'
         from generate_series(1, 40) n
         join tiers t on t.name = case n % 2 when 0 then 'beta' else 'stable' end
         join words k on k.kind = 1 and k.text = (array['5.15.0-107.117-generic', '6.8.0-1047.50-aws', '5.15.0-1060.66-aws-fips'])[1 + n % 3]
         join words c on c.kind = 2 join words p on p.kind = 3;
         insert into machines (id, tier_id, registered_at, state)
            select repeat('f', 32)::uuid, id, now(), 4 from tiers where name = 'edge'",
    )
    .await
    .unwrap();
}

fn id(n: u32) -> String {
    format!("{n:032x}")
}

fn ids(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|m| m["machine-id"].as_str().unwrap().to_owned())
        .collect()
}

async fn every_page(test: &TestAdmin, query: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let mut path = format!("/machines?{query}");
    loop {
        let page = test.get(&path).await.expect(200).body;
        seen.extend(ids(&page));
        let Some(cursor) = page["next-cursor"].as_str() else {
            return seen;
        };
        path = format!("/machines?{query}&cursor={cursor}");
    }
}

#[tokio::test]
async fn filters_narrow_and_pages_join() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let all: Vec<String> = (1..=40).map(id).chain(["f".repeat(32)]).collect();
    assert_eq!(every_page(&test, "").await, all);
    assert_eq!(every_page(&test, "limit=7").await, all);
    let some =
        |keep: &dyn Fn(u32) -> bool| (1..=40).filter(|n| keep(*n)).map(id).collect::<Vec<_>>();
    let even = some(&|n| n % 2 == 0);
    for (query, expected) in [
        ("tier=beta", even.clone()),
        ("tier=beta&limit=1", even.clone()),
        ("tier=edge", vec!["f".repeat(32)]),
        ("tier=candidate", vec![]),
        ("state=apply-failed", some(&|n| n % 5 == 2)),
        ("version=107.1", some(&|n| n % 2 == 1)),
        ("architecture=amd64", some(&|n| 1 + n % 2 == 1)),
        ("architecture=x86_64", some(&|n| 1 + n % 2 == 1)),
        ("kernel=6.8.0-1047.50-aws", some(&|n| n % 3 == 1)),
        ("kernel=6.8.0-1047.50-gcp", vec![]),
        ("flavour=aws", some(&|n| n % 3 == 1)),
        ("flavour=aws-fips", some(&|n| n % 3 == 2)),
        ("flavour=fips", vec![]),
        (
            "state=apply-failed,unapplied",
            some(&|n| n % 5 == 2 || n % 5 == 3),
        ),
        ("version=107.1&fate=failed", some(&|n| n % 5 == 2)),
        (
            "version=107.0&fate=failed",
            some(&|n| n % 5 == 2 && n % 2 == 0),
        ),
        (
            "version=107.1&fate=applied",
            some(&|n| n % 5 == 1 && n % 2 == 1),
        ),
        ("version=107.1&fate=any", some(&|_| true)),
        ("version=107.0&fate=any", even.clone()),
        (
            "version=107.1&fate=waiting",
            some(&|n| n % 5 != 2 && !(n % 5 == 1 && n % 2 == 1)),
        ),
        (
            "version=107.0&fate=waiting",
            some(&|n| n % 2 == 0 && n % 5 != 2 && n % 5 != 1),
        ),
        (
            "flavour=generic&tier=beta&state=applied&limit=3",
            some(&|n| n % 3 == 0 && n % 2 == 0 && n % 5 == 1),
        ),
    ] {
        assert_eq!(every_page(&test, query).await, expected, "{query}");
    }
    for (query, status) in [
        ("tier=none", 404),
        ("tier=No", 400),
        ("state=fine", 400),
        ("state=applied,fine", 400),
        ("state=", 400),
        ("fate=failed", 400),
        ("version=107.1&fate=good", 400),
        ("flavour=A%20B", 400),
        ("version=1", 400),
    ] {
        test.get(&format!("/machines?{query}")).await.expect(status);
    }
}

#[tokio::test]
async fn a_page_is_full_however_few_the_filter_lets_through() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    // More rows than are read in the order of the key: five of every 5,000 failed, each tenth has a bug.
    rows.batch_execute(
        "insert into machines (id, tier_id, registered_at, state)
            select lpad(to_hex(n), 32, '0')::uuid, t.id, now(),
                case when n % 5000 < 5 then 2 when n % 10 = 9 then 7 else 1 end
            from generate_series(1, 60000) n, tiers t where t.name = 'stable';
         analyze machines",
    )
    .await
    .unwrap();
    for (query, of) in [
        (
            "state=apply-failed&limit=7",
            (1..=60_000).filter(|n| n % 5000 < 5).collect::<Vec<u32>>(),
        ),
        (
            "state=applied-with-bug&limit=999",
            (1..=60_000)
                .filter(|n| n % 5000 >= 5 && n % 10 == 9)
                .collect(),
        ),
    ] {
        let limit = query.rsplit('=').next().unwrap().parse::<usize>().unwrap();
        let mut found = Vec::new();
        let mut path = format!("/machines?{query}");
        loop {
            let page = test.get(&path).await.expect(200).body;
            let here = ids(&page);
            let Some(cursor) = page["next-cursor"].as_str() else {
                assert!(here.len() <= limit, "{query}: {}", here.len());
                found.extend(here);
                break;
            };
            assert_eq!(here.len(), limit, "{query}");
            found.extend(here);
            path = format!("/machines?{query}&cursor={cursor}");
        }
        let expected: Vec<_> = of.into_iter().map(id).collect();
        assert!(
            found == expected,
            "{query}: {} of {}",
            found.len(),
            expected.len()
        );
    }
}

#[tokio::test]
async fn a_machine_is_shown_with_its_words() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let shown = test
        .get(&format!("/machines/{}", id(7)))
        .await
        .expect(200)
        .body;
    for (key, value) in [
        ("machine-id", id(7)),
        ("tier", "stable".into()),
        ("kernel", "6.8.0-1047.50-aws".into()),
        ("architecture", "arm64".into()),
        ("state", "apply-failed".into()),
        ("offered", "107.1".into()),
        ("outcome", "offer".into()),
        ("supported", "supported".into()),
        ("client-version", "10.8.1".into()),
        ("cpu-model", "A processor".into()),
        ("build-date", "2024-02-07".into()),
        ("registered-at", "2025-01-01T07:00:00Z".into()),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    // What failed to apply is not applied.
    assert!(shown.get("applied").is_none());
    // One that never checked in says little, and that honestly.
    let fresh = test
        .get(&format!("/machines/{}", "f".repeat(32)))
        .await
        .expect(200)
        .body;
    assert_eq!(fresh["state"], "needs-check");
    for absent in [
        "last-check",
        "kernel",
        "applied",
        "offered",
        "outcome",
        "architecture",
    ] {
        assert!(fresh.get(absent).is_none(), "{absent}");
    }
    test.get(&format!("/machines/{}", id(99))).await.expect(404);
    // The form of a UUID is taken too.
    test.get("/machines/00000000-0000-0000-0000-000000000007")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_machine_is_moved_revoked_and_forgotten() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let (path, machine) = (
        format!("/machines/{}", id(1)),
        MachineId((1u128).to_be_bytes()),
    );
    let moved = test
        .put(
            &format!("{path}/tier"),
            json!({ "tier": "beta", "reason": "a canary" }),
        )
        .await
        .expect(200)
        .body;
    assert_eq!(
        (&moved["tier"], &moved["moved"]),
        (&json!("beta"), &json!(true))
    );
    let snapshot = test.core.snapshots.get_full();
    let tier = snapshot.overrides[&machine].tier_id.unwrap();
    assert_eq!(snapshot.catalog.tier_index(tier), Some(1));
    assert!(every_page(&test, "tier=beta").await.contains(&id(1)));
    test.put(&format!("{path}/tier"), json!({ "tier": "none" }))
        .await
        .expect(404);
    test.put(
        &format!("/machines/{}/tier", id(99)),
        json!({ "tier": "beta" }),
    )
    .await
    .expect(404);
    let long = json!({ "tier": "beta", "reason": "x".repeat(501) });
    test.put(&format!("{path}/tier"), long).await.expect(400);

    let revoked = test
        .post(&format!("{path}/revoke"), json!({ "reason": "stolen" }))
        .await
        .expect(200)
        .body;
    assert!(revoked["revoked-before"].is_string());
    assert_eq!(revoked["tier"], "beta");
    let before = test.core.snapshots.get_full().overrides[&machine]
        .revoked_before
        .unwrap();
    test.post(&format!("{path}/revoke"), json!({}))
        .await
        .expect(200);
    assert!(
        test.core.snapshots.get_full().overrides[&machine]
            .revoked_before
            .unwrap()
            > before
    );
    test.post(&format!("/machines/{}/revoke", id(99)), json!({}))
        .await
        .expect(404);

    // Forgotten is all but that it is revoked.
    let rows = test.db.raw().await;
    rows.batch_execute(&format!(
        "insert into machine_reports (at, machine_id, tier_id, patch, offered, architecture, state, outcome)
            select now(), '{0}', 1, 0, 0, 1, 1, 1; insert into pings (machine_id, ping_type) values ('{0}', 'ping_0')",
        id(1)
    ))
    .await
    .unwrap();
    test.delete(&path).await.expect(204);
    assert_eq!(test.last_audit().await, ("machine.forget".into(), id(1)));
    test.get(&path).await.expect(404);
    test.get(&format!("{path}/history")).await.expect(404);
    test.delete(&path).await.expect(404);
    let kept = test.core.snapshots.get_full().overrides[&machine];
    assert!(kept.revoked_before.is_some() && kept.tier_id.is_none());
    // One that was only moved leaves nothing.
    test.put(
        &format!("/machines/{}/tier", id(2)),
        json!({ "tier": "edge" }),
    )
    .await
    .expect(200);
    test.delete(&format!("/machines/{}", id(2)))
        .await
        .expect(204);
    assert!(
        !test
            .core
            .snapshots
            .get_full()
            .overrides
            .contains_key(&MachineId((2u128).to_be_bytes()))
    );
}

#[tokio::test]
async fn history_joins_check_ins_and_pings_newest_first() {
    let test = TestAdmin::new().await;
    fleet(&test).await;
    let rows = test.db.raw().await;
    // Five check-ins an hour apart, a ping between each two, and seven pings at one and the same time.
    rows.batch_execute(&format!(
        "insert into machine_reports (at, machine_id, tier_id, kernel_id, patch, offered, architecture, state, outcome)
            select timestamptz '2025-03-01Z' + n * interval '1 hour', '{0}', t.id, k.id, 0, (107 << 20) + 1, 1, 1, 1
            from generate_series(1, 5) n, tiers t, words k where t.name = 'stable' and k.text = '6.8.0-1047.50-aws';
         insert into pings (at, machine_id, ping_type, message, patch)
            select timestamptz '2025-03-01T00:30Z' + n * interval '1 hour', '{0}', 'ping_before', '', (107 << 20) + 1
            from generate_series(1, 5) n;
         insert into pings (at, machine_id, ping_type, message)
            select timestamptz '2025-03-02Z', '{0}', 'ping_err', 'fault ' || n from generate_series(1, 7) n;
         insert into pings (machine_id, ping_type) values ('{1}', 'ping_0')",
        id(1),
        id(2)
    ))
    .await
    .unwrap();
    let path = format!("/machines/{}/history", id(1));
    let all = test.get(&path).await.expect(200).body;
    let lines = all["items"].as_array().unwrap();
    assert_eq!(lines.len(), 17);
    assert!(
        lines
            .windows(2)
            .all(|pair| pair[0]["at"].as_str() >= pair[1]["at"].as_str())
    );
    assert_eq!(lines[0]["message"], "fault 1");
    assert_eq!(
        (
            &lines[7]["kind"],
            &lines[7]["ping-type"],
            &lines[7]["applied"]
        ),
        (&json!("ping"), &json!("ping_before"), &json!("107.1"))
    );
    assert_eq!(
        (
            &lines[8]["kind"],
            &lines[8]["tier"],
            &lines[8]["offered"],
            &lines[8]["kernel"],
            &lines[8]["outcome"]
        ),
        (
            &json!("report"),
            &json!("stable"),
            &json!("107.1"),
            &json!("6.8.0-1047.50-aws"),
            &json!("offer")
        )
    );
    // In pages that cut through the lines of one time, none is lost and none comes twice.
    for limit in [1, 2, 3, 5] {
        let mut seen = Vec::new();
        let mut next = format!("{path}?limit={limit}");
        loop {
            let page = test.get(&next).await.expect(200).body;
            seen.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(cursor) = page["next-cursor"].as_str() else {
                break;
            };
            next = format!("{path}?limit={limit}&cursor={cursor}");
        }
        assert_eq!(&seen, lines, "in pages of {limit}");
    }
    let part = test
        .get(&format!(
            "{path}?since=2025-03-01T02:00:00Z&until=2025-03-01T03:00:00Z"
        ))
        .await
        .expect(200)
        .body;
    let at: Vec<_> = part["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["at"].as_str().unwrap())
        .collect();
    assert_eq!(at, ["2025-03-01T02:30:00Z", "2025-03-01T02:00:00Z"]);
    // A machine that is known and has no history has an empty one.
    let empty = test
        .get(&format!("/machines/{}/history", id(3)))
        .await
        .expect(200)
        .body;
    assert_eq!(empty, json!({ "items": [] }));
    test.get(&format!("/machines/{}/history", id(99)))
        .await
        .expect(404);
}
