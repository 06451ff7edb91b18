//! Clients that hold connections: slow, silent and greedy ones, by the thousand. Their own timers end them, and nobody
//! else waits for them, least of all who asks for health or administers.

use crate::support::PASSWORD;
use crate::support::db::{TestDb, settings};
use crate::support::process::until;
use crate::support::server::TestServer;
use livepatch_onprem::config::Server;
use livepatch_onprem::db::Db;
use livepatch_onprem::domain::Secret;
use livepatch_onprem::http::serve::{Listener, serve};
use livepatch_onprem::service::auth;
use livepatch_onprem::telemetry::{CutOff, Metrics, Refusal};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

const MACHINE: &str = "0123456789abcdef0123456789abcdef";
/// Nothing here may take longer, on any machine.
const LONG: Duration = Duration::from_mins(1);

/// A server in a process of its own, so that its descriptors and memory can be counted.
struct Process {
    child: Child,
    address: SocketAddr,
    url: String,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
    _db: TestDb,
}

impl Process {
    async fn start(settings_of_server: &[(&str, &str)]) -> Self {
        let db = TestDb::new().await;
        let metrics = Metrics::new();
        let admin = Db::new(&settings(db.url()), metrics.database_observer()).unwrap();
        auth::ensure_admin(&admin, "admin", &Secret::new(PASSWORD))
            .await
            .unwrap();
        admin.close();
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_livepatch-server"))
            .arg("serve")
            .env("LP_SERVER_SERVER_ADDRESS", "127.0.0.1:0")
            .env("LP_DATABASE_CONNECTION_STRING", db.url())
            .env("LP_PATCH_STORAGE_TYPE", "filesystem")
            .env("LP_PATCH_STORAGE_FILESYSTEM_PATH", folder.path())
            .env("LP_PATCH_TRUST_POLICY", "off")
            // One heap, so that memory that was given back shows as such.
            .env("MALLOC_ARENA_MAX", "1")
            .envs(settings_of_server.iter().copied())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it ended");
            if let Some((_, rest)) = line.split_once("\"address\":\"") {
                break rest.split('"').next().unwrap().parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            address,
            url: format!("http://{address}"),
            http: reqwest::Client::builder()
                .no_proxy()
                // Each question is a new connection, which is the harder thing.
                .pool_max_idle_per_host(0)
                .timeout(Duration::from_secs(20))
                .build()
                .unwrap(),
            _folder: folder,
            _db: db,
        }
    }

    fn proc(&self, what: &str) -> String {
        format!("/proc/{}/{what}", self.child.id().unwrap())
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).unwrap().count()
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse().unwrap()
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = self
            .http
            .get(format!("{}{path}", self.url))
            .basic_auth("admin", Some(PASSWORD));
        let answer = request
            .send()
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn healthy(&self) {
        for path in ["/livez", "/readyz", "/v1/admin/tiers"] {
            let (status, text) = self.get(path).await;
            assert_eq!(status, 200, "{path}: {text}");
        }
    }

    async fn metric(&self, series: &str) -> u64 {
        let (_, text) = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(series));
        let value = value.unwrap_or_else(|| panic!("{series} is not in\n{text}"));
        value.trim().parse().unwrap()
    }
}

/// How many clients of each of four kinds this process can be: a thousand if the system allows.
fn crowd() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let most = limit.maximum.unwrap_or(u64::MAX);
    usize::try_from(most.saturating_sub(200) / 4)
        .unwrap()
        .clamp(50, 1000)
}

async fn connect(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

/// Sends a byte now and then until the server has closed the connection.
async fn trickle(stream: TcpStream) {
    let (mut from, mut to) = stream.into_split();
    let mut every = tokio::time::interval(Duration::from_millis(700));
    let mut answer = [0; 4096];
    loop {
        tokio::select! {
            read = from.read(&mut answer) => if matches!(read, Ok(0) | Err(_)) { return },
            _ = every.tick() => if to.write_all(b"x").await.is_err() { return },
        }
    }
}

/// Reads until the server has closed the connection.
async fn wait_for_the_end(mut stream: TcpStream) {
    let mut answer = [0; 4096];
    while matches!(stream.read(&mut answer).await, Ok(1..)) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_slow_clients_starve_nobody_and_leave_nothing() {
    let server = Process::start(&[
        ("LP_SERVER_HEADER_TIMEOUT", "3s"),
        ("LP_SERVER_BODY_TIMEOUT", "3s"),
        ("LP_SERVER_IDLE_TIMEOUT", "3s"),
        ("LP_SERVER_CONCURRENCY_LIMIT", "20"),
        ("LP_SERVER_BURST_LIMIT", "20"),
        // Fewer than come: places are taken from those who wait longest.
        ("LP_SERVER_MAX_CONNECTIONS", "3000"),
    ])
    .await;
    let crowd = crowd();
    server.healthy().await;
    let descriptors = server.descriptors();
    let mut after_first = None;
    for _ in 0..2 {
        let mut clients = tokio::task::JoinSet::new();
        let body = format!(
            "POST /v1/client/{MACHINE}/updates HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{{"
        );
        // The bodies first: 40 of them hold all that the governor has.
        for _ in 0..crowd {
            let stream = connect(server.address, body.as_bytes()).await;
            clients.spawn(trickle(stream));
        }
        for _ in 0..crowd {
            let stream = connect(server.address, b"GET /livez HTTP/1.1\r\nHost: x\r\nX: ").await;
            clients.spawn(trickle(stream));
        }
        server.healthy().await;
        for _ in 0..crowd {
            let kept = connect(server.address, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
            clients.spawn(wait_for_the_end(kept));
            let silent = connect(server.address, b"").await;
            clients.spawn(wait_for_the_end(silent));
        }
        server.healthy().await;
        // They write as long as they can: it is the server that ends every one.
        let ended = async { while clients.join_next().await.is_some() {} };
        tokio::time::timeout(LONG, ended)
            .await
            .expect("some connections are still open");
        server.healthy().await;
        until("few open files", async || {
            server.descriptors() <= descriptors + 10
        })
        .await;
        // What the allocator keeps for later is used again, not added to.
        let now = server.resident_kib();
        let first = *after_first.get_or_insert(now);
        assert!(
            now < first + (96 << 10),
            "{first} KiB after once, {now} after twice"
        );
    }
    assert!(server.resident_kib() < (512 << 10));
    assert!(
        server
            .metric(r#"livepatch_connections_cut_total{wait="header"}"#)
            .await
            > 0
    );
    assert!(
        server
            .metric(r#"livepatch_connections_cut_total{wait="idle"}"#)
            .await
            > 0
    );
    assert!(
        server
            .metric("livepatch_server_httpgovernor_request_overload")
            .await
            > 0
    );
    assert_eq!(
        server
            .metric(r#"livepatch_connections_refused_total{limit="full"}"#)
            .await,
        0
    );
}

#[tokio::test]
async fn a_full_server_lets_the_next_one_in_and_closes_who_kept_it_waiting() {
    let server = TestServer::with(|config| config.server.max_connections = 40).await;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(connect(server.address(), b"GET / HT").await);
        held.push(connect(server.address(), b"").await);
    }
    for path in ["/livez", "/readyz"] {
        let answer = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let counts = &server.core().metrics.connections;
    assert_eq!(counts.refused.get(Refusal::Full), 0);
    // Those that had to go are gone at once or soon.
    let started = Instant::now();
    while counts.open.get() > 40 || counts.cut.get(CutOff::Evicted) < 20 {
        assert!(started.elapsed() < LONG, "{counts:?}");
        tokio::task::yield_now().await;
    }
    // The oldest is among them.
    wait_for_the_end(held.remove(0)).await;
}

#[tokio::test]
async fn one_address_takes_no_places_of_others() {
    let server = TestServer::with(|config| {
        config.server.max_connections_per_address = 5;
    })
    .await;
    let from = async |source: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        socket.connect(server.address()).await.unwrap()
    };
    let ask = async |stream: &mut TcpStream| {
        let sent = stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await;
        let mut answer = [0; 1024];
        match (sent, stream.read(&mut answer).await) {
            (Ok(()), Ok(read)) => {
                String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 200")
            }
            _ => false,
        }
    };
    let mut quiet = Vec::new();
    for _ in 0..5 {
        let mut stream = from([127, 0, 0, 2]).await;
        assert!(ask(&mut stream).await);
        quiet.push(stream);
    }
    let mut greedy = Vec::new();
    for _ in 0..20 {
        let mut stream = from([127, 0, 0, 3]).await;
        assert!(ask(&mut stream).await, "the newest is let in");
        greedy.push(stream);
    }
    for stream in &mut quiet {
        assert!(ask(stream).await, "one of another address was closed");
    }
    let mut alive = 0;
    for stream in &mut greedy {
        alive += usize::from(ask(stream).await);
    }
    assert!((1..=5).contains(&alive), "{alive}");
}

#[tokio::test]
async fn a_kept_connection_has_a_time_of_its_own() {
    let patient = TestServer::with(|config| {
        config.server.header_timeout = Duration::from_millis(300);
        config.server.idle_timeout = LONG;
    })
    .await;
    let mut answer = [0; 1024];
    let mut stream = connect(patient.address(), b"").await;
    for _ in 0..2 {
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let read = stream.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
        // Longer than a head may take: it is that time which is tested, so it has to pass.
        tokio::time::sleep(Duration::from_millis(900)).await;
    }
    // A next head that was begun has to end in its time.
    stream.write_all(b"GET /livez HT").await.unwrap();
    wait_for_the_end(stream).await;
    let counts = &patient.core().metrics.connections.cut;
    assert_eq!(
        (counts.get(CutOff::Header), counts.get(CutOff::Idle)),
        (1, 0)
    );

    let hurried = TestServer::with(|config| {
        config.server.header_timeout = LONG;
        config.server.idle_timeout = Duration::from_millis(300);
    })
    .await;
    let stream = connect(hurried.address(), b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    wait_for_the_end(stream).await;
    let counts = &hurried.core().metrics.connections.cut;
    assert_eq!(
        (counts.get(CutOff::Header), counts.get(CutOff::Idle)),
        (0, 1)
    );
}

#[tokio::test]
async fn who_does_not_take_his_download_is_cut_off() {
    const SIZE: usize = 32 << 20;
    let content = bytes::Bytes::from(vec![7; SIZE]);
    let watch = Arc::new(());
    let held = Arc::clone(&watch);
    let handler = move || {
        let (content, held) = (content.clone(), Arc::clone(&held));
        // In pieces, each of which holds on to something, as a download holds a buffer.
        let pieces = (0..SIZE).step_by(64 << 10).map(move |at| {
            assert!(Arc::strong_count(&held) > 1);
            Ok::<_, std::io::Error>(content.slice(at..(at + (64 << 10)).min(SIZE)))
        });
        async { axum::body::Body::from_stream(futures_util::stream::iter(pieces)) }
    };
    let router = axum::Router::new().route("/", axum::routing::get(handler));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (metrics, stopping) = (Metrics::new(), CancellationToken::new());
    let serving = {
        let (metrics, stopping) = (Arc::clone(&metrics), stopping.clone());
        tokio::spawn(async move {
            let server = Server {
                write_timeout: Duration::from_secs(1),
                ..Server::default()
            };
            let listener = Listener {
                socket: listener,
                tls: None,
            };
            serve(listener, router, &server, &metrics, stopping).await
        })
    };
    let baseline = Arc::strong_count(&watch);
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // One that takes all of it, in its own time but steadily.
    let mut steady = connect(address, request).await;
    let mut taken = Vec::new();
    tokio::time::timeout(LONG, steady.read_to_end(&mut taken))
        .await
        .expect("the download ends")
        .unwrap();
    assert!(taken.len() > SIZE);
    assert_eq!(metrics.connections.cut.get(CutOff::Write), 0);

    // One that takes a byte now and then.
    let mut slow = connect(address, request).await;
    let mut byte = [0];
    slow.read_exact(&mut byte).await.unwrap();
    assert!(Arc::strong_count(&watch) > baseline);
    let started = Instant::now();
    while metrics.connections.cut.get(CutOff::Write) == 0 {
        assert!(started.elapsed() < LONG);
        slow.read_exact(&mut byte).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    while Arc::strong_count(&watch) > baseline {
        assert!(started.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
    stopping.cancel();
    assert!(serving.await.unwrap());
}

#[tokio::test]
async fn bodies_have_to_come_on_every_route() {
    let server = TestServer::with(|config| {
        config.server.body_timeout = Duration::from_millis(400);
    })
    .await;
    let login = "Authorization: Basic YWRtaW46Y29ycmVjdCBob3JzZSBiYXR0ZXJ5\r\n";
    let upload = "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2";
    for (what, kind) in [
        (format!("POST /v1/client/{MACHINE}"), "application/json"),
        ("POST /v1/admin/login".to_owned(), "application/json"),
        ("POST /v1/admin/tiers".to_owned(), "application/json"),
        (
            format!("PUT /v1/admin/payloads/{upload}"),
            "application/octet-stream",
        ),
    ] {
        let head = format!(
            "{what} HTTP/1.1\r\nHost: x\r\n{login}Content-Type: {kind}\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{{"
        );
        let mut stream = connect(server.address(), head.as_bytes()).await;
        let mut answer = String::new();
        tokio::time::timeout(LONG, stream.read_to_string(&mut answer))
            .await
            .unwrap_or_else(|_| panic!("{what} waits for ever"))
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{what}: {answer}");
    }
}
