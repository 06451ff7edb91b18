//! Service tokens: made, used within their scopes, listed, revoked, expired; and what no program may do.

use crate::support::admin::TestAdmin;
use livepatch_onprem::domain::{Role, grant};
use serde_json::{Value, json};
use std::collections::BTreeSet;

async fn make(test: &TestAdmin, name: &str, scopes: &[&str]) -> String {
    let body = json!({ "name": name, "scopes": scopes });
    let made = test.post("/service-tokens", body).await.expect(201);
    let token = made.body["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("lpv_"), "{}", made.body);
    assert!(made.body["valid-until"].is_string());
    token
}

async fn status(
    test: &TestAdmin,
    token: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> u16 {
    let bearer = format!("Bearer {token}");
    let answer = test
        .ask_from("192.0.2.9", method, path, Some(&bearer), body)
        .await;
    answer.status.as_u16()
}

#[tokio::test]
async fn a_token_may_what_its_scopes_say() {
    let test = TestAdmin::new().await;
    let token = make(&test, "promoter", &["patches:write", "tiers:read"]).await;
    assert_eq!(
        test.last_audit().await,
        ("service-token.create".into(), "promoter".into())
    );

    assert_eq!(status(&test, &token, "GET", "/patches", None).await, 200);
    assert_eq!(status(&test, &token, "GET", "/tiers", None).await, 200);

    let body = json!({ "from": "edge", "to": "beta" });
    assert_eq!(
        status(&test, &token, "POST", "/promote-all", Some(body)).await,
        200
    );

    let tier = json!({ "name": "extra" });
    assert_eq!(
        status(&test, &token, "POST", "/tiers", Some(tier.clone())).await,
        403
    );
    for path in [
        "/machines",
        "/rollouts",
        "/audit",
        "/admins",
        "/service-tokens",
        "/sessions",
    ] {
        assert_eq!(
            status(&test, &token, "GET", path, None).await,
            403,
            "{path}"
        );
    }
    let me = test
        .ask_from(
            "192.0.2.9",
            "GET",
            "/session",
            Some(&format!("Bearer {token}")),
            None,
        )
        .await
        .expect(200);
    assert_eq!(me.body["user"], "token:promoter");

    let reader = make(&test, "reader", &["read"]).await;
    assert_eq!(status(&test, &reader, "GET", "/machines", None).await, 200);
    assert_eq!(
        status(&test, &reader, "POST", "/tiers", Some(tier.clone())).await,
        403
    );
    assert_eq!(
        status(&test, &reader, "GET", "/service-tokens", None).await,
        403
    );
    let all = make(&test, "all", &["admin"]).await;
    assert_eq!(status(&test, &all, "POST", "/tiers", Some(tier)).await, 201);
    assert_eq!(
        status(&test, &all, "GET", "/service-tokens", None).await,
        200
    );
}

#[tokio::test]
async fn tokens_are_listed_revoked_and_expire() {
    let test = TestAdmin::new().await;
    let token = make(&test, "ci", &["read", "patches:write", "read"]).await;
    let list = test
        .ask(Role::Admin, "GET", "/service-tokens", None)
        .await
        .expect(200);
    let entry = &list.body["items"][0];
    assert_eq!(
        (&entry["name"], &entry["scopes"], &entry["created-by"]),
        (
            &json!("ci"),
            &json!(["read", "patches:write"]),
            &json!("admin")
        )
    );
    assert!(!list.body.to_string().contains("lpv_"));
    let twice = json!({ "name": "ci", "scopes": ["read"] });
    assert_eq!(
        test.post("/service-tokens", twice.clone())
            .await
            .expect(409)
            .problem(),
        "conflict"
    );
    test.ask(Role::Operator, "GET", "/service-tokens", None)
        .await
        .expect(403);
    test.ask(Role::Operator, "POST", "/service-tokens", Some(twice))
        .await
        .expect(403);

    assert_eq!(status(&test, &token, "GET", "/patches", None).await, 200);
    let list = test.ask(Role::Admin, "GET", "/service-tokens", None).await;
    assert!(list.body["items"][0]["last-used"].is_string());
    test.delete("/service-tokens/ci").await.expect(204);
    assert_eq!(
        test.last_audit().await,
        ("service-token.revoke".into(), "ci".into())
    );
    assert_eq!(status(&test, &token, "GET", "/patches", None).await, 401);
    test.delete("/service-tokens/ci").await.expect(404);

    let token = make(&test, "ci", &["read"]).await;
    let raw = test.db.raw().await;
    raw.execute(
        "update service_tokens set valid_until = now() - interval '1 s'",
        &[],
    )
    .await
    .unwrap();
    assert_eq!(status(&test, &token, "GET", "/patches", None).await, 401);
    assert_eq!(
        status(&test, "lpv_made-up", "GET", "/patches", None).await,
        401
    );
    let kept: i64 = raw
        .query_one(
            "select count(*) from service_tokens where position($1::bytea in hash) > 0",
            &[&token.as_bytes()],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(kept, 0);
}

#[tokio::test]
async fn nonsense_is_refused_with_its_reason() {
    let test = TestAdmin::new().await;
    for (scopes, why) in [
        (json!([]), "scopes must hold 1 to 32"),
        (json!(["viewer"]), "expected read, write or admin"),
        (json!(["patch:read"]), "sections are audit"),
        (json!(["admins:admin"]), "access is handed out in admins"),
        (json!(["service-tokens:admin"]), "access is handed out"),
    ] {
        let body = json!({ "name": "x", "scopes": scopes });
        let answer = test.post("/service-tokens", body).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 422),
            "{}",
            answer.body
        );
        assert!(answer.detail().contains(why), "{}", answer.detail());
    }
    let past = json!({ "name": "x", "scopes": ["read"], "valid-until": "2020-01-01T00:00:00Z" });
    assert!(
        test.post("/service-tokens", past)
            .await
            .detail()
            .contains("in the past")
    );
    let both = json!({ "name": "x", "scopes": ["read"], "valid-until": "2100-01-01T00:00:00Z", "no-expiry": true });
    assert!(
        test.post("/service-tokens", both)
            .await
            .detail()
            .contains("contradict")
    );
}

/// Approving is what a second person is for.
#[tokio::test]
async fn no_program_approves_a_rollout() {
    let test = TestAdmin::new().await;
    let token = make(&test, "robot", &["admin"]).await;
    let answer = test
        .ask_from(
            "192.0.2.9",
            "POST",
            "/rollouts/1/approve",
            Some(&format!("Bearer {token}")),
            Some(json!({})),
        )
        .await
        .expect(403);
    assert!(
        answer.detail().contains("a person must do this"),
        "{}",
        answer.detail()
    );
    test.post("/rollouts/1/approve", json!({}))
        .await
        .expect(404);
}

/// Whoever adds a section to the API says whether programs may be given it.
#[test]
fn every_section_of_the_api_can_be_granted_or_is_guarded() {
    let document = livepatch_onprem::http::admin::openapi();
    let mut found = BTreeSet::new();
    for path in document.paths.paths.keys() {
        let below = path.strip_prefix("/v1/admin/").unwrap();
        found.insert(grant::section_of(below.split('/').next().unwrap()).to_owned());
    }
    let known: BTreeSet<String> = grant::SECTIONS
        .iter()
        .chain(&grant::GUARDED)
        .map(|section| (*section).to_owned())
        .chain(["login".to_owned(), "session".to_owned()])
        .collect();
    assert_eq!(found, known);
}
