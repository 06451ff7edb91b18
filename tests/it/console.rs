//! The console without a browser: who is let in, what is refused, what pages hold and what they weigh.

use crate::support::server::{Machine, TestServer};
use livepatch_onprem::domain::{Role, Secret};
use livepatch_onprem::service::passwords;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

/// Somebody who is signed in.
struct Person<'s> {
    server: &'s TestServer,
    cookie: String,
}

struct Got {
    status: u16,
    location: String,
    text: String,
    headers: reqwest::header::HeaderMap,
}

async fn got(request: reqwest::RequestBuilder) -> Got {
    let answer = request.send().await.unwrap();
    let headers = answer.headers().clone();
    let location = headers
        .get(LOCATION)
        .map(|value| value.to_str().unwrap().to_owned());
    Got {
        status: answer.status().as_u16(),
        location: location.unwrap_or_default(),
        headers,
        text: answer.text().await.unwrap(),
    }
}

impl<'s> Person<'s> {
    async fn sign_in(server: &'s TestServer, user: &str) -> Self {
        let form = [
            ("user", user),
            ("password", PASSWORD),
            ("next", "/console/machines"),
        ];
        let answer = got(server
            .http
            .post(format!("{}/console/login", server.url))
            .form(&form))
        .await;
        assert_eq!(
            (answer.status, answer.location.as_str()),
            (303, "/console/machines"),
            "{}",
            answer.text
        );
        let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
        for word in ["HttpOnly", "SameSite=Lax", "Path=/console"] {
            assert!(cookie.contains(word), "{cookie}");
        }
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { server, cookie }
    }

    async fn get(&self, path: &str) -> Got {
        let url = format!("{}{path}", self.server.url);
        got(self.server.http.get(url).header(COOKIE, &self.cookie)).await
    }

    /// The proof that the forms of a page carry.
    async fn proof(&self) -> String {
        let page = self.get("/console/audit").await;
        let (_, rest) = page.text.split_once(r#"name="proof" value=""#).unwrap();
        rest.split('"').next().unwrap().to_owned()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Got {
        let proof = self.proof().await;
        let mut fields = fields.to_vec();
        fields.push(("proof", &proof));
        let url = format!("{}{path}", self.server.url);
        got(self
            .server
            .http
            .post(url)
            .header(COOKIE, &self.cookie)
            .form(&fields))
        .await
    }
}

/// An administrator of a role, beside the one who is always there.
pub async fn add(server: &TestServer, name: &str, role: Role) {
    let hash = passwords::hash(&Secret::new(PASSWORD)).await.unwrap();
    let conn = server.core().db.conn().await.unwrap();
    livepatch_onprem::db::admins::insert(&conn, name, &hash, role)
        .await
        .unwrap();
}

/// Every page that needs nothing to be there.
const PAGES: [&str; 6] = [
    "/console",
    "/console/rollouts",
    "/console/machines",
    "/console/intake",
    "/console/access",
    "/console/audit",
];

#[tokio::test]
async fn nobody_sees_a_page_without_signing_in() {
    let server = TestServer::start().await;
    for page in PAGES {
        let answer = got(server.http.get(format!("{}{page}", server.url))).await;
        assert_eq!(answer.status, 303, "{page}");
        assert!(
            answer.location.starts_with("/console/login"),
            "{}",
            answer.location
        );
    }
    let form = [("user", "admin"), ("password", "wrong")];
    let wrong = got(server
        .http
        .post(format!("{}/console/login", server.url))
        .form(&form))
    .await;
    assert_eq!(wrong.status, 401);
    assert!(
        wrong.text.contains("name or password is wrong") && !wrong.headers.contains_key(SET_COOKIE)
    );
    // Nobody is led elsewhere by a link to the page where one signs in.
    let form = [
        ("user", "admin"),
        ("password", PASSWORD),
        ("next", "//evil.example/console"),
    ];
    let answer = got(server
        .http
        .post(format!("{}/console/login", server.url))
        .form(&form))
    .await;
    assert_eq!((answer.status, answer.location.as_str()), (303, "/console"));
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
        for part in answer.text.split("<script").skip(1) {
            assert!(part.starts_with(" src=\"/console/assets/"), "{part:.80}");
        }
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
    add(&server, "viewer", Role::Viewer).await;
    add(&server, "operator", Role::Operator).await;
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
    let url = format!("{}/v1/client/{}/updates", server.url, machine.id);
    let answer = server
        .http
        .post(url)
        .bearer_auth(&machine.token)
        .json(&report);
    assert_eq!(answer.send().await.unwrap().status(), 200);
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
        for raw in ["<script>alert", "<img src=x", "\"'><", "<script>\""] {
            assert!(!answer.text.contains(raw), "{page} holds {raw}");
        }
        told += usize::from(answer.text.contains("&lt;script&gt;alert(1)"));
    }
    assert!(told >= 3, "the text was shown on {told} pages");
}

#[tokio::test]
async fn who_signs_out_is_out_and_access_is_managed() {
    let server = TestServer::start().await;
    let admin = Person::sign_in(&server, "admin").await;
    let added = admin
        .post(
            "/console/access/admins/add",
            &[("name", "anna"), ("password", PASSWORD), ("role", "viewer")],
        )
        .await;
    assert_eq!(
        (added.status, added.location.as_str()),
        (303, "/console/access?done=added"),
        "{}",
        added.text
    );
    let said = admin.get("/console/access?done=added").await;
    assert!(said.text.contains("The administrator is added."));
    let anna = Person::sign_in(&server, "anna").await;
    let changed = admin
        .post(
            "/console/access/admins",
            &[("name", "anna"), ("role", "operator")],
        )
        .await;
    assert_eq!(changed.status, 303, "{}", changed.text);
    assert!(
        anna.get("/console/access")
            .await
            .text
            .contains("Make an auth token")
    );
    let removed = admin
        .post("/console/access/admins/remove", &[("name", "anna")])
        .await;
    assert_eq!(removed.status, 303, "{}", removed.text);
    assert_eq!(anna.get("/console").await.status, 303);

    let made = admin
        .post(
            "/console/access/tokens/service",
            &[("name", "robot"), ("scopes", "read, patches:write")],
        )
        .await;
    assert!(made.text.contains("lpv_"), "{}", made.text);
    let wrong = admin
        .post(
            "/console/access/tokens/service",
            &[("name", "robot2"), ("scopes", "everything")],
        )
        .await;
    assert_eq!(wrong.status, 400, "{}", wrong.text);
    let asked = admin
        .get("/console/access/revoke?kind=service&name=robot")
        .await;
    assert!(
        asked.text.contains("cannot be undone") && asked.text.contains("admin token revoke robot")
    );
    let revoked = admin
        .post(
            "/console/access/revoke",
            &[("kind", "service"), ("name", "robot")],
        )
        .await;
    assert_eq!(revoked.status, 303, "{}", revoked.text);
    let whole = admin.post("/console/audit/verify", &[]).await;
    assert!(whole.text.contains("It holds"), "{}", whole.text);

    let out = admin.post("/console/logout", &[]).await;
    assert_eq!((out.status, out.location.as_str()), (303, "/console/login"));
    assert!(
        out.headers[SET_COOKIE]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
    assert_eq!(admin.get("/console").await.status, 303);
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
    while stream.chunk().await.ok().flatten().is_some() {}
}

#[tokio::test]
async fn pages_weigh_little() {
    let server = TestServer::with_two_patches().await;
    let admin = Person::sign_in(&server, "admin").await;
    let mut assets = 0;
    for name in ["console.css", "console.js"] {
        let page = admin.get("/console").await.text;
        let path = page
            .split('"')
            .find(|part| part.starts_with("/console/assets/") && part.ends_with(name))
            .unwrap()
            .to_owned();
        assets += admin.get(&path).await.text.len();
    }
    for page in PAGES {
        let weight = admin.get(page).await.text.len() + assets;
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
    assert_eq!(found("waiting=107.1").await, [true, false, false]);
    assert_eq!(found("waiting=106.1").await, [false, false, false]);
    assert_eq!(found("seen=silent").await, [false, false, true]);
    assert_eq!(found("seen=2h&version=107.1").await, [false, false, true]);
    assert_eq!(found("seen=4h").await, [false, false, false]);
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
            "machine",
            "list",
            "--waiting-for",
            "107.1",
            "--output",
            "json",
        ])
        .await;
    assert!(
        status == 0 && said.contains(&waiting.id) && !said.contains(&away.id),
        "{said}"
    );
}
