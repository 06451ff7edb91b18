//! Login and sessions.

use crate::support::PASSWORD;
use crate::support::admin::TestAdmin;
use axum::http::header::WWW_AUTHENTICATE;
use base64::{Engine, prelude::BASE64_STANDARD};
use livepatch_onprem::config::BasicUser;
use livepatch_onprem::domain::{Role, Secret};
use livepatch_onprem::service::auth::ensure_admin;
use serde_json::{Value, json};

/// An `Authorization` header with name and password.
pub fn basic(user: &str, password: &str) -> String {
    format!(
        "Basic {}",
        BASE64_STANDARD.encode(format!("{user}:{password}"))
    )
}

/// The body of a login.
pub fn login(user: &str, password: &str) -> Value {
    json!({ "user": user, "password": password })
}

#[tokio::test]
async fn a_session_is_opened_used_listed_and_ended() {
    let test = TestAdmin::new().await;
    let answer = test
        .ask_from(
            "192.0.2.7",
            "POST",
            "/login",
            None,
            Some(login("operator", PASSWORD)),
        )
        .await
        .expect(200);
    let token = answer.body["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("lps_"));
    assert_eq!(answer.body["role"], "operator");
    assert_eq!(answer.body["idle-seconds"], 3600);
    assert_eq!(test.last_audit().await.0, "session.open");

    let bearer = format!("Bearer {token}");
    let me = test
        .ask_from("192.0.2.7", "GET", "/session", Some(&bearer), None)
        .await
        .expect(200);
    assert_eq!(me.body["user"], "operator");
    assert_eq!(me.body["session"]["source"], "192.0.2.7");
    let id = me.body["session"]["id"].as_str().unwrap().to_owned();

    // One's own for an operator, everybody's for an admin; never the token.
    let mine = test
        .ask_from("192.0.2.7", "GET", "/sessions", Some(&bearer), None)
        .await
        .expect(200);
    assert_eq!(mine.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(mine.body["items"][0]["current"], true);
    assert!(!mine.body.to_string().contains("lps_"));
    let all = test.ask(Role::Admin, "GET", "/sessions", None).await;
    assert_eq!(all.body["items"].as_array().unwrap().len(), 4);

    // Others cannot end it, nor learn that it exists.
    let path = format!("/sessions/{id}");
    test.ask(Role::Viewer, "DELETE", &path, None)
        .await
        .expect(404);
    test.ask_from("192.0.2.7", "POST", "/logout", Some(&bearer), None)
        .await
        .expect(204);
    assert_eq!(test.last_audit().await, ("session.end".into(), id));
    test.ask_from("192.0.2.7", "GET", "/session", Some(&bearer), None)
        .await
        .expect(401);
    test.delete(&path).await.expect(404);

    // The database knows no token.
    let rows = test.db.raw().await;
    let stored: i64 = rows
        .query_one(
            "select count(*) from sessions where encode(hash, 'escape') like '%lps%'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(stored, 0);
}

#[tokio::test]
async fn sessions_are_listed_in_pages_and_ended_by_an_admin() {
    let test = TestAdmin::new().await;
    let first = test
        .ask(Role::Admin, "GET", "/sessions?limit=2", None)
        .await;
    let first = first.expect(200).body;
    let cursor = first["next-cursor"].as_str().unwrap();
    let path = format!("/sessions?limit=2&cursor={cursor}");
    let second = test.ask(Role::Admin, "GET", &path, None).await.expect(200);
    let rest = second.body["items"].as_array().unwrap();
    assert_eq!(rest.len(), 1);
    assert!(second.body.get("next-cursor").is_none());
    assert!(!first["items"].as_array().unwrap().contains(&rest[0]));

    let me = test.get("/session").await.expect(200);
    let id = me.body["session"]["id"].as_str().unwrap();
    test.delete(&format!("/sessions/{id}")).await.expect(204);
    test.get("/session").await.expect(401);
}

#[tokio::test]
async fn a_session_ends_by_itself_when_idle_or_old() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    rows.execute(
        "update sessions set last_used = now() - interval '59 minutes'",
        &[],
    )
    .await
    .unwrap();
    test.get("/session").await.expect(200);
    let fresh: i64 = rows
        .query_one(
            "select count(*) from sessions where last_used > now() - interval '1 minute'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        fresh, 1,
        "using a session keeps it, and only it, from being idle"
    );
    test.ask(Role::Operator, "GET", "/session", None)
        .await
        .expect(200);
    rows.execute(
        "update sessions set last_used = now() - interval '61 minutes' where subject = 'operator'",
        &[],
    )
    .await
    .unwrap();
    test.ask(Role::Operator, "GET", "/session", None)
        .await
        .expect(401);
    rows.execute(
        "update sessions set expires_at = now() where subject = 'viewer'",
        &[],
    )
    .await
    .unwrap();
    test.get("/session").await.expect(401);
}

#[tokio::test]
async fn whoever_does_not_prove_who_they_are_is_refused() {
    let test = TestAdmin::new().await;
    let cases = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer lps_wrong".to_owned()),
        Some(format!("Bearer lpa_{}", "A".repeat(43))),
        Some("Basic !!!".to_owned()),
        Some(format!("Basic {}", BASE64_STANDARD.encode("nocolon"))),
        Some("Digest x".to_owned()),
        Some(test.token(Role::Admin).to_owned()),
    ];
    for case in cases {
        let answer = test
            .ask_from("127.0.0.1", "GET", "/session", case.as_deref(), None)
            .await
            .expect(401);
        assert_eq!(answer.problem(), "unauthorized");
        let schemes: Vec<_> = answer.headers.get_all(WWW_AUTHENTICATE).iter().collect();
        assert_eq!(schemes.len(), 2, "{case:?}");
        assert_eq!(answer.body["instance"], "/v1/admin/session");
    }
    // The scheme's name has no case, and a good password with the request does.
    let bearer = format!("bEARER {}", test.token(Role::Viewer));
    test.ask_from("127.0.0.1", "GET", "/session", Some(&bearer), None)
        .await
        .expect(200);
    let answer = test
        .ask_from(
            "127.0.0.1",
            "GET",
            "/session",
            Some(&basic("viewer", PASSWORD)),
            None,
        )
        .await
        .expect(200);
    assert_eq!(answer.body, json!({ "user": "viewer", "role": "viewer" }));
    test.ask_from(
        "127.0.0.1",
        "POST",
        "/logout",
        Some(&basic("viewer", PASSWORD)),
        None,
    )
    .await
    .expect(409);
}

#[tokio::test]
async fn users_of_the_configuration_are_admins_while_they_are_enabled() {
    let users = vec![BasicUser {
        name: "root".to_owned(),
        hash: Secret::new(bcrypt::hash("from the configuration", 4).unwrap()),
    }];
    let with = |enabled: bool| {
        let users = users.clone();
        TestAdmin::with(move |config| {
            config.auth.basic_enabled = enabled;
            config.auth.basic_users = users;
        })
    };
    let test = with(true).await;
    let answer = test
        .ask_from(
            "127.0.0.1",
            "POST",
            "/login",
            None,
            Some(login("root", "from the configuration")),
        )
        .await
        .expect(200);
    assert_eq!(answer.body["role"], "admin");
    let bearer = format!("Bearer {}", answer.body["token"].as_str().unwrap());
    test.ask_from("127.0.0.1", "GET", "/session", Some(&bearer), None)
        .await
        .expect(200);
    test.ask_from(
        "127.0.0.1",
        "POST",
        "/login",
        None,
        Some(login("root", PASSWORD)),
    )
    .await
    .expect(401);
    test.ask_from(
        "127.0.0.1",
        "POST",
        "/login",
        None,
        Some(login("viewer", "from the configuration")),
    )
    .await
    .expect(401);
    // A name that only a configuration can have.
    let odd = TestAdmin::with(|config| {
        config.auth.basic_enabled = true;
        config.auth.basic_users = vec![BasicUser {
            name: "Jörg M".to_owned(),
            hash: users[0].hash.clone(),
        }];
    })
    .await;
    odd.ask_from(
        "127.0.0.1",
        "GET",
        "/session",
        Some(&basic("Jörg M", "from the configuration")),
        None,
    )
    .await
    .expect(200);
    let off = with(false).await;
    off.ask_from(
        "127.0.0.1",
        "POST",
        "/login",
        None,
        Some(login("root", "from the configuration")),
    )
    .await
    .expect(401);
}

#[tokio::test]
async fn an_administrator_who_is_gone_has_no_session() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    rows.execute(
        "update admins set role = 'viewer' where name = 'operator'",
        &[],
    )
    .await
    .unwrap();
    let answer = test.ask(Role::Operator, "GET", "/session", None).await;
    assert_eq!(answer.expect(200).body["role"], "viewer");
    rows.execute("delete from admins where name = 'operator'", &[])
        .await
        .unwrap();
    test.ask(Role::Operator, "GET", "/session", None)
        .await
        .expect(401);
}

#[tokio::test]
async fn the_first_administrator_is_made_once() {
    let test = TestAdmin::new().await;
    let (db, good) = (&test.core.db, Secret::new("a long first password"));
    assert!(!ensure_admin(db, "first", &good).await.unwrap());
    let rows = test.db.raw().await;
    rows.execute("delete from admins", &[]).await.unwrap();
    assert!(
        ensure_admin(db, "first", &Secret::new("short"))
            .await
            .is_err()
    );
    assert!(ensure_admin(db, "not a name", &good).await.is_err());
    assert!(ensure_admin(db, "first", &good).await.unwrap());
    assert!(!ensure_admin(db, "second", &good).await.unwrap());
    assert_eq!(
        test.last_audit().await,
        ("admin.create".into(), "first".into())
    );
    test.ask_from(
        "127.0.0.1",
        "POST",
        "/login",
        None,
        Some(login("first", "a long first password")),
    )
    .await
    .expect(200);
}

#[tokio::test]
async fn an_administrator_has_so_many_sessions_at_most() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    rows.execute(
        "insert into sessions (hash, id, subject, role, source, created_at, expires_at)
         select sha256(n::text::bytea), gen_random_uuid(), 'viewer', 'viewer', 'x', now() - n * interval '1 minute',
            now() + interval '1 hour' from generate_series(1, 80) n",
        &[],
    )
    .await
    .unwrap();
    test.ask_from(
        "127.0.0.1",
        "POST",
        "/login",
        None,
        Some(login("viewer", PASSWORD)),
    )
    .await
    .expect(200);
    let left: i64 = rows
        .query_one(
            "select count(*) from sessions where subject = 'viewer'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 50);
    test.get("/session").await.expect(200);
}
