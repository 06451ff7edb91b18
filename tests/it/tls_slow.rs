//! Clients that are slow with TLS: handshakes that do not end, and answers over HTTP/2 that are not taken.

use crate::support::pki::Pki;
use crate::support::process::until;
use crate::support::server::TestServer;
use livepatch_onprem::config::Server;
use livepatch_onprem::http::serve::{Listener, serve};
use livepatch_onprem::http::tls::{Tls, Who};
use livepatch_onprem::telemetry::{CutOff, Metrics, Refusal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Nothing here may take longer, on any machine.
const LONG: Duration = Duration::from_mins(1);
/// The beginning of a handshake: a record of 512 bytes is announced.
const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// Reads until the server has closed the connection.
async fn wait_for_the_end(mut stream: TcpStream) {
    let mut answer = [0; 4096];
    while matches!(stream.read(&mut answer).await, Ok(1..)) {}
}

/// Sends a byte of a handshake now and then until the server has closed the connection.
async fn trickle(stream: TcpStream) {
    let (mut from, mut to) = stream.into_split();
    let mut every = tokio::time::interval(Duration::from_millis(100));
    let mut answer = [0; 4096];
    loop {
        tokio::select! {
            read = from.read(&mut answer) => if matches!(read, Ok(0) | Err(_)) { return },
            _ = every.tick() => if to.write_all(b"\0").await.is_err() { return },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_have_to_end_and_starve_nobody() {
    let pki = Pki::new();
    let server = TestServer::with_tls(&pki, |config| {
        config.server.handshake_timeout = Duration::from_secs(1);
        config.server.header_timeout = LONG;
        config.server.concurrency_limit = 20;
        config.server.max_connections = 60;
    })
    .await;
    let counts = &server.core().metrics.connections;
    let started = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let silent = TcpStream::connect(server.address()).await.unwrap();
        clients.spawn(wait_for_the_end(silent));
        let mut slow = TcpStream::connect(server.address()).await.unwrap();
        slow.write_all(HELLO).await.unwrap();
        clients.spawn(trickle(slow));
    }
    // More than there are places: the newest is let in, and those that waited longest go.
    let answer = server.http.get(format!("{}/livez", server.url)).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    assert!(counts.open.get() <= 60, "{counts:?}");
    let ended = async { while clients.join_next().await.is_some() {} };
    tokio::time::timeout(LONG, ended)
        .await
        .expect("some handshakes still go on");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let cut = |why| counts.cut.get(why);
    assert!(cut(CutOff::Evicted) >= 40, "{counts:?}");
    assert!(cut(CutOff::Handshake) >= 20, "{counts:?}");
    // The last ones may be counted just after their clients saw the end.
    until("all are counted", async || {
        cut(CutOff::Evicted) + cut(CutOff::Handshake) == 100
    })
    .await;
    assert_eq!(cut(CutOff::Header), 0);
    // After a handshake it is the head that has its time.
    let answer = server.http.get(format!("{}/readyz", server.url)).send();
    assert_eq!(answer.await.unwrap().status(), 200);
    until("they are gone", async || counts.open.get() <= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_its_cap_already_in_the_handshake() {
    let pki = Pki::new();
    let mut server = TestServer::with_tls(&pki, |config| {
        config.server.max_connections_per_address = 5;
        config.server.handshake_timeout = LONG;
    })
    .await;
    let counts = &server.core().metrics.connections;
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(TcpStream::connect(server.address()).await.unwrap());
    }
    until("all but five are gone", async || {
        counts.open.get() == 5 && counts.cut.get(CutOff::Evicted) == 25
    })
    .await;
    assert_eq!(counts.refused.get(Refusal::Address), 0);
    // Handshakes that go on hold up nobody who stops the server.
    let started = Instant::now();
    assert!(server.stop().await);
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Serves `router` with TLS, and this patience.
async fn serving(
    pki: &Pki,
    router: axum::Router,
    server: Server,
) -> (SocketAddr, Arc<Metrics>, CancellationToken) {
    let metrics = Metrics::new();
    let tls = Tls::open(&pki.config(), &metrics).unwrap();
    let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener {
        socket,
        tls: Some(tls.acceptor(Who::Machines)),
    };
    let stopping = CancellationToken::new();
    let (shared, stop) = (Arc::clone(&metrics), stopping.clone());
    tokio::spawn(async move { serve(listener, router, &server, &shared, stop).await });
    (address, metrics, stopping)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_take_an_answer_over_either_protocol_is_cut_off() {
    const SIZE: usize = 16 << 20;
    let content = bytes::Bytes::from(vec![7; SIZE]);
    let router = axum::Router::new().route(
        "/",
        axum::routing::get(move || {
            let content = content.clone();
            async move { content }
        }),
    );
    let pki = Pki::new();
    let server = Server {
        write_timeout: Duration::from_secs(1),
        ..Server::default()
    };
    let (address, metrics, stopping) = serving(&pki, router, server).await;
    let cut = |why| metrics.connections.cut.get(why);
    let url = format!("https://{address}/");
    for (n, h2) in [false, true].into_iter().enumerate() {
        let client = pki.client(|builder| {
            if h2 {
                builder.http2_initial_stream_window_size(64 << 10)
            } else {
                builder.http1_only()
            }
        });
        // One that takes all of it, in its own time but steadily: for longer than an answer may be left alone.
        let mut steady = client.get(&url).send().await.unwrap();
        let (mut taken, started) = (0, Instant::now());
        while let Some(chunk) = steady.chunk().await.unwrap() {
            taken += chunk.len();
            let due = Duration::from_millis((taken * 2000 / SIZE) as u64);
            let early = due.saturating_sub(started.elapsed());
            if early > Duration::from_millis(50) {
                tokio::time::sleep(early).await;
            }
        }
        assert_eq!(taken, SIZE);
        assert_eq!(cut(CutOff::Write), n as u64);
        // One that takes nothing.
        let silent = client.get(&url).send().await.unwrap();
        until("it is cut off", async || cut(CutOff::Write) == n as u64 + 1).await;
        assert!(silent.bytes().await.is_err());
    }
    stopping.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_of_http2_ends_in_its_time_and_not_while_it_works() {
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let router = axum::Router::new()
        .route("/", axum::routing::get(|| async { "ok" }))
        .route(
            "/slow",
            axum::routing::get(move || {
                let opened = Arc::clone(&opened);
                async move {
                    opened.notified().await;
                    "at last"
                }
            }),
        );
    let pki = Pki::new();
    let server = Server {
        header_timeout: LONG,
        idle_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(300),
        ..Server::default()
    };
    let (address, metrics, stopping) = serving(&pki, router, server).await;
    let counts = &metrics.connections;
    let client = pki.client(|builder| builder);
    let get = async |path: &str| {
        let answer = client.get(format!("https://{address}{path}")).send().await;
        answer.unwrap().text().await.unwrap()
    };
    assert_eq!(get("/").await, "ok");
    let quick = async {
        assert_eq!(get("/").await, "ok");
        // Longer than a connection may be idle, or an answer left alone: it is that time which is tested.
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(counts.cut.get(CutOff::Idle), 0);
        assert_eq!(counts.cut.get(CutOff::Write), 0);
        assert_eq!(counts.open.get(), 1);
        gate.notify_one();
    };
    let (slow, ()) = tokio::join!(get("/slow"), quick);
    assert_eq!(slow, "at last");
    until("it is closed", async || counts.cut.get(CutOff::Idle) == 1).await;
    stopping.cancel();
}
