//! Who is let into the console and for how long: signing in and out, cookies, and sessions that nobody uses.

use crate::support::PASSWORD;
use crate::support::page::{PAGES, Person, SESSION, got};
use crate::support::server::TestServer;
use reqwest::header::{COOKIE, SET_COOKIE};

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
    assert!(out.sets(SESSION).unwrap().contains("Max-Age=0"));
    assert_eq!(admin.get("/console").await.status, 303);
}

/// Somebody who looks at pages keeps the session alive. A page that is left open does not, though it fetches itself anew.
#[tokio::test]
async fn a_page_left_open_keeps_no_session_alive() {
    let server = TestServer::start().await;
    let admin = Person::sign_in(&server, "admin").await;
    let by_itself = async |page: &str| {
        let request = server.http.get(format!("{}{page}", server.url));
        let request = request.header(COOKIE, &admin.cookie);
        got(request.header("x-livepatch-refresh", "1")).await
    };
    let raw = server.db.raw().await;
    let last_used = async || -> String {
        let row = raw.query_one("select last_used::text from sessions", &[]);
        row.await.unwrap().get(0)
    };
    // That it was used is noted once a minute at most.
    let age = "update sessions set last_used = last_used - interval '5 minutes'";
    assert_eq!(raw.execute(age, &[]).await.unwrap(), 1);
    let aged = last_used().await;
    for page in PAGES {
        let answer = by_itself(page).await;
        assert_eq!(answer.status, 200, "{page}: {}", answer.text);
        assert_eq!(last_used().await, aged, "{page}");
    }
    let live = server.http.get(format!("{}/console/live", server.url));
    let live = live.header(COOKIE, &admin.cookie).send().await.unwrap();
    assert_eq!(live.status(), 200);
    assert_eq!(last_used().await, aged, "by the stream of changes");
    assert_eq!(admin.get("/console").await.status, 200);
    assert_ne!(last_used().await, aged, "by somebody who looks");
    // Unused for as long as the configuration says, it has ended, open page or not.
    let idle = server.core().config.auth.session_idle.as_secs_f64() + 1.0;
    let age = "update sessions set last_used = now() - make_interval(secs => $1)";
    assert_eq!(raw.execute(age, &[&idle]).await.unwrap(), 1);
    let ended = by_itself("/console/machines").await;
    assert_eq!(
        (ended.status, ended.location.as_str()),
        (303, "/console/login?next=%2Fconsole%2Fmachines")
    );
}

/// A browser that came over TLS sends the cookie over nothing else; the proxy before the server says that it did.
#[tokio::test]
async fn a_cookie_that_came_over_tls_is_sent_over_tls_alone() {
    let server = TestServer::start().await;
    let form = [("user", "admin"), ("password", PASSWORD)];
    for (proto, is_secure) in [(None, false), (Some("http"), false), (Some("https"), true)] {
        let mut request = server.http.post(format!("{}/console/login", server.url));
        if let Some(proto) = proto {
            request = request.header("x-forwarded-proto", proto);
        }
        let answer = got(request.form(&form)).await;
        assert_eq!(answer.status, 303, "{proto:?}: {}", answer.text);
        let mut words = answer.sets(SESSION).unwrap().split("; ");
        assert_eq!(words.any(|word| word == "Secure"), is_secure, "{proto:?}");
    }
}

/// A list that is longer than its page says so, and the command beside each list is one that works.
#[tokio::test]
async fn what_a_list_leaves_out_is_had_by_its_command() {
    let server = TestServer::start().await;
    let raw = server.db.raw().await;
    raw.batch_execute(
        "insert into admins (name, hash, role)
            select 'admin' || n, 'no hash: they do not sign in', 'viewer' from generate_series(1, 150) n",
    )
    .await
    .unwrap();
    let admin = Person::sign_in(&server, "admin").await;
    let page = admin.get("/console/access").await.text;
    assert!(page.contains("There are more than are shown here."));
    let mut commands = 0;
    for part in page.split("<code>livepatch-admin ").skip(1) {
        let command = part.split("</code>").next().unwrap();
        let words: Vec<&str> = command.split_whitespace().collect();
        let (status, said) = server.said(&words).await;
        assert_eq!(status, 0, "{command}: {said}");
        if command == "admin list" {
            assert!(said.contains("admin150"), "{said}");
        }
        commands += 1;
    }
    assert_eq!(commands, 5);
}
