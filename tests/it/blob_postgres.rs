//! What only the table has: connections, rights, and replicas that start at once.

use crate::blob::{database, noise, payload};
use crate::support::s3::unique;
use futures_util::TryStreamExt as _;
use livepatch_onprem::blob::{BlobError, PutOutcome, Store};
use livepatch_onprem::config::{Database, PatchStorage, StorageKind};
use livepatch_onprem::domain::Secret;
use std::time::{Duration, Instant};

fn table() -> PatchStorage {
    PatchStorage {
        kind: StorageKind::Postgres,
        ..PatchStorage::default()
    }
}

fn at(text: &str) -> Database {
    Database {
        connection_string: Secret::new(text),
        ..Database::default()
    }
}

#[tokio::test]
async fn replicas_that_start_at_once_make_the_tables_once() {
    let (database, _client) = database().await;
    let config = table();
    let opened = (0..8).map(|_| Store::open(&config, &database));
    let stores = futures_util::future::try_join_all(opened).await.unwrap();
    let (key, expect) = payload(b"x");
    let put = stores[0].put(&key, b"x".to_vec().into(), expect).await;
    assert_eq!(put.unwrap(), PutOutcome::Stored);
    let put = stores[7].put(&key, b"x".to_vec().into(), expect).await;
    assert_eq!(put.unwrap(), PutOutcome::AlreadyThere);
}

#[tokio::test]
async fn a_database_of_its_own_goes_before_the_main_one() {
    let (own, client) = database().await;
    let config = PatchStorage {
        postgres_connection_string: own.connection_string.clone(),
        ..table()
    };
    // The main database is not even there.
    let store = Store::open(&config, &at("host=/nonexistent user=u")).await;
    store.unwrap().health().await.unwrap();
    let row = client
        .query_one("SELECT count(*) FROM livepatch_objects.objects", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 0);
}

#[tokio::test]
async fn a_role_that_may_not_create_suffices_once_the_tables_are_there() {
    let (database, client) = database().await;
    let role = unique("plain");
    client
        .batch_execute(&format!("CREATE ROLE {role} LOGIN"))
        .await
        .unwrap();
    let text = format!("{} user={role}", database.connection_string.expose());
    let error = Store::open(&table(), &at(&text)).await.unwrap_err();
    assert!(matches!(error, BlobError::Denied { .. }), "{error}");
    assert!(
        error.to_string().contains("create the object tables"),
        "{error}"
    );

    Store::open(&table(), &database).await.unwrap();
    client
        .batch_execute(&format!(
            "GRANT USAGE ON SCHEMA livepatch_objects TO {role};
             GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA livepatch_objects TO {role}"
        ))
        .await
        .unwrap();
    let store = Store::open(&table(), &at(&text)).await.unwrap();
    let bytes = noise(600_000, 1);
    let (key, expect) = payload(&bytes);
    store.put(&key, bytes.clone().into(), expect).await.unwrap();
    let got = store.get_verified(&key, expect.sha256, expect.size).await;
    assert!(got.unwrap() == bytes);
    store.delete(&key).await.unwrap();
    let left: i64 = client
        .query_one("SELECT count(*) FROM livepatch_objects.pieces", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_writer_that_is_stopped_leaves_nothing() {
    let (database, client) = database().await;
    let store = Store::open(&table(), &database).await.unwrap();
    let bytes = noise(8 << 20, 1);
    let (key, expect) = payload(&bytes);
    // A lock on the table stops the writer in its middle.
    client
        .batch_execute("BEGIN; LOCK TABLE livepatch_objects.pieces IN SHARE MODE")
        .await
        .unwrap();
    let writer = {
        let (store, key) = (store.clone(), key.clone());
        tokio::spawn(async move { store.put(&key, bytes.into(), expect).await })
    };
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND \
        relation = 'livepatch_objects.pieces'::regclass";
    while client
        .query_one(waiting, &[])
        .await
        .unwrap()
        .get::<_, i64>(0)
        == 0
    {
        tokio::task::yield_now().await;
    }
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    client.batch_execute("COMMIT").await.unwrap();
    // The same object can be written at once: the stopped writer's locks are gone.
    let bytes = noise(8 << 20, 1);
    let put = store.put(&key, bytes.into(), expect).await.unwrap();
    assert_eq!(put, PutOutcome::Stored);
    let listed: Vec<_> = store.list_payloads().try_collect().await.unwrap();
    assert_eq!(listed, [(expect.sha256, expect.size)]);
}

#[tokio::test]
async fn what_cannot_be_reached_or_read_is_said_without_the_password() {
    let error = Store::open(&table(), &Database::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("database.connection-string"),
        "{error}"
    );

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    for text in [
        format!("postgresql://u:canary@127.0.0.1:{port}/patches"),
        format!("host=127.0.0.1 port={port} user=u password=canary dbname=patches colour=blue"),
        "host=127.0.0.1 port=canary".to_owned(),
    ] {
        let start = Instant::now();
        let error = Store::open(&table(), &at(&text)).await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(!said.contains("canary"), "{said}");
        assert!(
            said.contains("patches") || said.contains("connection-string"),
            "{said}"
        );
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
