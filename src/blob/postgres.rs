//! Objects in PostgreSQL, for installations that have a database and nothing else.
//!
//! An object is a row and its pieces of 256 KiB, in a schema of its own; a piece is what memory holds at a time. The
//! whole object appears with one commit. A replaced object gets a new number, so a reader of the old one runs out of
//! pieces and says so, and never mixes the two.

use super::backend::{Area, Backend, ByteStream, Listed, Object, deadline, within};
use super::content::{Content, Expect};
use super::error::BlobError;
use super::key::{FoundPath, Key};
use crate::config::{Database, connection};
use crate::db::tls;
use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Bytes in one piece.
const PIECE: usize = 256 << 10;
/// Pieces fetched with one query.
const WINDOW: i32 = 8;
/// Objects listed with one query.
const PAGE: i64 = 1000;
/// The bound on one operation, besides the time for its bytes.
const TIMEOUT: Duration = Duration::from_secs(30);

const EXISTS: &str = "SELECT to_regclass('livepatch_objects.pieces') IS NOT NULL";
/// Bytes that are compressed already are not worth compressing again, hence EXTERNAL.
const CREATE: &str = "
    SELECT pg_advisory_xact_lock(hashtextextended('livepatch_objects', 0));
    CREATE SCHEMA IF NOT EXISTS livepatch_objects;
    CREATE TABLE IF NOT EXISTS livepatch_objects.objects (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        path text COLLATE \"C\" NOT NULL UNIQUE,
        size bigint NOT NULL CHECK (size >= 0),
        stored_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE IF NOT EXISTS livepatch_objects.pieces (
        object_id bigint NOT NULL REFERENCES livepatch_objects.objects ON DELETE CASCADE,
        n integer NOT NULL,
        data bytea NOT NULL,
        PRIMARY KEY (object_id, n)
    );
    ALTER TABLE livepatch_objects.pieces ALTER COLUMN data SET STORAGE EXTERNAL;";
const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 1))";
const INSERT: &str =
    "INSERT INTO livepatch_objects.objects (path, size) VALUES ($1, $2) RETURNING id";
const INSERT_PIECE: &str =
    "INSERT INTO livepatch_objects.pieces (object_id, n, data) VALUES ($1, $2, $3)";
const FIND: &str = "SELECT id, size FROM livepatch_objects.objects WHERE path = $1";
const PIECES: &str = "SELECT data FROM livepatch_objects.pieces \
    WHERE object_id = $1 AND n >= $2 AND n < $3 ORDER BY n";
const DELETE: &str = "DELETE FROM livepatch_objects.objects WHERE path = $1";
const LIST: &str = "SELECT path, size FROM livepatch_objects.objects \
    WHERE path > $1 AND starts_with(path, $2) ORDER BY path LIMIT $3";
const PROBE: &str =
    "SELECT count(*) FROM (SELECT 1 FROM livepatch_objects.objects LIMIT 1) AS probe";

/// The backend.
#[derive(Clone)]
pub(super) struct Table {
    pool: Pool,
    place: Arc<str>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({})", self.place)
    }
}

/// The operation and the error of a query.
type Failed<'a> = (&'static str, &'a tokio_postgres::Error);

impl Table {
    /// Connects and makes the tables if they are missing. `own` is `patch-storage.postgres-connection-string`; the
    /// main database's is used when it is empty.
    pub(super) async fn open(
        own: &crate::domain::Secret,
        database: &Database,
    ) -> Result<Self, BlobError> {
        let (key, text) = if own.is_empty() {
            ("database.connection-string", &database.connection_string)
        } else {
            ("patch-storage.postgres-connection-string", own)
        };
        if text.is_empty() {
            return Err(BlobError::Setup {
                what: "type is postgres, but neither postgres-connection-string nor database.connection-string is given".to_owned(),
            });
        }
        let refuse = |what: String| BlobError::Setup { what };
        // The parser's own message is left out: it may hold parts of a password.
        let parsed = connection::parse(text.expose())
            .ok_or_else(|| refuse(format!("{key} cannot be read")))?;
        let ca = database.ca.as_deref().filter(|_| parsed.root.is_none());
        let (mut config, tls) = tls::connector(parsed, ca, key).map_err(refuse)?;
        config.application_name("livepatch-objects");
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        let place: Arc<str> = format!(
            "the object tables of database {}",
            config.get_dbname().unwrap_or("of the connecting user")
        )
        .into();
        let manager = Manager::from_config(
            config,
            tls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let pool = Pool::builder(manager)
            .max_size(database.pool_max.max(2) as usize)
            .wait_timeout(Some(TIMEOUT))
            .create_timeout(Some(Duration::from_secs(10)))
            .recycle_timeout(Some(Duration::from_secs(5)))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| refuse(format!("the connection pool cannot be made: {e}")))?;
        let table = Self { pool, place };
        table.create().await?;
        Ok(table)
    }

    /// Makes the tables, unless they are there: a role without the right to create must then suffice.
    async fn create(&self) -> Result<(), BlobError> {
        const OPERATION: &str = "create the object tables";
        within(&self.place, OPERATION, TIMEOUT, async {
            let client = self.client(OPERATION).await?;
            let row = client.query_one(EXISTS, &[]).await;
            let there: bool = row.map_err(|e| self.sorted((OPERATION, &e)))?.get(0);
            if !there {
                // Several statements sent at once are one transaction.
                let made = client.batch_execute(CREATE).await;
                made.map_err(|e| self.sorted((OPERATION, &e)))?;
            }
            Ok(())
        })
        .await
    }

    async fn client(
        &self,
        operation: &'static str,
    ) -> Result<deadpool_postgres::Object, BlobError> {
        self.pool.get().await.map_err(|e| match e {
            deadpool_postgres::PoolError::Backend(e) => self.sorted((operation, &e)),
            other => BlobError::unavailable(&self.place, operation, other),
        })
    }

    fn sorted(&self, (operation, error): Failed<'_>) -> BlobError {
        let mut text = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            text = format!("{text}: {cause}");
        }
        let place = self.place.clone();
        match error.code() {
            Some(code) if *code == SqlState::DISK_FULL => BlobError::Full {
                place,
                source: text.into(),
            },
            Some(code)
                if [
                    SqlState::INSUFFICIENT_PRIVILEGE,
                    SqlState::INVALID_PASSWORD,
                    SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                ]
                .contains(code) =>
            {
                BlobError::Denied {
                    place,
                    operation,
                    why: text,
                }
            }
            _ => BlobError::unavailable(&place, operation, text),
        }
    }

    async fn put_all(&self, key: &Key, content: &Content, expect: Expect) -> Result<(), BlobError> {
        const OPERATION: &str = "store an object";
        let failed = |e: tokio_postgres::Error| self.sorted((OPERATION, &e));
        let path = key.to_string();
        let mut client = self.client(OPERATION).await?;
        let insert_piece = client.prepare_cached(INSERT_PIECE).await.map_err(failed)?;
        // Dropped without a commit, the transaction leaves nothing.
        let transaction = client.transaction().await.map_err(failed)?;
        transaction.execute(LOCK, &[&path]).await.map_err(failed)?;
        transaction
            .execute(DELETE, &[&path])
            .await
            .map_err(failed)?;
        let size = expect.size as i64;
        let row = transaction.query_one(INSERT, &[&path, &size]).await;
        let id: i64 = row.map_err(failed)?.get(0);
        let mut reading = content.reading();
        let mut n = 0_i32;
        loop {
            let piece;
            (reading, piece) = reading
                .next_async(PIECE)
                .await
                .map_err(|e| BlobError::from_io(&self.place, "read the spooled file", e))?;
            if piece.is_empty() {
                break;
            }
            transaction
                .execute(&insert_piece, &[&id, &n, &piece.as_ref()])
                .await
                .map_err(failed)?;
            n += 1;
        }
        reading.finish(key, expect)?;
        transaction.commit().await.map_err(failed)
    }

    async fn find(
        &self,
        operation: &'static str,
        key: &Key,
    ) -> Result<Option<(i64, u64)>, BlobError> {
        within(&self.place, operation, TIMEOUT, async {
            let client = self.client(operation).await?;
            let found = async {
                let statement = client.prepare_cached(FIND).await?;
                client.query_opt(&statement, &[&key.to_string()]).await
            };
            let row = found.await.map_err(|e| self.sorted((operation, &e)))?;
            Ok(row.map(|row| (row.get(0), row.get::<_, i64>(1) as u64)))
        })
        .await
    }

    /// The pieces of an object from number `from` on, at most a window of them.
    async fn window(&self, id: i64, from: i32) -> Result<Vec<Bytes>, BlobError> {
        const OPERATION: &str = "read an object";
        let limit = deadline(TIMEOUT, PIECE as u64 * WINDOW as u64);
        within(&self.place, OPERATION, limit, async {
            let client = self.client(OPERATION).await?;
            let found = async {
                let statement = client.prepare_cached(PIECES).await?;
                let until = from + WINDOW;
                client.query(&statement, &[&id, &from, &until]).await
            };
            let rows = found.await.map_err(|e| self.sorted((OPERATION, &e)))?;
            let copied = rows.iter().map(|row| Bytes::copy_from_slice(row.get(0)));
            Ok(copied.collect())
        })
        .await
    }

    async fn page(&self, after: &str, prefix: &str) -> Result<Vec<Listed>, BlobError> {
        const OPERATION: &str = "list objects";
        within(&self.place, OPERATION, TIMEOUT, async {
            let client = self.client(OPERATION).await?;
            let rows = client.query(LIST, &[&after, &prefix, &PAGE]).await;
            let rows = rows.map_err(|e| self.sorted((OPERATION, &e)))?;
            let listed = rows
                .iter()
                .map(|row| (row.get(0), row.get::<_, i64>(1) as u64));
            Ok(listed.collect())
        })
        .await
    }
}

impl Backend for Table {
    fn place(&self) -> &Arc<str> {
        &self.place
    }

    fn put<'a>(
        &'a self,
        key: &'a Key,
        content: &'a Content,
        expect: Expect,
    ) -> BoxFuture<'a, Result<(), BlobError>> {
        Box::pin(within(
            &self.place,
            "store an object",
            deadline(TIMEOUT, expect.size),
            self.put_all(key, content, expect),
        ))
    }

    fn head<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<u64>, BlobError>> {
        Box::pin(async move {
            let found = self.find("look for an object", key).await?;
            Ok(found.map(|(_, size)| size))
        })
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Object, BlobError>> {
        Box::pin(async move {
            let Some((id, size)) = self.find("read an object", key).await? else {
                return Err(BlobError::NotFound {
                    key: key.clone(),
                    place: self.place.clone(),
                });
            };
            let table = self.clone();
            let chunks: ByteStream = stream::try_unfold(Some(0_i32), move |from| {
                let table = table.clone();
                async move {
                    let Some(from) = from else { return Ok(None) };
                    let pieces = table.window(id, from).await?;
                    // A short window is the last one.
                    let full = pieces.len() == WINDOW as usize;
                    let next = full.then_some(from + WINDOW);
                    Ok(Some((stream::iter(pieces.into_iter().map(Ok)), next)))
                }
            })
            .try_flatten()
            .boxed();
            Ok(Object { size, chunks })
        })
    }

    fn delete<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), BlobError>> {
        const OPERATION: &str = "delete an object";
        Box::pin(within(&self.place, OPERATION, TIMEOUT, async move {
            let client = self.client(OPERATION).await?;
            let deleted = client.execute(DELETE, &[&key.to_string()]).await;
            deleted.map_err(|e| self.sorted((OPERATION, &e)))?;
            Ok(())
        }))
    }

    fn list(&self, area: Area) -> BoxStream<'static, Result<Listed, BlobError>> {
        let prefix = match area {
            Area::Below(prefix) => prefix,
            Area::Foreign => "",
        };
        let table = self.clone();
        stream::try_unfold(Some(String::new()), move |after| {
            let table = table.clone();
            async move {
                let Some(after) = after else { return Ok(None) };
                let page = table.page(&after, prefix).await?;
                let last = page.last().map(|(path, _)| path.clone());
                let wanted = page
                    .into_iter()
                    .filter(move |(path, _)| area != Area::Foreign || !FoundPath::is_ours(path));
                let items: Vec<_> = wanted.map(Ok).collect();
                Ok(last.map(|last| (stream::iter(items), Some(last))))
            }
        })
        .try_flatten()
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, Result<(), BlobError>> {
        const OPERATION: &str = "ask the object tables";
        Box::pin(within(&self.place, OPERATION, TIMEOUT, async move {
            let client = self.client(OPERATION).await?;
            let asked = client.query_one(PROBE, &[]).await;
            asked.map_err(|e| self.sorted((OPERATION, &e)))?;
            Ok(())
        }))
    }
}
