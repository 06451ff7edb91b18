//! The console in a real browser: every flow, by mouse and by keyboard, a halt seen live, and nothing that hinders people.
//!
//! Ignored unless asked for: `make test-console` installs the browser and runs them.

use crate::support::PASSWORD;
use crate::support::browser::Browser;
use crate::support::process::until;
use crate::support::server::{Machine, TestServer};
use livepatch_onprem::domain::Role;
use serde_json::{Value, json};

/// Machines of tier `edge`, checked in once.
async fn machines(server: &TestServer, count: u32) -> Vec<Machine> {
    let token = server.token("web", "edge").await;
    let mut machines = Vec::new();
    for n in 0..count {
        let machine = Machine::register(server, n, &token).await;
        machine.check(server, None).await;
        machines.push(machine);
    }
    machines
}

async fn policy(server: &TestServer, tier: &str, policy: Value) {
    server
        .admin(
            "PUT",
            &format!("tiers/{tier}/policy"),
            json!({ "policy": policy, "reason": "for the test" }),
        )
        .await;
}

#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn a_patch_is_promoted_held_and_blocked_with_a_preview_each() {
    let server = TestServer::with_two_patches().await;
    machines(&server, 3).await;
    let browser = Browser::open(&server.url).await;
    browser.go("/console/patches/107.1").await;
    browser.sign_in("admin", PASSWORD).await;
    browser.go("/console").await;
    browser.sees("Patches by tier").await;
    browser.press("107.1").await;
    browser.sees("LSN-0107-1").await;
    browser
        .go("/console/patches/107.1/promote?tier=stable")
        .await;
    browser
        .sees("livepatch-admin patch promote 107.1 stable")
        .await;
    browser.fill("#reason", "seen in the browser").await;
    browser.press("Promote to stable").await;
    browser.sees("The patch is promoted.").await;
    browser.sees("seen in the browser").await;
    browser.press("Hold…").await;
    browser.sees("livepatch-admin patch hold 107.1").await;
    browser.press("Hold 107.1").await;
    browser.sees("The patch is held").await;
    browser.press("Lift the hold…").await;
    browser.press("Lift the hold of 107.1").await;
    browser.sees("It goes on.").await;
    browser.press("Block…").await;
    browser.press("Block 107.1").await;
    browser.sees("The patch is blocked").await;
    let audit = server
        .admin("GET", "audit?action=patch&limit=5", Value::Null)
        .await;
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions[..3], ["patch.block", "patch.resume", "patch.hold"]);
}

/// What halts is seen without a reload, within seconds.
#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn a_halt_is_seen_live() {
    let server = TestServer::with_two_patches().await;
    let machines = machines(&server, 8).await;
    policy(&server, "edge", json!({
        "phases": ["100% for 1h"], "gate": { "machines": 4, "failure-rate": "20%", "window": "6h" }
    }))
    .await;
    server
        .admin("POST", "patches/107.1/promote", json!({ "tier": "beta" }))
        .await;
    let browser = Browser::open(&server.url).await;
    browser.sign_in("admin", PASSWORD).await;
    browser.go("/console").await;
    browser.sees("Patches by tier").await;
    browser.sees_not("halted at").await;
    // A mark that a reload would wipe away.
    browser.script("window.mark = 1").await;
    let upload = server
        .upload(&crate::support::kmod::real_bundle("108.1", "patched"))
        .await;
    assert_eq!(upload["result"], "stored", "{upload}");
    browser.sees("108.1").await;
    until("machines are offered the patch", async || {
        let mut offered = 0;
        for machine in &machines {
            offered += usize::from(machine.offered(&server, None).await == "108.1");
        }
        offered >= 4
    })
    .await;
    for machine in &machines {
        let mut report = machine.report(None);
        report["Status"][0]["Livepatch"]["State"] = json!("apply-failed");
        assert_eq!(machine.send(&server, &report).await.status(), 200);
    }
    browser.sees("halted at").await;
    browser
        .holds(
            "the alarm is told to those who listen",
            "return document.getElementById('live').textContent.includes('halted')",
        )
        .await;
    assert_eq!(
        browser.script("return window.mark").await,
        1,
        "the page was loaded anew"
    );
    browser.go("/console/rollouts").await;
    browser.sees("halted").await;
    let rollouts = server
        .admin("GET", "rollouts?version=108.1", Value::Null)
        .await;
    let id = rollouts["items"][0]["id"].as_i64().unwrap();
    // What was counted may be shown again for a moment, to either of the two.
    until(
        "as many machines are shown that failed as did",
        async || {
            let found = server
                .admin("GET", &format!("rollouts/{id}"), Value::Null)
                .await;
            let failed = found["health"]["failed"].as_u64().unwrap();
            browser.go(&format!("/console/rollouts/{id}")).await;
            let card = browser
                .script("return document.querySelector('.cards li.bad')?.textContent")
                .await;
            failed > 0 && card == format!("{failed}failed")
        },
    )
    .await;
    browser.press("Resume…").await;
    browser.press("Resume").await;
    browser.sees("It goes on.").await;
}

#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn a_viewer_sees_and_may_nothing() {
    const ACTS: [&str; 3] = ["Hold…", "Block…", "Promote to beta…"];
    let server = TestServer::with_two_patches().await;
    server.add_admin("viewer", Role::Viewer).await;
    server.add_admin("operator", Role::Operator).await;
    let browser = Browser::open(&server.url).await;
    browser.sign_in("operator", PASSWORD).await;
    browser.go("/console/patches/107.1").await;
    browser.sees("LSN-0107-1").await;
    for act in ACTS {
        assert!(
            browser.offers(act).await,
            "an operator is not offered {act}"
        );
    }
    browser.sign_out().await;
    browser.sign_in("viewer", PASSWORD).await;
    browser.go("/console/patches/107.1").await;
    browser.sees("LSN-0107-1").await;
    for act in ACTS {
        assert!(!browser.offers(act).await, "a viewer is offered {act}");
    }
    browser
        .go("/console/patches/107.1/promote?tier=stable")
        .await;
    browser.sees("this needs the role operator").await;
}

#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn a_second_person_approves() {
    let server = TestServer::with_two_patches().await;
    machines(&server, 2).await;
    server.add_admin("second", Role::Operator).await;
    policy(
        &server,
        "stable",
        json!({ "phases": ["100%"], "approval": true }),
    )
    .await;
    server
        .admin("POST", "patches/107.1/promote", json!({ "tier": "stable" }))
        .await;
    let found = async || {
        let rollouts = server
            .admin("GET", "rollouts?version=107.1&tier=stable", Value::Null)
            .await;
        rollouts["items"][0].clone()
    };
    until("a rollout waits for approval", async || {
        found().await["state"] == "awaiting-approval"
    })
    .await;
    let id = found().await["id"].as_i64().unwrap();
    let browser = Browser::open(&server.url).await;
    browser.sign_in("admin", PASSWORD).await;
    browser.go(&format!("/console/rollouts/{id}")).await;
    browser.press("Approve…").await;
    browser.sees("You asked for it yourself").await;
    assert!(
        !browser.offers("Approve").await,
        "who asked for it is offered to approve it"
    );
    browser.sign_out().await;
    browser.sign_in("second", PASSWORD).await;
    browser.go(&format!("/console/rollouts/{id}")).await;
    browser.press("Approve…").await;
    browser.press("Approve").await;
    browser.sees("The rollout is approved.").await;
    assert_eq!(found().await["approved-by"], "second");
}

#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn machines_are_found_explained_and_moved() {
    const WRONG: &str = "#find-selector[aria-invalid=true]";
    let server = TestServer::with_two_patches().await;
    let machines = machines(&server, 3).await;
    server
        .admin(
            "PATCH",
            &format!("machines/{}/labels", machines[0].id),
            json!({ "set": { "rack": "r1" } }),
        )
        .await;
    let browser = Browser::open(&server.url).await;
    browser.sign_in("admin", PASSWORD).await;
    browser.go("/console/machines?selector=rack%3Dr1").await;
    browser.sees(&machines[0].id).await;
    browser.sees_not(&machines[1].id).await;
    assert!(!browser.has(WRONG).await);
    browser.press(&machines[0].id).await;
    browser.sees("107.1").await;
    let explained = server
        .admin(
            "GET",
            &format!("machines/{}/explain", machines[0].id),
            Value::Null,
        )
        .await;
    let reasons = explained["reasons"].as_array().unwrap();
    browser
        .sees(reasons.last().unwrap()["text"].as_str().unwrap())
        .await;
    // What is wrong stands beside the field, which is marked.
    browser.go("/console/machines?selector=rack%3Dr1%2C").await;
    let fault = browser.find("#find-selector-fault").await;
    let fault = fault.text().await.unwrap();
    assert!(
        fault.contains("a term is missing beside a comma"),
        "{fault}"
    );
    assert!(browser.has(WRONG).await);
}

/// Without a mouse: from signing in to a promotion.
#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn the_keyboard_is_enough() {
    const TAB: &str = "\u{e004}";
    const ENTER: &str = "\u{e007}";
    let server = TestServer::with_two_patches().await;
    let browser = Browser::open(&server.url).await;
    browser.go("/console/login").await;
    browser.keys("admin").await;
    browser.keys(TAB).await;
    browser.keys(PASSWORD).await;
    browser.keys(ENTER).await;
    browser.sees("Patches by tier").await;
    // The first stop leads past the navigation.
    browser.script("document.activeElement.blur()").await;
    let tab_to = async |words: &str| {
        for _ in 0..80 {
            browser.keys(TAB).await;
            let at = browser
                .script("return document.activeElement.textContent.trim()")
                .await;
            if at == words {
                return;
            }
        }
        panic!(
            "{words:?} is not reached by the keyboard:\n{}",
            browser.text().await
        );
    };
    browser.find("body").await.send_keys(TAB).await.unwrap();
    let first = browser
        .script("return document.activeElement.textContent.trim()")
        .await;
    assert_eq!(first, "To the content");
    tab_to("107.1").await;
    browser.keys(ENTER).await;
    browser.sees("LSN-0107-1").await;
    tab_to("Hold…").await;
    browser.keys(ENTER).await;
    browser.sees("livepatch-admin patch hold 107.1").await;
    tab_to("Hold 107.1").await;
    browser.keys(ENTER).await;
    browser.sees("The patch is held").await;
}

/// Pictures of every page, light and dark, wide and narrow, and a look at each by axe-core.
#[tokio::test]
#[ignore = "needs a browser: make test-console"]
async fn every_page_can_be_used_by_everybody() {
    let server = TestServer::with_two_patches().await;
    let machines = machines(&server, 12).await;
    policy(&server, "beta", json!({
        "phases": ["50% for 4h", "100%"], "gate": { "machines": 2, "failure-rate": "20%", "window": "6h" }
    }))
    .await;
    server
        .admin(
            "POST",
            "patches/106.1/promote",
            json!({ "tier": "stable", "reason": "a month without trouble" }),
        )
        .await;
    server
        .admin("POST", "patches/107.1/promote", json!({ "tier": "beta" }))
        .await;
    for (n, machine) in machines.iter().enumerate() {
        let mut report = machine.report((n % 4 != 0).then_some("107.1"));
        if n % 4 == 0 {
            report["Status"][0]["Livepatch"]["State"] = json!("apply-failed");
        }
        assert_eq!(machine.send(&server, &report).await.status(), 200);
    }
    let found = async || {
        server
            .admin("GET", "rollouts?version=107.1", Value::Null)
            .await
    };
    until("a rollout begins", async || {
        found().await["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    })
    .await;
    let id = found().await["items"][0]["id"].as_i64().unwrap();
    let browser = Browser::open(&server.url).await;
    browser.go("/console/login").await;
    browser.is_accessible("login").await;
    browser.picture("login", "light", 1440).await;
    browser.sign_in("admin", PASSWORD).await;
    let pages = [
        ("patches", "/console".to_owned()),
        ("patch", "/console/patches/107.1".to_owned()),
        (
            "promote",
            "/console/patches/107.1/promote?tier=stable".to_owned(),
        ),
        ("rollouts", "/console/rollouts".to_owned()),
        ("rollout", format!("/console/rollouts/{id}")),
        ("machines", "/console/machines".to_owned()),
        ("machine", format!("/console/machines/{}", machines[0].id)),
        ("intake", "/console/intake".to_owned()),
        ("access", "/console/access".to_owned()),
        ("audit", "/console/audit".to_owned()),
    ];
    for (name, path) in &pages {
        for scheme in ["light", "dark"] {
            for width in [1440, 390] {
                browser.go(path).await;
                browser.picture(name, scheme, width).await;
            }
            // In both schemes, for the sake of contrast.
            browser.is_accessible(&format!("{name}, {scheme}")).await;
        }
    }
}
