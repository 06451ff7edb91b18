//! Signing in at the console through the identity provider: the way there and back, and everything that can be wrong with it.

use crate::support::provider::{Key, Provider, claims};
use crate::support::server::TestServer;
use reqwest::Url;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Somebody's browser on its way: what it keeps, and what the provider was told.
struct Way {
    cookie: String,
    asked: HashMap<String, String>,
}

async fn set_out(server: &TestServer) -> Way {
    let answer = server
        .http
        .get(format!("{}/console/oidc/login", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 303);
    let cookie = answer.headers()[SET_COOKIE].to_str().unwrap();
    assert!(
        cookie.contains("HttpOnly")
            && cookie.contains("SameSite=Lax")
            && cookie.contains("Path=/console/oidc"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let target: Url = answer.headers()[LOCATION]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
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

/// Status, text, and the cookie of a session if one was opened.
async fn arrive(server: &TestServer, cookie: &str, query: &str) -> (u16, String, Option<String>) {
    let url = format!("{}/console/oidc/callback?{query}", server.url);
    let answer = server
        .http
        .get(url)
        .header(COOKIE, cookie)
        .send()
        .await
        .unwrap();
    let status = answer.status().as_u16();
    let cookies = answer.headers().get_all(SET_COOKIE).iter();
    let session = cookies
        .filter_map(|value| value.to_str().ok()?.split(';').next())
        .find(|cookie| cookie.starts_with("livepatch-console=lps_"))
        .map(str::to_owned);
    (status, answer.text().await.unwrap(), session)
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
    let login = server
        .http
        .get(format!("{}/console/login", server.url))
        .send()
        .await
        .unwrap();
    assert!(
        login
            .text()
            .await
            .unwrap()
            .contains("Sign in with single sign-on")
    );
    let way = set_out(&server).await;
    provider.grant(&way.asked["code_challenge"], key.sign(&good(&way)));
    let query = format!("code=c&state={}", way.asked["state"]);
    let (status, text, session) = arrive(&server, &way.cookie, &query).await;
    assert_eq!(status, 303, "{text}");
    let session = session.expect("no session");
    let page = server
        .http
        .get(format!("{}/console/access", server.url))
        .header(COOKIE, &session)
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(
        page.contains("oidc:anna@example.com")
            && page.contains("Make an auth token")
            && !page.contains("Administrators")
    );
    let audit = server
        .admin("GET", "audit?action=session.open&limit=1", Value::Null)
        .await;
    assert_eq!(audit["items"][0]["actor"], "oidc:anna@example.com");
    // The code was good once.
    let (status, _, session) = arrive(&server, &way.cookie, &query).await;
    assert_eq!((status, session), (401, None));
    // Who may not is told so, and gets no session.
    let way = set_out(&server).await;
    let mut stranger = good(&way);
    stranger["groups"] = json!([]);
    provider.grant(&way.asked["code_challenge"], key.sign(&stranger));
    let (status, text, session) = arrive(
        &server,
        &way.cookie,
        &format!("code=c&state={}", way.asked["state"]),
    )
    .await;
    assert_eq!((status, session), (403, None), "{text}");
    assert!(text.contains("has no role here"));
}

#[tokio::test]
async fn whatever_is_wrong_on_the_way_opens_no_session() {
    let key = Key::rsa("one", "RS256");
    let provider = Provider::start(&[&key]).await;
    let oauth = provider.console();
    let server = TestServer::with(|config| *config.auth.oauth = oauth).await;
    let refused = async |cookie: &str, query: &str, why: &str| {
        let (status, text, session) = arrive(&server, cookie, query).await;
        assert_eq!((status, session), (401, None), "{why}: {text}");
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
    // A code that somebody else asked for, and tokens that are not for this.
    refused(&way.cookie, &query, "does not take the code").await;
    for (name, value, why) in [
        ("nonce", json!("other"), "not made for this sign-in"),
        ("aud", json!("livepatch"), "another audience"),
        ("iss", json!("https://evil.example"), "another issuer"),
        ("exp", json!(1), "expired"),
    ] {
        let mut wrong = good(&way);
        wrong[name] = value;
        provider.grant(&way.asked["code_challenge"], key.sign(&wrong));
        refused(&way.cookie, &query, why).await;
    }
    // Without a client there is no such way.
    let without = provider.config();
    let server = TestServer::with(|config| *config.auth.oauth = without).await;
    let answer = server
        .http
        .get(format!("{}/console/oidc/login", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 400);
}

/// How a patch spread is noted by the leader, and shown.
#[tokio::test]
async fn adoption_is_noted_when_it_changes() {
    use crate::support::server::Machine;
    use livepatch_onprem::db::leader;
    use livepatch_onprem::service::adoption;
    let server = TestServer::with_two_patches().await;
    let token = server.token("web", "edge").await;
    let core = server.core();
    crate::support::process::until("it leads", async || {
        leader::current(&core.db.conn().await.unwrap())
            .await
            .unwrap()
            .is_some()
    })
    .await;
    let epoch = leader::current(&core.db.conn().await.unwrap())
        .await
        .unwrap()
        .unwrap()
        .epoch;
    let version = "107.1".parse().unwrap();
    let points = async || {
        let curves = adoption::of(core, version).await.unwrap();
        let edge = curves.into_iter().find(|(tier, _)| tier.as_str() == "edge");
        edge.map_or(0, |(_, points)| points.len())
    };
    assert!(adoption::note(core, epoch).await.unwrap());
    assert_eq!(points().await, 0, "nobody runs it, and nobody did");
    for n in 0..3 {
        let machine = Machine::register(&server, n, &token).await;
        machine.check(&server, Some("107.1")).await;
        assert!(adoption::note(core, epoch).await.unwrap());
        // The same number again is not noted again.
        assert!(adoption::note(core, epoch).await.unwrap());
    }
    // Three changes, and how it stands now.
    assert_eq!(points().await, 4);
    assert!(
        !adoption::note(core, epoch + 1).await.unwrap(),
        "who does not lead notes nothing"
    );
}
