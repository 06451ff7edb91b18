//! Auth tokens: shown once, stored as a hash, felt by the snapshot at once.

use crate::support::admin::TestAdmin;
use jiff::Timestamp;
use livepatch_onprem::domain::token::token_hash;
use livepatch_onprem::rollout::TokenError;
use serde_json::json;

#[tokio::test]
async fn a_token_is_made_listed_used_and_revoked() {
    let test = TestAdmin::new().await;
    let body = json!({
        "name": "web servers", "tier": "beta", "valid-until": "2999-01-01T00:00:00Z", "labels": { "example.com/row": "7b" },
    });
    let made = test
        .post("/auth-tokens", body.clone())
        .await
        .expect(201)
        .body;
    let token = made["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("lpa_") && token.len() == 47, "{token}");
    assert_eq!(made["labels"], json!({ "example.com/row": "7b" }));
    // Whoever reads after the answer sees it.
    let now = Timestamp::now().as_microsecond();
    let snapshot = test.core.snapshots.get_full();
    let entry = snapshot.enabling_token(&token_hash(&token), now).unwrap();
    assert_eq!(entry.name, "web servers");
    let after = "2999-01-01T00:00:00Z"
        .parse::<Timestamp>()
        .unwrap()
        .as_microsecond();
    assert_eq!(
        snapshot.enabling_token(&token_hash(&token), after),
        Err(TokenError::Expired)
    );

    let again = test.post("/auth-tokens", body.clone()).await.expect(409);
    assert!(again.detail().contains("web servers"), "{}", again.detail());
    let rows = test.db.raw().await;
    rows.execute(
        "insert into machines (id, tier_id, auth_token_id, registered_at) select gen_random_uuid(), tier_id, id, now()
         from auth_tokens, generate_series(1, 3)",
        &[],
    )
    .await
    .unwrap();
    let listed = test.get("/auth-tokens").await.expect(200).body;
    let item = &listed["items"][0];
    assert_eq!(
        (&item["machines"], &item["created-by"], &item["tier"]),
        (&json!(3), &json!("admin"), &json!("beta"))
    );
    assert!(item.get("last-used").is_none() && item.get("token").is_none());

    test.delete("/auth-tokens/web%20servers").await.expect(204);
    let snapshot = test.core.snapshots.get_full();
    assert_eq!(
        snapshot.enabling_token(&token_hash(&token), now),
        Err(TokenError::Revoked)
    );
    test.delete("/auth-tokens/web%20servers").await.expect(404);
    // The name is free again; both are listed, newest first.
    test.post("/auth-tokens", body).await.expect(201);
    let listed = test.get("/auth-tokens?limit=1").await.expect(200).body;
    assert!(listed["items"][0].get("revoked-at").is_none());
    let cursor = listed["next-cursor"].as_str().unwrap();
    let rest = test
        .get(&format!("/auth-tokens?limit=1&cursor={cursor}"))
        .await
        .expect(200)
        .body;
    assert!(rest["items"][0]["revoked-at"].is_string() && rest.get("next-cursor").is_none());

    // Neither the table nor the log holds the token.
    let held: i64 = rows
        .query_one(
            "select count(*) from (select t::text as line from auth_tokens t union all select a::text from audit_log a) l
             where line like '%' || $1 || '%'",
            &[&token],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(held, 0);
}

#[tokio::test]
async fn a_token_in_the_form_of_a_uuid() {
    let test = TestAdmin::new().await;
    let body = json!({ "name": "old clients", "tier": "stable", "format": "uuid" });
    let made = test.post("/auth-tokens", body).await.expect(201).body;
    let token: uuid::Uuid = made["token"].as_str().unwrap().parse().unwrap();
    assert_eq!(token.get_version_num(), 4);
    let snapshot = test.core.snapshots.get_full();
    let hash = token_hash(&token.to_string());
    assert!(snapshot.enabling_token(&hash, 0).is_ok());
}

#[tokio::test]
async fn what_cannot_be_a_token_is_refused() {
    let test = TestAdmin::new().await;
    let many: serde_json::Map<_, _> = (0..33).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (change, status, word) in [
        (json!({ "name": "" }), 400, "empty"),
        (json!({ "name": "a/b" }), 400, "slash"),
        (json!({ "name": "a\nb" }), 400, "control"),
        (json!({ "name": " a" }), 400, "white space"),
        (json!({ "name": "x".repeat(101) }), 400, "100 characters"),
        (json!({ "tier": "none" }), 404, "none"),
        (json!({ "tier": "No Tier" }), 422, "tier name"),
        (
            json!({ "valid-until": "2001-01-01T00:00:00Z" }),
            400,
            "past",
        ),
        (json!({ "valid-until": "tomorrow" }), 422, "valid-until"),
        (json!({ "labels": { "a b": "c" } }), 422, "a b"),
        (json!({ "labels": { "": "c" } }), 422, "label"),
        (
            json!({ "labels": { "a": "x".repeat(64) } }),
            422,
            "63 letters",
        ),
        (
            json!({ "labels": { "kernel": "c" } }),
            422,
            "meaning of its own",
        ),
        (json!({ "labels": many }), 422, "33 labels"),
        (json!({ "format": "jwt" }), 422, "jwt"),
    ] {
        let mut body = json!({ "name": "good", "tier": "stable" });
        for (key, value) in change.as_object().unwrap() {
            body[key] = value.clone();
        }
        let answer = test.post("/auth-tokens", body).await.expect(status);
        assert!(
            answer.detail().contains(word),
            "{word}: {}",
            answer.detail()
        );
    }
    let listed = test.get("/auth-tokens").await.expect(200).body;
    assert_eq!(listed, json!({ "items": [] }));
}
