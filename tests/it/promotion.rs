//! Promotion, blocks and holds: what they change, what they refuse, and what a preview says of them.

use crate::support::admin::TestAdmin;
use livepatch_onprem::domain::{Architecture, Role};
use livepatch_onprem::rollout::Standing;
use serde_json::{Value, json};

const GENERIC: &str = "5.15.0-107.117-generic";
const AWS: &str = "5.15.0-1061.67-aws";

fn payload(kernel: &str, version: &str, arch: &str) -> String {
    format!("livepatch-{kernel}-{version}-{arch}.tar.bz2")
}

/// 107.1 and 108.1, each for generic on two architectures and for aws.
async fn stocked() -> TestAdmin {
    let test = TestAdmin::new().await;
    let mut names = Vec::new();
    for version in ["107.1", "108.1"] {
        names.push(payload(GENERIC, version, "amd64"));
        names.push(payload(GENERIC, version, "arm64"));
        names.push(payload(AWS, version, "amd64"));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    test.plant_payloads(&names).await;
    test
}

/// The index of the last tier that a payload has reached.
fn reach(test: &TestAdmin, kernel: &str, version: &str, arch: &str) -> Option<u16> {
    let name = payload(kernel, version, arch);
    let snapshot = test.core.snapshots.get_full();
    snapshot.catalog.by_filename(&name).unwrap().reach
}

fn standing(test: &TestAdmin, kernel: &str, version: &str) -> Standing {
    let snapshot = test.core.snapshots.get_full();
    let all = snapshot.catalog.for_kernel(kernel, Architecture::Amd64);
    let found = all.iter().find(|p| p.version.to_string() == version);
    found.unwrap().standing
}

async fn promote(test: &TestAdmin, version: &str, body: Value) -> crate::support::admin::Answer {
    let path = format!("/patches/{version}/promote");
    test.ask(Role::Operator, "POST", &path, Some(body)).await
}

#[tokio::test]
async fn a_promotion_goes_forward_and_says_what_it_did() {
    let test = stocked().await;
    let done = promote(
        &test,
        "107.1",
        json!({"tier": "candidate", "reason": "tested"}),
    )
    .await;
    assert_eq!(
        done.expect(200).body["patches"],
        json!([{"version": "107.1", "from": "edge", "to": "candidate"}])
    );
    assert_eq!(reach(&test, AWS, "107.1", "amd64"), Some(2));
    assert_eq!(reach(&test, AWS, "108.1", "amd64"), Some(0));
    assert_eq!(
        test.last_audit().await,
        ("patch.promote".to_owned(), "107.1".to_owned())
    );
    let shown = test.get("/patches/107.1").await.expect(200);
    assert_eq!(shown.body["patch"]["reach"], "candidate");
    assert_eq!(shown.body["patch"]["notice"], "LSN-0107-1");
    assert_eq!(shown.body["patch"]["promotions"][1]["reason"], "tested");
    assert_eq!(shown.body["payloads"].as_array().unwrap().len(), 3);

    // There already: nothing changes, nothing is logged.
    let again = promote(&test, "107.1", json!({"tier": "candidate"})).await;
    assert_eq!(again.expect(200).body["patches"], json!([]));
    assert_eq!(test.audited("patch.promote").await, 1);

    let back = promote(&test, "107.1", json!({"tier": "beta"}))
        .await
        .expect(409);
    assert!(back.detail().contains("patch block"), "{}", back.detail());
    for (version, body, status) in [
        ("109.1", json!({"tier": "beta"}), 404),
        ("107.1", json!({"tier": "none"}), 404),
        ("x", json!({"tier": "beta"}), 400),
        ("107.1", json!({"tier": "No"}), 422),
        ("107.1", json!({"tier": "stable", "force": true}), 422),
        (
            "107.1",
            json!({"tier": "stable", "scope": {"flavor": "aws"}}),
            422,
        ),
        (
            "107.1",
            json!({"tier": "stable", "scope": {"flavour": "A!"}}),
            400,
        ),
        (
            "107.1",
            json!({"tier": "stable", "scope": {"flavour": "aws", "kernel": GENERIC}}),
            400,
        ),
        (
            "107.1",
            json!({"tier": "stable", "reason": "x".repeat(1001)}),
            400,
        ),
        (
            "107.1",
            json!({"tier": "stable", "reason": "two\nlines"}),
            400,
        ),
        ("107.1", json!({}), 422),
    ] {
        let answer = promote(&test, version, body.clone()).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{version} {body}: {}",
            answer.body
        );
    }
    let viewer = test.ask(
        Role::Viewer,
        "POST",
        "/patches/107.1/promote",
        Some(json!({"tier": "stable"})),
    );
    viewer.await.expect(403);
    assert_eq!(test.audited("patch.promote").await, 1);
}

#[tokio::test]
async fn a_scope_narrows_a_promotion() {
    let test = stocked().await;
    let aws = json!({"flavour": "aws"});
    let done = promote(&test, "107.1", json!({"tier": "stable", "scope": aws})).await;
    assert_eq!(done.expect(200).body["payloads"], 1);
    let arm = json!({"architecture": "arm64"});
    promote(&test, "107.1", json!({"tier": "beta", "scope": arm}))
        .await
        .expect(200);
    assert_eq!(reach(&test, AWS, "107.1", "amd64"), Some(3));
    assert_eq!(reach(&test, GENERIC, "107.1", "arm64"), Some(1));
    assert_eq!(reach(&test, GENERIC, "107.1", "amd64"), Some(0));
    let shown = test.get("/patches/107.1").await.expect(200);
    assert_eq!(shown.body["patch"]["reach"], "edge");

    // What is wider reaches as far as it did; what is narrower is there already, or beyond.
    let kernel = json!({"kernel": AWS});
    let same = promote(&test, "107.1", json!({"tier": "stable", "scope": kernel})).await;
    assert_eq!(same.expect(200).body["patches"], json!([]));
    promote(&test, "107.1", json!({"tier": "beta", "scope": kernel}))
        .await
        .expect(409);
    let all = promote(&test, "107.1", json!({"tier": "beta"}))
        .await
        .expect(200);
    assert_eq!(all.body["patches"][0]["from"], "edge");
    assert_eq!(all.body["payloads"], 1);
    assert_eq!(reach(&test, AWS, "107.1", "amd64"), Some(3));
}

#[tokio::test]
async fn promote_all_takes_everything_that_came_so_far() {
    let test = stocked().await;
    promote(&test, "107.1", json!({"tier": "beta"}))
        .await
        .expect(200);
    let aws = json!({"flavour": "aws"});
    promote(&test, "108.1", json!({"tier": "candidate", "scope": aws}))
        .await
        .expect(200);

    let ask = json!({"from": "beta", "to": "stable", "dry-run": true});
    let preview = test.post("/promote-all", ask).await.expect(200);
    assert_eq!(preview.body["dry-run"], true);
    assert_eq!(
        preview.body["patches"],
        json!([
            {"version": "108.1", "from": "candidate", "to": "stable", "scope": {"flavour": "aws"}},
            {"version": "107.1", "from": "beta", "to": "stable"},
        ])
    );
    assert_eq!(preview.body["payloads"], 4);
    assert_eq!(reach(&test, AWS, "107.1", "amd64"), Some(1));
    assert_eq!(test.audited("patch.promote-all").await, 0);

    let ask = json!({"from": "beta", "to": "stable"});
    let done = test.post("/promote-all", ask.clone()).await.expect(200);
    assert_eq!(done.body["patches"], preview.body["patches"]);
    assert_eq!(reach(&test, AWS, "107.1", "amd64"), Some(3));
    assert_eq!(reach(&test, AWS, "108.1", "amd64"), Some(3));
    assert_eq!(reach(&test, GENERIC, "108.1", "amd64"), Some(0));
    let again = test.post("/promote-all", ask).await.expect(200);
    assert_eq!(again.body["patches"], json!([]));
    assert_eq!(test.audited("patch.promote-all").await, 1);

    for (body, status) in [
        (json!({"from": "stable", "to": "beta"}), 400),
        (json!({"from": "beta", "to": "beta"}), 400),
        (json!({"from": "none", "to": "beta"}), 404),
        (json!({"from": "edge", "to": "none"}), 404),
        (json!({"from": "edge"}), 422),
    ] {
        test.post("/promote-all", body).await.expect(status);
    }
}

#[tokio::test]
async fn a_preview_counts_machines_kernels_and_bytes() {
    let test = stocked().await;
    test.plant_machines(5, "beta", GENERIC, None).await;
    test.plant_machines(2, "beta", GENERIC, Some("107.1")).await;
    test.plant_machines(3, "stable", AWS, None).await;
    test.plant_machines(7, "beta", "6.8.0-31.31-generic", None)
        .await;
    test.plant_machines(4, "edge", GENERIC, None).await;
    let ask = json!({"tier": "beta", "dry-run": true});
    let preview = promote(&test, "107.1", ask).await.expect(200);
    assert_eq!(preview.body["payloads"], 3);
    assert_eq!(preview.body["machines"], 5);
    assert_eq!(preview.body["bytes"], 5000);
    assert_eq!(
        preview.body["kernels-without-payload"],
        json!([{"kernel": "6.8.0-31.31-generic", "architecture": "amd64", "machines": 7}])
    );
    assert_eq!(test.rows("promotions").await, 2);
    let done = promote(&test, "107.1", json!({"tier": "stable"})).await;
    assert_eq!(done.expect(200).body["machines"], 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn promotions_at_once_agree() {
    let test = stocked().await;
    let all = (0..6).map(|_| promote(&test, "107.1", json!({"tier": "stable"})));
    let answers = futures_util::future::join_all(all).await;
    let changed = answers
        .iter()
        .filter(|a| a.body["patches"] != json!([]))
        .count();
    assert!(answers.iter().all(|a| a.status == 200));
    assert_eq!(changed, 1);
    assert_eq!(test.audited("patch.promote").await, 1);
    assert_eq!(test.rows("promotions").await, 3);
}

#[tokio::test]
async fn blocks_and_holds_are_set_once_and_lifted_with_their_scope() {
    let test = stocked().await;
    test.plant_machines(5, "edge", GENERIC, Some("107.1")).await;
    test.plant_machines(2, "beta", AWS, Some("107.1")).await;
    let act = |verb: &'static str, body: Value| {
        let test = &test;
        async move {
            let path = format!("/patches/107.1/{verb}");
            test.ask(Role::Operator, "POST", &path, Some(body)).await
        }
    };
    let aws = json!({"scope": {"flavour": "aws"}, "reason": "oops"});
    let held = act("hold", aws.clone()).await.expect(200);
    assert_eq!(held.body["changed"], true);
    assert_eq!(held.body["machines-running"], 2);
    assert_eq!(standing(&test, AWS, "107.1"), Standing::Held);
    assert_eq!(standing(&test, GENERIC, "107.1"), Standing::Free);

    let blocked = act("block", json!({})).await.expect(200);
    assert_eq!(blocked.body["machines-running"], 7);
    let kinds: Vec<&str> = blocked.body["blocks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["hold", "block"]);
    assert_eq!(blocked.body["blocks"][0]["reason"], "oops");
    assert_eq!(standing(&test, AWS, "107.1"), Standing::Blocked);
    assert_eq!(standing(&test, AWS, "108.1"), Standing::Free);

    // The same again changes nothing and is not logged; another scope than the one set lifts nothing.
    let audited = test.rows("audit_log").await;
    assert_eq!(
        act("block", json!({})).await.expect(200).body["changed"],
        false
    );
    assert_eq!(
        act("resume", json!({})).await.expect(200).body["changed"],
        false
    );
    assert_eq!(
        act("unblock", aws.clone()).await.expect(200).body["changed"],
        false
    );
    assert_eq!(test.rows("audit_log").await, audited);

    assert_eq!(
        act("unblock", json!({})).await.expect(200).body["changed"],
        true
    );
    assert_eq!(standing(&test, AWS, "107.1"), Standing::Held);
    let free = act("resume", aws.clone()).await.expect(200);
    assert_eq!(free.body["blocks"], json!([]));
    assert_eq!(standing(&test, AWS, "107.1"), Standing::Free);
    assert_eq!(test.last_audit().await.0, "patch.resume");
    // A lifted one can be set again.
    assert_eq!(act("hold", aws).await.expect(200).body["changed"], true);

    for (path, body, status) in [
        ("/patches/109.1/block", json!({}), 404),
        ("/patches/107/block", json!({}), 400),
        ("/patches/107.1/block", json!({"why": "x"}), 422),
        (
            "/patches/107.1/block",
            json!({"scope": {"architecture": "vax"}}),
            422,
        ),
        (
            "/patches/107.1/hold",
            json!({"scope": {"flavour": "aws", "kernel": GENERIC}}),
            400,
        ),
    ] {
        test.post(path, body).await.expect(status);
    }
}

#[tokio::test]
async fn patches_are_listed_highest_first_in_pages() {
    let test = stocked().await;
    test.plant_payloads(&[&payload(GENERIC, "99.12", "amd64")])
        .await;
    let page = test.get("/patches?limit=2").await.expect(200);
    let items = page.body["items"].as_array().unwrap();
    assert_eq!(
        (&items[0]["version"], &items[1]["version"]),
        (&json!("108.1"), &json!("107.1"))
    );
    assert_eq!(
        (&items[0]["payloads"], &items[0]["kernels"]),
        (&json!(3), &json!(2))
    );
    let cursor = page.body["next-cursor"].as_str().unwrap();
    let next = test
        .get(&format!("/patches?limit=2&cursor={cursor}"))
        .await
        .expect(200);
    assert_eq!(next.body["items"].as_array().unwrap().len(), 1);
    assert_eq!(next.body["items"][0]["version"], "99.12");
    assert_eq!(next.body["next-cursor"], Value::Null);
    for bad in ["cursor=x", "limit=0", "page=2"] {
        test.get(&format!("/patches?{bad}")).await.expect(400);
    }
    test.get("/patches/1.1").await.expect(404);
    test.get("/patches/latest").await.expect(400);
}
