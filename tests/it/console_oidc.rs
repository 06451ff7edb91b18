//! Signing in at the console through the identity provider: the way there and back, and everything that can be wrong with it.

use crate::support::page::{Got, SESSION, got};
use crate::support::provider::{Key, Provider, claims};
use crate::support::server::TestServer;
use reqwest::Url;
use reqwest::header::COOKIE;
use serde_json::{Value, json};
use std::collections::HashMap;

/// The cookie of whoever is on the way.
const WAY: &str = "livepatch-way";

/// Somebody's browser on its way: what it keeps, and what the provider was told.
struct Way {
    cookie: String,
    asked: HashMap<String, String>,
}

async fn set_out(server: &TestServer) -> Way {
    let url = format!("{}/console/oidc/login", server.url);
    let answer = got(server.http.get(url)).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let line = answer.sets(WAY).unwrap();
    for word in ["HttpOnly", "SameSite=Lax", "Path=/console/oidc"] {
        assert!(line.contains(word), "{line}");
    }
    let cookie = answer.cookie(WAY).unwrap();
    let target: Url = answer.location.parse().unwrap();
    assert_eq!(target.path(), "/authorize");
    let asked: HashMap<String, String> = target.query_pairs().into_owned().collect();
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "console"),
        ("code_challenge_method", "S256"),
        ("prompt", "login"),
    ] {
        assert_eq!(asked[name], value);
    }
    assert_eq!(
        asked["redirect_uri"],
        format!("{}/console/oidc/callback", server.url)
    );
    Way { cookie, asked }
}

/// Comes back from the provider with this query.
async fn arrive(server: &TestServer, cookie: &str, query: &str) -> Got {
    let url = format!("{}/console/oidc/callback?{query}", server.url);
    got(server.http.get(url).header(COOKIE, cookie)).await
}

/// A good token of this journey.
fn good(way: &Way) -> Value {
    let mut claims = claims("anna@example.com", &["patchers"]);
    claims["aud"] = json!("console");
    claims["nonce"] = json!(way.asked["nonce"]);
    claims
}

#[tokio::test]
async fn somebody_signs_in_at_the_provider_and_comes_back() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let oauth = provider.console();
    let server = TestServer::with(|config| *config.auth.oauth = oauth).await;
    let login = got(server.http.get(format!("{}/console/login", server.url))).await;
    assert!(login.text.contains("Sign in with single sign-on"));
    let way = set_out(&server).await;
    provider.grant(&way.asked, "c", key.sign(&good(&way)));
    let query = format!("code=c&state={}", way.asked["state"]);
    let arrived = arrive(&server, &way.cookie, &query).await;
    assert_eq!(
        (arrived.status, arrived.location.as_str()),
        (303, "/console"),
        "{}",
        arrived.text
    );
    let session = arrived.cookie(SESSION).expect("no session");
    assert!(session.contains("=lps_"), "{session}");
    // Nothing is left of the way.
    assert!(arrived.sets(WAY).unwrap().contains("Max-Age=0"));
    let access = server.http.get(format!("{}/console/access", server.url));
    let access = got(access.header(COOKIE, &session)).await;
    assert_eq!(access.status, 200);
    assert!(
        access.text.contains("oidc:anna@example.com")
            && access.text.contains("Make an auth token")
            && !access.text.contains("Administrators")
    );
    let audit = server
        .admin("GET", "audit?action=session.open&limit=1", Value::Null)
        .await;
    assert_eq!(audit["items"][0]["actor"], "oidc:anna@example.com");
    // Who may not is told so, and gets no session.
    let way = set_out(&server).await;
    let mut stranger = good(&way);
    stranger["groups"] = json!([]);
    provider.grant(&way.asked, "c", key.sign(&stranger));
    let query = format!("code=c&state={}", way.asked["state"]);
    let answer = arrive(&server, &way.cookie, &query).await;
    assert_eq!(
        (answer.status, answer.cookie(SESSION)),
        (403, None),
        "{}",
        answer.text
    );
    assert!(answer.text.contains("has no role here"));
}

#[tokio::test]
async fn whatever_is_wrong_on_the_way_opens_no_session() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let oauth = provider.console();
    let server = TestServer::with(|config| *config.auth.oauth = oauth).await;
    let refused = async |cookie: &str, query: &str, why: &str| {
        let answer = arrive(&server, cookie, query).await;
        let text = &answer.text;
        assert_eq!(
            (answer.status, answer.cookie(SESSION)),
            (401, None),
            "{why}: {text}"
        );
        assert!(text.contains(why), "{why}: {text}");
    };
    let way = set_out(&server).await;
    let state = &way.asked["state"];
    let query = format!("code=c&state={state}");
    refused("", &query, "did not set out").await;
    refused("livepatch-way=a.b.c", &query, "did not set out").await;
    refused(&way.cookie, "code=c&state=other", "not the answer").await;
    refused(&way.cookie, "code=c", "not the answer").await;
    refused(&way.cookie, &format!("state={state}"), "sent no code").await;
    refused(
        &way.cookie,
        &format!("error=access_denied&state={state}"),
        "access_denied",
    )
    .await;
    // A code that the provider does not know, one that somebody else asked for, and tokens that are not for this.
    refused(&way.cookie, &query, "does not take the code").await;
    let other = set_out(&server).await;
    provider.grant(&other.asked, "c", key.sign(&good(&way)));
    refused(&way.cookie, &query, "does not take the code").await;
    for (name, value, why) in [
        ("nonce", json!("other"), "not made for this sign-in"),
        ("aud", json!("livepatch"), "another audience"),
        ("iss", json!("https://evil.example"), "another issuer"),
        ("exp", json!(1), "expired"),
    ] {
        let mut wrong = good(&way);
        wrong[name] = value;
        provider.grant(&way.asked, "c", key.sign(&wrong));
        refused(&way.cookie, &query, why).await;
    }
    // Without a client there is no such way.
    let without = provider.config();
    let server = TestServer::with(|config| *config.auth.oauth = without).await;
    let url = format!("{}/console/oidc/login", server.url);
    assert_eq!(got(server.http.get(url)).await.status, 400);
}
