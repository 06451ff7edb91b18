//! A program that serves the public API of the contracts service, with or without TLS, and tells what it was asked.

use super::pki::{Authority, Request as Ask, terminate};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Method and path.
    pub what: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, if it was JSON.
    pub body: Value,
}

#[derive(Default)]
struct World {
    asked: Vec<Asked>,
    /// By token and machine: the affordances, and whether the machine is entitled.
    machines: HashMap<(String, String), (Value, bool)>,
    /// Answer everything with this instead.
    broken: Option<(StatusCode, String)>,
}

/// The program.
pub struct ContractsServer {
    pub address: SocketAddr,
    /// The authority of its certificate, in PEM, where it serves TLS.
    pub ca: Option<Vec<u8>>,
    world: Arc<Mutex<World>>,
    stop: Option<DropGuard>,
    ended: tokio::task::JoinHandle<()>,
}

impl ContractsServer {
    /// Behind TLS, with a certificate for 127.0.0.1.
    pub async fn with_tls() -> Self {
        let mut server = Self::start().await;
        let authority = Authority::new("a contracts service's");
        let pair = authority.issue(&Ask::default());
        server.address = terminate(&pair, server.address).await;
        server.ca = Some(authority.pem());
        server
    }

    pub async fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let app = Router::new()
            .route("/v1/context/machines/token", post(machine_token))
            .route(
                "/v1/resources",
                get(|| async { Json(json!({"resources": []})) }),
            )
            .route(
                "/v1/resources/{resource}/context/machines/{machine}",
                get(resource),
            )
            .layer(axum::middleware::from_fn_with_state(
                Arc::clone(&world),
                note,
            ))
            .with_state(Arc::clone(&world));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = CancellationToken::new();
        let stop = Some(stopped.clone().drop_guard());
        let ended = tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = stopped.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let (app, stopped) = (app.clone(), stopped.clone());
                tokio::spawn(async move {
                    let service = TowerToHyperService::new(app);
                    let server = auto::Builder::new(TokioExecutor::new());
                    let serving = server.serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        _ = serving => {}
                    }
                });
            }
        });
        Self {
            address,
            ca: None,
            world,
            stop,
            ended,
        }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// From now on this token is good for this machine, within these affordances.
    pub fn grant(&self, token: &str, machine: &str, affordances: Value) {
        self.set(token, machine, affordances, true);
    }

    /// This token is known, and its contract is without Livepatch.
    pub fn deny(&self, token: &str, machine: &str) {
        self.set(token, machine, json!({"tier": "stable"}), false);
    }

    fn set(&self, token: &str, machine: &str, affordances: Value, entitled: bool) {
        let key = (token.to_owned(), machine.to_owned());
        self.world
            .lock()
            .unwrap()
            .machines
            .insert(key, (affordances, entitled));
    }

    /// Answers everything with this, or again as it should.
    pub fn break_with(&self, answer: Option<(StatusCode, &str)>) {
        self.world.lock().unwrap().broken = answer.map(|(status, body)| (status, body.to_owned()));
    }

    /// What it was asked so far, except for its health.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.world.lock().unwrap().asked.clone();
        asked
            .into_iter()
            .filter(|asked| asked.what != "GET /v1/resources")
            .collect()
    }

    /// Stops listening, and ends what is connected.
    pub async fn stop(&mut self) {
        self.stop = None;
        (&mut self.ended).await.unwrap();
    }
}

async fn note(
    State(world): State<Arc<Mutex<World>>>,
    request: Request,
    next: axum::middleware::Next,
) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let headers = request.headers().clone();
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let broken = {
        let mut world = world.lock().unwrap();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        world.asked.push(Asked {
            what,
            headers,
            body,
        });
        world.broken.clone()
    };
    match broken {
        Some(answer) => answer.into_response(),
        None => next.run(Request::from_parts(parts, bytes.into())).await,
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap());
    value
        .and_then(|value| value.strip_prefix("Bearer "))
        .unwrap_or_default()
}

fn unauthorized() -> Response {
    let body = json!({"code": "unauthorized", "message": "unauthorized"});
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

/// The contract token that the on-premises calls take, and what comes of it.
pub const CONTRACT_TOKEN: &str = "C1contractcanary";
pub const MACHINE_TOKEN: &str = "M1machinecanary";
pub const RESOURCE_TOKEN: &str = "R1resourcecanary";

async fn machine_token(headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let documented = body["machineId"] == "livepatch-onprem" && body["os"]["type"] == "Linux";
    if bearer(&headers) != CONTRACT_TOKEN || !documented {
        return unauthorized();
    }
    Json(json!({"machineToken": MACHINE_TOKEN, "expires": "9999-12-31T00:00:00Z"})).into_response()
}

async fn resource(
    State(world): State<Arc<Mutex<World>>>,
    Path((resource, machine)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let token = bearer(&headers).to_owned();
    if resource == "livepatch-onprem" {
        if token != MACHINE_TOKEN || machine != "livepatch-onprem" {
            return unauthorized();
        }
        return Json(json!({"resourceToken": RESOURCE_TOKEN})).into_response();
    }
    let known = world
        .lock()
        .unwrap()
        .machines
        .get(&(token, machine))
        .cloned();
    let Some((affordances, entitled)) = known.filter(|_| resource == "livepatch") else {
        return unauthorized();
    };
    Json(json!({
        "resourceToken": "M-another",
        "entitlement": {
            "type": "livepatch",
            "entitled": entitled,
            "obligations": {"enableByDefault": true},
            "directives": {"caCerts": "", "remoteServer": "https://livepatch.example"},
            "affordances": affordances,
        },
    }))
    .into_response()
}
