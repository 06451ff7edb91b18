//! Downloads through the whole server, redirects to a private bucket, and what is served while the database is away.

use crate::support::kmod::{bundle_name, real_bundle};
use crate::support::s3;
use crate::support::server::{Machine, TestServer};
use livepatch_onprem::app;
use serde_json::json;
use std::time::{Duration, Instant};

/// A server whose storage is a bucket of its own on the real S3 server.
async fn on_s3(presign: Duration) -> TestServer {
    let (storage, _) = s3::bucket();
    let server = TestServer::with(|config| {
        config.patch_storage = storage;
        config.patch_storage.s3.presign = presign;
    })
    .await;
    server.upload(&real_bundle("107.1", "patched")).await;
    server
}

#[tokio::test]
async fn ranges_conditions_and_digests_work_end_to_end() {
    let server = TestServer::with_two_patches().await;
    let url = format!("{}/v1/patches/{}", server.url, bundle_name("107.1"));
    let file = std::fs::read(real_bundle("107.1", "patched")).unwrap();
    let whole = server.http.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    let tag = whole.headers()["etag"].to_str().unwrap().to_owned();
    let sha256 = livepatch_onprem::domain::Sha256::of(&file);
    assert_eq!(tag, format!("\"{sha256}\""));
    assert!(
        whole.headers()["repr-digest"]
            .to_str()
            .unwrap()
            .starts_with("sha-256=:")
    );
    assert_eq!(whole.headers()["content-length"], file.len().to_string());
    assert_eq!(whole.bytes().await.unwrap(), file);
    let get = |name: &'static str, value: String| server.http.get(&url).header(name, value).send();
    assert_eq!(get("If-None-Match", tag).await.unwrap().status(), 304);
    let part = get("Range", "bytes=10-19".into()).await.unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(
        part.headers()["content-range"],
        format!("bytes 10-19/{}", file.len())
    );
    assert_eq!(part.bytes().await.unwrap(), file[10..20]);
    let several = get("Range", "bytes=0-1,5-6".into()).await.unwrap();
    assert!(
        several.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("multipart/byteranges")
    );
    assert_eq!(
        get("Range", "bytes=999999999-".into())
            .await
            .unwrap()
            .status(),
        416
    );
    let head = server.http.head(&url).send().await.unwrap();
    assert_eq!(
        (
            head.status().as_u16(),
            head.headers()["content-length"]
                .to_str()
                .unwrap()
                .to_owned()
        ),
        (200, file.len().to_string())
    );
    assert_eq!(server.http.post(&url).send().await.unwrap().status(), 405);
    for wrong in ["livepatch-1.tar.bz2", "..%2F..%2Fetc%2Fpasswd", "%00"] {
        let answer = server
            .http
            .get(format!("{}/v1/patches/{wrong}", server.url))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 404, "{wrong}");
    }
}

#[tokio::test]
async fn many_machines_at_once_cost_one_read_of_the_bucket() {
    let server = on_s3(Duration::ZERO).await;
    let url = format!("{}/v1/patches/{}", server.url, bundle_name("107.1"));
    let reads = || {
        let metrics = server.core().metrics.encode();
        let line = metrics
            .lines()
            .find(|l| {
                l.starts_with(
                    "livepatch_object_store_requests_total{operation=\"get\",outcome=\"success\"}",
                )
            })
            .unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = reads();
    let downloads = (0..100).map(|_| async {
        server
            .http
            .get(&url)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
    });
    let files = futures_util::future::join_all(downloads).await;
    let expected = std::fs::read(real_bundle("107.1", "patched")).unwrap();
    assert!(files.iter().all(|bytes| *bytes == expected));
    assert_eq!(reads() - before, 1);
}

#[tokio::test]
async fn a_presigned_redirect_lets_the_bucket_stay_private() {
    let server = on_s3(Duration::from_mins(1)).await;
    let url = format!("{}/v1/patches/{}", server.url, bundle_name("107.1"));
    let answer = server.http.get(&url).send().await.unwrap();
    assert_eq!(answer.status(), 302);
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let direct = server.http.get(&location).send().await.unwrap();
    assert_eq!(direct.status(), 200);
    assert_eq!(
        direct.bytes().await.unwrap(),
        std::fs::read(real_bundle("107.1", "patched")).unwrap()
    );
    let unsigned = location.split('?').next().unwrap();
    let refused = server.http.get(unsigned).send().await.unwrap();
    assert!(refused.status().is_client_error(), "{}", refused.status());
}

#[tokio::test]
async fn the_template_says_where_files_are() {
    let server = TestServer::with(|config| {
        config.server.url_template = "https://patches.example/v1/patches/{filename}".to_owned();
        config.server.redirect_downloads = true;
    })
    .await;
    server.upload(&real_bundle("107.1", "patched")).await;
    let machine = Machine::register(&server, 1, &server.token("edge", "edge").await).await;
    let expected = format!(
        "https://patches.example/v1/patches/{}",
        bundle_name("107.1")
    );
    assert_eq!(
        machine.check(&server, None).await["patches"][0]["url"],
        expected
    );
    let answer = server
        .http
        .get(format!("{}/patches/{}", server.url, bundle_name("107.1")))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["location"], expected);
}

#[tokio::test]
async fn while_the_database_is_away_offers_go_on_and_nothing_is_promised() {
    let server = TestServer::with_two_patches().await;
    let token = server.token("edge", "edge").await;
    let machine = Machine::register(&server, 1, &token).await;
    assert_eq!(machine.check(&server, None).await["stored"], true);
    let name: String = server
        .db
        .raw()
        .await
        .query_one("select current_database()::text", &[])
        .await
        .unwrap()
        .get(0);
    let elsewhere = crate::support::db::TestDb::bare().await;
    let outside = elsewhere.raw().await;
    outside
        .batch_execute(&format!("alter database {name} allow_connections false"))
        .await
        .unwrap();
    let cut =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
    outside.batch_execute(&cut).await.unwrap();

    let started = Instant::now();
    let answer = machine.check(&server, None).await;
    assert_eq!(answer["patches"][0]["version"], "107.1");
    assert_eq!(answer["stored"], false);
    let register = server
        .http
        .post(format!("{}/v1/client/{:032x}", server.url, 9))
        .json(&json!({ "auth-token": token }))
        .send()
        .await
        .unwrap();
    assert_eq!(register.status(), 503);
    assert!(register.headers().contains_key("retry-after"));
    assert!(
        !register.text().await.unwrap().contains(&name),
        "the inside is not told"
    );
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
    let file = format!("{}/v1/patches/{}", server.url, bundle_name("107.1"));
    assert_eq!(server.http.get(file).send().await.unwrap().status(), 200);
    assert_eq!(
        server
            .http
            .get(format!("{}/readyz", server.url))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    let status = server
        .http
        .get(format!("{}/debug/status", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(status.status(), 503);
    assert!(
        status
            .text()
            .await
            .unwrap()
            .contains(r#""database":{"status":"ERROR"}"#)
    );

    outside
        .batch_execute(&format!("alter database {name} allow_connections true"))
        .await
        .unwrap();
    let back = Instant::now();
    while machine.check(&server, Some("107.1")).await["stored"] != true {
        assert!(
            back.elapsed() < Duration::from_secs(30),
            "the database is back, the reports are not"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_does_not_start_on_what_cannot_work() {
    let server = TestServer::start().await;
    let config = || crate::support::server::config(&server.db, &server.folder);
    let refused = async |config| app::start(config, false).await.unwrap_err().to_string();

    let mut nowhere = config();
    nowhere.database.connection_string =
        livepatch_onprem::domain::Secret::new("host=127.0.0.1 port=1 user=x dbname=x");
    assert!(
        refused(nowhere)
            .await
            .contains("database.connection-string")
    );
    let mut taken = config();
    taken.server.address = server.address();
    let why = refused(taken).await;
    assert!(
        why.contains("server.server-address") && why.contains("in use"),
        "{why}"
    );
    let mut short = config();
    short.auth.machine_token_key = livepatch_onprem::domain::Secret::new("abcd");
    assert!(refused(short).await.contains("auth.machine-token-key"));
    let mut certificate = config();
    certificate.patch_trust.certificates = vec!["/nonexistent.pem".into()];
    assert!(refused(certificate).await.contains("/nonexistent.pem"));
    let mut old = config();
    let empty = crate::support::db::TestDb::bare().await;
    old.database = crate::support::db::settings(empty.url());
    assert!(refused(old).await.contains("livepatch-server migrate"));
}
