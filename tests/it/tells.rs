//! What a server process tells of itself: security events, traces, and never a secret.

use crate::support::process::{Server, Site, until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use livepatch_onprem::telemetry::security;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// The events of a file, oldest first.
fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn find<'e>(events: &'e [Value], name: &str) -> &'e Value {
    events
        .iter()
        .find(|event| event["event"] == name)
        .unwrap_or_else(|| panic!("no {name} in {events:#?}"))
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn security_events_are_told_whatever_the_log_level() {
    let mut site = Site::new().await;
    let path = site.folder.path().join("security.log");
    site.set("LP_SERVER_SECURITY_LOG", path.display().to_string());
    site.set("LP_SERVER_SIGNED_DOWNLOADS", "true");
    // Without `serving` in the log nobody would know where it is; that line is of level info, from this module alone.
    site.set(
        "LP_SERVER_LOG_LEVEL",
        "error,livepatch_onprem::app::start=info",
    );
    let server = site.start().await;
    let http = &site.http;
    let api = |path: &str| format!("{}/v1/admin/{path}", server.url);

    let wrong = json!({ "user": "admin", "password": "CANARY-password" });
    assert_eq!(status(http.post(api("login")).json(&wrong)).await, 401);
    assert_eq!(
        status(http.get(api("patches")).bearer_auth("lps_CANARY")).await,
        401
    );
    let created = json!({ "name": "robot", "scopes": ["read"] });
    let made = server
        .admin("POST", "service-tokens", created)
        .await
        .unwrap()
        .expect(201);
    let robot = made["token"].as_str().unwrap();
    let tier = json!({ "name": "extra" });
    assert_eq!(
        status(http.post(api("tiers")).bearer_auth(robot).json(&tier)).await,
        403
    );
    server
        .admin("POST", "tiers", tier)
        .await
        .unwrap()
        .expect(201);
    let token = server.token("web", "stable").await;
    let machine = format!("{}/v1/client/{:032x}/updates", server.url, 7);
    assert_eq!(
        status(
            http.post(&machine)
                .bearer_auth("lpm_CANARY")
                .json(&json!({}))
        )
        .await,
        401
    );
    let sync = format!("{}/v1/sync/head", server.url);
    assert_eq!(status(http.get(sync).bearer_auth("lpy_CANARY")).await, 401);
    let file = format!("{}/v1/patches/nothing.tar.bz2", server.url);
    assert_eq!(status(http.get(file)).await, 401);
    server.stop().await;

    let found = events(&path);
    for event in &found {
        assert_eq!(event["type"], "security", "{event}");
        assert!(
            event["timestamp"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
        assert!(!event.to_string().contains("CANARY"), "{event}");
        assert!(!event.to_string().contains(&token), "{event}");
    }
    for (name, category, actor, target) in [
        ("server.started", "system", None, None),
        ("leader.taken", "system", None, None),
        ("login.failed", "authentication", Some("admin"), None),
        ("credential.refused", "authentication", None, None),
        (
            "service-token.create",
            "token-life",
            Some("admin"),
            Some("robot"),
        ),
        (
            "access.denied",
            "authorization",
            Some("token:robot"),
            Some("tiers"),
        ),
        (
            "tier.create",
            "administration",
            Some("admin"),
            Some("extra"),
        ),
        (
            "auth-token.create",
            "token-life",
            Some("admin"),
            Some("web"),
        ),
        (
            "machine.refused",
            "authentication",
            None,
            Some("00000000000000000000000000000007"),
        ),
        (
            "sync-token.refused",
            "authentication",
            None,
            Some("/v1/sync/head"),
        ),
        (
            "download.refused",
            "authorization",
            None,
            Some("nothing.tar.bz2"),
        ),
        ("server.stopping", "system", None, None),
    ] {
        let event = find(&found, name);
        assert_eq!(event["category"], category, "{event}");
        if let Some(actor) = actor {
            assert_eq!(event["actor"], actor, "{event}");
        }
        if let Some(target) = target {
            assert_eq!(event["target"], target, "{event}");
        }
        if !name.starts_with("server.") && !name.starts_with("leader.") {
            assert_eq!(event["source"], "127.0.0.1", "{event}");
        }
    }
}

/// On standard error they stand among the logs; and what is rolled back is not told.
#[tokio::test]
async fn security_events_stand_among_the_logs_by_default() {
    let site = Site::new().await;
    let server = site.start().await;
    server.token("web", "stable").await;
    // There is one of this name already: the transaction is rolled back.
    let again = json!({ "name": "web", "tier": "stable" });
    server
        .admin("POST", "auth-tokens", again)
        .await
        .unwrap()
        .expect(409);
    until("the event is written", async || {
        server.said(r#""event":"auth-token.create""#)
    })
    .await;
    assert_eq!(server.count(r#""event":"auth-token.create""#), 1);
    server.stop().await;
}

/// Every action of the audit log is a security event or is left out on purpose; the list is closed.
#[test]
fn every_change_is_on_the_list_or_left_out_on_purpose() {
    let mut actions = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for rest in text.split("action: \"").skip(1) {
                actions.insert(rest.split('"').next().unwrap().to_owned());
            }
        }
    }
    assert!(actions.len() > 20, "{actions:?}");
    for action in actions {
        let word: &'static str = action.clone().leak();
        let quiet = security::QUIET.contains(&word);
        assert!(
            security::of_change(word).is_some() != quiet,
            "{action}: neither a security event nor among those left out, or both"
        );
    }
}

#[derive(Default)]
struct Collected {
    spans: Vec<Span>,
    service: String,
    raw: Vec<u8>,
    authorization: String,
}

type Shared = Arc<Mutex<Collected>>;

async fn collect(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut shared = shared.lock().unwrap();
    shared.raw.extend_from_slice(&body);
    if let Some(value) = headers.get("authorization") {
        value
            .to_str()
            .unwrap()
            .clone_into(&mut shared.authorization);
    }
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        for attribute in resource.resource.unwrap().attributes {
            if let (true, Some(Any::StringValue(text))) = (
                attribute.key == "service.name",
                attribute.value.unwrap().value,
            ) {
                shared.service = text;
            }
        }
        for scope in resource.scope_spans {
            shared.spans.extend(scope.spans);
        }
    }
    StatusCode::OK
}

/// A collector of traces; its address and what it got.
async fn collector() -> (String, Shared) {
    let shared = Shared::default();
    let app = Router::new()
        .route("/v1/traces", post(collect))
        .with_state(Arc::clone(&shared));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, shared)
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key == name);
    match found.and_then(|found| found.value.clone()?.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

/// Checks a machine in whose caller has a trace of its own.
async fn traced_check_in(site: &Site, server: &Server) {
    let auth = server.token("web", "stable").await;
    let token = server.registered(1, &auth).await;
    let answer = site
        .http
        .post(format!("{}/v1/client/{:032x}/updates", server.url, 1))
        .bearer_auth(&token)
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .json(&json!({ "Architecture": "amd64" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_request_is_traced_with_what_it_waited_for() {
    let (url, shared) = collector().await;
    let mut site = Site::new().await;
    site.set("LP_TRACING_ENABLED", "true");
    site.set("LP_TRACING_ENDPOINT", url);
    site.set("LP_TRACING_SERVICE_NAME", "livepatch-test");
    site.set(
        "LP_TRACING_HEADERS",
        "authorization=Bearer CANARY-collector",
    );
    // Traces do not hang on the log level either.
    site.set(
        "LP_SERVER_LOG_LEVEL",
        "error,livepatch_onprem::app::start=info",
    );
    let server = site.start().await;
    traced_check_in(&site, &server).await;
    server
        .admin("GET", "machines", Value::Null)
        .await
        .unwrap()
        .expect(200);
    // What is still on its way when the server stops is sent then.
    server.stop().await;

    let collected = shared.lock().unwrap();
    assert_eq!(collected.service, "livepatch-test");
    assert_eq!(collected.authorization, "Bearer CANARY-collector");
    let named = |name: &str| {
        let found = collected.spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| {
            let names: BTreeSet<&str> = collected
                .spans
                .iter()
                .map(|span| span.name.as_str())
                .collect();
            panic!("no {name} in {names:?}")
        })
    };
    let check_in = named("POST /v1/client/{id}/updates");
    assert_eq!(
        hex::encode(&check_in.trace_id),
        "4bf92f3577b34da6a3ce929d0e0e4736"
    );
    assert_eq!(hex::encode(&check_in.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(attribute(check_in, "http.response.status_code"), "200");
    assert_eq!(attribute(check_in, "http.route"), "/v1/client/{id}/updates");
    let list = named("GET /v1/admin/machines");
    let statements: Vec<&str> = collected
        .spans
        .iter()
        .filter(|span| span.parent_span_id == list.span_id)
        .map(|span| span.name.as_str())
        .collect();
    assert!(statements.contains(&"SELECT_SESSION"), "{statements:?}");
    let text = String::from_utf8_lossy(&collected.raw);
    assert!(!text.contains("CANARY") && !text.contains("lpm_") && !text.contains("lpa_"));
}

/// Nothing is collected of what is not sampled, and a collector that is away is nobody's trouble.
#[tokio::test]
async fn without_samples_or_a_collector_the_server_serves() {
    let (url, shared) = collector().await;
    let mut site = Site::new().await;
    site.set("LP_TRACING_ENABLED", "true");
    site.set("LP_TRACING_ENDPOINT", url);
    site.set("LP_TRACING_SAMPLE_RATE", "0");
    let server = site.start().await;
    traced_check_in(&site, &server).await;
    server.stop().await;
    assert_eq!(shared.lock().unwrap().spans.len(), 0);

    // A port that is taken and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    site.set("LP_TRACING_ENDPOINT", format!("http://{address}"));
    site.set("LP_TRACING_SAMPLE_RATE", "1");
    let server = site.start().await;
    server
        .admin("GET", "machines", Value::Null)
        .await
        .unwrap()
        .expect(200);
    server.stop().await;
}

/// Secrets of every kind go in; none comes out where it could be read by others.
#[tokio::test]
async fn no_secret_is_told_anywhere() {
    let (url, shared) = collector().await;
    let mut site = Site::new().await;
    let log = site.folder.path().join("security.log");
    site.set("LP_SERVER_SECURITY_LOG", log.display().to_string());
    site.set("LP_TRACING_ENABLED", "true");
    site.set("LP_TRACING_ENDPOINT", url);
    site.set("LP_TRACING_HEADERS", "x-key=CANARY-header");
    site.set("LP_AUTH_MACHINE_TOKEN_KEY", "ca9a".repeat(16));
    site.set("LP_PATCH_STORAGE_S3_ACCESS_KEY", "CANARY-s3-id");
    site.set("LP_PATCH_STORAGE_S3_SECRET_KEY", "CANARY-s3");
    site.set("LP_PATCH_SYNC_TOKEN", "CANARY-sync");
    site.set(
        "LP_PATCH_SYNC_PROXY_HTTP",
        "http://user:CANARY-proxy@127.0.0.1:1",
    );
    site.set("LP_SERVER_LOG_LEVEL", "trace");
    let server = site.start().await;
    let http = &site.http;
    let mut secrets = vec![
        "CANARY".to_owned(),
        "ca9a".repeat(16),
        "correct horse battery".to_owned(),
    ];

    let auth = server.token("web", "stable").await;
    let machine = server.registered(1, &auth).await;
    server.reported(1, &machine, None).await;
    let body = json!({ "name": "robot", "scopes": ["admin"] });
    let made = server
        .admin("POST", "service-tokens", body)
        .await
        .unwrap()
        .expect(201);
    let service = made["token"].as_str().unwrap().to_owned();
    let body = json!({ "name": "berlin", "tier": "stable" });
    let made = server
        .admin("POST", "sync-tokens", body)
        .await
        .unwrap()
        .expect(201);
    let sync = made["token"].as_str().unwrap().to_owned();
    let login = json!({ "user": "admin", "password": "correct horse battery" });
    let answer = http
        .post(format!("{}/v1/admin/login", server.url))
        .json(&login)
        .send()
        .await
        .unwrap();
    let answer: Value = answer.json().await.unwrap();
    let session = answer["token"].as_str().unwrap().to_owned();
    secrets.extend([
        auth.clone(),
        machine.clone(),
        service.clone(),
        sync.clone(),
        session.clone(),
    ]);

    // Errors of every kind, each with a secret in its request.
    let mut told = String::new();
    for path in [
        "v1/admin/nothing",
        "v1/admin/machines?limit=x",
        "v1/patches/x",
        "v1/sync/head",
        "metrics",
        "readyz",
        "debug/status",
        "v1/openapi.json",
    ] {
        for token in [&service, &session, &sync, &machine, &auth] {
            let request = http
                .get(format!("{}/{path}", server.url))
                .bearer_auth(token);
            told += &request.send().await.unwrap().text().await.unwrap();
        }
    }
    let bad = http
        .post(format!("{}/v1/admin/login", server.url))
        .body("{\"user\":\"CANARY\",\"password\":\"CANARY-x");
    told += &bad.send().await.unwrap().text().await.unwrap();
    let typed = json!({ "user": "CANARY password?", "password": "CANARY-y" });
    let bad = http
        .post(format!("{}/v1/admin/login", server.url))
        .json(&typed);
    told += &bad.send().await.unwrap().text().await.unwrap();
    let old = http
        .put(format!("{}/api/machine/{machine}", server.url))
        .json(&json!({}));
    told += &old.send().await.unwrap().text().await.unwrap();
    told += &std::fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).unwrap();
    let lines = server.log();
    server.stop().await;

    let events = std::fs::read_to_string(&log).unwrap();
    let traces = String::from_utf8_lossy(&shared.lock().unwrap().raw).into_owned();
    assert!(
        events.contains("login.failed") && traces.contains("SELECT_SESSION") && lines.len() > 1000
    );
    for secret in &secrets {
        for (place, text) in [
            ("answers", &told),
            ("events", &events),
            ("traces", &traces),
            ("logs", &lines),
        ] {
            if let Some(at) = text.find(secret.as_str()) {
                let around: String = text[at.saturating_sub(200)..].chars().take(400).collect();
                panic!("{place} hold a secret: {around}");
            }
        }
    }
}
