//! Administrators whom an identity provider vouches for: real tokens, and every wrong one.

use crate::support::process::until;
use crate::support::provider::{AUDIENCE, Key, Provider, claims, unsigned};
use crate::support::server::TestServer;
use livepatch_onprem::config::OAuth;
use serde_json::{Value, json};
use std::time::Duration;

/// Status and body of a request with this token.
async fn ask(
    server: &TestServer,
    token: &str,
    method: &str,
    path: &str,
    body: Value,
) -> (u16, Value) {
    let url = format!("{}/v1/admin/{path}", server.url);
    let mut request = server
        .http
        .request(method.parse().unwrap(), url)
        .bearer_auth(token);
    if !body.is_null() {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

async fn who(server: &TestServer, token: &str) -> (u16, Value) {
    ask(server, token, "GET", "session", Value::Null).await
}

/// Fails unless the token is refused for this reason.
async fn refused(server: &TestServer, token: &str, status: u16, why: &str) {
    let (got, body) = who(server, token).await;
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(got == status && detail.contains(why), "{why}: {got} {body}");
}

async fn with(provider: &Provider, change: impl FnOnce(&mut OAuth)) -> TestServer {
    let mut oauth = provider.config();
    change(&mut oauth);
    TestServer::with(|config| *config.auth.oauth = oauth).await
}

#[tokio::test]
async fn a_person_acts_with_the_role_of_their_group() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let server = with(&provider, |_| {}).await;
    let anna = key.sign(&claims("Anna@Example.com", &["patchers", "lookers"]));
    let (status, me) = who(&server, &anna).await;
    assert_eq!(
        (status, &me["user"], &me["role"]),
        (200, &json!("oidc:anna@example.com"), &json!("operator"))
    );
    let tier = json!({ "name": "extra" });
    assert_eq!(
        ask(&server, &anna, "POST", "tiers", tier.clone()).await.0,
        201
    );
    let audit = server
        .admin("GET", "audit?action=tier.create&limit=1", Value::Null)
        .await;
    assert_eq!(audit["items"][0]["actor"], "oidc:anna@example.com");
    assert_eq!(
        ask(&server, &anna, "GET", "service-tokens", Value::Null)
            .await
            .0,
        403
    );

    let bert = key.sign(&claims("bert@example.com", &["lookers"]));
    assert_eq!(who(&server, &bert).await.1["role"], "viewer");
    let (status, _) = ask(&server, &bert, "POST", "tiers", tier).await;
    assert_eq!(status, 403);
    refused(
        &server,
        &key.sign(&claims("eve@example.com", &[])),
        403,
        "has no role here",
    )
    .await;
    // All of it cost one look at the provider's keys.
    assert_eq!(provider.asked(), 1);
    // Sessions and passwords go on working beside it.
    server.admin("GET", "session", Value::Null).await;
}

#[tokio::test]
async fn a_list_of_addresses_lets_in_who_is_on_it() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let server = with(&provider, |oauth| {
        oauth.allowed_emails = vec!["anna@example.com".to_owned()];
        oauth.roles = Vec::new();
    })
    .await;
    let (status, me) = who(&server, &key.sign(&claims("anna@example.com", &[]))).await;
    assert_eq!((status, &me["role"]), (200, &json!("admin")));
    refused(
        &server,
        &key.sign(&claims("eve@example.com", &[])),
        403,
        "allowed-email-ids",
    )
    .await;
    // An address that the provider has not verified is nobody's.
    let mut unverified = claims("anna@example.com", &[]);
    unverified["email_verified"] = json!(false);
    refused(&server, &key.sign(&unverified), 403, "allowed-email-ids").await;
}

#[tokio::test]
async fn every_algorithm_that_is_configured_works_and_no_other() {
    let keys = [
        Key::rsa("r2", "RS256"),
        Key::rsa("r5", "RS512"),
        Key::rsa("p3", "PS384"),
        Key::elliptic("e"),
        Key::edwards("d"),
    ];
    let provider = Provider::start(&keys.iter().collect::<Vec<_>>()).await;
    let names = ["RS256", "RS512", "PS384", "ES256", "EdDSA"];
    let server = with(&provider, |oauth| {
        oauth.algorithms = names.iter().map(|name| name.parse().unwrap()).collect();
    })
    .await;
    for key in &keys {
        let token = key.sign(&claims("anna@example.com", &["patchers"]));
        assert_eq!(who(&server, &token).await.0, 200, "{}", key.algorithm);
        // One changed character of the signature.
        let at = token.rfind('.').unwrap() + 5;
        let mut wrong = token.clone().into_bytes();
        wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
        let wrong = String::from_utf8(wrong).unwrap();
        refused(&server, &wrong, 401, "its signature is wrong").await;
    }
    let narrow = with(&provider, |_| {}).await;
    let token = keys[3].sign(&claims("anna@example.com", &["patchers"]));
    refused(&narrow, &token, 401, "not among auth.oauth.sig-algs").await;
}

#[tokio::test]
async fn wrong_tokens_are_refused_with_their_reason() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let server = with(&provider, |_| {}).await;
    let good = claims("anna@example.com", &["patchers"]);
    let now = jiff::Timestamp::now().as_second();
    for (name, value, why) in [
        ("exp", json!(now - 300), "it has expired"),
        ("nbf", json!(now + 300), "it is not valid yet"),
        ("iss", json!("https://evil.example.com"), "another issuer"),
        ("aud", json!("something-else"), "another audience"),
        ("aud", json!(["a", "b"]), "another audience"),
        ("exp", Value::Null, "exp"),
    ] {
        let mut wrong = good.clone();
        wrong[name] = value;
        refused(&server, &key.sign(&wrong), 401, why).await;
    }
    for missing in ["exp", "iss", "aud", "sub"] {
        let mut wrong = good.clone();
        wrong.as_object_mut().unwrap().remove(missing);
        refused(&server, &key.sign(&wrong), 401, missing).await;
    }
    let mut several = good.clone();
    several["aud"] = json!(["other", AUDIENCE]);
    assert_eq!(who(&server, &key.sign(&several)).await.0, 200);

    // Not signed at all, and signed with what everybody knows.
    let none = format!(
        "{}.",
        unsigned(&json!({ "alg": "none", "kid": "one" }), &good)
    );
    refused(&server, &none, 401, "its header").await;
    let hmac = format!(
        "{}.AAAA",
        unsigned(&json!({ "alg": "HS256", "kid": "one" }), &good)
    );
    refused(&server, &hmac, 401, "not among auth.oauth.sig-algs").await;
    // A key of the token's own.
    let own = Key::rsa("one", "RS256");
    refused(&server, &own.sign(&good), 401, "its signature is wrong").await;
    let nonsense = [
        "a.b.c".to_owned(),
        "..".to_owned(),
        format!("{}.x.y", "A".repeat(20_000)),
    ];
    for token in nonsense {
        assert_eq!(who(&server, &token).await.0, 401);
    }
    // Names from hostile hands do not reach the audit log.
    refused(
        &server,
        &key.sign(&claims("a\nb@example.com", &["patchers"])),
        401,
        "names nobody",
    )
    .await;
}

#[tokio::test]
async fn keys_that_do_not_suit_are_refused() {
    let small = Key::rsa_of("small", "RS256", 1024);
    let other = Key::rsa("other", "RS512");
    let provider = Provider::start(&[&small, &other]).await;
    let server = with(&provider, |_| {}).await;
    let good = claims("anna@example.com", &["patchers"]);
    refused(&server, &small.sign(&good), 401, "has fewer than 2048 bits").await;
    let as_256 = Key {
        algorithm: "RS256",
        ..other
    };
    refused(&server, &as_256.sign(&good), 401, "for another algorithm").await;

    let strange = Key {
        kid: "strange".into(),
        ..as_256
    };
    refused(&server, &strange.sign(&good), 401, "cannot be used").await;
}

/// A key that is not known is looked for once, and not for every token of a flood.
#[tokio::test]
async fn a_flood_of_unknown_keys_does_not_reach_the_provider() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let server = with(&provider, |_| {}).await;
    let good = claims("anna@example.com", &["patchers"]);
    assert_eq!(who(&server, &key.sign(&good)).await.0, 200);
    // The provider changes its keys: the first token with a new one has them fetched again.
    let new = Key::rsa("two", "RS256");
    provider.have(&[&key, &new]);
    assert_eq!(who(&server, &new.sign(&good)).await.0, 200);
    assert_eq!(provider.asked(), 2);
    for n in 0..50 {
        let made_up = Key {
            kid: format!("made-up-{n}"),
            ..key.clone()
        };
        refused(&server, &made_up.sign(&good), 401, "does not have").await;
    }
    assert_eq!(provider.asked(), 2);
    // Unless that is switched off.
    let strict = with(&provider, |oauth| oauth.refresh_unknown = false).await;
    assert_eq!(who(&strict, &new.sign(&good)).await.0, 200);
    let third = Key::rsa("three", "RS256");
    provider.have(&[&key, &third]);
    refused(&strict, &third.sign(&good), 401, "does not have").await;
}

#[tokio::test]
async fn while_the_provider_is_away_known_keys_go_on_being_used() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let good = claims("anna@example.com", &["patchers"]);
    for answer in [Err(500), Ok(json!({ "keys": "none" })), Ok(json!(["x"]))] {
        // A server each: after a fetch that failed it waits with the next one.
        provider.have(&[&key]);
        let server = with(&provider, |oauth| {
            oauth.refresh_interval = Duration::from_millis(1);
        })
        .await;
        assert_eq!(who(&server, &key.sign(&good)).await.0, 200);
        provider.answer(answer);
        let before = provider.asked();
        until("the keys are asked for again", async || {
            assert_eq!(who(&server, &key.sign(&good)).await.0, 200);
            provider.asked() > before
        })
        .await;
        assert_eq!(who(&server, &key.sign(&good)).await.0, 200);
    }
    // Who has never had them says that it is not the token's fault, and does not ask again at once.
    provider.answer(Err(500));
    let fresh = with(&provider, |_| {}).await;
    let before = provider.asked();
    for _ in 0..5 {
        refused(
            &fresh,
            &key.sign(&good),
            503,
            "identity provider cannot be asked",
        )
        .await;
    }
    assert_eq!(provider.asked(), before + 1);
}

/// The admin command takes such a token, too.
#[tokio::test]
async fn the_command_takes_a_token_from_the_environment() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let server = with(&provider, |_| {}).await;
    let token = key.sign(&claims("anna@example.com", &["patchers"]));
    let folder = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_livepatch-admin"))
        .args(["--url", &server.url, "session", "show"])
        .env("LIVEPATCH_ADMIN_TOKEN", &token)
        .env("XDG_STATE_HOME", folder.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("oidc:anna@example.com"),
        "{output:?}"
    );
}
