//! A server that says what a test wants it to say, lies included, and a machine that talks to it with the real
//! `livepatch-client`. It shows what the client makes of answers; what the real server says is shown elsewhere.

use super::kmod;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use livepatch_onprem::domain::Sha256;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

pub(crate) const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// What the patch of these tests makes `/proc/cmdline` show.
pub(crate) const TEXT: &str = "patched by 107.1";

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) what: String,
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

type Answer = Arc<dyn Fn() -> Response + Send + Sync>;

/// What the server says, and what it heard.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) seen: Vec<Seen>,
    pub(crate) updates: Value,
    pub(crate) file: Vec<u8>,
    /// Answers to a request (`GET info`, `POST updates`, ...) instead of the usual one.
    pub(crate) instead: Vec<(&'static str, Answer)>,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) script: Arc<Mutex<Script>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let app = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, script }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Offers a payload, with `change` made to the offer.
    pub(crate) fn offer(&self, bundle: &Path, change: impl FnOnce(&mut Value)) {
        let file = fs::read(bundle).unwrap();
        let name = bundle.file_name().unwrap().to_str().unwrap();
        let mut offer = json!({
            "version": "107.1",
            "kernel": kmod::kernel().to_string(),
            "architecture": "amd64",
            "filename": name,
            "sha256": Sha256::of(&file).to_string(),
            "url": format!("/v1/patches/{name}"),
            "size": file.len(),
            "fixes": [{"name": "CVE-2024-1086"}],
        });
        change(&mut offer);
        let mut script = self.script.lock().unwrap();
        script.file = file;
        script.updates = updates(&[offer]);
    }

    pub(crate) fn instead(
        &self,
        request: &'static str,
        answer: impl Fn() -> Response + Send + Sync + 'static,
    ) {
        self.script
            .lock()
            .unwrap()
            .instead
            .push((request, Arc::new(answer)));
    }

    /// Takes what was heard so far.
    pub(crate) fn heard(&self) -> Vec<Seen> {
        std::mem::take(&mut self.script.lock().unwrap().seen)
    }
}

pub(crate) fn updates(offers: &[Value]) -> Value {
    json!({
        "patches": offers, "supported": "supported", "tier": "stable", "check-interval": 60, "stored": true,
        "reasons": [{"code": "said", "text": "because the test says so"}],
    })
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let word = match last {
        MACHINE => "machine",
        file if uri.path().contains("/v1/patches/") && !file.is_empty() => "file",
        other => other,
    };
    let what = format!("{method} {word}");
    let authorization = headers
        .get(header::AUTHORIZATION)
        .map(|v| v.to_str().unwrap().to_owned());
    let mut script = script.lock().unwrap();
    script.seen.push(Seen {
        what: what.clone(),
        authorization: authorization.unwrap_or_default(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    });
    if let Some((_, answer)) = script.instead.iter().find(|(request, _)| *request == what) {
        return answer();
    }
    match what.as_str() {
        "GET info" => {
            json_answer(&json!({"machine-id": MACHINE, "tier": "stable", "affordances": {}}))
        }
        "POST machine" => {
            json_answer(&json!({"machine-token": "lpm_1", "tier": "stable", "check-interval": 60}))
        }
        "POST updates" => json_answer(&script.updates),
        "GET file" => script.file.clone().into_response(),
        "POST pings" | "DELETE machine" => StatusCode::NO_CONTENT.into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(crate) fn json_answer(value: &Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

/// One machine: a state directory, and how its client ended.
pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_livepatch-client"))
            .env("NO_PROXY", "127.0.0.1")
            .arg("--state-dir")
            .arg(self.dir.path())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Enables without a first check, as the kernel that the modules are for.
    pub(crate) async fn enable(&self, server: &str, more: &[&str]) -> Ended {
        let kernel = kmod::kernel().to_string();
        let args = [
            "--machine-id",
            MACHINE,
            "--arch",
            "amd64",
            "--kernel",
            &kernel,
            "enable",
            "--server",
            server,
            "lpa_1",
        ];
        self.run(&[&args[..], more].concat()).await
    }

    /// Enables, trusting the tests' certificate, without a first check.
    pub(crate) async fn ready(server: &Server) -> Self {
        let machine = Self::new();
        let cert = kmod::keys().cert;
        let ended = machine
            .enable(
                &server.url(),
                &["--no-check", "--cert", cert.to_str().unwrap()],
            )
            .await;
        assert_eq!(ended.code, 0, "{}", ended.err);
        server.heard();
        machine
    }

    pub(crate) async fn livepatch(&self) -> Value {
        let ended = self.run(&["status", "--format", "json"]).await;
        let document: Value = serde_json::from_str(&ended.out).unwrap();
        document["Status"][0]["Livepatch"].clone()
    }

    /// The kept modules and whatever else lies about.
    pub(crate) fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut files: Vec<String> = fs::read_dir(self.dir.path()).unwrap().map(name).collect();
        files.retain(|file| file != "lock" && file != "state.json");
        files
    }
}

/// What was asked, in order.
pub(crate) fn words(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.what.as_str()).collect()
}
