//! Running statements: one place that prepares, times, and turns PostgreSQL's errors into ours.

use super::connect::Settings;
use crate::telemetry::security::{self, Deed};
use crate::telemetry::traces;
use deadpool_postgres::{GenericClient, Object, Transaction};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tracing::Instrument;

/// A named statement. The name is the `method` label of `livepatch_server_database_query_duration_seconds`.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    /// Name, as the constant's.
    pub name: &'static str,
    /// Text.
    pub text: &'static str,
}

/// Told of every statement: name, time taken, whether it went well.
pub type Observer = Arc<dyn Fn(&'static str, Duration, bool) + Send + Sync>;

/// What can go wrong in the database.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection, or it broke, or it did not answer in time.
    #[error("the database is not reachable: {0}")]
    Unavailable(String),
    /// A unique constraint: the thing exists already.
    #[error("it exists already ({0})")]
    Exists(String),
    /// A foreign key: something else refers to it, or it refers to nothing.
    #[error("it is referred to, or refers to something that does not exist ({0})")]
    Referenced(String),
    /// Two transactions got in each other's way; trying again is right.
    #[error("the database asks to try again: {0}")]
    Retry(String),
    /// A statement failed otherwise.
    #[error("database statement {statement} failed: {source}")]
    Statement {
        /// Name of the statement.
        statement: &'static str,
        /// PostgreSQL's error.
        source: tokio_postgres::Error,
    },
    /// A row holds what it cannot hold.
    #[error("a database row is not as expected: {0}")]
    Row(String),
}

impl DbError {
    /// Sorts an error of `statement`.
    pub fn of(statement: &'static str, source: tokio_postgres::Error) -> Self {
        if source.is_closed() {
            return Self::Unavailable(source.to_string());
        }
        let Some(db) = source.as_db_error() else {
            let io = std::error::Error::source(&source)
                .is_some_and(<dyn std::error::Error + 'static>::is::<std::io::Error>);
            return if io {
                Self::Unavailable(source.to_string())
            } else {
                Self::Statement { statement, source }
            };
        };
        let constraint = || db.constraint().unwrap_or_default().to_owned();
        match db.code() {
            &SqlState::UNIQUE_VIOLATION => Self::Exists(constraint()),
            &SqlState::FOREIGN_KEY_VIOLATION => Self::Referenced(constraint()),
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
                Self::Retry(db.message().to_owned())
            }
            code if code.code().starts_with("08")
                || code.code().starts_with("57P")
                || code.code().starts_with("53") =>
            {
                Self::Unavailable(db.message().to_owned())
            }
            _ => Self::Statement { statement, source },
        }
    }
}

impl From<crate::domain::ParseError> for DbError {
    fn from(error: crate::domain::ParseError) -> Self {
        Self::Row(error.to_string())
    }
}

/// Parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Something that can run a statement.
pub trait Run: Sync {
    /// The client underneath.
    fn client(&self) -> &impl GenericClient;
    /// Told of every statement.
    fn observer(&self) -> &Observer;
    /// How the database is reached, to see whether it still is.
    fn settings(&self) -> &Arc<Settings>;

    /// Runs a statement and returns its rows.
    fn rows(
        &self,
        sql: &Sql,
        params: Params<'_>,
    ) -> impl Future<Output = Result<Vec<Row>, DbError>> + Send {
        async move {
            let started = Instant::now();
            let result = watched(self.settings(), sql.name, async {
                let statement = self.client().prepare_cached(sql.text).await?;
                self.client().query(&statement, params).await
            })
            .await;
            self.observer()(sql.name, started.elapsed(), result.is_ok());
            result
        }
    }

    /// Runs a statement that returns at most one row.
    fn opt(
        &self,
        sql: &Sql,
        params: Params<'_>,
    ) -> impl Future<Output = Result<Option<Row>, DbError>> + Send {
        async move {
            let mut rows = self.rows(sql, params).await?;
            if rows.len() > 1 {
                return Err(DbError::Row(format!(
                    "{} returned {} rows, not one",
                    sql.name,
                    rows.len()
                )));
            }
            Ok(rows.pop())
        }
    }

    /// Runs a statement that returns exactly one row.
    fn one(
        &self,
        sql: &Sql,
        params: Params<'_>,
    ) -> impl Future<Output = Result<Row, DbError>> + Send {
        async move {
            self.opt(sql, params)
                .await?
                .ok_or_else(|| DbError::Row(format!("{} returned no row", sql.name)))
        }
    }

    /// Runs a statement and returns how many rows it touched.
    fn exec(
        &self,
        sql: &Sql,
        params: Params<'_>,
    ) -> impl Future<Output = Result<u64, DbError>> + Send {
        async move {
            let started = Instant::now();
            let result = watched(self.settings(), sql.name, async {
                let statement = self.client().prepare_cached(sql.text).await?;
                self.client().execute(&statement, params).await
            })
            .await;
            self.observer()(sql.name, started.elapsed(), result.is_ok());
            result
        }
    }
}

/// How long a statement runs before it is asked whether the database is still there, and how long the answer may take.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for a statement for as long as it takes, provided that the database still takes connections: one that hangs keeps the
/// connections it has open, and whoever had asked something would wait until it woke.
async fn watched<T>(
    settings: &Settings,
    name: &'static str,
    statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, DbError> {
    let span = tracing::trace_span!(
        target: traces::TARGET,
        "database",
        otel.name = name,
        otel.kind = "client",
        db.system.name = "postgresql",
        db.operation.name = name,
    );
    let mut statement = std::pin::pin!(statement.instrument(span));
    loop {
        if let Ok(result) = tokio::time::timeout(LOOK, &mut statement).await {
            return result.map_err(|e| DbError::of(name, e));
        }
        let answers = tokio::time::timeout(LOOK, settings.answers());
        tokio::select! {
            biased;
            result = &mut statement => return result.map_err(|e| DbError::of(name, e)),
            answers = answers => if !matches!(answers, Ok(true)) {
                return Err(DbError::Unavailable(format!(
                    "{name} has no answer, and new connections are not taken either"
                )));
            }
        }
    }
}

/// A pooled connection.
pub struct Conn {
    pub(super) object: Object,
    pub(super) observer: Observer,
    pub(super) settings: Arc<Settings>,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conn")
    }
}

impl Conn {
    /// Closes the connection instead of giving it back, because it may still wait for an answer.
    pub fn discard(self) {
        drop(Object::take(self.object));
    }

    /// Begins a transaction; dropping it rolls back.
    pub async fn begin(&mut self) -> Result<Tx<'_>, DbError> {
        let tx = watched(&self.settings, "begin", self.object.transaction()).await?;
        Ok(Tx {
            inner: tx,
            observer: Arc::clone(&self.observer),
            settings: Arc::clone(&self.settings),
            changes: Mutex::default(),
        })
    }

    /// Begins a transaction that sees one state of the database throughout and changes nothing.
    pub async fn begin_read(&mut self) -> Result<Tx<'_>, DbError> {
        let beginning = self
            .object
            .build_transaction()
            .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
            .read_only(true)
            .start();
        let tx = watched(&self.settings, "begin", beginning).await?;
        Ok(Tx {
            inner: tx,
            observer: Arc::clone(&self.observer),
            settings: Arc::clone(&self.settings),
            changes: Mutex::default(),
        })
    }
}

impl Run for Conn {
    fn client(&self) -> &impl GenericClient {
        &self.object
    }
    fn observer(&self) -> &Observer {
        &self.observer
    }
    fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}

/// A transaction.
pub struct Tx<'a> {
    inner: Transaction<'a>,
    observer: Observer,
    settings: Arc<Settings>,
    changes: Mutex<Vec<Change>>,
}

/// What was written to the audit log, to be told of when it is committed.
pub(super) struct Change {
    pub(super) action: &'static str,
    pub(super) actor: String,
    pub(super) source: String,
    pub(super) target: String,
}

impl std::fmt::Debug for Tx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tx")
    }
}

impl Tx<'_> {
    /// Notes a change, to be told of when it is committed.
    pub(super) fn note(&self, change: Change) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.push(change);
    }

    /// Commits. Only after this may anything be acknowledged.
    pub async fn commit(self) -> Result<(), DbError> {
        let started = Instant::now();
        let result = watched(&self.settings, "commit", self.inner.commit()).await;
        (self.observer)("commit", started.elapsed(), result.is_ok());
        if result.is_ok() {
            let changes = self.changes.into_inner();
            for change in changes.unwrap_or_else(PoisonError::into_inner) {
                let deed = Deed {
                    actor: &change.actor,
                    source: &change.source,
                    target: &change.target,
                    message: "",
                };
                security::changed(change.action, deed);
            }
        }
        result
    }
}

impl Run for Tx<'_> {
    fn client(&self) -> &impl GenericClient {
        &self.inner
    }
    fn observer(&self) -> &Observer {
        &self.observer
    }
    fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }
}
