//! The throttle on failed logins: it delays a pair of account and source, and a source that tries many accounts; it
//! never locks an owner out.

use crate::admin_sessions::{basic, login};
use crate::support::PASSWORD;
use crate::support::admin::TestAdmin;
use axum::http::header::RETRY_AFTER;
use livepatch_onprem::domain::Role;

#[tokio::test]
async fn failed_logins_delay_the_pair_of_account_and_source_only() {
    let test = TestAdmin::new().await;
    for _ in 0..6 {
        test.ask_from(
            "192.0.2.1",
            "POST",
            "/login",
            None,
            Some(login("admin", "wrong wrong wrong")),
        )
        .await
        .expect(401);
    }
    let delayed = test
        .ask_from(
            "192.0.2.1",
            "POST",
            "/login",
            None,
            Some(login("admin", PASSWORD)),
        )
        .await
        .expect(429);
    assert_eq!(delayed.problem(), "throttled");
    let wait: u64 = delayed.headers[RETRY_AFTER]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    // A password with the request is throttled just so; a session that is open is not.
    test.ask_from(
        "192.0.2.1",
        "GET",
        "/session",
        Some(&basic("admin", PASSWORD)),
        None,
    )
    .await
    .expect(429);
    let bearer = format!("Bearer {}", test.token(Role::Admin));
    test.ask_from("192.0.2.1", "GET", "/session", Some(&bearer), None)
        .await
        .expect(200);
    // The owner gets in from elsewhere, and others from there.
    test.ask_from(
        "192.0.2.2",
        "POST",
        "/login",
        None,
        Some(login("admin", PASSWORD)),
    )
    .await
    .expect(200);
    test.ask_from(
        "192.0.2.1",
        "POST",
        "/login",
        None,
        Some(login("viewer", PASSWORD)),
    )
    .await
    .expect(200);
    // When the time is over, a success clears the count.
    let rows = test.db.raw().await;
    rows.execute("update login_failures set blocked_until = now()", &[])
        .await
        .unwrap();
    test.ask_from(
        "192.0.2.1",
        "POST",
        "/login",
        None,
        Some(login("admin", PASSWORD)),
    )
    .await
    .expect(200);
    let left: i64 = rows
        .query_one(
            "select count(*) from login_failures where account = 'admin'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
    // The metrics tell of it.
    let metrics = test.core.metrics.encode();
    for line in [
        "livepatch_auth_failures_total{token_type=\"password\"} 6",
        "livepatch_auth_throttled_total 2",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn the_delay_doubles_up_to_minutes_and_is_forgotten() {
    let test = TestAdmin::new().await;
    let rows = test.db.raw().await;
    let fail = async || {
        test.ask_from(
            "192.0.2.1",
            "POST",
            "/login",
            None,
            Some(login("nobody", "wrong wrong wrong")),
        )
        .await
        .expect(401);
        let row = rows
            .query_one(
                "select failures, extract(epoch from blocked_until - last_failure)::float8 from login_failures
                 where account = 'nobody'",
                &[],
            )
            .await
            .unwrap();
        (row.get::<_, i32>(0), row.get::<_, f64>(1) as u64)
    };
    let set = async |text: &str| {
        rows.batch_execute(&format!(
            "update login_failures set {text} where account = 'nobody'"
        ))
        .await
        .unwrap();
    };
    assert_eq!(fail().await, (1, 0));
    for (before, after) in [
        (4, (5, 0)),
        (5, (6, 1)),
        (6, (7, 2)),
        (9, (10, 16)),
        (400, (401, 300)),
    ] {
        set(&format!("blocked_until = now(), failures = {before}")).await;
        assert_eq!(fail().await, after);
    }
    set("blocked_until = now(), last_failure = now() - interval '16 minutes'").await;
    assert_eq!(fail().await, (1, 0));
}

#[tokio::test]
async fn a_source_that_tries_many_accounts_is_delayed_as_a_whole() {
    let test = TestAdmin::new().await;
    test.ask_from(
        "2001:db8::1",
        "POST",
        "/login",
        None,
        Some(login("one", "wrong wrong wrong")),
    )
    .await
    .expect(401);
    let rows = test.db.raw().await;
    rows.execute(
        "update login_failures set failures = 60 where account = ''",
        &[],
    )
    .await
    .unwrap();
    // Names that nobody can have share one count.
    for name in ["two", "no such\u{1} name"] {
        rows.execute("update login_failures set blocked_until = now()", &[])
            .await
            .unwrap();
        test.ask_from(
            "2001:db8::2",
            "POST",
            "/login",
            None,
            Some(login(name, "wrong wrong wrong")),
        )
        .await
        .expect(401);
    }
    // The whole /64 is one source; another is not concerned.
    test.ask_from(
        "2001:db8::3",
        "POST",
        "/login",
        None,
        Some(login("viewer", PASSWORD)),
    )
    .await
    .expect(429);
    test.ask_from(
        "2001:db8:0:1::3",
        "POST",
        "/login",
        None,
        Some(login("viewer", PASSWORD)),
    )
    .await
    .expect(200);
    let accounts: Vec<String> = rows
        .query("select account from login_failures order by account", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(accounts, ["", "?", "one", "two"]);
}
