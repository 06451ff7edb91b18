//! The console without a browser: what is refused, what pages hold and what they weigh.

use crate::support::page::{PAGES, Person, got};
use crate::support::server::{Machine, TestServer};
use livepatch_onprem::domain::Role;
use reqwest::header::COOKIE;
use serde_json::{Value, json};

/// Fails if a page has any script but the console's own file.
fn only_our_script(page: &str, text: &str) {
    let scripts: Vec<&str> = text.split("<script").skip(1).collect();
    assert!(
        !scripts.is_empty(),
        "{page} was expected to have its script"
    );
    for script in scripts {
        assert!(
            script.starts_with(" src=\"/console/assets/"),
            "{page} holds <script{script:.80}"
        );
    }
}

#[tokio::test]
async fn pages_keep_to_themselves() {
    let server = TestServer::with_two_patches().await;
    let admin = Person::sign_in(&server, "admin").await;
    let token = admin.cookie.split_once('=').unwrap().1.to_owned();
    for page in PAGES {
        let answer = admin.get(page).await;
        assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{policy}"
        );
        assert_eq!(answer.headers["cache-control"], "no-store");
        assert_eq!(answer.headers["x-frame-options"], "DENY");
        for inline in [" style=", "<style", " onclick=", "javascript:"] {
            assert!(!answer.text.contains(inline), "{page} holds {inline}");
        }
        assert!(
            !answer.text.contains(&token),
            "{page} holds the session's token"
        );
        // No request to anybody else: only links that somebody follows lead out.
        only_our_script(page, &answer.text);
    }
    let style = admin.get("/console").await;
    let path = style
        .text
        .split("href=\"/console/assets/")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let style = admin.get(&format!("/console/assets/{path}")).await;
    assert_eq!(style.status, 200);
    assert!(
        style.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    assert_eq!(admin.get("/console/assets/nothing.css").await.status, 404);
}

#[tokio::test]
async fn a_form_from_elsewhere_does_nothing() {
    let server = TestServer::start().await;
    let admin = Person::sign_in(&server, "admin").await;
    let url = format!("{}/console/access/tokens/auth", server.url);
    let fields = [
        ("name", "evil"),
        ("tier", "stable"),
        ("labels", ""),
        ("proof", ""),
    ];
    let proof = admin.proof().await;
    let post = |fields: Vec<(&'static str, String)>| {
        server
            .http
            .post(&url)
            .header(COOKIE, &admin.cookie)
            .form(&fields)
    };
    let with = |proof: &str| {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    *name,
                    if *name == "proof" {
                        proof.to_owned()
                    } else {
                        (*value).to_owned()
                    },
                )
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(got(post(with(""))).await.status, 403);
    assert_eq!(got(post(with(&"0".repeat(64)))).await.status, 403);
    let foreign = post(with(&proof)).header("sec-fetch-site", "cross-site");
    assert_eq!(got(foreign).await.status, 403);
    let foreign = post(with(&proof)).header("origin", "https://evil.example");
    assert_eq!(got(foreign).await.status, 403);
    let tokens = server.admin("GET", "auth-tokens", Value::Null).await;
    assert_eq!(tokens["items"], json!([]));
    let ours = post(with(&proof)).header("sec-fetch-site", "same-origin");
    let made = got(ours).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert!(made.text.contains("lpa_") && made.text.contains("auth-token evil stable"));
    // It was shown once.
    assert!(!admin.get("/console/access").await.text.contains("lpa_"));
}

#[tokio::test]
async fn roles_are_respected_in_what_is_shown_and_what_is_refused() {
    let server = TestServer::with_two_patches().await;
    server.add_admin("viewer", Role::Viewer).await;
    server.add_admin("operator", Role::Operator).await;
    let viewer = Person::sign_in(&server, "viewer").await;
    let access = viewer.get("/console/access").await;
    for hidden in [
        "Make an auth token",
        "Administrators",
        "Service tokens",
        "Revoke",
    ] {
        assert!(!access.text.contains(hidden), "a viewer sees {hidden}");
    }
    let made = viewer
        .post(
            "/console/access/tokens/auth",
            &[("name", "x"), ("tier", "stable")],
        )
        .await;
    assert_eq!(made.status, 403);
    assert!(
        made.text.contains("this needs the role operator"),
        "{}",
        made.text
    );
    let promoted = viewer
        .post(
            "/console/patches/107.1/promote",
            &[("tier", "stable"), ("reason", "")],
        )
        .await;
    assert_eq!(promoted.status, 403, "{}", promoted.text);
    let operator = Person::sign_in(&server, "operator").await;
    let access = operator.get("/console/access").await;
    assert!(access.text.contains("Make an auth token") && !access.text.contains("Administrators"));
    let added = operator
        .post(
            "/console/access/admins/add",
            &[
                ("name", "x"),
                ("password", "another long password"),
                ("role", "admin"),
            ],
        )
        .await;
    assert_eq!(added.status, 403);
    let patches = server.admin("GET", "patches/107.1", Value::Null).await;
    assert_eq!(patches["patch"]["reach"], "edge");
}

/// Names, labels and reasons from hostile hands are text on every page.
#[tokio::test]
async fn hostile_text_stays_text() {
    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    let server = TestServer::with_two_patches().await;
    let token = server.token("web", "edge").await;
    let machine = Machine::register(&server, 1, &token).await;
    let mut report = machine.report(None);
    report["CPU-Model"] = json!(EVIL);
    report["Client-Version"] = json!(EVIL);
    report["Status"][0]["Kernel"] = json!(EVIL);
    assert_eq!(machine.send(&server, &report).await.status(), 200);
    server
        .admin("POST", "patches/107.1/hold", json!({ "reason": EVIL }))
        .await;
    let admin = Person::sign_in(&server, "admin").await;
    let mut pages: Vec<String> = PAGES.map(str::to_owned).to_vec();
    pages.push("/console/patches/107.1".to_owned());
    pages.push(format!("/console/machines/{}", machine.id));
    pages.push(format!(
        "/console/machines?kernel={}",
        "%3Cscript%3Ealert(3)%3C%2Fscript%3E"
    ));
    pages.push("/console/machines?selector=%3Cscript%3E".to_owned());
    pages.push("/console/audit?actor=%22%3E%3Cscript%3E".to_owned());
    pages.push("/console?done=%3Cscript%3E".to_owned());
    let mut told = 0;
    for page in pages {
        let answer = admin.get(&page).await;
        assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        for raw in ["<img src=x", "\"'><"] {
            assert!(!answer.text.contains(raw), "{page} holds {raw}");
        }
        only_our_script(&page, &answer.text);
        told += usize::from(answer.text.contains("&lt;script&gt;alert(1)"));
    }
    assert!(told >= 3, "the text was shown on {told} pages");
}

/// Pages are told of a change at once, and the stream ends when the server does.
#[tokio::test]
async fn a_change_is_told_at_once() {
    let mut server = TestServer::with_two_patches().await;
    let admin = Person::sign_in(&server, "admin").await;
    let url = format!("{}/console/live", server.url);
    let mut stream = server
        .http
        .get(&url)
        .header(COOKIE, &admin.cookie)
        .send()
        .await
        .unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let first = stream.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("connected"));
    server
        .admin("POST", "patches/107.1/promote", json!({ "tier": "beta" }))
        .await;
    let mut told = String::new();
    while !told.contains("event: changed") {
        told += &String::from_utf8_lossy(&stream.chunk().await.unwrap().unwrap());
    }
    assert!(server.stop().await, "an open page held the server up");
    // It comes to its end and is not cut off.
    while stream.chunk().await.unwrap().is_some() {}
}

#[tokio::test]
async fn pages_weigh_little() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("web", "edge").await;
    let mut last = String::new();
    for n in 0..50 {
        let machine = Machine::register(&server, n, &token).await;
        machine.check(&server, Some("107.1")).await;
        last = machine.id;
    }
    let admin = Person::sign_in(&server, "admin").await;
    let mut assets = 0;
    for name in ["console.css", "console.js"] {
        let page = admin.get("/console").await.text;
        let path = page
            .split('"')
            .find(|part| part.starts_with("/console/assets/") && part.ends_with(name))
            .unwrap()
            .to_owned();
        let asset = admin.get(&path).await;
        assert_eq!(asset.status, 200, "{path}");
        assets += asset.text.len();
    }
    let machine = format!("/console/machines/{last}");
    let mut pages: Vec<&str> = PAGES.to_vec();
    pages.extend(["/console/patches/107.1", machine.as_str()]);
    for page in pages {
        let answer = admin.get(page).await;
        assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        if page == "/console/machines" {
            let rows = answer.text.matches("href=\"/console/machines/").count();
            assert!(rows >= 50, "{rows} machines are shown");
        }
        let weight = answer.text.len() + assets;
        assert!(weight < 200 << 10, "{page} weighs {weight} bytes");
    }
}

/// Numbers lead to the machines behind them: those that wait for a patch, and those that were not seen for long.
#[tokio::test]
async fn machines_are_found_by_what_they_wait_for_and_when_they_were_seen() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("web", "edge").await;
    let waiting = Machine::register(&server, 1, &token).await;
    waiting.check(&server, None).await;
    let done = Machine::register(&server, 2, &token).await;
    done.check(&server, Some("107.1")).await;
    let away = Machine::register(&server, 3, &token).await;
    away.check(&server, Some("107.1")).await;
    let raw = server.db.raw().await;
    let sql =
        "update machines set last_check = now() - interval '3 hours' where id = $1::text::uuid";
    raw.execute(sql, &[&away.id]).await.unwrap();
    let admin = Person::sign_in(&server, "admin").await;
    let found = async |query: &str| {
        let page = admin.get(&format!("/console/machines?{query}")).await;
        assert_eq!(page.status, 200, "{}", page.text);
        [&waiting, &done, &away].map(|machine| page.text.contains(&machine.id))
    };
    assert_eq!(found("").await, [true, true, true]);
    assert_eq!(
        found("version=107.1&fate=waiting").await,
        [true, false, false]
    );
    assert_eq!(
        found("version=106.1&fate=waiting").await,
        [false, false, false]
    );
    assert_eq!(found("seen=silent").await, [false, false, true]);
    assert_eq!(found("seen=2h&version=107.1").await, [false, false, true]);
    assert_eq!(found("seen=4h").await, [false, false, false]);
    for (query, why) in [
        ("fate=failed", "say of which patch"),
        ("version=107.1&fate=bad", "fate"),
    ] {
        let page = admin.get(&format!("/console/machines?{query}")).await;
        assert!(
            page.status == 200 && page.text.contains(why),
            "{query}: {}",
            page.text
        );
    }
    let wrong = admin.get("/console/machines?seen=soon").await;
    assert!(
        wrong.status == 200 && wrong.text.contains("expected e.g. 2h"),
        "{}",
        wrong.text
    );
    // The command asks the same.
    let (status, said) = server
        .said(&[
            "machine",
            "list",
            "--last-seen-before",
            "2h",
            "--output",
            "json",
        ])
        .await;
    assert!(
        status == 0 && said.contains(&away.id) && !said.contains(&done.id),
        "{said}"
    );
    let (status, said) = server
        .said(&[
            "machine", "list", "--patch", "107.1", "--fate", "waiting", "--output", "json",
        ])
        .await;
    assert!(
        status == 0 && said.contains(&waiting.id) && !said.contains(&away.id),
        "{said}"
    );
}
