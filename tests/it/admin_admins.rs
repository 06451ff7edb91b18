//! Administrators: made, changed, removed; and that somebody always stays in charge.

use crate::support::PASSWORD;
use crate::support::admin::TestAdmin;
use livepatch_onprem::config::BasicUser;
use livepatch_onprem::domain::{Role, Secret};
use serde_json::{Value, json};

const LONG: &str = "a password that is long";

async fn login(test: &TestAdmin, user: &str, password: &str) -> u16 {
    let body = Some(json!({ "user": user, "password": password }));
    let answer = test
        .ask_from("192.0.2.9", "POST", "/login", None, body)
        .await;
    answer.status.as_u16()
}

fn names(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|e| e["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_administrator_is_added_changed_and_removed() {
    let test = TestAdmin::new().await;
    let body = json!({ "name": "eve", "password": LONG, "role": "operator" });
    let made = test.post("/admins", body.clone()).await.expect(201).body;
    assert_eq!(
        (&made["name"], &made["role"], &made["origin"]),
        (&json!("eve"), &json!("operator"), &json!("database"))
    );
    let again = test.post("/admins", body).await.expect(409);
    assert!(again.detail().contains("eve already"), "{}", again.detail());
    assert_eq!(login(&test, "eve", LONG).await, 200);

    let role = test
        .put("/admins/eve/role", json!({ "role": "viewer" }))
        .await;
    assert_eq!(role.expect(200).body["role"], "viewer");

    // The password changes, and with it all sessions end.
    let body = json!({ "password": "another long password" });
    test.put("/admins/eve/password", body).await.expect(204);
    assert_eq!(login(&test, "eve", LONG).await, 401);
    assert_eq!(login(&test, "eve", "another long password").await, 200);

    test.delete("/admins/eve").await.expect(204);
    assert_eq!(login(&test, "eve", "another long password").await, 401);
    test.delete("/admins/eve").await.expect(404);
    test.put("/admins/eve/role", json!({ "role": "admin" }))
        .await
        .expect(404);
    let rows = test.db.raw().await;
    let sessions: i64 = rows
        .query_one("select count(*) from sessions where subject = 'eve'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(sessions, 0);
    // No password, in clear or hashed, in the log.
    let log: String = rows
        .query_one(
            "select string_agg(details || target, ' ') from audit_log",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(
        !log.contains("password that") && !log.contains("argon2"),
        "{log}"
    );
}

#[tokio::test]
async fn names_and_passwords_are_checked() {
    let test = TestAdmin::new().await;
    for (name, password, word) in [
        ("", LONG, "name"),
        ("a b", LONG, "name"),
        ("a:b", LONG, "name"),
        ("eve", "brief one", "12 characters"),
        ("administrator", "Administrator", "must not be the name"),
        ("eve", "xxxxxxxxxxxxxxxx", "repeated"),
    ] {
        let body = json!({ "name": name, "password": password, "role": "viewer" });
        let answer = test.post("/admins", body).await.expect(400);
        assert!(answer.detail().contains(word), "{}", answer.detail());
        assert!(!answer.detail().contains(password), "{}", answer.detail());
    }
    let body = json!({ "name": "eve", "password": LONG, "role": "root" });
    test.post("/admins", body).await.expect(422);
}

#[tokio::test]
async fn ones_own_password_needs_the_present_one_and_keeps_the_session() {
    let test = TestAdmin::new().await;
    let path = "/admins/viewer/password";
    let as_viewer = async |body| test.ask(Role::Viewer, "PUT", path, Some(body)).await;
    let answer = as_viewer(json!({ "password": LONG })).await.expect(400);
    assert!(answer.detail().contains("current"), "{}", answer.detail());
    as_viewer(json!({ "password": LONG, "current": "wrong wrong wrong" }))
        .await
        .expect(403);
    assert_eq!(login(&test, "viewer", PASSWORD).await, 200);
    as_viewer(json!({ "password": LONG, "current": PASSWORD }))
        .await
        .expect(204);
    test.get("/session").await.expect(200);
    let rows = test.db.raw().await;
    let sessions: i64 = rows
        .query_one(
            "select count(*) from sessions where subject = 'viewer'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(sessions, 1, "the session from elsewhere has ended");
    assert_eq!(login(&test, "viewer", LONG).await, 200);
    // Another's password is the admins' business.
    let other = json!({ "password": LONG, "current": PASSWORD });
    test.ask(Role::Operator, "PUT", path, Some(other))
        .await
        .expect(403);
    // Guessing the present password is throttled like a login.
    for _ in 0..6 {
        as_viewer(json!({ "password": LONG, "current": "wrong wrong wrong" }))
            .await
            .expect(403);
    }
    as_viewer(json!({ "password": LONG, "current": LONG }))
        .await
        .expect(429);
}

#[tokio::test]
async fn somebody_always_stays_in_charge() {
    let test = TestAdmin::new().await;
    // Not oneself, even with others there.
    let second = json!({ "name": "second", "password": LONG, "role": "admin" });
    test.post("/admins", second).await.expect(201);
    test.delete("/admins/admin").await.expect(409);
    test.put("/admins/admin/role", json!({ "role": "viewer" }))
        .await
        .expect(409);
    test.put("/admins/admin/role", json!({ "role": "admin" }))
        .await
        .expect(200);
    test.put("/admins/second/role", json!({ "role": "viewer" }))
        .await
        .expect(200);
    test.put("/admins/second/role", json!({ "role": "admin" }))
        .await
        .expect(200);
    // Two who remove each other at once: one of them stays.
    let signed_in = test
        .ask_from(
            "192.0.2.9",
            "POST",
            "/login",
            None,
            Some(json!({ "user": "second", "password": LONG })),
        )
        .await;
    let bearer = format!(
        "Bearer {}",
        signed_in.expect(200).body["token"].as_str().unwrap()
    );
    let (one, two) = tokio::join!(
        test.delete("/admins/second"),
        test.ask_from("192.0.2.9", "DELETE", "/admins/admin", Some(&bearer), None),
    );
    assert_eq!(
        [one.status, two.status]
            .iter()
            .filter(|status| status.is_success())
            .count(),
        1,
        "{} {}",
        one.status,
        two.status
    );
    let rows = test.db.raw().await;
    let owners: i64 = rows
        .query_one("select count(*) from admins where role = 'admin'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(owners, 1);
}

#[tokio::test]
async fn the_last_admin_is_kept_from_an_admin_of_no_row() {
    // An administrator of the configuration may remove the last one of the database, since that one stays.
    let test = TestAdmin::with(|config| {
        config.auth.basic_enabled = true;
        config.auth.basic_users = ["root", "aaron"]
            .map(|name| BasicUser {
                name: name.to_owned(),
                hash: Secret::new(bcrypt::hash(LONG, 4).unwrap()),
            })
            .to_vec();
    })
    .await;
    let listed = test.get("/admins").await.expect(200).body;
    assert_eq!(
        names(&listed),
        ["aaron", "root", "admin", "operator", "viewer"]
    );
    assert_eq!(listed["items"][0]["origin"], "configuration");
    assert_eq!(listed["items"][0]["role"], "admin");
    // In pages, across the border between the two.
    let mut seen = Vec::new();
    let mut path = "/admins?limit=2".to_owned();
    loop {
        let page = test.get(&path).await.expect(200).body;
        seen.extend(names(&page).into_iter().map(ToOwned::to_owned));
        let Some(cursor) = page["next-cursor"].as_str() else {
            break;
        };
        path = format!("/admins?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, names(&listed));

    for (method, path, body) in [
        (
            "POST",
            "/admins",
            Some(json!({ "name": "root", "password": LONG, "role": "viewer" })),
        ),
        (
            "PUT",
            "/admins/root/role",
            Some(json!({ "role": "viewer" })),
        ),
        (
            "PUT",
            "/admins/root/password",
            Some(json!({ "password": LONG })),
        ),
        ("DELETE", "/admins/root", None),
    ] {
        let answer = test.ask(Role::Admin, method, path, body).await.expect(409);
        assert!(
            answer.detail().contains("configuration"),
            "{}",
            answer.detail()
        );
    }
    let signed_in = test
        .ask_from(
            "192.0.2.9",
            "POST",
            "/login",
            None,
            Some(json!({ "user": "root", "password": LONG })),
        )
        .await;
    let bearer = format!(
        "Bearer {}",
        signed_in.expect(200).body["token"].as_str().unwrap()
    );
    test.ask_from("192.0.2.9", "DELETE", "/admins/admin", Some(&bearer), None)
        .await
        .expect(204);
}
