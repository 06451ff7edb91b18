//! The bench on which stores are tested: any backend over its real service, and hands that damage it from behind.

use crate::support::s3::{bucket, service, unique};
use livepatch_onprem::blob::{Expect, Key, Store};
use livepatch_onprem::config::{Database, PatchStorage, StorageKind};
use livepatch_onprem::domain::Secret;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What happened on a store, in order: operation and success.
pub(crate) type Log = Arc<Mutex<Vec<(&'static str, bool)>>>;

/// A store and what lies under it.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) log: Log,
    under: Under,
    /// Removes the folder at the end of the test.
    _folder: Option<tempfile::TempDir>,
}

enum Under {
    Folder(PathBuf),
    Database(Box<tokio_postgres::Client>),
}

/// Bytes that do not repeat within any length used here.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// The key of a payload with these bytes, and what it must be.
pub(crate) fn payload(bytes: &[u8]) -> (Key, Expect) {
    let expect = Expect::of(bytes);
    (Key::Payload(expect.sha256), expect)
}

/// Opens a store whose operations are logged.
pub(crate) async fn logged(config: &PatchStorage, database: &Database) -> (Store, Log) {
    let log = Log::default();
    let into = log.clone();
    let store = Store::open(config, database).await.unwrap();
    let store = store.with_observer(Arc::new(move |operation, seconds, ok| {
        assert!((0.0..600.0).contains(&seconds));
        into.lock().unwrap().push((operation, ok));
    }));
    (store, log)
}

/// A database of its own, and a connection to it.
pub(crate) async fn database() -> (Database, tokio_postgres::Client) {
    let server = service("LIVEPATCH_TEST_DATABASE");
    let name = unique("objects_");
    let admin = connect(&server).await;
    admin
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    // The last word counts where a connection string gives a key twice.
    let text = format!("{server} dbname={name}");
    let client = connect(&text).await;
    let database = Database {
        connection_string: Secret::new(text),
        ..Database::default()
    };
    (database, client)
}

async fn connect(text: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(text, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

impl Bench {
    pub(crate) async fn filesystem() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = PatchStorage {
            filesystem_path: folder.path().join("patches"),
            ..PatchStorage::default()
        };
        let (store, log) = logged(&config, &Database::default()).await;
        Self {
            store,
            log,
            under: Under::Folder(config.filesystem_path),
            _folder: Some(folder),
        }
    }

    pub(crate) async fn s3() -> Self {
        let (config, folder) = bucket();
        let (store, log) = logged(&config, &Database::default()).await;
        // The S3 server remembers for a moment that the bucket was not there.
        while store.health().await.is_err() {
            tokio::task::yield_now().await;
        }
        log.lock().unwrap().clear();
        Self {
            store,
            log,
            under: Under::Folder(folder),
            _folder: None,
        }
    }

    pub(crate) async fn postgres() -> Self {
        let (database, client) = database().await;
        let config = PatchStorage {
            kind: StorageKind::Postgres,
            ..PatchStorage::default()
        };
        let (store, log) = logged(&config, &database).await;
        Self {
            store,
            log,
            under: Under::Database(Box::new(client)),
            _folder: None,
        }
    }

    /// How often an operation was done.
    pub(crate) fn count(&self, operation: &str) -> usize {
        let log = self.log.lock().unwrap();
        log.iter().filter(|(o, _)| *o == operation).count()
    }

    /// The folder under the store.
    pub(crate) fn folder(&self) -> &PathBuf {
        match &self.under {
            Under::Folder(folder) => folder,
            Under::Database(_) => panic!("there is no folder under a database"),
        }
    }

    /// Puts a file into the storage behind the store's back.
    pub(crate) async fn plant(&self, relative: &str, bytes: &[u8]) {
        match &self.under {
            Under::Folder(folder) => {
                let path = folder.join(relative);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
                if let Ok(found) = relative.parse() {
                    self.shows(&Key::Found(found), bytes.len()).await;
                }
            }
            Under::Database(client) => {
                let path = relative;
                let size = bytes.len() as i64;
                let row = client
                    .query_one(
                        "INSERT INTO livepatch_objects.objects (path, size) VALUES ($1, $2) RETURNING id",
                        &[&path, &size],
                    )
                    .await
                    .unwrap();
                insert(client, row.get(0), bytes).await;
            }
        }
    }

    /// Waits until a change in the folder shows: the S3 server remembers sizes for a moment.
    async fn shows(&self, key: &Key, size: usize) {
        while self.store.head(key).await.unwrap() != Some(size as u64) {
            tokio::task::yield_now().await;
        }
    }

    /// Changes an object's bytes behind the store's back.
    pub(crate) async fn damage(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        match &self.under {
            Under::Folder(folder) => {
                let path = folder.join(key.to_string());
                let mut bytes = std::fs::read(&path).unwrap();
                change(&mut bytes);
                std::fs::write(path, &bytes).unwrap();
                self.shows(key, bytes.len()).await;
            }
            Under::Database(client) => {
                let rows = client
                    .query(
                        "DELETE FROM livepatch_objects.pieces USING livepatch_objects.objects o \
                         WHERE object_id = o.id AND o.path = $1 RETURNING o.id, n, data",
                        &[&key.to_string()],
                    )
                    .await
                    .unwrap();
                let mut pieces: Vec<(i32, Vec<u8>)> =
                    rows.iter().map(|r| (r.get(1), r.get(2))).collect();
                pieces.sort_unstable();
                let mut bytes: Vec<u8> = pieces.into_iter().flat_map(|(_, p)| p).collect();
                change(&mut bytes);
                insert(client, rows[0].get(0), &bytes).await;
            }
        }
    }
}

async fn insert(client: &tokio_postgres::Client, id: i64, bytes: &[u8]) {
    for (n, piece) in bytes.chunks(256 << 10).enumerate() {
        let n = i32::try_from(n).unwrap();
        client
            .execute(
                "INSERT INTO livepatch_objects.pieces (object_id, n, data) VALUES ($1, $2, $3)",
                &[&id, &n, &piece],
            )
            .await
            .unwrap();
    }
}
