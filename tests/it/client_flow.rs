//! `livepatch-client` against a server that says what a test wants it to say, lies included. Real payloads, real
//! signatures; what the real server says is shown elsewhere, here it is what the client makes of it.

use crate::support::kmod;
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

const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const TEXT: &str = "patched by 107.1";

/// One request as it came.
#[derive(Debug, Clone)]
struct Seen {
    what: String,
    authorization: String,
    body: Value,
}

/// What the server says, and what it heard.
#[derive(Default)]
struct Script {
    seen: Vec<Seen>,
    updates: Value,
    file: Vec<u8>,
    /// Answers to a request (`GET info`, `POST updates`, ...) instead of the usual one.
    instead: Vec<(&'static str, Arc<dyn Fn() -> Response + Send + Sync>)>,
}

#[derive(Clone)]
struct Server {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let app = Router::new().fallback(answer).with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, script }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Offers a payload, with `change` made to the offer.
    fn offer(&self, bundle: &Path, change: impl FnOnce(&mut Value)) {
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

    fn instead(
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
    fn heard(&self) -> Vec<Seen> {
        std::mem::take(&mut self.script.lock().unwrap().seen)
    }
}

fn updates(offers: &[Value]) -> Value {
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

fn json_answer(value: &Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}

/// One machine: a state directory, and how its client ended.
struct Machine {
    dir: tempfile::TempDir,
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Machine {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    async fn run(&self, args: &[&str]) -> Ended {
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
    async fn enable(&self, server: &str, more: &[&str]) -> Ended {
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
    async fn ready(server: &Server) -> Self {
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

    async fn livepatch(&self) -> Value {
        let ended = self.run(&["status", "--format", "json"]).await;
        let document: Value = serde_json::from_str(&ended.out).unwrap();
        document["Status"][0]["Livepatch"].clone()
    }

    /// The kept modules and whatever else lies about.
    fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().into_string().unwrap()
        };
        let mut files: Vec<String> = fs::read_dir(self.dir.path()).unwrap().map(name).collect();
        files.retain(|file| file != "lock" && file != "state.json");
        files
    }
}

fn words(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.what.as_str()).collect()
}

#[tokio::test]
async fn a_machine_enables_checks_keeps_and_leaves() {
    let server = Server::start().await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let machine = Machine::new();
    let cert = kmod::keys().cert;
    let ended = machine
        .enable(&server.url(), &["--cert", cert.to_str().unwrap()])
        .await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(
        ended.out.contains("enabled in tier stable")
            && ended.out.contains("107.1 was verified and kept"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("because the test says so"),
        "{}",
        ended.out
    );

    let seen = server.heard();
    assert_eq!(
        words(&seen),
        [
            "GET info",
            "POST machine",
            "POST updates",
            "GET file",
            "POST updates"
        ]
    );
    // The administrator's token is shown until there is another, and stands in no later body.
    assert!(seen[..2].iter().all(|s| s.authorization == "Bearer lpa_1"));
    assert_eq!(seen[1].body["auth-token"], "lpa_1");
    assert!(
        seen[2..]
            .iter()
            .all(|s| s.authorization == "Bearer lpm_1" && s.body.get("auth-token").is_none())
    );
    let said = |at: usize| seen[at].body["Status"][0]["Livepatch"].clone();
    assert_eq!(
        (said(2)["State"].clone(), said(2)["Version"].clone()),
        (json!("needs-check"), json!(""))
    );
    assert_eq!(
        (said(4)["State"].clone(), said(4)["Version"].clone()),
        (json!("unapplied"), json!("107.1"))
    );
    assert_eq!(
        seen[4].body["Status"][0]["Kernel"],
        kmod::kernel().to_string()
    );

    // What was kept is the module, signature and all, and nothing else lies about.
    let files = machine.files();
    assert_eq!(files.len(), 1, "{files:?}");
    let kept = fs::read(machine.dir.path().join(&files[0])).unwrap();
    assert!(kept.ends_with(b"~Module signature appended~\n") && kept.starts_with(b"\x7fELF"));

    // Nothing new: no download, no second report.
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 0 && ended.out.contains("nothing new"),
        "{}{}",
        ended.out,
        ended.err
    );
    assert_eq!(words(&server.heard()), ["POST updates"]);

    // A kept module that was damaged is fetched again.
    fs::write(machine.dir.path().join(&files[0]), b"damaged").unwrap();
    assert_eq!(machine.run(&["check", "--assume-applied"]).await.code, 0);
    assert_eq!(
        words(&server.heard()),
        ["POST updates", "GET file", "POST updates"]
    );
    assert_eq!(machine.livepatch().await["State"], "applied");
    assert_eq!(machine.livepatch().await["Fixes"][0]["Patched"], true);

    let ended = machine.run(&["disable"]).await;
    assert_eq!(
        (ended.code, words(&server.heard())),
        (0, vec!["DELETE machine"])
    );
    assert!(machine.files().is_empty() && !machine.dir.path().join("state.json").exists());
}

#[tokio::test]
async fn no_offer_leaves_things_as_they_are() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    server.script.lock().unwrap().updates = updates(&[]);
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 0 && ended.out.contains("no patch is offered"),
        "{}",
        ended.err
    );
    assert_eq!(machine.livepatch().await["State"], "nothing-to-apply");

    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    assert_eq!(machine.run(&["check", "--assume-applied"]).await.code, 0);
    server.script.lock().unwrap().updates = updates(&[]);
    assert!(
        machine
            .run(&["check"])
            .await
            .out
            .contains("107.1 is applied")
    );

    server.instead("POST updates", || StatusCode::NO_CONTENT.into_response());
    assert!(machine.run(&["check"]).await.out.contains("nothing to say"));
    assert_eq!(machine.livepatch().await["Version"], "107.1");
}

#[tokio::test]
async fn what_is_not_what_was_announced_is_refused() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    let bundle = kmod::real_bundle("107.1", TEXT);
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 8] = [
        (|o| o["sha256"] = json!("00".repeat(32)), "has SHA-256"),
        (|o| o["size"] = json!(100), "but 100 were announced"),
        (|o| o["size"] = json!(1u64 << 40), "more than the"),
        (
            |o| o["kernel"] = json!("5.15.0-1.1-generic"),
            "this machine is",
        ),
        (|o| o["architecture"] = json!("arm64"), "this machine is"),
        (|o| o["version"] = json!("108.1"), "should be named"),
        (
            |o| o["filename"] = json!("../../etc/passwd"),
            "should be named",
        ),
        (|o| o["url"] = json!("http://["), "URL"),
    ];
    for (change, expected) in cases {
        server.offer(&bundle, change);
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 4 || expected == "URL",
            "{expected}: {} {}",
            ended.code,
            ended.err
        );
        assert!(ended.err.contains(expected), "{expected}: {}", ended.err);
        assert_eq!(machine.files(), Vec::<String>::new(), "{expected}");
        assert_eq!(
            machine.livepatch().await["CheckState"],
            "check-failed",
            "{expected}"
        );
    }
    // The server is told that the check failed.
    let seen = server.heard();
    assert_eq!(
        seen.last().unwrap().body["Status"][0]["Livepatch"]["CheckState"],
        "check-failed"
    );
}

#[tokio::test]
async fn a_body_longer_or_shorter_than_announced_is_cut_off() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let endless = || {
        let chunks = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[7; 8192]))
        });
        axum::body::Body::from_stream(chunks).into_response()
    };
    server.instead("GET file", endless);
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 4 && ended.err.contains("is longer than the"),
        "{}",
        ended.err
    );
    assert_eq!(machine.files(), Vec::<String>::new());

    server.script.lock().unwrap().instead.clear();
    server.instead("GET file", || {
        let chunks =
            futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"BZh9"))]);
        axum::body::Body::from_stream(chunks).into_response()
    });
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 4 && ended.err.contains("ended after 4 of"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn only_signatures_of_given_certificates_count() {
    let server = Server::start().await;
    let cases = [
        (
            kmod::foreign_bundle("107.1", TEXT),
            "none of the 1 installed certificates",
        ),
        (kmod::unsigned_bundle("107.1", TEXT), "no signature"),
    ];
    for (bundle, expected) in cases {
        let machine = Machine::ready(&server).await;
        server.offer(&bundle, |_| {});
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 4 && ended.err.contains(expected),
            "{}",
            ended.err
        );
        assert_eq!(machine.files(), Vec::<String>::new());
        // Only when told so, and not quietly.
        let ended = machine.run(&["check", "--insecure-skip-signature"]).await;
        assert!(
            ended.code == 0 && ended.err.contains("WARNING: signatures are NOT verified"),
            "{}",
            ended.err
        );
        assert!(machine.run(&["status"]).await.out.contains("NOT CHECKED"));
        // What was kept unchecked does not pass for checked later.
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 4 && ended.err.contains(expected),
            "{}",
            ended.err
        );
    }
    // Without any certificate nothing can be verified, and the message says what to do.
    let machine = Machine::new();
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let ended = machine.enable(&server.url(), &[]).await;
    assert!(
        ended.code == 4 && ended.err.contains("see --cert"),
        "{}",
        ended.err
    );
    assert!(
        ended.out.contains("is enabled"),
        "registered all the same: {}",
        ended.out
    );
}

#[tokio::test]
async fn a_refusal_ends_with_3_and_the_servers_words() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    server.instead("POST updates", || {
        (StatusCode::UNAUTHORIZED, "unauthorized").into_response()
    });
    let ended = machine.run(&["check"]).await;
    assert!(
        ended.code == 3 && ended.err.contains("401 unauthorized"),
        "{}",
        ended.err
    );

    let fresh = Machine::new();
    server.instead("GET info", || {
        (StatusCode::FORBIDDEN, r#"{"error":"Unknown Auth-Token"}"#).into_response()
    });
    let ended = fresh.enable(&server.url(), &[]).await;
    assert!(
        ended.code == 3 && ended.err.contains("Unknown Auth-Token"),
        "{}",
        ended.err
    );
    assert!(!ended.err.contains("lpa_1") && !fresh.dir.path().join("state.json").exists());
}

#[tokio::test]
async fn answers_that_are_no_answers_are_told_apart() {
    let server = Server::start().await;
    let machine = Machine::ready(&server).await;
    let problem =
        r#"{"type":"about:blank","title":"Busy","status":503,"detail":"come back later"}"#;
    type Answer = Box<dyn Fn() -> Response + Send + Sync>;
    let cases: Vec<(Answer, &str)> = vec![
        (
            Box::new(|| "<html>hello</html>".into_response()),
            "is this a livepatch server?",
        ),
        (
            Box::new(|| json_answer(&json!({"patches": "lpm_canary"}))),
            "not the JSON expected",
        ),
        (
            Box::new(|| vec![b' '; 2 << 20].into_response()),
            "longer than 1048576 bytes",
        ),
        (
            Box::new(move || (StatusCode::SERVICE_UNAVAILABLE, problem).into_response()),
            "503 come back later",
        ),
        (
            Box::new(|| {
                (
                    StatusCode::FOUND,
                    [(header::LOCATION, "http://elsewhere.example/")],
                )
                    .into_response()
            }),
            "points to http://elsewhere.example/",
        ),
    ];
    for (answer, expected) in cases {
        server.script.lock().unwrap().instead.clear();
        server.instead("POST updates", answer);
        let ended = machine.run(&["check"]).await;
        assert!(
            ended.code == 1 && ended.err.contains(expected),
            "{expected}: {} {}",
            ended.code,
            ended.err
        );
        assert!(!ended.err.contains("canary"), "{}", ended.err);
    }
}

#[tokio::test]
async fn a_download_may_come_from_elsewhere_but_the_token_stays() {
    let (server, mirror) = (Server::start().await, Server::start().await);
    let machine = Machine::ready(&server).await;
    let bundle = kmod::real_bundle("107.1", TEXT);
    mirror.script.lock().unwrap().file = fs::read(&bundle).unwrap();
    let elsewhere = format!(
        "{}/v1/patches/{}",
        mirror.url(),
        bundle.file_name().unwrap().to_str().unwrap()
    );

    // By a redirect.
    server.offer(&bundle, |_| {});
    let to = elsewhere.clone();
    server.instead("GET file", move || {
        (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response()
    });
    let ended = machine.run(&["check"]).await;
    assert_eq!(ended.code, 0, "{}", ended.err);
    let seen = mirror.heard();
    assert_eq!(
        (words(&seen), seen[0].authorization.as_str()),
        (vec!["GET file"], "")
    );

    // By the offer itself.
    let machine = Machine::ready(&server).await;
    server.offer(&bundle, |o| o["url"] = json!(elsewhere));
    assert_eq!(machine.run(&["check"]).await.code, 0);
    let seen = mirror.heard();
    assert_eq!(
        (words(&seen), seen[0].authorization.as_str()),
        (vec!["GET file"], "")
    );
}

#[tokio::test]
async fn downloads_without_tls_are_refused_when_asked() {
    let server = Server::start().await;
    let machine = Machine::new();
    server.offer(&kmod::real_bundle("107.1", TEXT), |_| {});
    let ended = machine
        .enable(
            &server.url(),
            &["--tls-patch-download", "--insecure-skip-signature"],
        )
        .await;
    assert!(
        ended.code == 4 && ended.err.contains("not TLS"),
        "{}",
        ended.err
    );
    assert!(server.heard().iter().all(|s| s.what != "GET file"));
}
