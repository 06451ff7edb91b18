//! Webhooks as administrators see them: who may do what, what is shown to whom, what is refused; and the command against a real
//! server and a real receiver.

use crate::support::admin::TestAdmin;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::TestServer;
use livepatch_onprem::domain::Role;
use serde_json::{Value, json};
use std::process::Output;

async fn add(test: &TestAdmin, body: Value) -> crate::support::admin::Answer {
    test.post("/webhooks", body).await
}

#[tokio::test]
async fn a_webhook_is_made_with_a_secret_that_is_shown_once() {
    let test = TestAdmin::new().await;
    let url = "https://hooks.example/canary-path?key=canary-query";
    let ask = json!({"name": "ops", "url": url, "events": ["sync.failed", "patch.*", "patch.*"]});
    let made = add(&test, ask.clone()).await.expect(201);
    let secret = made.body["secret"].as_str().unwrap().to_owned();
    assert!(
        secret.starts_with("whsec_") && secret.len() == 50,
        "{secret}"
    );
    assert_eq!(made.body["webhook"]["url"], url);
    assert_eq!(
        made.body["webhook"]["events"],
        json!(["patch.*", "sync.failed"])
    );
    assert_eq!(
        test.last_audit().await,
        ("webhook.add".to_owned(), "ops".to_owned())
    );
    for (role, shown) in [
        (Role::Viewer, "https://hooks.example/[hidden]"),
        (Role::Operator, "https://hooks.example/[hidden]"),
        (Role::Admin, url),
    ] {
        let listed = test.ask(role, "GET", "/webhooks", None).await.expect(200);
        assert_eq!(listed.body["items"][0]["url"], shown, "{role}");
        assert!(!listed.body.to_string().contains(&secret));
    }
    let audit = test.get("/audit").await.expect(200).body.to_string();
    assert!(audit.contains("https://hooks.example"), "{audit}");
    assert!(!audit.contains("canary") && !audit.contains(&secret));
    let again = add(&test, ask).await.expect(409);
    assert!(again.detail().contains("ops"), "{}", again.detail());
    test.delete("/webhooks/ops").await.expect(204);
    test.delete("/webhooks/ops").await.expect(404);
    let listed = test.get("/webhooks").await.expect(200);
    assert_eq!(listed.body, json!({"items": []}));
}

#[tokio::test]
async fn what_makes_no_webhook_is_refused_with_what_would() {
    let test = TestAdmin::new().await;
    for (body, status, says) in [
        (
            json!({"name": "a", "url": "hooks.example"}),
            400,
            "https://",
        ),
        (
            json!({"name": "a", "url": "http://user:canary@hooks.example/"}),
            400,
            "password",
        ),
        (
            json!({"name": "a", "url": "http://127.0.0.1/canary"}),
            400,
            "webhooks.allow-private-addresses",
        ),
        (json!({"name": "", "url": "https://h/"}), 400, "empty"),
        (json!({"name": "a/b", "url": "https://h/"}), 400, "slash"),
        (
            json!({"name": "a", "url": "https://h/", "events": ["patch"]}),
            422,
            "patch.promoted",
        ),
        (json!({"name": "a"}), 422, "url"),
    ] {
        let answer = add(&test, body.clone()).await.expect(status);
        let text = answer.body.to_string();
        assert!(text.contains(says), "{body}: {text}");
        assert!(!text.contains("canary"), "{body}: {text}");
    }
    for n in 0..32 {
        let ask = json!({"name": format!("n{n}"), "url": "https://hooks.example/"});
        add(&test, ask).await.expect(201);
    }
    let ask = json!({"name": "one-more", "url": "https://hooks.example/"});
    let full = add(&test, ask).await.expect(409);
    assert!(full.detail().contains("32"), "{}", full.detail());
    assert_eq!(test.audited("webhook.add").await, 32);
}

#[tokio::test]
async fn deliveries_are_listed_and_sent_again() {
    let test = TestAdmin::new().await;
    for name in ["one", "two"] {
        let ask = json!({"name": name, "url": "https://hooks.example/"});
        add(&test, ask).await.expect(201);
    }
    for _ in 0..3 {
        test.post("/webhooks/one/test", Value::Null)
            .await
            .expect(202);
    }
    let off = test.post("/webhooks/two/disable", Value::Null).await;
    assert!(off.expect(200).body["disabled-at"].is_string());
    let refused = test.post("/webhooks/two/test", Value::Null).await;
    let refused = refused.expect(409);
    assert!(
        refused.detail().contains("webhook enable two"),
        "{}",
        refused.detail()
    );
    let on = test.post("/webhooks/two/enable", Value::Null).await;
    assert!(on.expect(200).body["disabled-at"].is_null());
    // It is on already.
    test.post("/webhooks/two/enable", Value::Null)
        .await
        .expect(200);
    assert_eq!(test.audited("webhook.enable").await, 1);

    let page = test.get("/webhook-deliveries?limit=2").await.expect(200);
    assert_eq!(page.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(page.body["items"][0]["kind"], "webhook.test");
    assert_eq!(page.body["items"][0]["state"], "pending");
    assert!(page.body["items"][0].get("body").is_none());
    let cursor = page.body["next-cursor"].as_str().unwrap();
    let rest = format!("/webhook-deliveries?limit=2&cursor={cursor}");
    let rest = test.get(&rest).await.expect(200);
    assert_eq!(rest.body["items"].as_array().unwrap().len(), 1);
    let id = rest.body["items"][0]["id"].as_i64().unwrap();
    let shown = test.get(&format!("/webhook-deliveries/{id}")).await;
    assert_eq!(
        shown.expect(200).body["body"]["data"],
        json!({"webhook": "one", "actor": "admin"})
    );
    test.get("/webhook-deliveries/9999").await.expect(404);

    // Nothing has failed yet.
    let retry = test.post("/webhooks/one/retry", json!({})).await;
    assert_eq!(retry.expect(200).body["deliveries"], 0);
    assert_eq!(test.audited("webhook.retry").await, 0);
    let rows = test.db.raw().await;
    rows.execute(
        "update deliveries set state = 'dead', attempts = 15, ended_at = now() where id = $1",
        &[&id],
    )
    .await
    .unwrap();
    let dead = test.get("/webhook-deliveries?state=dead&webhook=one").await;
    assert_eq!(dead.expect(200).body["items"].as_array().unwrap().len(), 1);
    let none = test.get("/webhook-deliveries?state=dead&webhook=two").await;
    assert_eq!(none.expect(200).body["items"], json!([]));
    let listed = test.get("/webhooks").await.expect(200);
    assert_eq!(listed.body["items"][0]["dead"], 1);
    for (name, status) in [("two", 409), ("three", 404)] {
        let path = format!("/webhooks/{name}/retry");
        let wrong = test.post(&path, json!({"deliveries": [id]})).await;
        wrong.expect(status);
    }
    let path = "/webhooks/one/retry";
    let ask = Some(json!({"deliveries": [id, id]}));
    test.ask(Role::Viewer, "POST", path, ask.clone())
        .await
        .expect(403);
    let retry = test.ask(Role::Operator, "POST", path, ask).await;
    assert_eq!(retry.expect(200).body["deliveries"], 1);
    let shown = test.get(&format!("/webhook-deliveries/{id}")).await;
    let shown = shown.expect(200);
    assert_eq!(
        (&shown.body["state"], &shown.body["attempts"]),
        (&json!("pending"), &json!(0))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_adds_tries_out_lists_and_sends_again() {
    let receiver = Receiver::start().await;
    let server = TestServer::with(|config| config.webhooks.allow_private_addresses = true).await;
    let text = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
    let code = |output: &Output| output.status.code().unwrap();
    let added = server
        .command(&["webhook", "add", "ops", &receiver.url()])
        .await;
    assert_eq!(code(&added), 0, "{added:?}");
    let secret = text(&added).trim().to_owned();

    let tried = server.command(&["webhook", "test", "ops"]).await;
    assert_eq!(code(&tried), 0, "{tried:?}");
    assert!(text(&tried).contains("delivered"), "{tried:?}");
    let received = receiver.got(1).await;
    received[0].verify(&secret);
    assert_eq!(received[0].kind(), "webhook.test");
    assert_eq!(received[0].body["data"]["webhook"], "ops");

    receiver.reply([Reply::Status(500)]);
    let failed = server.command(&["webhook", "test", "ops"]).await;
    assert_eq!(code(&failed), 1, "{failed:?}");
    let said = String::from_utf8(failed.stderr.clone()).unwrap();
    assert!(said.contains("500") && said.contains("next:"), "{said}");

    let dead = server
        .command(&[
            "webhook",
            "deliveries",
            "ops",
            "--state",
            "dead",
            "-o",
            "json",
        ])
        .await;
    let dead: Value = serde_json::from_slice(&dead.stdout).unwrap();
    assert_eq!(dead["items"].as_array().unwrap().len(), 1, "{dead}");
    let id = dead["items"][0]["id"].to_string();
    let again = server.command(&["webhook", "retry", "ops", &id]).await;
    assert_eq!(text(&again).trim(), "1 delivery is due now.");
    let received = receiver.got(3).await;
    assert_eq!(received[1].id, received[2].id);

    let listed = text(&server.command(&["webhook", "list"]).await);
    assert!(listed.contains("canary-path"), "{listed}");
    assert!(!listed.contains(&secret), "{listed}");
    let unasked = server.command(&["webhook", "remove", "ops"]).await;
    assert_eq!(code(&unasked), 2, "{unasked:?}");
    let removed = server.command(&["-y", "webhook", "remove", "ops"]).await;
    assert_eq!(code(&removed), 0, "{removed:?}");
    let none = server.command(&["webhook", "test", "ops"]).await;
    assert_eq!(code(&none), 4, "{none:?}");
}
