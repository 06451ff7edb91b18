//! What only S3 has: addresses, TLS, credentials, presigned URLs, and servers that misbehave.

use crate::blob::{Bench, logged, noise, payload};
use crate::support::pki::{Authority, Request};
use crate::support::s3::{
    KEY, SECRET, Server, answer, bucket, false_server, service, settings, unique,
};
use axum::body::Body;
use futures_util::TryStreamExt as _;
use livepatch_onprem::blob::{BlobError, PutOutcome, Store};
use livepatch_onprem::config::{Database, PatchStorage};
use livepatch_onprem::domain::Secret;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

async fn open(config: &PatchStorage) -> Store {
    Store::open(config, &Database::default()).await.unwrap()
}

#[tokio::test]
async fn tls_is_verified_against_the_configured_authority() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("an authority");
    let ca = authority.file(folder.path(), "ca.pem");
    let (cert, key) = authority
        .issue(&Request::default())
        .files(folder.path(), "s3");
    std::fs::create_dir_all(folder.path().join("served/patches")).unwrap();
    let server = Server::tls(&folder.path().join("served"), &cert, &key);
    let bytes = noise(100_000, 1);
    let (key, expect) = payload(&bytes);

    let mut config = settings(&server.url, "patches", KEY, SECRET);
    let error = open(&config).await.health().await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");

    config.s3.ca = Some(ca);
    let store = open(&config).await;
    store.health().await.unwrap();
    store.put(&key, bytes.clone().into(), expect).await.unwrap();
    let got = store.get_verified(&key, expect.sha256, expect.size).await;
    assert!(got.unwrap() == bytes);

    // The same with a bare address and s3-secure.
    config.s3.endpoint = server.url.strip_prefix("https://").unwrap().to_owned();
    config.s3.secure = true;
    open(&config).await.health().await.unwrap();
    // Without s3-secure it is spoken to in plain HTTP, which it refuses.
    config.s3.secure = false;
    open(&config).await.health().await.unwrap_err();

    config.s3.ca = Some(folder.path().join("s3.key"));
    let error = Store::open(&config, &Database::default())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("s3-ca"), "{error}");
}

#[tokio::test]
async fn wrong_credentials_are_named() {
    let (mut config, _) = bucket();
    config.s3.secret_key = Secret::new("canary-of-a-secret");
    let store = open(&config).await;
    let (key, expect) = payload(b"x");
    for error in [
        store.health().await.unwrap_err(),
        store.head(&key).await.unwrap_err(),
        store
            .get_verified(&key, expect.sha256, 1)
            .await
            .unwrap_err(),
        store
            .put(&key, b"x".to_vec().into(), expect)
            .await
            .unwrap_err(),
    ] {
        assert!(matches!(error, BlobError::Denied { .. }), "{error:?}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("check the credentials"), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_object() {
    let (mut config, _) = bucket();
    config.s3.bucket = unique("nowhere");
    let store = open(&config).await;
    let (key, expect) = payload(b"x");
    for error in [
        store.health().await.unwrap_err(),
        store
            .get_verified(&key, expect.sha256, 1)
            .await
            .unwrap_err(),
        store
            .put(&key, b"x".to_vec().into(), expect)
            .await
            .unwrap_err(),
    ] {
        assert!(!error.is_bad_object(), "{error:?}");
        assert!(
            error.to_string().contains("the bucket does not exist"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_down_or_silent_is_given_up_in_time() {
    // Bound and never accepted from: connections open and nothing answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|a| (a, silent)).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = closed.local_addr().unwrap();
    let (key, expect) = payload(b"x");
    for address in [silent.0, closed] {
        let mut config = settings(&address.to_string(), "b", "k", "s");
        config.s3.timeout = Duration::from_millis(700);
        let store = open(&config).await;
        let start = Instant::now();
        for error in [
            store.health().await.unwrap_err(),
            store
                .get_verified(&key, expect.sha256, 1)
                .await
                .unwrap_err(),
            store
                .put(&key, b"x".to_vec().into(), expect)
                .await
                .unwrap_err(),
        ] {
            assert!(matches!(error, BlobError::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains(&address.to_string()), "{error}");
        }
        // Three operations of 0.7 s, with much room for a busy machine.
        assert!(start.elapsed() < Duration::from_secs(8));
    }
}

#[tokio::test]
async fn a_trickle_does_not_hold_a_download_for_ever() {
    let url = false_server(Arc::new(|_| {
        Box::pin(async {
            // Never ends, and never pauses for as long as the timeout.
            let trickle = futures_util::stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"x")), ()))
            });
            let mut answer = answer(200, "\"t\"", Body::from_stream(trickle));
            answer
                .headers_mut()
                .insert("content-length", 100_000.into());
            answer
        })
    }))
    .await;
    let mut config = settings(&url, "b", "k", "s");
    config.s3.timeout = Duration::from_millis(300);
    let store = open(&config).await;
    let (key, expect) = payload(&noise(100_000, 1));
    let error = store
        .get_verified(&key, expect.sha256, expect.size)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("in time"), "{error}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let visits = Arc::new(Mutex::new(0));
    let seen = visits.clone();
    let other = false_server(Arc::new(move |_| {
        *seen.lock().unwrap() += 1;
        Box::pin(async { answer(200, "\"t\"", "x") })
    }))
    .await;
    let url = false_server(Arc::new(move |request| {
        let to = format!("{other}{}", request.uri());
        Box::pin(async move {
            let mut answer = answer(307, "\"t\"", "");
            answer.headers_mut().insert("location", to.parse().unwrap());
            answer
        })
    }))
    .await;
    let store = open(&settings(&url, "b", "k", "s")).await;
    let (key, expect) = payload(b"x");
    let error = store
        .get_verified(&key, expect.sha256, 1)
        .await
        .unwrap_err();
    assert!(matches!(error, BlobError::Unavailable { .. }), "{error}");
    store
        .put(&key, b"x".to_vec().into(), expect)
        .await
        .unwrap_err();
    assert_eq!(*visits.lock().unwrap(), 0);
}

#[tokio::test]
async fn credentials_come_from_the_container_when_none_are_given() {
    // One server stands for both the credentials' endpoint and the bucket.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = seen.clone();
    let url = false_server(Arc::new(move |request| {
        let header = |name: &str| {
            let value = request.headers().get(name);
            value.map_or("", |v| v.to_str().unwrap()).to_owned()
        };
        let line = (
            request.uri().path().to_owned(),
            header("authorization"),
            header("x-amz-security-token"),
        );
        into.lock().unwrap().push(line);
        Box::pin(async {
            answer(
                200,
                "\"t\"",
                r#"{"AccessKeyId": "AMBIENT", "SecretAccessKey": "s", "Token": "session",
                "Expiration": "2999-01-01T00:00:00Z"}"#,
            )
        })
    }))
    .await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "bearer-of-the-container").unwrap();
    // The environment of a process cannot be changed safely while threads run, so another one is started.
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "blob_s3::asks_with_ambient_credentials",
            "--ignored",
        ])
        .env("LIVEPATCH_TEST_AMBIENT", &url)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{url}/credentials"),
        )
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.path())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(said.contains("1 passed"), "{said}");
    let seen = seen.lock().unwrap();
    let [(first, bearer, _), (second, signed, session)] = seen.as_slice() else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (first.as_str(), bearer.as_str()),
        ("/credentials", "bearer-of-the-container")
    );
    assert!(second.starts_with("/b/objects/sha256/"), "{second}");
    assert!(signed.contains("Credential=AMBIENT/"), "{signed}");
    assert_eq!(session, "session");
}

#[tokio::test]
#[ignore = "run by credentials_come_from_the_container_when_none_are_given in a process with that environment"]
async fn asks_with_ambient_credentials() {
    let url = std::env::var("LIVEPATCH_TEST_AMBIENT").unwrap();
    let (key, _) = payload(b"x");
    let store = open(&settings(&url, "b", "", "")).await;
    assert!(store.head(&key).await.unwrap().is_some());
}

/// A false server that answers a PUT with `tag` and gives `kept` back; also the methods it saw.
async fn with_tag(tag: &'static str, kept: &'static [u8]) -> (Store, Arc<Mutex<Vec<String>>>) {
    let methods = Arc::new(Mutex::new(Vec::new()));
    let seen = methods.clone();
    let url = false_server(Arc::new(move |request| {
        let method = request.method().to_string();
        seen.lock().unwrap().push(method.clone());
        Box::pin(async move {
            match method.as_str() {
                "HEAD" => answer(404, "\"t\"", ""),
                "PUT" => answer(200, tag, ""),
                "DELETE" => answer(204, tag, ""),
                _ => answer(200, tag, kept),
            }
        })
    }))
    .await;
    (open(&settings(&url, "b", "k", "s")).await, methods)
}

#[tokio::test]
async fn a_write_is_believed_by_its_tag_or_read_back() {
    let (key, expect) = payload(b"content");
    // The MD5 of "content": nothing more is asked.
    let (store, seen) = with_tag("\"9a0364b9e99bb480dd25e1f0284c8555\"", b"").await;
    let put = store.put(&key, b"content".to_vec().into(), expect).await;
    assert_eq!(put.unwrap(), PutOutcome::Stored);
    assert_eq!(*seen.lock().unwrap(), ["HEAD", "PUT"]);

    // Another formula, the right bytes.
    let (store, seen) = with_tag("\"11112222333344445555666677778888\"", b"content").await;
    store
        .put(&key, b"content".to_vec().into(), expect)
        .await
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), ["HEAD", "PUT", "GET"]);

    // Damaged on the way: said, and removed.
    let (store, seen) = with_tag("\"11112222333344445555666677778888\"", b"CONTENT").await;
    let error = store.put(&key, b"content".to_vec().into(), expect).await;
    assert!(matches!(error, Err(BlobError::Corrupt { .. })));
    assert_eq!(*seen.lock().unwrap(), ["HEAD", "PUT", "GET", "DELETE"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    use std::io::{BufRead as _, Write as _};
    let content = noise(200_000, 1);
    let (key, expect) = payload(&content);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Speaks HTTP by hand: only so can an answer end in its middle at a certain byte.
    let server = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for connection in listener.incoming().take(2) {
            let mut connection = connection.unwrap();
            let lines = std::io::BufReader::new(connection.try_clone().unwrap()).lines();
            let head = lines.map(Result::unwrap).take_while(|l| !l.is_empty());
            let range = head
                .filter_map(|l| {
                    l.to_lowercase()
                        .strip_prefix("range: bytes=")
                        .map(str::to_owned)
                })
                .last();
            let common =
                "ETag: \"t\"\r\nLast-Modified: Tue, 15 Nov 1994 12:45:26 GMT\r\nConnection: close";
            let (head, body) = match &range {
                None => (
                    "200 OK\r\nContent-Length: 200000".to_owned(),
                    &content[..50_000],
                ),
                Some(range) => {
                    let from: usize = range.split('-').next().unwrap().parse().unwrap();
                    let length = 200_000 - from;
                    let head = format!(
                        "206 Partial Content\r\nContent-Range: bytes {from}-199999/200000\r\nContent-Length: {length}"
                    );
                    (head, &content[from..])
                }
            };
            write!(connection, "HTTP/1.1 {head}\r\n{common}\r\n\r\n").unwrap();
            connection.write_all(body).unwrap();
            asked.push(range);
        }
        asked
    });
    let store = open(&settings(&address, "b", "k", "s")).await;
    let got = store.get_verified(&key, expect.sha256, expect.size).await;
    assert_eq!(got.unwrap().len(), 200_000);
    let asked = server.join().unwrap();
    assert_eq!(asked, [None, Some("50000-199999".to_owned())]);
}

#[tokio::test]
async fn a_presigned_url_reads_one_object_and_nothing_else() {
    let bench = Bench::s3().await;
    let bytes = noise(50_000, 1);
    let (key, expect) = payload(&bytes);
    bench
        .store
        .put(&key, bytes.clone().into(), expect)
        .await
        .unwrap();
    let (other, other_expect) = payload(b"other");
    bench
        .store
        .put(&other, b"other".to_vec().into(), other_expect)
        .await
        .unwrap();

    let hour = Duration::from_hours(1);
    let url = bench.store.presign_get(&key, hour).await.unwrap().unwrap();
    let client = reqwest::Client::new();
    let got = client.get(url.clone()).send().await.unwrap();
    assert_eq!(got.status(), 200);
    assert!(got.bytes().await.unwrap() == bytes);

    let mut elsewhere = url.clone();
    elsewhere.set_path(&url.path().replace(&key.to_string(), &other.to_string()));
    assert_ne!(elsewhere, url);
    for denied in [
        client.get(elsewhere),
        client.put(url.clone()).body("x"),
        client.delete(url.clone()),
    ] {
        assert_eq!(denied.send().await.unwrap().status(), 403);
    }
    assert_eq!(bench.store.rehash(&key, expect.size).await.unwrap(), expect);

    // One that ends soon is asked until it does.
    let brief = bench.store.presign_get(&key, Duration::from_secs(1)).await;
    let brief = brief.unwrap().unwrap();
    let expires: Vec<_> = brief
        .query_pairs()
        .filter(|(name, _)| name == "X-Amz-Expires")
        .map(|(_, value)| value.into_owned())
        .collect();
    assert_eq!(expires, ["1"]);
    let start = Instant::now();
    loop {
        let status = client.get(brief.clone()).send().await.unwrap().status();
        // AWS answers 403, the server here 400.
        if status.is_client_error() {
            break;
        }
        assert_eq!(status, 200);
        assert!(start.elapsed() < Duration::from_mins(1), "it never expires");
        tokio::task::yield_now().await;
    }

    let folder = Bench::filesystem().await;
    assert_eq!(folder.store.presign_get(&key, hour).await.unwrap(), None);
}

#[tokio::test]
async fn our_own_objects_are_not_listed_to_find_others() {
    let (config, folder) = bucket();
    let (store, _) = logged(&config, &Database::default()).await;
    while store.health().await.is_err() {
        tokio::task::yield_now().await;
    }
    // More than a page of our own.
    let own = folder.join("objects/sha256/00");
    std::fs::create_dir_all(&own).unwrap();
    for n in 0..1200 {
        std::fs::write(own.join(format!("00{n:062x}")), b"x").unwrap();
    }
    for n in 0..1100 {
        std::fs::create_dir_all(folder.join("in")).unwrap();
        std::fs::write(folder.join(format!("in/{n:04}.tar.bz2")), b"x").unwrap();
    }
    // The server sees the files a moment later.
    loop {
        let found: Vec<_> = store.list_found().try_collect().await.unwrap();
        let own: Vec<_> = store.list_payloads().try_collect().await.unwrap();
        if (found.len(), own.len()) == (1100, 1200) {
            break;
        }
        assert!(found.len() < 1100 || own.len() < 1200);
    }
    assert!(service("LIVEPATCH_TEST_S3").starts_with("http://127.0.0.1:"));
}
