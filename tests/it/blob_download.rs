//! Downloads over real HTTP: statuses, headers, ranges, and that no byte of a wrong object is ever sent.

use crate::blob::{Bench, noise, payload};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::StatusCode;
use livepatch_onprem::blob::{BlobError, Expect, Key, PatchCache, PayloadRef, respond};
use livepatch_onprem::config;
use reqwest::{Method, RequestBuilder};
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// A server of one payload, over a folder.
struct Site {
    bench: Bench,
    key: Key,
    url: String,
    client: reqwest::Client,
    /// Errors that kept a download from starting.
    refused: Arc<Mutex<Vec<Arc<BlobError>>>>,
}

type Shared = Arc<(PatchCache, Expect, Arc<Mutex<Vec<Arc<BlobError>>>>)>;

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let (cache, expect, refused) = &*shared;
    let payload = PayloadRef {
        filename: "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
        sha256: expect.sha256,
        size: expect.size,
    };
    match respond(request.method(), request.headers(), &payload, cache).await {
        Ok(response) => response.map(axum::body::Body::new),
        Err(error) => {
            refused.lock().unwrap().push(error);
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

impl Site {
    async fn new(bytes: &[u8], cached: bool) -> Self {
        let bench = Bench::filesystem().await;
        let (key, expect) = payload(bytes);
        bench
            .store
            .put(&key, bytes.to_vec().into(), expect)
            .await
            .unwrap();
        let config = config::PatchCache {
            enabled: cached,
            ..config::PatchCache::default()
        };
        let cache = PatchCache::new(&config, bench.store.clone());
        let refused = Arc::default();
        let shared: Shared = Arc::new((cache, expect, Arc::clone(&refused)));
        let app = axum::Router::new().fallback(serve).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self {
            bench,
            key,
            url,
            client: reqwest::Client::new(),
            refused,
        }
    }

    fn get(&self) -> RequestBuilder {
        self.client.get(&self.url)
    }

    fn range(&self, range: &str) -> RequestBuilder {
        self.get().header("range", range)
    }

    /// Makes the object's file look old, as if nothing had changed it for long.
    fn settle(&self) {
        let path = self.bench.folder().join(self.key.to_string());
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(1))
            .unwrap();
    }
}

async fn sent(request: RequestBuilder) -> (u16, http::HeaderMap, Vec<u8>) {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.bytes().await.unwrap().to_vec())
}

/// Headers as text, sorted, without the date.
fn shown(headers: &http::HeaderMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort_unstable();
    lines.concat()
}

#[tokio::test]
async fn a_whole_download_carries_its_digests() {
    let site = Site::new(b"the payload", true).await;
    let (status, headers, body) = sent(site.get()).await;
    assert_eq!((status, body.as_slice()), (200, &b"the payload"[..]));
    insta::assert_snapshot!(shown(&headers), @r##"
    accept-ranges: bytes
    cache-control: no-cache
    content-digest: sha-256=:dYnVQ7AI0VCLEfccSXhKfb4Le2cv/rhHq+CCiffJhn0=:
    content-disposition: attachment; filename="livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2"
    content-length: 11
    content-type: application/x-bzip2
    etag: "7589d543b008d1508b11f71c49784a7dbe0b7b672ffeb847abe08289f7c9867d"
    repr-digest: sha-256=:dYnVQ7AI0VCLEfccSXhKfb4Le2cv/rhHq+CCiffJhn0=:
    "##);
    // HEAD says the same and touches nothing.
    let before = site.bench.log.lock().unwrap().len();
    let (status, headers, body) = sent(site.client.head(&site.url)).await;
    assert_eq!((status, body.len()), (200, 0));
    insta::assert_snapshot!(shown(&headers), @r##"
    accept-ranges: bytes
    cache-control: no-cache
    content-disposition: attachment; filename="livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2"
    content-length: 11
    content-type: application/x-bzip2
    etag: "7589d543b008d1508b11f71c49784a7dbe0b7b672ffeb847abe08289f7c9867d"
    repr-digest: sha-256=:dYnVQ7AI0VCLEfccSXhKfb4Le2cv/rhHq+CCiffJhn0=:
    "##);
    assert_eq!(site.bench.log.lock().unwrap().len(), before);
}

#[tokio::test]
async fn conditions_are_answered_without_the_storage() {
    let site = Site::new(b"the payload", true).await;
    let tag = format!("\"{}\"", Expect::of(b"the payload").sha256);
    let before = site.bench.log.lock().unwrap().len();
    let (status, headers, body) = sent(site.get().header("if-none-match", &tag)).await;
    assert_eq!((status, body.len()), (304, 0));
    assert_eq!(headers["etag"], tag.as_str());
    let (status, ..) = sent(site.get().header("if-match", "\"other\"")).await;
    assert_eq!(status, 412);
    let (status, headers, _) = sent(site.range("bytes=11-")).await;
    assert_eq!(status, 416);
    assert_eq!(headers["content-range"], "bytes */11");
    let (status, headers, _) = sent(site.client.request(Method::PUT, &site.url)).await;
    assert_eq!(
        (status, headers["allow"].to_str().unwrap()),
        (405, "GET, HEAD")
    );
    assert_eq!(site.bench.log.lock().unwrap().len(), before);
}

#[tokio::test]
async fn ranges_are_the_same_from_memory_and_from_a_file() {
    let bytes = noise(700_001, 1);
    for cached in [true, false] {
        let site = Site::new(&bytes, cached).await;
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=262143-262144", 262_143..262_145),
            ("bytes=100000-", 100_000..700_001),
            ("bytes=-1", 700_000..700_001),
            ("bytes=5-600000", 5..600_001),
        ] {
            let (status, headers, body) = sent(site.range(range)).await;
            assert_eq!(status, 206, "{range}");
            assert!(body == bytes[part.clone()], "{range}");
            let expected = format!("bytes {}-{}/700001", part.start, part.end - 1);
            assert_eq!(headers["content-range"], expected.as_str());
            assert_eq!(headers["content-length"], part.len().to_string().as_str());
            assert!(headers.contains_key("repr-digest"));
            assert!(
                !headers.contains_key("content-digest"),
                "it is not of the part"
            );
        }
        for whole in ["bytes=0-,0-", "lines=1-2", "bytes=9-1"] {
            let (status, _, body) = sent(site.range(whole)).await;
            assert_eq!((status, body.len()), (200, bytes.len()), "{whole}");
        }
        let stale = site.range("bytes=0-0").header("if-range", "\"old\"");
        assert_eq!(sent(stale).await.0, 200);
        let how = if cached { "get" } else { "open" };
        assert!(site.bench.count(how) > 0);
        assert_eq!(site.bench.count("get") > 0, cached);
    }
}

#[tokio::test]
async fn several_ranges_come_as_parts() {
    for cached in [true, false] {
        let site = Site::new(b"0123456789abcdefghij", cached).await;
        let (status, headers, body) = sent(site.range("bytes=0-1, 10-12,-1")).await;
        assert_eq!(status, 206);
        assert_eq!(headers["content-length"], body.len().to_string().as_str());
        insta::allow_duplicates! {
            let kind = headers["content-type"].to_str().unwrap();
            insta::assert_snapshot!(kind, @"multipart/byteranges; boundary=livepatch-6bc14bdc4517a7a682c6910de2e2946e");
            let text = String::from_utf8(body).unwrap().replace("\r\n", "|\n");
            insta::assert_snapshot!(text, @r##"
            --livepatch-6bc14bdc4517a7a682c6910de2e2946e|
            Content-Type: application/x-bzip2|
            Content-Range: bytes 0-1/20|
            |
            01|
            --livepatch-6bc14bdc4517a7a682c6910de2e2946e|
            Content-Type: application/x-bzip2|
            Content-Range: bytes 10-12/20|
            |
            abc|
            --livepatch-6bc14bdc4517a7a682c6910de2e2946e|
            Content-Type: application/x-bzip2|
            Content-Range: bytes 19-19/20|
            |
            j|
            --livepatch-6bc14bdc4517a7a682c6910de2e2946e--|
            "##);
        }
    }
}

#[tokio::test]
async fn an_empty_payload_is_sent() {
    for cached in [true, false] {
        let site = Site::new(b"", cached).await;
        for request in [site.get(), site.range("bytes=0-")] {
            let (status, headers, body) = sent(request).await;
            assert_eq!((status, body.len()), (200, 0));
            assert_eq!(headers["content-length"], "0");
        }
    }
}

#[tokio::test]
async fn no_byte_of_a_wrong_object_is_sent() {
    let bytes = noise(300_000, 1);
    for cached in [true, false] {
        let site = Site::new(&bytes, cached).await;
        let damages: [fn(&mut Vec<u8>); 3] =
            [|b| b[299_999] ^= 1, |b| b.truncate(200_000), |b| b.push(0)];
        for damage in damages {
            site.bench.damage(&site.key, damage).await;
            for request in [site.get(), site.range("bytes=0-9")] {
                let (status, _, body) = sent(request).await;
                assert_eq!((status, body.len()), (503, 0));
            }
            let again = Expect::of(&bytes);
            let put = site
                .bench
                .store
                .put_again(&site.key, bytes.clone().into(), again);
            put.await.unwrap();
        }
        std::fs::remove_file(site.bench.folder().join(site.key.to_string())).unwrap();
        assert_eq!(sent(site.get()).await.0, 503);
        let refused = site.refused.lock().unwrap();
        assert_eq!(refused.len(), 7);
        assert!(
            refused
                .iter()
                .all(|e| e.is_bad_object() && e.key() == Some(&site.key))
        );
    }
}

#[tokio::test]
async fn a_file_that_changed_is_hashed_again() {
    let bytes = noise(300_000, 1);
    let site = Site::new(&bytes, false).await;
    for _ in 0..3 {
        assert!(sent(site.get()).await.2 == bytes);
    }
    site.bench.damage(&site.key, |b| b[0] ^= 1).await;
    // The times say that nothing happened lately; only the change time, which cannot be set, tells.
    site.settle();
    assert_eq!(sent(site.get()).await.0, 503);
    site.bench.damage(&site.key, |b| b[0] ^= 1).await;
    assert_eq!(sent(site.get()).await.0, 200);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_sent_is_cut_off() {
    // More than sockets and buffers on the way can hold, so that the server is still reading when the change happens.
    let bytes = noise(60 << 20, 1);
    let site = Site::new(&bytes, false).await;
    let response = site.get().send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut stream = response.bytes_stream();
    let first = stream.next().await.unwrap().unwrap();
    assert!(first == bytes[..first.len()]);
    let path = site.bench.folder().join(site.key.to_string());
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all(b"changed in place").unwrap();
    drop(file);
    let mut at = first.len();
    let error = loop {
        match stream.next().await {
            Some(Ok(chunk)) => {
                assert!(
                    chunk == bytes[at..at + chunk.len()],
                    "a wrong byte was sent"
                );
                at += chunk.len();
            }
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    assert!(error.is_some() && at < bytes.len());
}

#[tokio::test]
async fn a_file_replaced_while_it_is_sent_is_sent_to_its_end() {
    let bytes = noise(30 << 20, 1);
    let site = Site::new(&bytes, false).await;
    let mut stream = site.get().send().await.unwrap().bytes_stream();
    let mut got = stream.next().await.unwrap().unwrap().to_vec();
    site.bench.store.delete(&site.key).await.unwrap();
    while let Some(chunk) = stream.next().await {
        got.extend_from_slice(&chunk.unwrap());
    }
    assert!(got == bytes);
}

#[tokio::test]
async fn many_downloads_at_once_are_all_right() {
    let bytes = noise(1 << 20, 1);
    for cached in [true, false] {
        let site = Site::new(&bytes, cached).await;
        let downloads = (0..64).map(|_| sent(site.get()));
        for (status, _, body) in futures_util::future::join_all(downloads).await {
            assert_eq!(status, 200);
            assert!(body == bytes);
        }
    }
}
