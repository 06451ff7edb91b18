//! Deliveries to webhooks, with a real receiver on loopback: signed, tried again, given up, never to where they must not go, and
//! made again after the server was killed.

use crate::support::contracts::ContractsServer;
use crate::support::process::{Site, until};
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::TestServer;
use axum::http::StatusCode;
use livepatch_onprem::config::Config;
use livepatch_onprem::db::webhooks::{self, New};
use livepatch_onprem::db::{Conn, outbox};
use livepatch_onprem::domain::{EventKind, Secret};
use livepatch_onprem::telemetry::DeliveryResult;
use serde_json::json;
use std::time::Duration;

const SECRET: &str = "whsec_Y2FuYXJ5LXNlY3JldC1vZi10aGUtd2ViaG9vaw==";

fn private(config: &mut Config) {
    config.webhooks.allow_private_addresses = true;
}

async fn conn(server: &TestServer) -> Conn {
    server.core().db.conn().await.unwrap()
}

/// Makes a webhook that wants everything.
async fn add(server: &TestServer, name: &str, url: &str) {
    let new = New {
        name,
        url,
        secret: &Secret::new(SECRET),
        events: &[],
        created_by: "test",
    };
    webhooks::insert(&conn(server).await, &new).await.unwrap();
}

/// Something happens.
async fn happen(server: &TestServer, data: &serde_json::Value) {
    let mut conn = conn(server).await;
    let tx = conn.begin().await.unwrap();
    outbox::emit(&tx, EventKind::RolloutHalted, data)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

/// The only delivery.
async fn delivery(server: &TestServer) -> webhooks::Delivery {
    let found = webhooks::deliveries(&conn(server).await, None, None, None, 2).await;
    let mut found = found.unwrap();
    assert_eq!(found.len(), 1);
    found.pop().unwrap()
}

/// Waits until the only delivery has been tried so often, or is in another state.
async fn tried(server: &TestServer, attempts: i32) -> webhooks::Delivery {
    until("the attempt", async || {
        let now = delivery(server).await;
        now.attempts >= attempts || now.state == "delivered"
    })
    .await;
    delivery(server).await
}

/// Makes what waits for another try due now.
async fn hasten(server: &TestServer) {
    server
        .db
        .raw()
        .await
        .batch_execute(
            "update deliveries set next_at = now() where state = 'pending'; notify livepatch, 'outbox 0'",
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn an_event_is_delivered_once_and_signed() {
    let receiver = Receiver::start().await;
    let server = TestServer::with(private).await;
    add(&server, "hook", &receiver.url()).await;
    happen(&server, &json!({"version": "107.1"})).await;
    let received = receiver.got(1).await;
    received[0].verify(SECRET);
    assert_eq!(received[0].kind(), "rollout.halted");
    assert_eq!(received[0].body["data"], json!({"version": "107.1"}));
    assert_eq!(received[0].path, "/hooks/canary-path?key=canary-query");
    let done = tried(&server, 1).await;
    assert_eq!((done.state.as_str(), done.attempts), ("delivered", 1));
    assert_eq!(done.event, received[0].id);
    assert_eq!(done.last_error, None);
    let counted = &server.core().metrics.webhooks.deliveries;
    until("it is counted", async || {
        counted.get(DeliveryResult::Delivered) == 1
    })
    .await;
    // A second event comes with an id of its own, and nothing comes twice.
    happen(&server, &json!({})).await;
    let received = receiver.got(2).await;
    assert_eq!(received.len(), 2);
    assert_ne!(received[0].id, received[1].id);
}

#[tokio::test]
async fn what_failed_is_sent_again_with_the_same_id() {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::Status(500)]);
    let server = TestServer::with(private).await;
    add(&server, "hook", &receiver.url()).await;
    happen(&server, &json!({"n": 1})).await;
    let failed = tried(&server, 1).await;
    assert_eq!((failed.state.as_str(), failed.attempts), ("pending", 1));
    let why = failed.last_error.unwrap();
    assert!(why.contains("500"), "{why}");
    let pause = failed.next_at.duration_since(failed.tried_at.unwrap());
    assert!((4..=6).contains(&pause.as_secs()), "{pause}");

    // Nobody listens any more: that is a failure like another.
    let address = receiver.address;
    let first = receiver.received();
    drop(receiver);
    until("the port is free", async || {
        tokio::net::TcpListener::bind(address).await.is_ok()
    })
    .await;
    hasten(&server).await;
    let failed = tried(&server, 2).await;
    let why = failed.last_error.unwrap();
    assert!(why.contains("onnect"), "{why}");
    assert!(!why.contains("canary"), "{why}");
    let pause = failed.next_at.duration_since(failed.tried_at.unwrap());
    assert!((8..=12).contains(&pause.as_secs()), "{pause}");

    let receiver = Receiver::on(address).await;
    hasten(&server).await;
    let received = receiver.got(1).await;
    received[0].verify(SECRET);
    assert_eq!(received[0].id, first[0].id);
    assert_eq!(received[0].raw, first[0].raw);
    assert_eq!(tried(&server, 3).await.state, "delivered");
    let counted = &server.core().metrics.webhooks.deliveries;
    assert_eq!(counted.get(DeliveryResult::Failed), 2);
}

#[tokio::test]
async fn what_fails_too_often_is_given_up_and_can_be_sent_again() {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::Status(503), Reply::Status(404)]);
    let server = TestServer::with(|config| {
        private(config);
        config.webhooks.max_attempts = 2;
    })
    .await;
    add(&server, "hook", &receiver.url()).await;
    happen(&server, &json!({})).await;
    tried(&server, 1).await;
    hasten(&server).await;
    let dead = tried(&server, 2).await;
    assert_eq!((dead.state.as_str(), dead.attempts), ("dead", 2));
    assert!(dead.last_error.unwrap().contains("404"));
    hasten(&server).await;
    assert_eq!(receiver.received().len(), 2);
    let mut conn = conn(&server).await;
    let tx = conn.begin().await.unwrap();
    let (id, _) = webhooks::lock(&tx, "hook").await.unwrap().unwrap();
    assert_eq!(webhooks::retry(&tx, id, Some(&[0])).await.unwrap(), 0);
    assert_eq!(webhooks::retry(&tx, id, None).await.unwrap(), 1);
    outbox::wake(&tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(receiver.got(3).await[2].id, dead.event);
    until("it is delivered", async || {
        delivery(&server).await.state == "delivered"
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_not_asked_again() {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::Status(410)]);
    let server = TestServer::with(private).await;
    add(&server, "hook", &receiver.url()).await;
    happen(&server, &json!({})).await;
    let dead = tried(&server, 1).await;
    assert_eq!((dead.state.as_str(), dead.attempts), ("dead", 1));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::Redirect]);
    let server = TestServer::with(private).await;
    add(&server, "hook", &receiver.url()).await;
    happen(&server, &json!({})).await;
    let failed = tried(&server, 1).await;
    let why = failed.last_error.unwrap();
    assert!(
        why.contains("307") && why.contains("redirects are not followed"),
        "{why}"
    );
    assert_eq!(receiver.received().len(), 1);
}

/// Written out, and behind a name; and the answer says which key would allow it.
#[tokio::test]
async fn private_addresses_are_refused_unless_allowed() {
    let receiver = Receiver::start().await;
    let server = TestServer::start().await;
    let port = receiver.address.port();
    add(&server, "literal", &receiver.url()).await;
    add(
        &server,
        "name",
        &format!("http://localhost:{port}/canary-path"),
    )
    .await;
    happen(&server, &json!({})).await;
    let of = async |name: &'static str| {
        let conn = conn(&server).await;
        let found = webhooks::deliveries(&conn, None, Some(name), None, 1).await;
        found.unwrap().pop().unwrap()
    };
    for name in ["literal", "name"] {
        until("the attempt", async || of(name).await.attempts > 0).await;
        let why = of(name).await.last_error.unwrap();
        assert!(why.contains("webhooks.allow-private-addresses"), "{why}");
        assert!(!why.contains("canary"), "{why}");
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_holds_up_nobody_else() {
    let (slow, fast) = (Receiver::start().await, Receiver::start().await);
    slow.reply([Reply::Nothing]);
    let server = TestServer::with(|config| {
        private(config);
        config.webhooks.timeout = Duration::from_secs(2);
    })
    .await;
    add(&server, "slow", &slow.url()).await;
    add(&server, "fast", &fast.url()).await;
    happen(&server, &json!({"n": 0})).await;
    slow.got(1).await;
    for n in 1..=20 {
        happen(&server, &json!({ "n": n })).await;
    }
    fast.got(21).await;
    // The slow one gets the rest one after the other once its first request ran out of time.
    let received = slow.got(21).await;
    let ids: std::collections::BTreeSet<_> = received.iter().map(|r| &r.id).collect();
    assert_eq!(ids.len(), 21);
    // The first waits for its second try; the others are recorded as they end.
    let open = async || {
        let conn = conn(&server).await;
        let open = webhooks::deliveries(&conn, None, Some("slow"), Some("pending"), 30).await;
        open.unwrap()
    };
    until("the others are recorded", async || open().await.len() == 1).await;
    let why = open().await.pop().unwrap().last_error.unwrap();
    assert!(why.contains("within 2s"), "{why}");
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_if_it_is_given() {
    let receiver = ContractsServer::with_tls().await;
    receiver.break_with(Some((StatusCode::OK, "")));
    let url = format!("{}/hooks", receiver.url());
    let mut server = TestServer::with(private).await;
    add(&server, "hook", &url).await;
    happen(&server, &json!({})).await;
    let why = tried(&server, 1).await.last_error.unwrap();
    assert!(why.contains("certificate"), "{why}");
    assert!(receiver.asked().is_empty());
    server.stop().await;

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, receiver.ca.as_ref().unwrap()).unwrap();
    let server = server
        .beside(|config| {
            private(config);
            config.webhooks.ca = Some(ca.clone());
        })
        .await;
    hasten(&server).await;
    tried(&server, 2).await;
    until("it is delivered", async || {
        delivery(&server).await.state == "delivered"
    })
    .await;
    assert_eq!(receiver.asked()[0].what, "POST /hooks");
}

/// Of two replicas one delivers, whichever the event happened on; and the other goes on when that one stops.
#[tokio::test]
async fn two_replicas_deliver_each_event_once() {
    let receiver = Receiver::start().await;
    let mut one = TestServer::with(private).await;
    let two = one.beside(private).await;
    add(&one, "hook", &receiver.url()).await;
    for n in 0..10 {
        happen(if n % 2 == 0 { &one } else { &two }, &json!({ "n": n })).await;
    }
    let delivered = async |server: &TestServer, number: usize| {
        until("all are delivered", async || {
            let conn = conn(server).await;
            let done = webhooks::deliveries(&conn, None, None, Some("delivered"), 100).await;
            done.unwrap().len() == number
        })
        .await;
    };
    delivered(&two, 10).await;
    assert_eq!(receiver.received().len(), 10);
    one.stop().await;
    happen(&two, &json!({"n": 10})).await;
    delivered(&two, 11).await;
    assert_eq!(receiver.received().len(), 11);
}

/// Killed after the receiver had it and before it answered: the next process delivers it again, under the same id.
#[tokio::test]
async fn a_killed_server_delivers_after_its_restart() {
    let receiver = Receiver::start().await;
    receiver.reply([Reply::Nothing]);
    let mut site = Site::new().await;
    site.set("LP_WEBHOOKS_ALLOW_PRIVATE_ADDRESSES", "true");
    let mut server = site.start().await;
    server.stored("107.1").await;
    let raw = site.raw().await;
    raw.execute(
        "insert into webhooks (name, url, secret, created_by) values ('hook', $1, $2, 'test')",
        &[&receiver.url(), &SECRET],
    )
    .await
    .unwrap();
    let promoted = server.admin("POST", "patches/107.1/promote", json!({"tier": "beta"}));
    promoted.await.unwrap().expect(200);
    let first = receiver.got(1).await;
    server.signal("KILL");
    server.was_killed().await;

    let server = site.start().await;
    let received = receiver.got(2).await;
    assert_eq!(received[0].id, received[1].id);
    assert_eq!(received[0].raw, received[1].raw);
    received[1].verify(SECRET);
    assert_eq!(first[0].kind(), "patch.promoted");
    until("it is recorded", async || {
        let sql = "select count(*) from deliveries where state = 'delivered' and attempts = 1";
        raw.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let (_, metrics) = server.page("metrics").await;
    for text in ["canary", SECRET, "whsec_"] {
        assert!(!server.said(text), "the log holds {text}");
        assert!(!metrics.contains(text), "a metric holds {text}");
    }
    server.stop().await;
}

/// What ended long ago is thrown away, with events that nobody waits for; what waits stays.
#[tokio::test]
async fn old_deliveries_are_thrown_away() {
    let receiver = Receiver::start().await;
    let server = TestServer::with(private).await;
    add(&server, "hook", &receiver.url()).await;
    for n in 0..3 {
        happen(&server, &json!({ "n": n })).await;
    }
    let raw = server.db.raw().await;
    let count = async |sql: &'static str| raw.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    until("all are delivered", async || {
        count("select count(*) from deliveries where state = 'delivered'").await == 3
    })
    .await;
    raw.batch_execute(
        "update deliveries set ended_at = now() - interval '31 days' where id = (select min(id) from deliveries);
         update deliveries set state = 'pending', ended_at = null, next_at = now() + interval '1 day'
            where id = (select max(id) from deliveries);
         update outbox set at = now() - interval '31 days'",
    )
    .await
    .unwrap();
    livepatch_onprem::tasks::retention::now(server.core())
        .await
        .unwrap();
    assert_eq!(count("select count(*) from deliveries").await, 2);
    assert_eq!(count("select count(*) from outbox").await, 2);
}
