//! The typed configuration that the rest of the program sees. Every field names its dotted key; defaults stand here.

use crate::domain::Secret;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use super::oauth::OAuth;
pub use super::sync::{Contracts, MachineCount, PatchSync, Proxy, SyncDriver};
pub use super::tls::{ClientAuth, Tls};
pub use super::tracing::{SecurityLog, Tracing};
pub use crate::telemetry::logs::LogFormat;

/// Everything the server can be told.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `server.*`
    pub server: Server,
    /// `database.*`
    pub database: Database,
    /// `patch-storage.*`
    pub patch_storage: PatchStorage,
    /// `patch-cache.*`
    pub patch_cache: PatchCache,
    /// `patch-trust.*` (ours)
    pub patch_trust: PatchTrust,
    /// `ingest.*` (ours)
    pub ingest: Ingest,
    /// `machine-reports.database.*`
    pub machine_reports: MachineReports,
    /// `auth.*`
    pub auth: Auth,
    /// `check-in.*` (ours)
    pub check_in: CheckIn,
    /// `patch-sync.*`
    pub patch_sync: PatchSync,
    /// `contracts.*`
    pub contracts: Contracts,
    /// `webhooks.*` (ours)
    pub webhooks: Webhooks,
    /// `tracing.*`
    pub tracing: Box<Tracing>,
}

/// `server.*`
#[derive(Debug, Clone)]
pub struct Server {
    /// `server.server-address`: where clients connect, and administrators who have no address of their own.
    pub address: SocketAddr,
    /// `server.admin-address` (ours): where administrators connect instead.
    pub admin_address: Option<SocketAddr>,
    /// `server.ops-address` (ours): where health and metrics are asked for instead.
    pub ops_address: Option<SocketAddr>,
    /// `server.tls.*` (ours); `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// `server.tls.handshake-timeout` (ours): how long a client may take for the TLS handshake.
    pub handshake_timeout: Duration,
    /// `server.url-template`: how clients reach patch files; holds `{filename}`. Empty: made from the request's `Host`.
    pub url_template: String,
    /// `server.redirect-downloads`: answer downloads with a redirect instead of the bytes.
    pub redirect_downloads: bool,
    /// `server.signed-downloads` (ours): addresses of downloads are signed for one machine and until a time.
    pub signed_downloads: bool,
    /// `server.signed-downloads-validity` (ours): for how long.
    pub signed_validity: Duration,
    /// `server.security-log` (ours): where security events are written.
    pub security_log: SecurityLog,
    /// `server.log-level`: `error`, `warn`, `info`, `debug` or `trace`, or a tracing filter.
    pub log_level: String,
    /// `server.log-format` (ours): JSON lines or text for people.
    pub log_format: LogFormat,
    /// `server.concurrency-limit`: requests of clients worked on at once.
    pub concurrency_limit: u32,
    /// `server.burst-limit`: requests of clients that may wait beyond that.
    pub burst_limit: u32,
    /// `server.header-timeout` (ours): how long a client may take to send the head of a request, from the
    /// connection's or the head's beginning.
    pub header_timeout: Duration,
    /// `server.idle-timeout` (ours): how long a connection is kept after an answer without another request.
    pub idle_timeout: Duration,
    /// `server.body-timeout` (ours): how long a client may take to send a body, progress or not. An upload may take longer as long
    /// as something comes within this time and enough in the long run.
    pub body_timeout: Duration,
    /// `server.write-timeout` (ours): how long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// `server.shutdown-grace` (ours): how long running requests may take after a signal to stop.
    pub shutdown_grace: Duration,
    /// `server.max-connections` (ours): open connections in all.
    pub max_connections: u32,
    /// `server.max-connections-per-address` (ours): open connections of one IPv4 address or IPv6 /64; 0: no bound.
    pub max_connections_per_address: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_address: None,
            ops_address: None,
            tls: None,
            handshake_timeout: super::tls::HANDSHAKE,
            url_template: String::new(),
            redirect_downloads: false,
            signed_downloads: false,
            signed_validity: Duration::from_hours(1),
            security_log: SecurityLog::Stderr,
            log_level: "info".to_owned(),
            log_format: LogFormat::Json,
            concurrency_limit: 1000,
            burst_limit: 500,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
            body_timeout: Duration::from_mins(2),
            write_timeout: Duration::from_mins(2),
            shutdown_grace: Duration::from_secs(30),
            max_connections: 20_000,
            max_connections_per_address: 10_000,
        }
    }
}

/// `database.*`
#[derive(Debug, Clone)]
pub struct Database {
    /// `database.connection-string`: a PostgreSQL URL or `key=value` string.
    pub connection_string: Secret,
    /// `database.connection-pool-max`
    pub pool_max: u32,
    /// `database.connection-lifetime-max`
    pub connection_lifetime_max: Duration,
    /// `database.work_mem` in MiB; unset leaves the server's own.
    pub work_mem: Option<u32>,
    /// `database.ca` (ours): PEM file of the authority that signed the database's certificate.
    pub ca: Option<PathBuf>,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            connection_string: Secret::default(),
            pool_max: 10,
            connection_lifetime_max: Duration::from_mins(10),
            work_mem: None,
            ca: None,
        }
    }
}

/// `patch-storage.*`
#[derive(Debug, Clone)]
pub struct PatchStorage {
    /// `patch-storage.type`
    pub kind: StorageKind,
    /// `patch-storage.filesystem-path`
    pub filesystem_path: PathBuf,
    /// `patch-storage.s3-*`
    pub s3: S3,
    /// `patch-storage.postgres-connection-string`; empty means the database of `database.connection-string`.
    pub postgres_connection_string: Secret,
}

impl Default for PatchStorage {
    fn default() -> Self {
        Self {
            kind: StorageKind::Filesystem,
            filesystem_path: PathBuf::from("/var/lib/livepatch/patches"),
            s3: S3::default(),
            postgres_connection_string: Secret::default(),
        }
    }
}

/// Where payloads are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// A folder.
    Filesystem,
    /// An S3-compatible bucket.
    S3,
    /// A table in PostgreSQL.
    Postgres,
}

/// `patch-storage.s3-*`
#[derive(Debug, Clone)]
pub struct S3 {
    /// `patch-storage.s3-bucket`
    pub bucket: String,
    /// `patch-storage.s3-endpoint`: host, `host:port` or URL; empty means AWS.
    pub endpoint: String,
    /// `patch-storage.s3-region`; empty means `us-east-1`.
    pub region: String,
    /// `patch-storage.s3-access-key`; empty means instance or container credentials.
    pub access_key: Secret,
    /// `patch-storage.s3-secret-key`
    pub secret_key: Secret,
    /// `patch-storage.s3-secure`: TLS, where the endpoint gives no scheme.
    pub secure: bool,
    /// `patch-storage.s3-ca` (ours): PEM file of the authority that signed the endpoint's certificate.
    pub ca: Option<PathBuf>,
    /// `patch-storage.s3-path-style` (ours): bucket in the path, not in the host name.
    pub path_style: bool,
    /// `patch-storage.s3-presign` (ours): answer downloads with a presigned redirect valid this long; zero: never.
    pub presign: Duration,
    /// `patch-storage.s3-timeout` (ours): the bound on one request.
    pub timeout: Duration,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            endpoint: String::new(),
            region: String::new(),
            access_key: Secret::default(),
            secret_key: Secret::default(),
            secure: false,
            ca: None,
            path_style: true,
            presign: Duration::ZERO,
            timeout: Duration::from_secs(30),
        }
    }
}

/// `patch-cache.*`
#[derive(Debug, Clone)]
pub struct PatchCache {
    /// `patch-cache.enabled`
    pub enabled: bool,
    /// `patch-cache.cache-size`: payloads kept at most.
    pub size: u64,
    /// `patch-cache.cache-ttl`
    pub ttl: Duration,
    /// `patch-cache.max-bytes` (ours): bytes kept at most.
    pub max_bytes: u64,
}

impl Default for PatchCache {
    fn default() -> Self {
        // Canonical's default is off; ours is on, because it is bounded in bytes and saves the bucket.
        Self {
            enabled: true,
            size: 128,
            ttl: Duration::from_mins(10),
            max_bytes: 64 << 20,
        }
    }
}

/// `patch-trust.*`
#[derive(Debug, Clone, Default)]
pub struct PatchTrust {
    /// `patch-trust.policy`
    pub policy: TrustPolicy,
    /// `patch-trust.certificates`: PEM or DER files; each may hold several certificates.
    pub certificates: Vec<PathBuf>,
}

/// What is asked of a module's signature before its payload may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrustPolicy {
    /// A good signature by a configured certificate, or quarantine.
    #[default]
    Require,
    /// Check and say, but serve.
    Warn,
    /// Do not check.
    Off,
}

/// `ingest.*`: bounds on what is taken in.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// `ingest.max-bundle-bytes`: the largest tarball, compressed.
    pub max_bundle_bytes: u64,
    /// `ingest.max-unpacked-bytes`: the largest sum of a tarball's entries.
    pub max_unpacked_bytes: u64,
    /// `ingest.max-entries`: entries in a tarball.
    pub max_entries: u32,
    /// `ingest.parallelism`: bundles worked on at once.
    pub parallelism: u32,
    /// `ingest.spool-directory`: where a bundle being received is kept; empty: the system's temporary directory.
    pub spool_directory: Option<PathBuf>,
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            max_bundle_bytes: 64 << 20,
            max_unpacked_bytes: 256 << 20,
            max_entries: 256,
            parallelism: 4,
            spool_directory: None,
        }
    }
}

/// `machine-reports.database.*`: the history of check-ins.
#[derive(Debug, Clone)]
pub struct MachineReports {
    /// `machine-reports.database.enabled`
    pub enabled: bool,
    /// `machine-reports.database.retention-days`
    pub retention_days: u32,
    /// `machine-reports.database.cleanup-interval`
    pub cleanup_interval: Duration,
}

impl Default for MachineReports {
    fn default() -> Self {
        Self {
            enabled: false,
            retention_days: 10,
            cleanup_interval: Duration::from_hours(6),
        }
    }
}

/// `auth.*`
#[derive(Debug, Clone)]
pub struct Auth {
    /// `auth.basic.enabled`
    pub basic_enabled: bool,
    /// `auth.basic.users`: `name:bcrypt-hash` pairs as `htpasswd -B` makes them, separated by commas.
    pub basic_users: Vec<BasicUser>,
    /// `auth.session.idle` (ours): a session unused for this long ends.
    pub session_idle: Duration,
    /// `auth.session.lifetime` (ours): a session this old ends.
    pub session_lifetime: Duration,
    /// `auth.machine-token-key` (ours): at least 32 bytes, hexadecimal; empty: made once and kept in the database.
    pub machine_token_key: Secret,
    /// `auth.oauth.*`
    pub oauth: Box<OAuth>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            basic_enabled: false,
            basic_users: Vec::new(),
            session_idle: Duration::from_hours(1),
            session_lifetime: Duration::from_hours(12),
            machine_token_key: Secret::default(),
            oauth: Box::default(),
        }
    }
}

/// One user of `auth.basic.users`.
#[derive(Debug, Clone)]
pub struct BasicUser {
    /// The name.
    pub name: String,
    /// The bcrypt hash, e.g. `$2y$05$...`.
    pub hash: Secret,
}

/// `check-in.*`
#[derive(Debug, Clone)]
pub struct CheckIn {
    /// `check-in.interval`: how often clients are told to check in.
    pub interval: Duration,
    /// `check-in.queue`: check-ins that may wait for the database.
    pub queue: u32,
}

impl Default for CheckIn {
    fn default() -> Self {
        Self {
            interval: Duration::from_hours(1),
            queue: 20_000,
        }
    }
}

/// `webhooks.*`: telling others of events.
#[derive(Debug, Clone)]
pub struct Webhooks {
    /// `webhooks.allow-private-addresses`: deliver also to addresses that are not public.
    pub allow_private_addresses: bool,
    /// `webhooks.timeout`: how long a receiver may take to answer.
    pub timeout: Duration,
    /// `webhooks.max-attempts`: how often a delivery is tried.
    pub max_attempts: u32,
    /// `webhooks.ca`: PEM file of an authority that is trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// `webhooks.retention-days`: how long deliveries that ended are kept.
    pub retention_days: u32,
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            allow_private_addresses: false,
            timeout: Duration::from_secs(10),
            max_attempts: 15,
            ca: None,
            retention_days: 30,
        }
    }
}
