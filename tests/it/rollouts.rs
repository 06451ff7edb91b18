//! Rollouts in a database: what the leader's pass begins, advances and halts, and what people can do about it.

use crate::support::admin::TestAdmin;
use crate::support::kmod;
use crate::support::process::{Server, Site, until};
use livepatch_onprem::domain::{PatchVersion, Role};
use livepatch_onprem::service::rollouts::{Memory, Pass, pass};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const KERNEL: &str = "5.15.0-107.117-generic";

/// The code under which a version is stored.
fn code(version: &str) -> i64 {
    version.parse::<PatchVersion>().unwrap().code()
}

/// A policy that halts at more than 10% of at least ten machines.
fn policy() -> Value {
    json!({ "phases": ["10% for 4h", "100%"], "gate": { "machines": 10, "failure-rate": "10%", "window": "24h" } })
}

/// Patch 107.1 has reached nothing yet; `machines` machines stand in `edge`, known for a day.
async fn fleet(machines: u32) -> TestAdmin {
    let test = TestAdmin::new().await;
    let name = format!("livepatch-{KERNEL}-107.1-amd64.tar.bz2");
    test.plant_payloads(&[&name]).await;
    // It entered the first tier with that; here it is promoted by the tests.
    test.sql("delete from promotions").await;
    let rows = test.db.raw().await;
    rows.batch_execute(&format!(
        "insert into words (kind, text) values (1, '{KERNEL}');
         insert into machines (id, tier_id, registered_at, last_check, kernel_id, architecture, state, outcome)
            select lpad(to_hex(n), 32, '0')::uuid, t.id, now() - interval '1 day', now(), w.id, 1, 3, 4
            from generate_series(1, {machines}) n, tiers t, words w where t.name = 'edge'"
    ))
    .await
    .unwrap();
    test
}

impl TestAdmin {
    async fn look(&self) -> Pass {
        pass(&self.core, 0, &mut Memory::new()).await.unwrap()
    }

    async fn sql(&self, text: &str) {
        self.db.raw().await.batch_execute(text).await.unwrap();
    }

    /// 107.1 is rolling out in `edge` under a policy, begun two hours ago; its number.
    async fn begun(&self, policy: Value) -> i64 {
        self.put("/tiers/edge/policy", json!({ "policy": policy }))
            .await
            .expect(200);
        let promote = json!({ "tier": "edge" });
        self.post("/patches/107.1/promote", promote)
            .await
            .expect(200);
        assert_eq!(self.look().await.changes, 1);
        self.sql(
            "update rollouts set begun_at = begun_at - interval '2 hours', phase_at = phase_at - interval '2 hours',
                counts_from = counts_from - interval '2 hours'",
        )
        .await;
        self.rollout("107.1").await["id"].as_i64().unwrap()
    }

    async fn rollout(&self, version: &str) -> Value {
        let list = self.get("/rollouts?all=true").await.expect(200).body;
        let found = list["items"].as_array().unwrap().iter();
        let mut found = found.filter(|rollout| rollout["version"] == version);
        found.next().expect("a rollout").clone()
    }

    /// Machines `from..=to` were offered the patch an hour ago and have reported this state and version since.
    async fn report(&self, from: u32, to: u32, state: i16, version: &str) {
        let (offered, patch) = (
            code("107.1"),
            if version.is_empty() { 0 } else { code(version) },
        );
        self.sql(&format!(
            "update machines set tried = {offered}, tried_at = now() - interval '1 hour', last_check = now(),
                state = {state}, patch = {patch}
             where id between lpad(to_hex({from}), 32, '0')::uuid and lpad(to_hex({to}), 32, '0')::uuid"
        ))
        .await;
    }
}

#[tokio::test]
async fn a_rollout_begins_goes_on_and_ends_by_itself() {
    let test = fleet(100).await;
    let mut with_promotion = policy();
    with_promotion["auto-promote"] = json!(true);
    with_promotion["soak"] = json!("1h");
    let id = test.begun(with_promotion).await;
    assert_eq!(test.rollout("107.1").await["state"], "running");
    // Twice as many machines as the gate asks for are let in first: here more than the phase.
    assert_eq!(test.look().await.changes, 1);
    assert_eq!(test.rollout("107.1").await["share"], "10%");
    test.report(1, 10, 1, "107.1").await;
    assert_eq!(test.look().await.changes, 0, "four hours have not passed");
    test.sql("update rollouts set phase_at = phase_at - interval '4 hours'")
        .await;
    assert_eq!(test.look().await.changes, 1);
    let rollout = test.rollout("107.1").await;
    assert_eq!(
        (&rollout["phase"], &rollout["share"]),
        (&json!(2), &json!("100%"))
    );
    test.report(1, 100, 1, "107.1").await;
    test.sql("update rollouts set phase_at = phase_at - interval '2 hours'")
        .await;
    assert_eq!(test.look().await.changes, 1);
    assert_eq!(test.rollout("107.1").await["state"], "done");
    assert_eq!(test.look().await.changes, 0, "it has not soaked");
    test.sql("update rollouts set ended_at = ended_at - interval '1 hour'")
        .await;
    assert_eq!(test.look().await.changes, 1);
    assert_eq!(test.look().await.changes, 0, "once");
    let patch = test.get("/patches/107.1").await.expect(200).body;
    assert_eq!(patch["patch"]["reach"], "beta");
    let detail = test.get(&format!("/rollouts/{id}")).await.expect(200).body;
    let kinds: Vec<&str> = detail["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["promote", "complete", "advance", "widen", "begin"]);
    assert_eq!(detail["health"]["applied"], 100);
    let verified = test.get("/audit/verify").await.expect(200).body;
    assert_eq!(verified["ok"], true);
}

#[tokio::test]
async fn failures_halt_it_and_a_person_decides() {
    let test = fleet(100).await;
    let id = test.begun(policy()).await;
    test.look().await;
    test.report(1, 9, 1, "107.1").await;
    test.report(10, 11, 2, "").await;
    assert_eq!(test.look().await.changes, 1);
    let rollout = test.rollout("107.1").await;
    assert_eq!(rollout["state"], "halted");
    let why = rollout["reason"].as_str().unwrap();
    assert!(
        why.contains(
            "2 of 11 machines failed (2 reported a failure, 0 went silent): 18.1818% of 11"
        ),
        "{why}"
    );
    assert_eq!(test.look().await.changes, 0, "it stays halted");
    // What stands halted cannot be paused, and its tier cannot be deleted from under it.
    let pause = test.post(&format!("/rollouts/{id}/pause"), json!({})).await;
    assert_eq!(pause.expect(409).problem(), "conflict");
    let deleted = test
        .ask(Role::Admin, "DELETE", "/tiers/edge?move-to=beta", None)
        .await;
    assert!(
        deleted
            .expect(409)
            .detail()
            .contains("a rollout halted in edge")
    );
    // A person resumes it: what failed before counts no more, and new failures do.
    let resume = json!({ "reason": "the two had full disks" });
    test.post(&format!("/rollouts/{id}/resume"), resume)
        .await
        .expect(200);
    assert_eq!(test.look().await.changes, 0);
    assert_eq!(test.rollout("107.1").await["state"], "running");
    test.report(12, 14, 2, "").await;
    test.sql(&format!("update machines set tried_at = now() where state = 2 and tried = {} and id >= lpad(to_hex(12), 32, '0')::uuid", code("107.1"))).await;
    test.sql("update machines set last_check = tried_at + interval '1 second' where state = 2")
        .await;
    assert_eq!(test.look().await.changes, 1);
    assert_eq!(test.rollout("107.1").await["state"], "halted");
    // Blocked: the patch is withdrawn, and the rollout has ended.
    let path = format!("/rollouts/{id}/block");
    let blocked = test.post(&path, json!({ "reason": "it panics" }));
    assert_eq!(
        blocked.await.expect(200).body["rollout"]["state"],
        "aborted"
    );
    let patch = test.get("/patches/107.1").await.expect(200).body;
    assert_eq!(patch["patch"]["blocks"][0]["kind"], "block");
    assert_eq!(test.look().await.changes, 0);
}

#[tokio::test]
async fn who_was_not_asked_has_no_vote() {
    let test = fleet(100).await;
    test.begun(policy()).await;
    test.look().await;
    test.report(1, 10, 1, "107.1").await;
    // Machines that report a failure of a patch they were never offered.
    test.sql(&format!(
        "update machines set state = 7, patch = {} where id > lpad(to_hex(50), 32, '0')::uuid",
        code("107.1")
    ))
    .await;
    // A burst of machines that registered after it began, were offered it and say that it failed.
    test.sql(&format!(
        "insert into machines (id, tier_id, registered_at, last_check, kernel_id, architecture, state, outcome, tried, tried_at)
            select lpad(to_hex(n), 32, '0')::uuid, t.id, now(), now(), w.id, 1, 2, 1, {}, now() - interval '1 minute'
            from generate_series(1000, 1999) n, tiers t, words w where t.name = 'edge'", code("107.1"))).await;
    // A report from before the offer, and an error ping of a machine from before it.
    test.report(11, 11, 2, "").await;
    test.sql("update machines set last_check = tried_at where state = 2 and registered_at < now() - interval '1 hour'").await;
    test.sql(&format!(
        "insert into pings (at, machine_id, ping_type, patch) select now() - interval '90 minutes', id, 'ping_err', {} from machines", code("107.1"))).await;
    assert_eq!(test.look().await.changes, 0);
    let detail = test.get("/rollouts/1").await.expect(200).body;
    let health = &detail["health"];
    assert_eq!(
        (&health["offered"], &health["failed"], &health["applied"]),
        (&json!(11), &json!(0), &json!(10)),
        "{health}"
    );
    // The same machine says it many times and counts once: one of eleven is not more than 10%.
    for _ in 0..5 {
        test.sql(&format!(
            "insert into pings (at, machine_id, ping_type, patch) select now(), id, 'ping_err_rebooted', {} from machines
             where id = lpad(to_hex(1), 32, '0')::uuid", code("107.1"))).await;
    }
    assert_eq!(test.look().await.changes, 0);
    let detail = test.get("/rollouts/1").await.expect(200).body;
    assert_eq!(
        (&detail["health"]["failed"], &detail["health"]["applied"]),
        (&json!(1), &json!(9))
    );
    let pings = "delete from pings where machine_id = lpad(to_hex(11), 32, '0')::uuid";
    test.sql(pings).await;
    // A machine that was offered it and has not come back for twice its interval counts against it.
    test.sql("update machines set last_check = now() - interval '3 hours', tried_at = now() - interval '3 hours' where id = lpad(to_hex(11), 32, '0')::uuid").await;
    test.sql("update rollouts set counts_from = counts_from - interval '4 hours', begun_at = begun_at - interval '4 hours'").await;
    assert_eq!(test.look().await.changes, 1);
    let why = test.rollout("107.1").await["reason"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        why.contains("2 of 11 machines failed (1 reported a failure, 1 went silent)"),
        "{why}"
    );
}

#[tokio::test]
async fn a_second_person_approves() {
    let test = fleet(10).await;
    let mut careful = policy();
    careful["approval"] = json!(true);
    let id = test.begun(careful).await;
    assert_eq!(test.rollout("107.1").await["state"], "awaiting-approval");
    assert_eq!(test.look().await.changes, 0);
    let path = format!("/rollouts/{id}/approve");
    let refused = test.post(&path, json!({})).await.expect(403);
    assert!(refused.detail().contains("somebody else must approve it"));
    let approved = test
        .ask(Role::Operator, "POST", &path, Some(json!({})))
        .await
        .expect(200);
    assert_eq!(approved.body["rollout"]["approved-by"], "operator");
    test.look().await;
    assert_eq!(test.rollout("107.1").await["state"], "running");
}

#[tokio::test]
async fn policies_keep_what_is_available_and_give_it_back() {
    let test = fleet(10).await;
    test.post("/patches/107.1/promote", json!({ "tier": "beta" }))
        .await
        .expect(200);
    test.put(
        "/tiers/edge/policy",
        json!({ "policy": policy(), "reason": "carefully" }),
    )
    .await
    .expect(200);
    assert_eq!(test.look().await.changes, 0, "nothing to roll out");
    assert_eq!(test.rollout("107.1").await["state"], "done");
    // The same again changes nothing and leaves no trace.
    let head = test.last_audit().await;
    test.put("/tiers/edge/policy", json!({ "policy": policy() }))
        .await
        .expect(200);
    assert_eq!(test.last_audit().await, head);
    // Nonsense is refused with everything that is wrong in it.
    let nonsense = json!({ "policy": { "phases": ["50% for 1h", "10%"], "zone": "Mars/Base" } });
    let refused = test.put("/tiers/edge/policy", nonsense).await.expect(400);
    assert!(
        refused
            .detail()
            .contains("zone: \"Mars/Base\" is not a valid time zone"),
        "{}",
        refused.detail()
    );
    let shrinking = json!({ "policy": { "phases": ["50% for 1h", "10%"] } });
    let refused = test.put("/tiers/edge/policy", shrinking).await.expect(400);
    assert!(
        refused
            .detail()
            .contains("phases[1].share: 10% follows 50%; each phase must be wider"),
        "{}",
        refused.detail()
    );
    // As a file: what would change is said first; a tier that is not named loses its policy.
    let mut plan = json!({ "policies": { "beta": { "phases": ["100%"] } }, "dry-run": true });
    let planned = test
        .post("/policies/apply", plan.clone())
        .await
        .expect(200)
        .body;
    let actions: Vec<_> = planned["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["tier"].as_str().unwrap(), c["action"].as_str().unwrap()))
        .collect();
    assert_eq!(actions, [("edge", "unset"), ("beta", "set")]);
    assert_eq!(
        test.get("/policies").await.expect(200).body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    plan["dry-run"] = json!(false);
    test.post("/policies/apply", plan.clone()).await.expect(200);
    let policies = test.get("/policies").await.expect(200).body;
    assert_eq!(policies["items"][0]["tier"], "beta");
    let unknown = json!({ "policies": { "nowhere": { "phases": ["100%"] } } });
    test.post("/policies/apply", unknown).await.expect(404);
}

#[tokio::test]
async fn labels_are_taken_turn_by_turn() {
    let test = fleet(40).await;
    test.sql(
        "insert into machine_labels (machine_id, key, value)
            select id, 'rack', 'r' || (row_number() over (order by id) % 2) from machines",
    )
    .await;
    let capped = json!({ "phases": ["100%"], "label-caps": [{ "label": "rack", "machines": 3 }] });
    test.begun(capped).await;
    let mut memory = Memory::new();
    let mut seen = 0;
    for round in 0..40 {
        pass(&test.core, 0, &mut memory).await.unwrap();
        let snapshot = test.core.snapshots.get_full();
        let catalog = &snapshot.catalog;
        let payload = catalog
            .payloads()
            .iter()
            .find(|p| p.version.major == 107)
            .unwrap();
        let tier = catalog.tiers()[0].id;
        let now = jiff::Timestamp::now();
        let rows = test.db.raw().await;
        let waiting = rows.query("select m.id, l.value from machines m join machine_labels l on l.machine_id = m.id where tried = 0", &[]).await.unwrap();
        let mut admitted: BTreeMap<String, Vec<uuid::Uuid>> = BTreeMap::new();
        for row in &waiting {
            let id: uuid::Uuid = row.get(0);
            let machine = livepatch_onprem::domain::MachineId(*id.as_bytes());
            if snapshot
                .rollouts
                .stops(tier, payload, &machine, now)
                .is_none()
            {
                admitted.entry(row.get(1)).or_default().push(id);
            }
        }
        assert!(
            admitted.values().all(|machines| machines.len() <= 3),
            "round {round}: {admitted:?}"
        );
        // One of each rack is offered it and applies it; the next one follows.
        for machines in admitted.values() {
            seen += 1;
            rows.execute("update machines set tried = $2, tried_at = now() - interval '1 minute', last_check = now(), state = 1, patch = $2 where id = $1", &[&machines[0], &code("107.1")]).await.unwrap();
        }
    }
    assert_eq!(seen, 40, "everybody had a turn");
}

#[tokio::test]
async fn of_two_leaders_one_moves_it() {
    let test = fleet(100).await;
    test.begun(policy()).await;
    // Another replica leads since: whatever the old leader decides, it writes nothing.
    test.sql("update leader set epoch = 7").await;
    let late = test.look().await;
    assert!(late.superseded, "{late:?}");
    assert_eq!(late.changes, 0);
    assert_eq!(test.rollout("107.1").await["share"], "0%");
    // Both at once, in the same epoch: every change is made once.
    let (mut one, mut other) = (Memory::new(), Memory::new());
    let (one, other) = tokio::join!(
        pass(&test.core, 7, &mut one),
        pass(&test.core, 7, &mut other)
    );
    assert_eq!(one.unwrap().changes + other.unwrap().changes, 1);
    let rollout = test.rollout("107.1").await;
    assert_eq!(rollout["share"], "10%");
    let id = rollout["id"].as_i64().unwrap();
    let detail = test.get(&format!("/rollouts/{id}")).await.expect(200).body;
    let widened = detail["events"].as_array().unwrap().iter();
    assert_eq!(widened.filter(|event| event["kind"] == "widen").count(), 1);
}

#[tokio::test]
async fn a_tier_may_go_while_a_patch_comes_to_it() {
    let test = fleet(100).await;
    test.begun(policy()).await;
    test.look().await;
    let gone = test.delete("/tiers/edge?move-to=beta").await.expect(200);
    assert_eq!(gone.body["machines"], 100);
    // Its policy and its rollout went with it; the next look finds nothing to do, and the machines stand in a tier without a policy.
    assert_eq!(test.look().await, Pass::default());
    let list = test.get("/rollouts?all=true").await.expect(200).body;
    assert_eq!(list["items"], json!([]));
    assert_eq!(
        test.get("/policies").await.expect(200).body["items"],
        json!([])
    );
    assert_eq!(test.get("/audit/verify").await.expect(200).body["ok"], true);
}

/// Asks until the version is offered.
async fn comes(server: &Server, machine: u128, token: &str, version: &str) {
    until("the offer", async || {
        server.offered(machine, token).await == version
    })
    .await;
}

#[tokio::test]
async fn a_halt_is_felt_at_every_replica_within_two_seconds() {
    let site = Site::new().await;
    let (one, other) = (site.start().await, site.start().await);
    let (name, bytes) = kmod::bundle_in_memory("107.1", true);
    let auth = one.token("edge", "edge").await;
    let mut tokens = Vec::new();
    for machine in 1..=12 {
        tokens.push(one.registered(machine, &auth).await);
        one.reported(machine, &tokens[machine as usize - 1], None)
            .await;
    }
    let policy = json!({ "policy": { "phases": ["100%"], "gate": { "machines": 10, "failure-rate": "10%", "window": "24h" } } });
    one.admin("PUT", "tiers/edge/policy", policy)
        .await
        .unwrap()
        .expect(200);
    one.upload(&name, bytes).await.unwrap().expect(201);
    // The leader begins the rollout, and every machine is let in.
    for machine in 1..=11 {
        comes(&other, machine, &tokens[machine as usize - 1], "107.1").await;
    }
    for machine in 1..=9 {
        other
            .reported(machine, &tokens[machine as usize - 1], Some("107.1"))
            .await;
    }
    for machine in 10..=11 {
        other.failed(machine, &tokens[machine as usize - 1]).await;
    }
    let halted = async |server: &Server| {
        let list = server
            .admin("GET", "rollouts", Value::Null)
            .await
            .unwrap()
            .expect(200);
        list["items"][0]["state"] == "halted"
    };
    until("the halt", async || halted(&one).await).await;
    // Wherever the twelfth machine asks, it is not offered it, and is told why.
    let felt = until("the halt at the other replica", async || {
        other.offered(12, &tokens[11]).await.is_empty()
            && one.offered(12, &tokens[11]).await.is_empty()
    });
    let felt = felt.await;
    assert!(felt < Duration::from_secs(2), "{felt:?}");
    let answer = other
        .check(12, &tokens[11], None)
        .await
        .unwrap()
        .expect(200);
    assert_eq!(answer["reasons"][0]["code"], "halted", "{answer}");
    assert!(
        one.page("metrics")
            .await
            .1
            .contains("livepatch_rollout_halts_total 1")
            || other
                .page("metrics")
                .await
                .1
                .contains("livepatch_rollout_halts_total 1")
    );
    one.stop().await;
    other.stop().await;
}
