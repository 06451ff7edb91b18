//! Coverage: who has what there is, which kernels lose their cover, whom a stopped patch has reached, and the table of
//! supported kernels.

use crate::support::admin::TestAdmin;
use crate::support::server::TestServer;
use livepatch_onprem::domain::{PatchVersion, Role};
use livepatch_onprem::rollout::support::DEFAULT_TABLE;
use serde_json::{Value, json};

const KERNEL: &str = "5.15.0-107.117-generic";

fn code(version: &str) -> i64 {
    version.parse::<PatchVersion>().unwrap().code()
}

async fn sql(test: &TestAdmin, text: &str) {
    test.db.raw().await.batch_execute(text).await.unwrap();
}

/// 106.1 has reached `stable`, 107.1 only `edge`.
async fn patches() -> TestAdmin {
    let test = TestAdmin::new().await;
    let name = |version| format!("livepatch-{KERNEL}-{version}-amd64.tar.bz2");
    test.plant_payloads(&[&name("106.1"), &name("107.1")]).await;
    let stable = json!({ "tier": "stable" });
    test.post("/patches/106.1/promote", stable)
        .await
        .expect(200);
    test
}

/// Machines that were all known for a day: number, tier, kernel, state, patch, and what more is set.
async fn machine(
    test: &TestAdmin,
    n: u32,
    (tier, kernel): (&str, &str),
    (state, patch): (i16, &str),
) {
    let patch = if patch.is_empty() { 0 } else { code(patch) };
    sql(
        test,
        &format!(
            "insert into words (kind, text) values (1, '{kernel}') on conflict do nothing;
             insert into machines (id, tier_id, registered_at, last_check, kernel_id, architecture, state, patch)
                select lpad(to_hex({n}), 32, '0')::uuid, t.id, now() - interval '1 day', now() - interval '10 minutes', w.id, 1, {state}, {patch}
                from tiers t, words w where t.name = '{tier}' and w.text = '{kernel}'"
        ),
    )
    .await;
}

async fn set(test: &TestAdmin, numbers: &str, what: &str) {
    sql(
        test,
        &format!("update machines set {what} where id in (select lpad(to_hex(n), 32, '0')::uuid from unnest(array[{numbers}]) n)"),
    )
    .await;
}

/// Three run 107.1 (one with a bug, one that was never offered it here), one failed, two were offered it and run something else
/// or nothing, one has nothing to do with it.
async fn reached() -> TestAdmin {
    let test = patches().await;
    for (n, state, patch) in [
        (1, 1, "107.1"),
        (2, 7, "107.1"),
        (3, 1, "107.1"),
        (4, 2, ""),
        (5, 1, "106.1"),
        (6, 3, ""),
        (7, 1, "106.1"),
    ] {
        machine(&test, n, ("edge", KERNEL), (state, patch)).await;
    }
    let tried = format!(
        "tried = {}, tried_at = now() - interval '30 minutes'",
        code("107.1")
    );
    set(&test, "1, 2, 4, 5, 6", &tried).await;
    test
}

fn standings(reach: &Value) -> Vec<(u64, &str)> {
    let machines = reach["items"].as_array().unwrap().iter();
    machines
        .map(|machine| {
            let id = machine["machine-id"].as_str().unwrap();
            let number = u64::from_str_radix(&id[24..], 16).unwrap();
            (number, machine["standing"].as_str().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn reach_tells_who_has_a_stopped_patch_and_who_has_polled_since() {
    let test = reached().await;
    let before = test.get("/patches/107.1/reach").await.expect(200).body;
    assert!(before["stopped-at"].is_null(), "{before}");
    assert!(before["items"][0]["polled-since"].is_null());
    assert_eq!(
        standings(&before),
        [
            (1, "has"),
            (2, "has"),
            (3, "has"),
            (4, "failed"),
            (5, "left"),
            (6, "left")
        ]
    );
    assert_eq!(before["items"][4]["runs"], "106.1");
    assert!(before["items"][2]["offered-at"].is_null(), "never offered");
    let block = json!({ "scope": {}, "reason": "it panics" });
    test.post("/patches/107.1/block", block).await.expect(200);
    set(&test, "1, 4, 6", "last_check = now() + interval '1 second'").await;
    set(&test, "2, 6", "last_check = now() - interval '3 hours'").await;
    let after = test.get("/patches/107.1/reach").await.expect(200).body;
    assert!(after["stopped-at"].is_string());
    assert_eq!(
        after["totals"],
        json!([
            { "standing": "has", "machines": 3, "polled-since": 1, "silent": 1 },
            { "standing": "failed", "machines": 1, "polled-since": 1, "silent": 0 },
            { "standing": "left", "machines": 2, "polled-since": 0, "silent": 1 },
        ])
    );
    let first = &after["items"][0];
    assert_eq!(
        (&first["polled-since"], &first["silent"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(after["items"][1]["silent"], true);
    // Page by page it is the same list.
    let (mut seen, mut path) = (Vec::new(), "/patches/107.1/reach?limit=4".to_owned());
    loop {
        let page = test.get(&path).await.expect(200).body;
        seen.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next-cursor"].as_str() else {
            break;
        };
        path = format!("/patches/107.1/reach?limit=4&cursor={cursor}");
    }
    assert_eq!(Value::Array(seen), after["items"]);
    let missing = test.get("/patches/999.1/reach").await.expect(404);
    assert!(missing.detail().contains("999.1"));
}

#[tokio::test]
async fn a_halt_stops_a_patch_until_it_is_resumed() {
    let test = reached().await;
    sql(
        &test,
        "insert into rollouts (patch_id, tier_id, state, requested_by)
            select p.id, t.id, 4, 'somebody' from patches p, tiers t where t.name = 'edge' and p.id = (select max(id) from patches);
         insert into rollout_events (rollout_id, at, kind, actor, text)
            select id, '2020-01-02T03:04:05Z', 'halt', 'system', 'x' from rollouts",
    )
    .await;
    let halted = test.get("/patches/107.1/reach").await.expect(200).body;
    assert_eq!(halted["stopped-at"], "2020-01-02T03:04:05Z");
    assert_eq!(halted["totals"][0]["polled-since"], 3);
    sql(&test, "update rollouts set state = 2").await;
    let resumed = test.get("/patches/107.1/reach").await.expect(200).body;
    assert!(resumed["stopped-at"].is_null(), "{resumed}");
}

#[tokio::test]
async fn coverage_by_tier_kernel_flavour_and_label() {
    let test = patches().await;
    let supported = "5.15.0-90.100-aws";
    for (n, place, report) in [
        (1, ("edge", KERNEL), (1, "107.1")),
        (2, ("edge", KERNEL), (1, "106.1")),
        (3, ("edge", KERNEL), (2, "")),
        (4, ("stable", KERNEL), (1, "106.1")),
        (5, ("stable", KERNEL), (3, "")),
        (6, ("stable", supported), (5, "")),
        (7, ("stable", "6.1.0-30-amd64"), (5, "")),
        (8, ("stable", KERNEL), (1, "106.1")),
        (9, ("stable", KERNEL), (0, "")),
    ] {
        machine(&test, n, place, report).await;
    }
    set(&test, "8", "build_date = '2020-01-01'").await;
    set(&test, "9", "kernel_id = null, last_check = null").await;
    set(&test, "5", "last_check = now() - interval '3 hours'").await;
    sql(
        &test,
        "insert into machine_labels (machine_id, key, value)
            select id, 'rack', case when state = 1 then 'r1' else 'r2' end from machines where patch <> 0 or state = 2",
    )
    .await;
    let coverage = test.get("/coverage").await.expect(200).body;
    let (edge, stable) = (&coverage["groups"][0], &coverage["groups"][1]);
    assert_eq!(
        (&edge["name"], &stable["name"]),
        (&json!("edge"), &json!("stable"))
    );
    let edge = &edge["counts"];
    assert_eq!(
        [&edge["covered"], &edge["behind"], &edge["failed"]],
        [1, 1, 1],
        "{edge}"
    );
    assert!((edge["ratio"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9);
    assert_eq!(
        stable["counts"],
        json!({
            "machines": 6, "covered": 1, "behind": 1, "failed": 0, "no-payload": 1, "kernel-upgrade-required": 1,
            "kernel-end-of-life": 0, "unsupported": 1, "unknown": 1, "silent": 1, "ratio": 0.25,
        })
    );
    assert_eq!(coverage["total"]["machines"], 9);
    let names = async |query: &str| {
        let coverage = test.get(query).await.expect(200).body;
        let groups = coverage["groups"].as_array().unwrap().iter();
        groups
            .map(|group| (group["name"].clone(), group["counts"]["machines"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names("/coverage?by=kernel").await,
        [
            (json!(KERNEL), json!(6)),
            (json!(supported), json!(1)),
            (json!("6.1.0-30-amd64"), json!(1)),
            (Value::Null, json!(1))
        ]
    );
    assert_eq!(
        names("/coverage?by=flavour").await,
        [
            (json!("amd64"), json!(1)),
            (json!("aws"), json!(1)),
            (json!("generic"), json!(6)),
            (Value::Null, json!(1))
        ]
    );
    let racks = [
        (json!("r1"), json!(4)),
        (json!("r2"), json!(1)),
        (Value::Null, json!(4)),
    ];
    assert_eq!(names("/coverage?by=label&label=rack").await, racks);
    assert_eq!(names("/coverage?label=rack").await, racks);
    for wrong in [
        "/coverage?by=label",
        "/coverage?by=tier&label=rack",
        "/coverage?by=moon",
    ] {
        test.get(wrong).await.expect(400).problem();
    }
    let metrics = test.core.metrics.encode();
    assert!(
        metrics.contains("\nlivepatch_machines_silent 1\n"),
        "{metrics}"
    );
    let ratio = coverage["total"]["ratio"].as_f64().unwrap();
    assert!(
        metrics.contains(&format!("\nlivepatch_coverage_ratio {ratio}\n")),
        "{ratio}"
    );
    // Machines by something are the leader's to show; every machine stands in each of the two.
    let machines = coverage["total"]["machines"].as_u64().unwrap();
    let sum = |text: &str, name: &str| -> u64 {
        let series = text.lines().filter(|line| line.starts_with(name));
        series
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    assert_eq!(sum(&metrics, "livepatch_machines"), 1, "{metrics}");
    test.core.metrics.fleet.lead(true);
    let metrics = test.core.metrics.encode();
    for name in ["livepatch_machines{", "livepatch_machines_by_patch{"] {
        assert_eq!(sum(&metrics, name), machines, "{name}");
    }
    // Every tier and state is there, also those without machines.
    assert!(
        metrics.contains(r#"livepatch_machines{state="apply-failed",tier="candidate"} 0"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"livepatch_machines_by_patch{patch="none""#),
        "{metrics}"
    );
}

#[tokio::test]
async fn kernels_that_lose_their_cover_are_foreseen() {
    let test = patches().await;
    for n in 1..=7 {
        machine(&test, n, ("stable", KERNEL), (3, "")).await;
    }
    // Patches are made for thirteen months.
    for (numbers, days) in [("1", -40), ("2, 3", 20), ("4", 45), ("5", 80), ("6", 200)] {
        let built = format!("build_date = (current_date + {days} - interval '13 months')::date");
        set(&test, numbers, &built).await;
    }
    let horizon = test.get("/coverage/horizon").await.expect(200).body;
    let numbers = [
        "now",
        "within-30-days",
        "within-60-days",
        "within-90-days",
        "age-unknown",
    ];
    assert_eq!(
        numbers.map(|key| horizon[key].as_u64().unwrap()),
        [1, 2, 3, 4, 1],
        "{horizon:#}"
    );
    let kernels = horizon["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 4);
    let (now, soon) = (&kernels[0], &kernels[1]);
    assert_eq!(
        (&now["days"], &now["becomes"]),
        (&json!(0), &json!("kernel-upgrade-required"))
    );
    assert_eq!(soon["machines"], 2);
    assert!(now["on"].as_str() < soon["on"].as_str(), "{horizon:#}");
}

#[tokio::test]
async fn the_table_of_kernels_is_replaced_whole_or_not_at_all() {
    let test = patches().await;
    machine(&test, 1, ("stable", "5.15.0-90.100-aws"), (5, "")).await;
    sql(
        &test,
        "insert into webhooks (name, url, secret, events, created_by) values ('w', 'http://127.0.0.1:1/', 'whsec_x', '{coverage.*}', 'admin')",
    )
    .await;
    let lines = DEFAULT_TABLE.lines().count() - 1;
    let kernels = async || {
        let list = test.get("/kernels").await.expect(200).body;
        list["items"].as_array().unwrap().clone()
    };
    let no_payload = async || {
        let coverage = test.get("/coverage").await.expect(200).body;
        coverage["total"]["no-payload"].as_u64().unwrap()
    };
    assert_eq!(kernels().await.len(), lines);
    assert_eq!(no_payload().await, 1);
    // The same table changes nothing and leaves no trace.
    let head = test.last_audit().await;
    let same = test.put("/kernels", json!({ "csv": DEFAULT_TABLE })).await;
    assert_eq!(same.expect(200).body["unchanged"], lines);
    assert_eq!(test.last_audit().await, head);
    let csv = "release,codename,architecture,series,kind,flavours,months,end-of-life\n\
        22.04,jammy,amd64,5.15,GA,generic,14,2032-04-01\n\
        28.04,zany,arm64,8.1,GA,generic,13,\n";
    let mut request = json!({ "csv": csv, "reason": "as of today", "dry-run": true });
    let told = test.put("/kernels", request.clone()).await.expect(200).body;
    assert_eq!(told["added"][0]["codename"], "zany");
    assert_eq!(told["removed"].as_array().unwrap().len(), lines - 1);
    assert_eq!(told["changed"][0]["before"]["months"], 13);
    assert_eq!(told["changed"][0]["after"]["end-of-life"], "2032-04-01");
    assert_eq!(kernels().await.len(), lines, "nothing was changed");
    assert_eq!(test.last_audit().await, head);
    // A mistake is named with its line, and nothing of the file is taken.
    let broken = json!({ "csv": format!("{csv}22.04,jammy,vax,5.15,GA,generic,13\n") });
    let refused = test.put("/kernels", broken).await.expect(400);
    assert!(
        refused.detail().contains("line 4: "),
        "{}",
        refused.detail()
    );
    let viewer = test.ask(Role::Viewer, "PUT", "/kernels", Some(request.clone()));
    viewer.await.expect(403);
    assert_eq!(kernels().await.len(), lines);
    request["dry-run"] = json!(false);
    test.put("/kernels", request).await.expect(200);
    assert_eq!(kernels().await.len(), 2);
    assert_eq!(test.last_audit().await.0, "kernels.import");
    assert_eq!(no_payload().await, 0, "aws is not covered any more");
    let rows = test.db.raw().await;
    let body = "select body from outbox where kind = 'coverage.changed'";
    let events = rows.query(body, &[]).await.unwrap();
    assert_eq!(events.len(), 1);
    let event: Value = serde_json::from_str(events[0].get(0)).unwrap();
    assert_eq!(
        (&event["data"]["added"], &event["data"]["reason"]),
        (&json!(1), &json!("as of today"))
    );
    let verified = test.get("/audit/verify").await.expect(200).body;
    assert_eq!(verified["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_show_it_and_write_csv() {
    let server = TestServer::with_two_patches().await;
    let patches = server.admin("GET", "patches", Value::Null).await;
    let version = patches["items"][0]["version"].as_str().unwrap().to_owned();
    let rows = server.db.raw().await;
    // More than one page of machines, one of them with a name for its kernel that a spreadsheet would compute.
    rows.batch_execute(&format!(
        "insert into words (kind, text) values (1, '=HYPERLINK(\"x\")'), (1, '{KERNEL}');
         insert into machines (id, tier_id, registered_at, last_check, kernel_id, architecture, state, patch)
            select lpad(to_hex(n), 32, '0')::uuid, t.id, now(), now(), w.id, 1, 1, {}
            from generate_series(1, 1002) n, tiers t, words w
            where t.name = 'stable' and w.kind = 1 and (n = 1) = (w.text like '=%')",
        code(&version)
    ))
    .await
    .unwrap();
    let (exit, csv) = server
        .said(&["rollout", "reach", &version, "--all", "--csv"])
        .await;
    assert_eq!(exit, 0, "{csv}");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 1003);
    assert_eq!(
        lines[0],
        "machine-id,tier,kernel,architecture,standing,state,runs,offered-at,last-check,polled-since,silent"
    );
    let hostile = format!(
        "00000000000000000000000000000001,stable,\"'=HYPERLINK(\"\"x\"\")\",amd64,has,applied,{version},,"
    );
    assert!(lines[1].starts_with(&hostile), "{}", lines[1]);
    assert!(lines[1].ends_with(",,false"), "{}", lines[1]);
    let (exit, told) = server
        .said(&["rollout", "reach", &version, "--limit", "1"])
        .await;
    assert!(
        exit == 0 && told.contains("1002") && told.contains("There are more"),
        "{told}"
    );
    let (exit, told) = server.said(&["coverage", "--by", "kernel"]).await;
    assert!(exit == 0 && told.contains(KERNEL), "{told}");
    let (exit, told) = server.said(&["coverage", "horizon"]).await;
    assert!(exit == 0 && told.contains("Within 90 days"), "{told}");
    let (exit, told) = server.said(&["coverage", "--by", "moon"]).await;
    assert!(exit == 2 && told.contains("label=KEY expected"), "{told}");
    // What is listed can be imported again; a changed line is shown.
    let (exit, csv) = server.said(&["kernels", "list", "--csv"]).await;
    assert_eq!(exit, 0, "{csv}");
    let file = server.folder.path().join("kernels.csv");
    let import = async |csv: &str, options: &[&str]| {
        std::fs::write(&file, csv).unwrap();
        let mut args = vec!["kernels", "import", file.to_str().unwrap()];
        args.extend(options);
        server.said(&args).await
    };
    let (exit, told) = import(&csv, &["--yes"]).await;
    assert!(exit == 0 && told.contains("nothing changes"), "{told}");
    let longer = csv.replacen(",9,", ",10,", 1);
    let (exit, told) = import(&longer, &["--dry-run"]).await;
    assert!(
        exit == 0 && told.contains("Changes") && told.contains("Nothing was changed"),
        "{told}"
    );
    let (exit, told) = import(&longer, &["--yes"]).await;
    assert!(exit == 0 && told.contains("1 line changed"), "{told}");
    let (exit, told) = import("release\n", &["--yes"]).await;
    assert!(exit != 0 && told.contains("line 1: the header"), "{told}");
}
