//! What malformed, slow and greedy callers get: an answer or a closed connection, in bounded time, and nobody else
//! notices.

use crate::support::server::TestServer;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MACHINE: &str = "0123456789abcdef0123456789abcdef";

/// Sends bytes, reads until the server closes, and says how long that took.
async fn exchange(server: &TestServer, bytes: &[u8]) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
    read.expect("the server kept the connection open").ok();
    (
        String::from_utf8_lossy(&answer).into_owned(),
        started.elapsed(),
    )
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off() {
    let server = TestServer::with(|config| {
        config.server.header_timeout = Duration::from_millis(400);
        config.server.body_timeout = Duration::from_millis(400);
    })
    .await;
    // A head that never ends.
    let (answer, took) = exchange(&server, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    assert!(took >= Duration::from_millis(350), "{took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    // Nothing at all.
    let (answer, _) = exchange(&server, b"").await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
        "{answer}"
    );
    // A body that never comes.
    let head = format!(
        "POST /v1/client/{MACHINE}/updates HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 100\r\n\r\n{{"
    );
    let (answer, took) = exchange(&server, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("did not arrive within"), "{answer}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    // Others are served meanwhile and afterwards.
    assert_eq!(
        server
            .http
            .get(format!("{}/livez", server.url))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let server = TestServer::with(|config| {
        config.server.idle_timeout = Duration::from_secs(1);
        config.server.body_timeout = Duration::from_secs(1);
    })
    .await;
    let post = |headers: &str, body: &str| {
        format!("POST /v1/client/{MACHINE} HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n{body}")
    };
    let chunked = "Transfer-Encoding: chunked\r\nConnection: close";
    let mut wrong = Vec::new();
    for (request, expected) in [
        ("GARBAGE\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            "GET / HTTP/9.9\r\nHost: x\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            format!(
                "POST /v1/client/{MACHINE} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n"
            ),
            "HTTP/1.1 400",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
                "a".repeat(1_000_000)
            ),
            "HTTP/1.1 431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
                "X: 1\r\n".repeat(500)
            ),
            "HTTP/1.1 431",
        ),
        // A path of which most would have to be remembered.
        (
            format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100_000)),
            "HTTP/1.1 4",
        ),
        // Two lengths that differ; a length and chunks; a length that is none; one that overflows.
        (
            post("Content-Length: 2\r\nContent-Length: 3", "{} "),
            "HTTP/1.1 400",
        ),
        (post("Content-Length: 2, 3", "{} "), "HTTP/1.1 400"),
        (post("Content-Length: +2", "{}"), "HTTP/1.1 400"),
        (post("Content-Length: 0x2", "{}"), "HTTP/1.1 400"),
        (
            post("Content-Length: 99999999999999999999999", "{}"),
            "HTTP/1.1 400",
        ),
        // Chunks: an endless size, a size that overflows, garbage behind one, an unknown coding.
        (post(chunked, &"0".repeat(100_000)), "HTTP/1.1 4"),
        (post(chunked, "FFFFFFFFFFFFFFFFF\r\n"), "HTTP/1.1 400"),
        (post(chunked, "2\r\n{}garbage\r\n0\r\n\r\n"), "HTTP/1.1 400"),
        (
            post("Transfer-Encoding: gzip\r\nConnection: close", "x"),
            "HTTP/1.1 400",
        ),
        // Zero bytes, bare line ends, names and values that cannot be.
        (
            "GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        ("\0\0\0\0\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nA\0: b\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x\r\n folded: b\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        ("GET / HTTP/1.1\r\n: x\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (
            "G\tET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        (
            "GET http:// HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
        // The beginning of another protocol.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), ""),
        (
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n".to_owned(),
            "HTTP/1.1 400",
        ),
    ] {
        let (answer, _) = exchange(&server, request.as_bytes()).await;
        // Nothing expected: the connection is closed without an answer.
        if !answer.starts_with(expected) || answer.is_empty() != expected.is_empty() {
            wrong.push(format!("{request:.60?} -> {answer:.60?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let alive = server.http.get(format!("{}/livez", server.url)).send();
    assert_eq!(alive.await.unwrap().status(), 200);
}

#[tokio::test]
async fn large_and_lying_bodies_are_refused() {
    let server = TestServer::start().await;
    let url = format!("{}/v1/client/{MACHINE}/updates", server.url);
    let large = server
        .http
        .post(&url)
        .body(vec![b' '; 300 << 10])
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), 413);
    assert!(large.text().await.unwrap().contains("at most 262144 bytes"));
    for (body, expected) in [
        ("{", 400),
        ("[1]", 400),
        ("\u{0}", 400),
        ("null", 401),
        ("", 401),
    ] {
        let answer = server.http.post(&url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{body:?}");
    }
    let wrong = server
        .http
        .post(format!("{}/v1/client/not-a-machine", server.url))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);
    assert!(
        wrong
            .text()
            .await
            .unwrap()
            .contains("32 hexadecimal digits expected")
    );
}

#[tokio::test]
async fn the_governor_turns_away_what_is_too_much_and_spares_health() {
    let server = TestServer::with(|config| {
        config.server.concurrency_limit = 2;
        config.server.burst_limit = 3;
        config.server.body_timeout = Duration::from_secs(20);
    })
    .await;
    // Five requests that hold their places by never finishing their bodies.
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let head = format!(
            "POST /v1/client/{MACHINE}/updates HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let url = format!("{}/v1/client/{MACHINE}/updates", server.url);
    let turned_away = loop {
        let request = server
            .http
            .post(&url)
            .timeout(Duration::from_millis(300))
            .body("{}")
            .send();
        // Until all five are there, this one waits in the burst and gives up.
        if let Ok(answer) = request.await {
            break answer;
        }
    };
    assert_eq!(turned_away.status(), 429);
    assert_eq!(turned_away.headers()["retry-after"], "5");
    for path in ["/livez", "/readyz", "/metrics", "/debug/status"] {
        let answer = server
            .http
            .get(format!("{}{path}", server.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    let metrics = server
        .http
        .get(format!("{}/metrics", server.url))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("livepatch_server_httpgovernor_request_overload 1"),
        "{metrics}"
    );
    drop(held);
}

#[tokio::test]
async fn health_says_what_this_is_and_what_it_stands_on() {
    let server = TestServer::start().await;
    let get = async |path: &str| {
        server
            .http
            .get(format!("{}{path}", server.url))
            .send()
            .await
            .unwrap()
    };
    let root = get("/").await.text().await.unwrap();
    assert!(root.contains("Health service, version v"), "{root}");
    let info: serde_json::Value = get("/debug/info").await.json().await.unwrap();
    assert_eq!(info["version"], format!("v{}", env!("CARGO_PKG_VERSION")));
    let status: serde_json::Value = get("/debug/status").await.json().await.unwrap();
    assert_eq!(status["database"]["status"], "OK");
    assert_eq!(status["patch-storage"]["status"], "OK");
    let missing = get("/no/such/path").await;
    assert_eq!(missing.status(), 404);
    assert_eq!(
        missing.headers()["content-type"],
        "application/problem+json"
    );
    let id = missing.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let problem: serde_json::Value = missing.json().await.unwrap();
    assert_eq!(problem["request-id"], id);
}

#[tokio::test]
async fn stopping_lets_a_running_request_end() {
    let mut server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let body = "{}";
    let head = format!(
        "POST /v1/client/{MACHINE}/updates HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The request is being worked on once a second connection was answered after it.
    server
        .http
        .get(format!("{}/livez", server.url))
        .send()
        .await
        .unwrap();
    let stopping = server.core().stopping.clone();
    let finish = async {
        stopping.cancelled().await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (drained, answer) = tokio::join!(server.stop(), finish);
    assert!(drained);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(answer.ends_with("unauthorized"), "{answer}");
}
