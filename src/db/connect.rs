//! Connections: settings from configuration, TLS as asked for, the pool and its bounds.

use super::run::{Conn, DbError, Observer};
use crate::config::Database;
use crate::config::connection;
use deadpool_postgres::{
    ClientWrapper, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime,
    Timeouts,
};
use postgres_openssl::MakeTlsConnector;
use std::sync::Arc;
use std::time::Duration;

/// How long a request may wait for a connection before it is answered 503.
const WAIT: Duration = Duration::from_secs(2);
/// A connection that was unused for longer is asked whether it answers before it is handed out.
const FRESH: Duration = Duration::from_millis(100);
/// How long that answer may take.
const PROBE: Duration = Duration::from_secs(1);

/// The database: a pool and an observer of its statements.
#[derive(Clone)]
pub struct Db {
    pool: Pool,
    settings: Arc<Settings>,
    observer: Observer,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db")
            .field("pool", &self.pool.status())
            .finish_non_exhaustive()
    }
}

/// What a connection needs, parsed once.
#[derive(Clone)]
pub struct Settings {
    config: tokio_postgres::Config,
    tls: MakeTlsConnector,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("hosts", &self.config.get_hosts())
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Reads `database.*`. Errors name the key.
    pub fn new(database: &Database) -> Result<Self, String> {
        let parsed = connection::parse(database.connection_string.expose())
            .ok_or("database.connection-string cannot be read")?;
        let (mut config, tls) =
            super::tls::connector(parsed, database.ca.as_deref(), "database.connection-string")?;
        config.application_name("livepatch-server");
        config.connect_timeout(WAIT);
        config.keepalives_idle(Duration::from_secs(30));
        // A connection on which nothing is acknowledged for this long is given up; a stopped server is noticed.
        config.tcp_user_timeout(Duration::from_secs(10));
        if let Some(mebibytes) = database.work_mem {
            config.options(format!("-c work_mem={mebibytes}MB"));
        }
        Ok(Self { config, tls })
    }

    /// Opens a connection of its own, outside the pool; the caller drives the connection future.
    pub async fn connect_alone(
        &self,
    ) -> Result<
        (
            tokio_postgres::Client,
            tokio_postgres::Connection<
                tokio_postgres::Socket,
                postgres_openssl::TlsStream<tokio_postgres::Socket>,
            >,
        ),
        DbError,
    > {
        self.config
            .connect(self.tls.clone())
            .await
            .map_err(|e| DbError::Unavailable(describe(&e)))
    }
}

impl Settings {
    /// Whether the database answers one who knocks, if only that it is full. Does not end by itself if it hangs.
    pub(super) async fn answers(&self) -> bool {
        match self.config.connect(self.tls.clone()).await {
            Ok(_) => true,
            Err(error) => error.as_db_error().is_some(),
        }
    }
}

/// The error with its cause, which tokio-postgres leaves out of `Display`.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl Db {
    /// Makes the pool; connects to nothing yet.
    pub fn new(database: &Database, observer: Observer) -> Result<Self, String> {
        let settings = Settings::new(database)?;
        let manager = Manager::from_config(
            settings.config.clone(),
            settings.tls.clone(),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let lifetime = database.connection_lifetime_max;
        let pool = Pool::builder(manager)
            .max_size(database.pool_max as usize)
            .timeouts(Timeouts {
                wait: Some(WAIT),
                create: Some(WAIT),
                recycle: Some(WAIT),
            })
            .runtime(Runtime::Tokio1)
            .pre_recycle(Hook::async_fn(
                move |client: &mut ClientWrapper, metrics| {
                    let (old, idle) = (metrics.created.elapsed() > lifetime, metrics.last_used());
                    Box::pin(async move {
                        if old {
                            return Err(HookError::message(
                                "older than database.connection-lifetime-max",
                            ));
                        }
                        if idle < FRESH {
                            return Ok(());
                        }
                        // A server that hangs keeps its connections open; whoever got one of them would wait for ever.
                        match tokio::time::timeout(PROBE, client.simple_query("")).await {
                            Ok(answered) => answered.map(drop).map_err(HookError::Backend),
                            Err(_) => Err(HookError::message(
                                "no answer on a connection that was idle",
                            )),
                        }
                    })
                },
            ))
            .build()
            .map_err(|e| format!("the database pool cannot be made: {e}"))?;
        Ok(Self {
            pool,
            settings: Arc::new(settings),
            observer,
        })
    }

    /// A connection from the pool; waits at most two seconds.
    pub async fn conn(&self) -> Result<Conn, DbError> {
        // Bounds the whole: several connections of the pool may turn out to be dead, one after another.
        let why = match tokio::time::timeout(WAIT, self.pool.get()).await {
            Ok(Ok(object)) => {
                return Ok(Conn {
                    object,
                    observer: Arc::clone(&self.observer),
                    settings: Arc::clone(&self.settings),
                });
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => format!("no connection within {} s", WAIT.as_secs()),
        };
        (self.observer)("connect", Duration::ZERO, false);
        Err(DbError::Unavailable(why))
    }

    /// Settings for connections outside the pool.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Closes the pool: running statements end, new ones are refused.
    pub fn close(&self) {
        self.pool.close();
    }
}
