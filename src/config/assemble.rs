//! Builds the typed configuration from the values of the keys.

use super::error::{ConfigError, ErrorKind};
use super::load::Values;
use super::model::{
    Auth, BasicUser, CheckIn, Config, Contracts, Database, Ingest, LogFormat, MachineCount,
    MachineReports, PatchCache, PatchStorage, PatchSync, PatchTrust, Proxy, S3, Server,
    StorageKind, SyncDriver, TrustPolicy, Webhooks,
};
use super::oauth::{self, OAuth};
use super::tracing::{SecurityLog, Tracing};
use super::value::{Value, split};
use crate::domain::{Architecture, Secret};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Typed reading of values by name.
struct Reader<'a>(&'a Values);

impl Reader<'_> {
    fn value(&self, name: &str) -> &Value {
        &self.0.get(name).value
    }
    fn flag(&self, name: &str) -> bool {
        self.value(name).as_bool()
    }
    fn long(&self, name: &str) -> u64 {
        self.value(name).as_int()
    }
    /// Integers are bounded by their kind; a size that is larger is held at the bound.
    fn int(&self, name: &str) -> u32 {
        u32::try_from(self.long(name)).unwrap_or(u32::MAX)
    }
    fn duration(&self, name: &str) -> Duration {
        self.value(name).as_duration()
    }
    fn text(&self, name: &str) -> String {
        self.value(name).as_text().to_owned()
    }
    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).as_path()
    }
    fn secret(&self, name: &str) -> Secret {
        self.value(name).as_secret()
    }
    fn address(&self, name: &str) -> Option<SocketAddr> {
        match self.value(name) {
            Value::Address(address) => Some(*address),
            _ => None,
        }
    }
    fn list(&self, name: &str) -> Vec<String> {
        self.value(name).as_list().to_vec()
    }
    fn url(&self, name: &str) -> String {
        self.value(name).as_url().expose().to_owned()
    }
}

/// Builds the configuration; what does not parse further is added to `errors` and left out.
pub(super) fn assemble(values: &Values, errors: &mut Vec<ConfigError>) -> Config {
    let read = Reader(values);
    Config {
        server: Server {
            address: read
                .address("server.server-address")
                .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin_address: read.address("server.admin-address"),
            ops_address: read.address("server.ops-address"),
            tls: Server::tls_of(
                read.path("server.tls.certificate"),
                read.path("server.tls.key"),
                read.path("server.tls.client-ca"),
                read.value("server.tls.client-auth").as_text(),
            ),
            handshake_timeout: read.duration("server.tls.handshake-timeout"),
            url_template: read.text("server.url-template"),
            redirect_downloads: read.flag("server.redirect-downloads"),
            signed_downloads: read.flag("server.signed-downloads"),
            signed_validity: read.duration("server.signed-downloads-validity"),
            security_log: SecurityLog::choose(read.value("server.security-log").as_text()),
            log_level: read.text("server.log-level"),
            log_format: match read.value("server.log-format").as_text() {
                "text" => LogFormat::Text,
                _ => LogFormat::Json,
            },
            concurrency_limit: read.int("server.concurrency-limit"),
            burst_limit: read.int("server.burst-limit"),
            header_timeout: read.duration("server.header-timeout"),
            idle_timeout: read.duration("server.idle-timeout"),
            body_timeout: read.duration("server.body-timeout"),
            write_timeout: read.duration("server.write-timeout"),
            shutdown_grace: read.duration("server.shutdown-grace"),
            max_connections: read.int("server.max-connections"),
            max_connections_per_address: read.int("server.max-connections-per-address"),
        },
        database: Database {
            connection_string: read.secret("database.connection-string"),
            pool_max: read.int("database.connection-pool-max"),
            connection_lifetime_max: read.duration("database.connection-lifetime-max"),
            work_mem: match read.value("database.work_mem") {
                Value::Unset => None,
                _ => Some(read.int("database.work_mem")),
            },
            ca: read.path("database.ca"),
        },
        patch_storage: PatchStorage {
            kind: match read.value("patch-storage.type").as_text() {
                "s3" => StorageKind::S3,
                "postgres" => StorageKind::Postgres,
                _ => StorageKind::Filesystem,
            },
            filesystem_path: read
                .path("patch-storage.filesystem-path")
                .unwrap_or_default(),
            s3: S3 {
                bucket: read.text("patch-storage.s3-bucket"),
                endpoint: read.text("patch-storage.s3-endpoint"),
                region: read.text("patch-storage.s3-region"),
                access_key: read.secret("patch-storage.s3-access-key"),
                secret_key: read.secret("patch-storage.s3-secret-key"),
                secure: read.flag("patch-storage.s3-secure"),
                ca: read.path("patch-storage.s3-ca"),
                path_style: read.flag("patch-storage.s3-path-style"),
                presign: read.duration("patch-storage.s3-presign"),
                timeout: read.duration("patch-storage.s3-timeout"),
            },
            postgres_connection_string: read.secret("patch-storage.postgres-connection-string"),
        },
        patch_cache: PatchCache {
            enabled: read.flag("patch-cache.enabled"),
            size: read.long("patch-cache.cache-size"),
            ttl: read.duration("patch-cache.cache-ttl"),
            max_bytes: read.long("patch-cache.max-bytes"),
        },
        patch_trust: PatchTrust {
            policy: match read.value("patch-trust.policy").as_text() {
                "warn" => TrustPolicy::Warn,
                "off" => TrustPolicy::Off,
                _ => TrustPolicy::Require,
            },
            certificates: read
                .value("patch-trust.certificates")
                .as_list()
                .iter()
                .map(PathBuf::from)
                .collect(),
        },
        ingest: Ingest {
            max_bundle_bytes: read.long("ingest.max-bundle-bytes"),
            max_unpacked_bytes: read.long("ingest.max-unpacked-bytes"),
            max_entries: read.int("ingest.max-entries"),
            parallelism: read.int("ingest.parallelism"),
            spool_directory: read.path("ingest.spool-directory"),
        },
        machine_reports: MachineReports {
            enabled: read.flag("machine-reports.database.enabled"),
            retention_days: read.int("machine-reports.database.retention-days"),
            cleanup_interval: read.duration("machine-reports.database.cleanup-interval"),
        },
        auth: Auth {
            basic_enabled: read.flag("auth.basic.enabled"),
            basic_users: users(values, errors),
            session_idle: read.duration("auth.session.idle"),
            session_lifetime: read.duration("auth.session.lifetime"),
            machine_token_key: read.secret("auth.machine-token-key"),
            oauth: Box::new(OAuth {
                enabled: read.flag("auth.oauth.enabled"),
                issuer: read.text("auth.oauth.issuer"),
                audience: read.text("auth.oauth.audience"),
                algorithms: oauth::algorithms(values, errors),
                allowed_emails: read.list("auth.oauth.allowed-email-ids"),
                role_claim: read.text("auth.oauth.role-claim"),
                roles: oauth::roles(values, errors),
                default_role: read.value("auth.oauth.default-role").as_text().parse().ok(),
                jwks_url: read.url("auth.oauth.jwks.url"),
                refresh_interval: read.duration("auth.oauth.jwks.refresh-interval"),
                refresh_unknown: read.flag("auth.oauth.jwks.refresh-unknown-kid"),
                refresh_unknown_limit: read.duration("auth.oauth.jwks.refresh-unknown-kid-limit"),
                refresh_unknown_max_wait: read
                    .duration("auth.oauth.jwks.refresh-unknown-kid-max-wait"),
                client_id: read.text("auth.oauth.client-id"),
                client_secret: read.secret("auth.oauth.client-secret"),
                authorization_url: read.url("auth.oauth.authorization-url"),
                token_url: read.url("auth.oauth.token-url"),
                ca: read.path("auth.oauth.ca"),
                proxy: proxy(&read, "auth.oauth.proxy"),
            }),
        },
        tracing: Box::new(Tracing {
            enabled: read.flag("tracing.enabled"),
            sample_rate: read.value("tracing.sample-rate").as_float(),
            service_name: read.text("tracing.service-name"),
            endpoint: read.url("tracing.endpoint"),
            headers: read.secret("tracing.headers"),
            ca: read.path("tracing.ca"),
        }),
        check_in: CheckIn {
            interval: read.duration("check-in.interval"),
            queue: read.int("check-in.queue"),
        },
        patch_sync: patch_sync(&read, errors),
        contracts: Contracts {
            enabled: read.flag("contracts.enabled"),
            url: read.url("contracts.url"),
            ca: read.path("contracts.ca"),
            user: read.text("contracts.user"),
            password: read.secret("contracts.password"),
            cache: read.duration("contracts.cache"),
        },
        webhooks: Webhooks {
            allow_private_addresses: read.flag("webhooks.allow-private-addresses"),
            timeout: read.duration("webhooks.timeout"),
            max_attempts: read.int("webhooks.max-attempts"),
            ca: read.path("webhooks.ca"),
            retention_days: read.int("webhooks.retention-days"),
        },
    }
}

fn patch_sync(read: &Reader<'_>, errors: &mut Vec<ConfigError>) -> PatchSync {
    const ARCHITECTURES: &str = "patch-sync.architectures";
    let directory = read.path("patch-sync.directory");
    let upstream_url = read.url("patch-sync.upstream-url");
    let mut architectures = Vec::new();
    for text in read.list(ARCHITECTURES) {
        match text.parse::<Architecture>() {
            Ok(architecture) => architectures.push(architecture),
            Err(error) => errors.push(
                ConfigError::new(ErrorKind::WrongType, ARCHITECTURES, error.to_string())
                    .at(&read.0.get(ARCHITECTURES).source),
            ),
        }
    }
    PatchSync {
        enabled: read.flag("patch-sync.enabled"),
        driver: SyncDriver::choose(
            read.value("patch-sync.driver").as_text(),
            &upstream_url,
            directory.is_some(),
        ),
        upstream_url,
        token: read.secret("patch-sync.token"),
        upstream_ca: read.path("patch-sync.upstream-ca"),
        upstream_tls_certificate: read.path("patch-sync.upstream-tls-certificate"),
        upstream_tls_key: read.path("patch-sync.upstream-tls-key"),
        upstream_key: read.text("patch-sync.upstream-key"),
        directory,
        downloader_command: read.text("patch-sync.downloader-command"),
        downloader_tarballs: read.path("patch-sync.downloader-tarballs"),
        downloader_tier: read.text("patch-sync.downloader-tier"),
        interval: read.duration("patch-sync.interval"),
        architectures,
        flavours: read.list("patch-sync.flavors"),
        minimum_kernel_version: read.text("patch-sync.minimum-kernel-version"),
        kernel_prefixes: read.list("patch-sync.kernel-prefixes"),
        only_our_kernels: read.flag("patch-sync.only-our-kernels"),
        our_kernels_grace: read.duration("patch-sync.our-kernels-grace"),
        max_shrink: read.int("patch-sync.max-shrink"),
        parallelism: read.int("patch-sync.parallelism"),
        stall_timeout: read.duration("patch-sync.stall-timeout"),
        index_lifetime: read.duration("patch-sync.index-lifetime"),
        sync_tiers: read.flag("patch-sync.sync-tiers"),
        id: read.text("patch-sync.id"),
        machine_count: match read.value("patch-sync.machine-count-strategy").as_text() {
            "unit" => MachineCount::Unit,
            _ => MachineCount::Bucket,
        },
        send_machine_reports: read.flag("patch-sync.send-machine-reports"),
        proxy: proxy(read, "patch-sync.proxy"),
    }
}

/// A proxy whose keys begin so.
fn proxy(read: &Reader<'_>, keys: &'static str) -> Proxy {
    let key = |last: &str| format!("{keys}.{last}");
    Proxy {
        keys,
        enabled: read.flag(&key("enabled")),
        http: read.value(&key("http")).as_url(),
        https: read.value(&key("https")).as_url(),
        no_proxy: read.list(&key("no-proxy")),
    }
}

fn users(values: &Values, errors: &mut Vec<ConfigError>) -> Vec<BasicUser> {
    const KEY: &str = "auth.basic.users";
    let given = values.get(KEY);
    let text = given.value.as_secret();
    let mut users: Vec<BasicUser> = Vec::new();
    for (at, part) in split(text.expose()).enumerate() {
        // The hash, and what may be a password given in its place, stay out of the message.
        let problem = match part.split_once(':') {
            None => Some("expected name:bcrypt-hash, as `htpasswd -nB NAME` prints it".to_owned()),
            Some(("", _)) => Some("the name is empty".to_owned()),
            Some((name, _)) if users.iter().any(|user| user.name == name) => {
                Some(format!("{name} is given twice"))
            }
            Some((name, hash)) if !is_bcrypt(hash) => Some(format!(
                "what follows {name}: is not a bcrypt hash; make one with `htpasswd -nB {name}`"
            )),
            Some((name, hash)) => {
                users.push(BasicUser {
                    name: name.to_owned(),
                    hash: Secret::new(hash),
                });
                None
            }
        };
        if let Some(problem) = problem {
            let message = format!("user {}: {problem}", at + 1);
            errors.push(ConfigError::new(ErrorKind::WrongType, KEY, message).at(&given.source));
        }
    }
    users
}

fn is_bcrypt(text: &str) -> bool {
    text.len() == 60
        && text
            .parse::<bcrypt::HashParts>()
            .is_ok_and(|parts| (4..=31).contains(&parts.get_cost()))
}
