//! S3 servers for tests: the real one that `tests/services.sh` starts, further real ones with TLS, and a false one that
//! misbehaves on demand.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use futures_util::future::BoxFuture;
use livepatch_onprem::config::{PatchStorage, S3, StorageKind};
use livepatch_onprem::domain::Secret;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A variable that `tests/services.sh` exports.
pub(crate) fn service(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run make test"))
}

/// A name that no other test of this run has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}x{next}", std::process::id())
}

/// Settings for a bucket at `endpoint`.
pub(crate) fn settings(endpoint: &str, bucket: &str, key: &str, secret: &str) -> PatchStorage {
    PatchStorage {
        kind: StorageKind::S3,
        s3: S3 {
            bucket: bucket.to_owned(),
            endpoint: endpoint.to_owned(),
            access_key: Secret::new(key),
            secret_key: Secret::new(secret),
            timeout: Duration::from_secs(10),
            ..S3::default()
        },
        ..PatchStorage::default()
    }
}

/// A new bucket on the shared server, and the folder that it is.
pub(crate) fn bucket() -> (PatchStorage, PathBuf) {
    let name = unique("bucket");
    let folder = Path::new(&service("LIVEPATCH_TEST_S3_DIR")).join(&name);
    std::fs::create_dir(&folder).unwrap();
    let config = settings(
        &service("LIVEPATCH_TEST_S3"),
        &name,
        &service("LIVEPATCH_TEST_S3_KEY"),
        &service("LIVEPATCH_TEST_S3_SECRET"),
    );
    (config, folder)
}

/// The access key of a [`Server`]. Shorter ones are not accepted.
pub(crate) const KEY: &str = "livepatchown";
/// Its secret.
pub(crate) const SECRET: &str = "livepatchownsecret";

/// A real S3 server of its own, stopped on drop.
pub(crate) struct Server {
    child: Child,
    pub(crate) url: String,
}

impl Server {
    /// Serves `folder` with TLS, to those who know [`KEY`] and [`SECRET`].
    pub(crate) fn tls(folder: &Path, certificate: &Path, key: &Path) -> Self {
        let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/rclone");
        let tool = if tool.exists() { tool } else { "rclone".into() };
        let mut child = Command::new(tool)
            .args(["serve", "s3", "--addr", "127.0.0.1:0", "--auth-key"])
            .arg(format!("{KEY},{SECRET}"))
            .arg("--cert")
            .arg(certificate)
            .arg("--key")
            .arg(key)
            .arg(folder)
            .env("RCLONE_CONFIG", "/dev/null")
            .stderr(Stdio::piped())
            .spawn()
            .expect("rclone is missing: run make setup");
        let mut seen = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let Some(Ok(line)) = lines.next() else {
                panic!("the S3 server did not start:\n{seen}");
            };
            if let Some(at) = line.find("https://127.0.0.1:") {
                let rest = &line[at..];
                let port = rest[18..].bytes().take_while(u8::is_ascii_digit).count();
                let end = 18 + port;
                break rest[..end].to_owned();
            }
            seen.push_str(&line);
        };
        // What it says later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a false server answers with.
pub(crate) type Answer = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// A server that speaks just enough HTTP to misbehave as an S3 server. Ends with the test's runtime.
pub(crate) async fn false_server(answer: Answer) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move |request: Request| answer(request));
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// An answer as S3 gives it, with the headers that object stores must send.
pub(crate) fn answer(status: u16, tag: &str, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .header("etag", tag)
        .header("last-modified", "Tue, 15 Nov 1994 12:45:26 GMT")
        .body(body.into())
        .unwrap()
}
