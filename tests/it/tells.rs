//! What a server process tells of itself: security events, and never a secret.

use crate::support::PASSWORD;
use crate::support::collector::collector;
use crate::support::process::{Site, until};
use crate::support::sources::sources;
use livepatch_onprem::telemetry::security;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

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
    // What comes later is written later: by then the other would be there.
    server
        .admin("POST", "tiers", json!({ "name": "extra" }))
        .await
        .unwrap()
        .expect(201);
    until("the last event is written", async || {
        server.said(r#""event":"tier.create""#)
    })
    .await;
    assert_eq!(server.count(r#""event":"auth-token.create""#), 1);
    server.stop().await;
}

/// Every action that the source text knows: what stands after `action:` anywhere, and each word of that form in the services,
/// where some are chosen by functions.
fn actions() -> BTreeSet<String> {
    let plain = |part: &str| {
        let mut bytes = part.bytes();
        !part.is_empty() && bytes.all(|b| b.is_ascii_lowercase() || b == b'-')
    };
    let is_action = |text: &&str| {
        let parts = text.split_once('.');
        parts.is_some_and(|(what, how)| plain(what) && plain(how))
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut actions = BTreeSet::new();
    for file in sources(&root) {
        let text = std::fs::read_to_string(&file).unwrap();
        for rest in text.split("action: \"").skip(1) {
            actions.insert(rest.split('"').next().unwrap().to_owned());
        }
        if file.starts_with(root.join("service")) {
            actions.extend(text.split('"').filter(is_action).map(str::to_owned));
        }
    }
    actions
}

/// Every action of the audit log is a security event or is left out on purpose; the list is closed.
#[test]
fn every_change_is_on_the_list_or_left_out_on_purpose() {
    let actions = actions();
    assert!(actions.len() > 60, "{actions:?}");
    // Those that functions choose are among them.
    for chosen in [
        "patch.hold",
        "rollout.block",
        "rollout.advance",
        "storage.verify",
        "tier.rename",
    ] {
        assert!(actions.contains(chosen), "{chosen} in {actions:?}");
    }
    let mut wrong = Vec::new();
    for action in actions {
        let word: &'static str = action.leak();
        let quiet = security::QUIET.contains(&word);
        if security::of_change(word).is_some() == quiet {
            wrong.push(word);
        }
    }
    assert!(
        wrong.is_empty(),
        "neither security events nor among those left out, or both: {wrong:?}"
    );
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
    let mut secrets = vec!["CANARY".to_owned(), "ca9a".repeat(16), PASSWORD.to_owned()];

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
    let login = json!({ "user": "admin", "password": PASSWORD });
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
    let lines = server.stop_and_tell().await;

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
