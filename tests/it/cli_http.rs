//! The livepatch-admin program in conversation with a server that follows a script.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use livepatch_onprem::domain::Sha256;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type Answers = Arc<dyn Fn(&str, &Bytes) -> Response + Send + Sync>;

#[derive(Clone)]
struct Script {
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: Answers,
}

async fn handle(
    State(script): State<Script>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let line = format!("{method} {uri}");
    script.seen.lock().unwrap().push(Seen {
        line: line.clone(),
        headers,
        body: body.clone(),
    });
    (script.answers)(&line, &body)
}

/// The server, and a place for the program's session file.
pub struct Scene {
    url: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    dir: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Scene {
    pub fn new(answers: impl Fn(&str, &Bytes) -> Response + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let script = Script {
            seen: Arc::clone(&seen),
            answers: Arc::new(answers),
        };
        let router = Router::new().fallback(handle).with_state(script);
        runtime.spawn(async move { serve(listener, router).await });
        Self {
            url,
            seen,
            dir: tempfile::tempdir().unwrap(),
            _runtime: runtime,
        }
    }

    fn session_file(&self) -> PathBuf {
        self.dir.path().join("livepatch-admin/session.json")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-admin"));
        command
            .args(args)
            .env_clear()
            .env("LIVEPATCH_URL", &self.url)
            .env("XDG_STATE_HOME", self.dir.path())
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    /// Runs with name and password from the environment, so that no login is needed.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args)
            .env("LIVEPATCH_ADMIN_AUTH", "admin:s3cret")
            .output()
            .unwrap()
    }

    pub fn lines(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .map(|s| s.line.clone())
            .collect()
    }
}

/// `axum::serve` is not among the crate's features; this is the little of it that a test needs.
async fn serve(listener: tokio::net::TcpListener, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .await
        });
    }
}

pub fn json(status: u16, body: impl Into<String>) -> Response {
    (
        StatusCode::from_u16(status).unwrap(),
        [(header::CONTENT_TYPE, "application/json")],
        body.into(),
    )
        .into_response()
}

fn problem(status: u16, detail: &str) -> Response {
    let body = format!(
        r#"{{"type":"urn:livepatch-onprem:problem:x","title":"Title","status":{status},"detail":"{detail}","request-id":"req-1"}}"#
    );
    json(status, body)
}

pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/admin")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

pub fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn a_session_is_opened_used_and_ended() {
    let scene = Scene::new(|line, body| match line {
        "POST /v1/admin/login" if body.as_ref() == br#"{"user":"admin","password":"a:b"}"# => {
            json(200, fixture("login-answer.json"))
        }
        "POST /v1/admin/login" => problem(401, "name or password are wrong"),
        "GET /v1/admin/tiers?limit=1000" => json(200, fixture("tiers.json")),
        "POST /v1/admin/logout" => StatusCode::NO_CONTENT.into_response(),
        _ => problem(404, "no such path"),
    });

    let before = scene.command(&["tier", "list"]).output().unwrap();
    assert_eq!(code(&before), 3);
    assert!(
        err(&before).contains("next: log in: livepatch-admin login"),
        "{}",
        err(&before)
    );
    assert!(scene.lines().is_empty());

    let wrong = scene
        .command(&["login", "-a", "admin:no"])
        .output()
        .unwrap();
    assert_eq!(code(&wrong), 3);
    assert!(
        err(&wrong).contains("login refused: name or password are wrong"),
        "{}",
        err(&wrong)
    );
    assert!(!scene.session_file().exists());

    let auth = scene.dir.path().join("auth");
    std::fs::write(&auth, "admin:a:b\n").unwrap();
    let login = scene
        .command(&["login", "--auth-file", auth.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(code(&login), 0, "{}", err(&login));
    assert!(!out(&login).contains("lps_abc"));
    let mode = std::fs::metadata(scene.session_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let list = scene
        .command(&["tier", "list", "-o", "json"])
        .output()
        .unwrap();
    assert_eq!(code(&list), 0, "{}", err(&list));
    let printed: serde_json::Value = serde_json::from_str(&out(&list)).unwrap();
    assert_eq!(
        printed,
        serde_json::from_str::<serde_json::Value>(&fixture("tiers.json")).unwrap()
    );
    let seen = scene.seen.lock().unwrap().last().cloned().unwrap();
    assert_eq!(seen.headers[header::AUTHORIZATION], "Bearer lps_abc");

    let logout = scene.command(&["logout"]).output().unwrap();
    assert_eq!(code(&logout), 0, "{}", err(&logout));
    assert_eq!(code(&scene.command(&["tier", "list"]).output().unwrap()), 3);
}

#[test]
fn the_password_can_come_from_standard_input() {
    let scene = Scene::new(|_, body| {
        assert_eq!(body.as_ref(), br#"{"user":"admin","password":"a b"}"#);
        json(200, fixture("login-answer.json"))
    });
    for auth in ["-", "admin"] {
        let mut child = scene
            .command(&["login", "-a", auth])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let line = if auth == "-" { "admin:a b\n" } else { "a b\n" };
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), line.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{auth}");
    }
}

#[test]
fn refusals_end_with_their_exit_code_and_say_what_to_do() {
    let scene = Scene::new(|line, _| match line {
        l if l.contains("/tiers/gone") => problem(404, "there is no tier gone; see tier list"),
        l if l.contains("/tiers/used") => {
            problem(409, "tier used has 3 machines; say where they go")
        }
        l if l.contains("/patches/1.1") => problem(500, ""),
        l if l.contains("/patches/1.2") => problem(403, "role viewer may not promote"),
        l if l.contains("/patches/1.3") => {
            (StatusCode::BAD_GATEWAY, "<html>bad gateway</html>").into_response()
        }
        l if l.contains("/audit/verify") => json(200, fixture("audit-verdict.json")),
        _ => json(200, "{\"surprise\":1}"),
    });
    for (args, exit, says) in [
        (
            vec!["tier", "delete", "gone", "-y"],
            4,
            "there is no tier gone",
        ),
        (vec!["tier", "delete", "used", "-y"], 5, "has 3 machines"),
        (vec!["patch", "block", "1.1"], 1, "request id: req-1"),
        (vec!["patch", "block", "1.2"], 3, "session show"),
        (vec!["patch", "block", "1.3"], 6, "502 Bad Gateway: <html>"),
        (vec!["audit", "verify"], 7, ""),
        (
            vec!["tier", "list"],
            1,
            "the answer to GET /v1/admin/tiers cannot be read",
        ),
        (vec!["tier", "delete", "asked"], 2, "--yes"),
        (
            vec!["machine", "forget", "0f1e2d3c4b5a69788796a5b4c3d2e1f0"],
            2,
            "--yes",
        ),
        (vec!["storage", "quarantine", "drop", "7"], 2, "--yes"),
    ] {
        let output = scene.run(&args);
        assert_eq!(code(&output), exit, "{args:?}: {}", err(&output));
        assert!(err(&output).contains(says), "{args:?}: {}", err(&output));
    }
    assert!(
        !scene
            .lines()
            .iter()
            .any(|l| l.contains("asked") || l.contains("quarantine"))
    );
    let seen = scene.seen.lock().unwrap().first().cloned().unwrap();
    assert_eq!(
        seen.headers[header::AUTHORIZATION],
        "Basic YWRtaW46czNjcmV0"
    );

    let nobody = scene
        .command(&["tier", "list"])
        .env("LIVEPATCH_URL", "http://127.0.0.1:1")
        .env("LIVEPATCH_ADMIN_AUTH", "a:b")
        .output()
        .unwrap();
    assert_eq!(code(&nobody), 6);
    assert!(
        err(&nobody).contains("Connection refused"),
        "{}",
        err(&nobody)
    );
}

#[test]
fn credentials_follow_no_redirect_to_another_server() {
    let other = Scene::new(|_, _| json(200, fixture("tiers.json")));
    let to = format!("{}/v1/admin/tiers", other.url);
    let scene = Scene::new(move |_, _| {
        (
            StatusCode::TEMPORARY_REDIRECT,
            [(header::LOCATION, to.clone())],
        )
            .into_response()
    });
    let output = scene.run(&["tier", "list"]);
    assert_eq!(code(&output), 6);
    assert!(
        err(&output).contains("redirect to another server"),
        "{}",
        err(&output)
    );
    assert!(other.lines().is_empty());
}

#[test]
fn lists_are_followed_page_by_page() {
    let scene = Scene::new(|line, _| {
        let machines = fixture("machines.json");
        if line.contains("cursor=bmV4dA") {
            json(
                200,
                machines
                    .replace("bmV4dA", "")
                    .replace(",\n  \"next-cursor\": \"\"", ""),
            )
        } else {
            json(200, machines)
        }
    });
    let page = scene.run(&["machine", "list", "--tier", "stable", "--limit", "2"]);
    assert!(err(&page).contains("--cursor bmV4dA"), "{}", err(&page));
    let all = scene.run(&["machine", "list", "--all", "-o", "yaml"]);
    assert_eq!(out(&all).matches("machine-id:").count(), 4, "{}", out(&all));
    assert_eq!(
        scene.lines(),
        [
            "GET /v1/admin/machines?tier=stable&limit=2",
            "GET /v1/admin/machines?limit=1000",
            "GET /v1/admin/machines?cursor=bmV4dA&limit=1000",
        ]
    );
}

#[test]
fn an_upload_skips_what_is_there_and_tells_of_quarantine() {
    let names = ["one.tar.bz2", "two.tar.bz2", "bad.tar.bz2"];
    let scene = Scene::new(move |line, body| {
        let name = names.into_iter().find(|n| line.contains(n)).unwrap();
        match (line.split(' ').next().unwrap(), name) {
            ("HEAD", "one.tar.bz2") => StatusCode::NO_CONTENT.into_response(),
            ("HEAD", _) => StatusCode::NOT_FOUND.into_response(),
            (_, name) => {
                let result = if name.starts_with("bad") {
                    "quarantined"
                } else {
                    "stored"
                };
                let sha256 = Sha256::of(body);
                let size = body.len();
                json(
                    200,
                    format!(
                        r#"{{"filename":"{name}","sha256":"{sha256}","size":{size},"result":"{result}"}}"#
                    ),
                )
            }
        }
    });
    let content = vec![5u8; 200_000];
    for name in names {
        std::fs::write(scene.dir.path().join(name), &content).unwrap();
    }
    let file = |name: &str| scene.dir.path().join(name).display().to_string();
    let good = scene.run(&[
        "patch",
        "upload",
        &file("one.tar.bz2"),
        &file("two.tar.bz2"),
    ]);
    assert_eq!(code(&good), 0, "{}", err(&good));
    assert!(
        out(&good).contains("1 stored, 1 already there, 0 quarantined, 0 not sent."),
        "{}",
        out(&good)
    );
    let digest = Sha256::of(&content);
    {
        let seen = scene.seen.lock().unwrap();
        assert!(
            seen.iter()
                .any(|s| s.line == format!("HEAD /v1/admin/payloads/one.tar.bz2?sha256={digest}"))
        );
        let puts: Vec<&Seen> = seen.iter().filter(|s| s.line.starts_with("PUT")).collect();
        assert_eq!(puts.len(), 1);
        assert_eq!(puts[0].body.as_ref(), content);
        assert_eq!(puts[0].headers[header::CONTENT_LENGTH], "200000");
        let value = puts[0].headers["repr-digest"].to_str().unwrap();
        assert_eq!(
            livepatch_onprem::wire::admin::parse_repr_digest(value),
            Ok(Some(digest))
        );
    }
    let dir = scene.dir.path().display().to_string();
    let bad = scene.run(&["patch", "upload", &dir, "-o", "json"]);
    assert_eq!(code(&bad), 7, "{}", err(&bad));
    let missing = scene.run(&[
        "patch",
        "upload",
        &file("two.tar.bz2"),
        "/nonexistent/x.tar.bz2",
    ]);
    assert_eq!(code(&missing), 1);
    assert!(
        out(&missing).contains("1 stored") && out(&missing).contains("not sent: /nonexistent"),
        "{}",
        out(&missing)
    );
}

#[test]
fn an_upload_without_a_session_sends_no_file() {
    let scene = Scene::new(|_, _| StatusCode::UNAUTHORIZED.into_response());
    let file = scene.dir.path().join("one.tar.bz2");
    std::fs::write(&file, "content").unwrap();
    let output = scene.run(&["patch", "upload", file.to_str().unwrap()]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(err(&output).contains("next: log in"), "{}", err(&output));
    assert!(scene.lines().iter().all(|l| l.starts_with("HEAD ")));
}

#[test]
fn a_job_is_followed_to_its_end() {
    let scene = Scene::new(|line, _| {
        let job = fixture("job.json");
        match line {
            "POST /v1/admin/storage/verify" => json(202, job.replace("\"done\",", "\"running\",")),
            _ => json(200, job),
        }
    });
    let output = scene.run(&["storage", "verify"]);
    assert_eq!(code(&output), 7, "{}", err(&output));
    assert!(out(&output).contains("damaged   1"), "{}", out(&output));
    assert_eq!(
        scene.lines(),
        ["POST /v1/admin/storage/verify", "GET /v1/admin/jobs/3"]
    );
    let started = scene.run(&["storage", "verify", "--no-wait"]);
    assert_eq!(code(&started), 0);
    assert!(
        out(&started).contains("job show 3 --wait"),
        "{}",
        out(&started)
    );
}

#[test]
fn a_token_is_printed_alone() {
    let scene = Scene::new(|_, _| json(201, fixture("auth-token-created.json")));
    let output = scene.run(&[
        "auth-token",
        "lab",
        "beta",
        "--label",
        "rack=r1",
        "--uuid",
        "--valid-until",
        "2026-03-02T11:30:00Z",
    ]);
    assert_eq!(out(&output), "lpa_abc\n");
    let seen = scene.seen.lock().unwrap().first().cloned().unwrap();
    assert_eq!(seen.line, "POST /v1/admin/auth-tokens");
    let sent: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    let golden: serde_json::Value =
        serde_json::from_str(&fixture("auth-token-create.json")).unwrap();
    assert_eq!(sent, golden);
}
