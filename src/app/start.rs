//! Starting a server from its configuration, and stopping it.

use super::certificates;
use super::listen::{self, Addresses};
use crate::blob::{PatchCache, Store};
use crate::bundle::TrustStore;
use crate::config::{Config, ConfigError, OAuth, TrustPolicy};
use crate::db::{Db, DbError, all_statements, audit, catalog, migrate, tokens};
use crate::domain::TierName;
use crate::domain::token::MachineTokenKey;
use crate::http::tls::Tls;
use crate::rollout::support::{DEFAULT_TABLE, SupportTable};
use crate::service::captures::Captures;
use crate::service::census::Counts;
use crate::service::contracts::Contracts;
use crate::service::ingest::Gate;
use crate::service::jobs::{self, Runner};
use crate::service::peer::Indexes;
use crate::service::rollouts::Looks;
use crate::service::webhooks::Webhooks;
use crate::service::{Core, Snapshots, checkin};
use crate::tasks;
use crate::telemetry::Metrics;
use crate::telemetry::security::{self, Deed, Event};
use crate::upstream::oidc::Provider;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why a server could not start. Texts name the key or the thing to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something in the configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// The database cannot be reached or used.
    #[error("the database cannot be used (database.connection-string): {0}")]
    Database(#[from] DbError),
    /// The schema is older than this program.
    #[error(
        "the database has schema version {have}, this program needs {want}; run `livepatch-server migrate`"
    )]
    Schema {
        /// Version found.
        have: i32,
        /// Version needed.
        want: i32,
    },
    /// The object store cannot be used.
    #[error("the patch storage cannot be used (patch-storage.*): {0}")]
    Storage(#[source] Box<crate::blob::BlobError>),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The configuration key that names it.
        key: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<crate::blob::BlobError> for StartError {
    fn from(error: crate::blob::BlobError) -> Self {
        Self::Storage(Box::new(error))
    }
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Its parts.
    pub core: Arc<Core>,
    /// Where it listens for machines; the port is the real one also where `0` was asked for.
    pub address: SocketAddr,
    /// Where everything is.
    pub addresses: Addresses,
    stopping: CancellationToken,
    listener: JoinHandle<bool>,
    writer: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

/// Connects, migrates if `run_migrations` says so, and loads the snapshot: the parts of a server that does not listen, for commands that
/// work beside running replicas.
pub async fn open(
    config: Config,
    run_migrations: bool,
) -> Result<(Arc<Core>, checkin::Writer), StartError> {
    connect(config, run_migrations, Metrics::new()).await
}

async fn connect(
    config: Config,
    run_migrations: bool,
    metrics: Arc<Metrics>,
) -> Result<(Arc<Core>, checkin::Writer), StartError> {
    let db = Db::new(&config.database, metrics.database_observer()).map_err(StartError::Config)?;
    metrics
        .database
        .know(all_statements().iter().map(|sql| sql.name));
    prepare_schema(&db, run_migrations).await?;
    metrics
        .check_ins
        .queue_capacity
        .set(i64::from(config.check_in.queue));
    let sync = &config.patch_sync;
    let interval = if sync.enabled {
        sync.interval.as_secs()
    } else {
        0
    };
    metrics.sync.interval.set(interval.cast_signed());
    let trust = load_trust(&config)?;
    let store = Store::open(&config.patch_storage, &config.database)
        .await?
        .with_observer(metrics.store_observer());
    store.health().await?;
    let cache = PatchCache::new(&config.patch_cache, store.clone());
    let machine_key = machine_key(&config, &db).await?;
    let snapshots = {
        let metrics = Arc::clone(&metrics);
        Snapshots::load(
            db.clone(),
            Arc::new(move |version, took| {
                metrics.snapshot.version.set(version as i64);
                metrics.snapshot.reload_seconds.observe(took.as_secs_f64());
            }),
        )
        .await?
    };
    let (check_ins, writer) = checkin::queue(
        config.check_in.queue as usize,
        db.clone(),
        config.machine_reports.enabled,
        Arc::clone(&metrics),
    );
    let core = Arc::new(Core {
        captures: Captures::load(&db).await?,
        counts: Counts::default(),
        looks: Looks::default(),
        db,
        snapshots,
        metrics,
        store,
        cache,
        trust,
        machine_key,
        gate: Gate::new(&config.ingest),
        jobs: Runner::new(),
        indexes: Indexes::default(),
        sync_asked: tokio::sync::Notify::new(),
        contracts: Contracts::new(&config).map_err(StartError::Config)?,
        webhooks: Webhooks::new(&config).map_err(StartError::Config)?,
        provider: provider(&config.auth.oauth)?,
        config,
        stopping: CancellationToken::new(),
        check_ins,
    });
    Ok((core, writer))
}

/// As [`open`], then listens. Nothing listens before all of it went well.
pub async fn start(config: Config, run_migrations: bool) -> Result<Running, StartError> {
    let metrics = Metrics::new();
    let tls = match &config.server.tls {
        // Before the database is asked, let alone changed.
        Some(config) => Some(Tls::open(config, &metrics)?),
        None => None,
    };
    let (core, writer) = connect(config, run_migrations, metrics).await?;
    let stopping = core.stopping.clone();
    tasks::retention::now(&core).await?;
    jobs::sweep(&core)
        .await
        .map_err(|e| StartError::Config(e.to_string()))?;
    let bound = listen::bind(&core.config.server).await?;
    let addresses = bound.addresses;
    let address = addresses.machines;
    let serving = tokio::spawn(bound.serve(Arc::clone(&core), tls.clone()));
    let tasks = vec![
        tokio::spawn(certificates::watch(tls, stopping.clone())),
        tokio::spawn(tasks::follow::follow(Arc::clone(&core), stopping.clone())),
        tokio::spawn(tasks::retention::run(Arc::clone(&core), stopping.clone())),
        tokio::spawn(tasks::census::run(Arc::clone(&core), stopping.clone())),
        tokio::spawn(tasks::leader::run(
            Arc::clone(&core),
            format!("{}:{address}", std::process::id()),
            stopping.clone(),
        )),
    ];
    tracing::info!(
        %address,
        admin = %addresses.admin,
        operations = %addresses.ops,
        tls = core.config.server.tls.is_some(),
        version = env!("CARGO_PKG_VERSION"),
                storage = core.store.place(),
        "serving"
    );
    let started = Deed {
        target: &address.to_string(),
        ..Deed::default()
    };
    security::emit(Event::ServerStarted, started);
    Ok(Running {
        core,
        address,
        addresses,
        stopping,
        listener: serving,
        writer: tokio::spawn(writer.run()),
        tasks,
    })
}

impl Running {
    /// A token that is cancelled when the server stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Stops in order. Returns whether every request could end in time.
    pub async fn stop(self) -> bool {
        tracing::info!("stopping");
        security::emit(Event::ServerStopping, Deed::default());
        self.stopping.cancel();
        self.core.jobs.shutdown().await;
        let drained = self.listener.await.unwrap_or(false);
        for task in self.tasks {
            let _ = task.await;
        }
        self.core.check_ins.close();
        let _ = self.writer.await;
        self.core.db.close();
        if !drained {
            tracing::warn!(
                "some requests did not end within server.shutdown-grace and were cut off"
            );
        }
        tracing::info!("stopped");
        drained
    }
}

/// The identity provider, if there is one.
fn provider(config: &OAuth) -> Result<Option<Arc<Provider>>, StartError> {
    if !config.enabled {
        return Ok(None);
    }
    let provider = Provider::new(config).map_err(|e| StartError::Config(e.to_string()))?;
    Ok(Some(Arc::new(provider)))
}

async fn prepare_schema(db: &Db, run_migrations: bool) -> Result<(), StartError> {
    if run_migrations {
        let migrated = migrate::migrate(db.settings()).await?;
        if !migrated.applied.is_empty() {
            tracing::info!(applied = ?migrated.applied, version = migrated.version, "the schema was migrated");
        }
    } else {
        let (have, want) = (
            migrate::current_version(db.settings()).await?,
            migrate::wanted_version(),
        );
        if have < want {
            return Err(StartError::Schema { have, want });
        }
    }
    seed(db).await
}

/// Gives a new installation its tiers and the table of supported kernels, with an audit row.
async fn seed(db: &Db) -> Result<(), StartError> {
    let table =
        SupportTable::parse(DEFAULT_TABLE).map_err(|e| StartError::Config(e.to_string()))?;
    let mut conn = db.conn().await?;
    let tx = conn.begin().await?;
    if catalog::seed(&tx, &TierName::DEFAULTS, table.rows()).await? {
        let actor = audit::Actor {
            name: "system".to_owned(),
            source: "start".to_owned(),
        };
        let entry = audit::Entry {
            actor: &actor,
            action: "system.seed",
            target: "installation",
            details: serde_json::json!({ "tiers": TierName::DEFAULTS, "supported-kernels": table.rows().len() }),
        };
        audit::append(&tx, entry, crate::db::listen::Change::Catalog).await?;
    }
    Ok(tx.commit().await?)
}

fn load_trust(config: &Config) -> Result<Option<TrustStore>, StartError> {
    if config.patch_trust.policy == TrustPolicy::Off {
        tracing::warn!(
            "patch-trust.policy is off: modules are served without a look at their signatures"
        );
        return Ok(None);
    }
    let mut trust = TrustStore::new();
    for path in &config.patch_trust.certificates {
        add_certificates(&mut trust, path)?;
    }
    for certificate in trust.certificates() {
        tracing::info!(subject = %certificate.subject, fingerprint = %certificate.fingerprint, "trusting a certificate");
    }
    Ok(Some(trust))
}

fn add_certificates(trust: &mut TrustStore, path: &PathBuf) -> Result<(), StartError> {
    let wrong = |why: String| {
        StartError::Config(format!(
            "patch-trust.certificates: {}: {why}",
            path.display()
        ))
    };
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    trust.add(&bytes).map_err(|e| wrong(e.to_string()))?;
    Ok(())
}

/// The key of machine tokens: from the configuration, or the one that all replicas share in the database.
async fn machine_key(config: &Config, db: &Db) -> Result<MachineTokenKey, StartError> {
    let given = &config.auth.machine_token_key;
    let bytes = if given.is_empty() {
        let mut fresh = [0u8; 32];
        openssl::rand::rand_bytes(&mut fresh)
            .map_err(|e| StartError::Config(format!("no randomness: {e}")))?;
        let conn = db.conn().await?;
        tokens::server_key(&conn, "machine-token", &fresh).await?
    } else {
        hex::decode(given.expose().trim()).map_err(|_| {
            StartError::Config("auth.machine-token-key: hexadecimal digits expected".to_owned())
        })?
    };
    MachineTokenKey::new(&bytes)
        .map_err(|why| StartError::Config(format!("auth.machine-token-key: {why}")))
}
