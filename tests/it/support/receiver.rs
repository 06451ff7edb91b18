//! A receiver of webhooks on loopback, as somebody else would write it: it checks the signature by the public scheme with its own
//! code, and answers as the test says.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the receiver does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Answers with this status, at once.
    Status(u16),
    /// Answers with a redirect to another path of its own.
    Redirect,
    /// Does not answer.
    Nothing,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// Path and query.
    pub path: String,
    /// `webhook-id`
    pub id: String,
    /// `webhook-timestamp`
    pub timestamp: i64,
    /// `webhook-signature`
    pub signature: String,
    /// The body, exactly.
    pub raw: Vec<u8>,
    /// The body.
    pub body: Value,
}

impl Received {
    /// Fails unless it is signed with this secret, now.
    pub fn verify(&self, secret: &str) {
        assert_eq!(self.signature, sign(secret, self), "another signature");
        let age = jiff::Timestamp::now().as_second() - self.timestamp;
        assert!(age.abs() < 300, "signed {age} s ago");
    }

    /// The kind of event.
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }
}

fn sign(secret: &str, received: &Received) -> String {
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap());
    let key = PKey::hmac(&key.unwrap()).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    let mut signed = format!("{}.{}.", received.id, received.timestamp).into_bytes();
    signed.extend(&received.raw);
    let digest = signer.sign_oneshot_to_vec(&signed).unwrap();
    format!("v1,{}", BASE64_STANDARD.encode(digest))
}

#[derive(Default)]
struct World {
    received: Vec<Received>,
    replies: VecDeque<Reply>,
}

/// The receiver; it stops listening when it is dropped.
pub struct Receiver {
    /// Where it listens.
    pub address: SocketAddr,
    world: Arc<Mutex<World>>,
    _stop: DropGuard,
}

impl Receiver {
    /// On a free port, answering 204.
    pub async fn start() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// On this port, e.g. one that refused connections before.
    pub async fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World::default()));
        let app = Router::new()
            .fallback(take)
            .with_state(Arc::clone(&world))
            .into_make_service();
        let stopped = CancellationToken::new();
        let stop = stopped.clone().drop_guard();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                served = axum::serve(listener, app) => served.unwrap(),
            }
        });
        Self {
            address,
            world,
            _stop: stop,
        }
    }

    /// A URL of its own, with a path that nobody else should learn.
    pub fn url(&self) -> String {
        format!("http://{}/hooks/canary-path?key=canary-query", self.address)
    }

    /// What it does with the requests that come, one after the other; then it answers 204 again.
    pub fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.world.lock().unwrap().replies.extend(replies);
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        self.world.lock().unwrap().received.clone()
    }

    /// Waits until so many requests have come, and gives all of them.
    pub async fn got(&self, number: usize) -> Vec<Received> {
        let what = format!("{number} deliveries");
        super::process::until(&what, async || {
            self.world.lock().unwrap().received.len() >= number
        })
        .await;
        self.received()
    }
}

async fn take(
    State(world): State<Arc<Mutex<World>>>,
    uri: Uri,
    headers: HeaderMap,
    raw: Bytes,
) -> Response {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(headers["content-type"], "application/json");
    let received = Received {
        path: uri.to_string(),
        id: text("webhook-id"),
        timestamp: text("webhook-timestamp").parse().unwrap(),
        signature: text("webhook-signature"),
        body: serde_json::from_slice(&raw).unwrap(),
        raw: raw.to_vec(),
    };
    let reply = {
        let mut world = world.lock().unwrap();
        world.received.push(received);
        world.replies.pop_front()
    };
    match reply.unwrap_or(Reply::Status(204)) {
        Reply::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Reply::Redirect => {
            (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response()
        }
        Reply::Nothing => std::future::pending().await,
    }
}
