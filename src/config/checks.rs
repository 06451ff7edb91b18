//! Contradictions: values that are each of the right type and cannot work, alone or together.
//!
//! Everything here is decided from the configuration alone; what lies on disk is looked at in `files.rs`.

use super::connection::{self, Connection};
use super::error::{ConfigError, ErrorKind, Notice, NoticeLevel};
use super::load::Values;
use super::model::{Config, StorageKind, TrustPolicy};
use std::time::Duration;

/// The longest a presigned S3 URL may be valid (AWS signature version 4).
const MAX_PRESIGN: Duration = Duration::from_hours(7 * 24);
/// A cache below this holds hardly one payload.
const MIN_CACHE_BYTES: u64 = 1 << 20;
/// Collects what is wrong.
pub(super) struct Checker<'a> {
    values: &'a Values,
    errors: &'a mut Vec<ConfigError>,
    notices: &'a mut Vec<Notice>,
}

impl Checker<'_> {
    pub(super) fn wrong(&mut self, key: &'static str, message: impl Into<String>) {
        let error = ConfigError::new(ErrorKind::Contradiction, key, message);
        self.errors.push(error.at(&self.values.get(key).source));
    }

    pub(super) fn notice(&mut self, level: NoticeLevel, key: &'static str, text: &str) {
        self.notices.push(Notice {
            level,
            keys: vec![key],
            text: text.to_owned(),
        });
    }

    pub(super) fn positive(&mut self, key: &'static str, value: u64, instead: &str) {
        if value == 0 {
            self.wrong(key, format!("must not be 0; {instead}"));
        }
    }

    pub(super) fn lasting(&mut self, key: &'static str, value: Duration, instead: &str) {
        if value.is_zero() {
            self.wrong(key, format!("must not be zero; {instead}"));
        }
    }
}

/// Adds every contradiction to `errors`, and what should be said to `notices`.
pub(super) fn check(
    config: &Config,
    values: &Values,
    errors: &mut Vec<ConfigError>,
    notices: &mut Vec<Notice>,
) {
    let mut checker = Checker {
        values,
        errors,
        notices,
    };
    server(config, &mut checker);
    super::tls::check(config, &mut checker);
    super::downloads::downloads(config, &mut checker);
    database(config, &mut checker);
    storage(config, &mut checker);
    trust(config, &mut checker);
    bounds(config, &mut checker);
    auth(config, &mut checker);
    super::oauth::check(config, &mut checker);
    super::tracing::check(config, &mut checker);
    super::sync::check(config, &mut checker);
}

fn server(config: &Config, checker: &mut Checker<'_>) {
    let server = &config.server;
    if let Err(error) = crate::telemetry::logs::parse_filter(&server.log_level) {
        checker.wrong("server.log-level", error.to_string());
    }
    let forever = "without a bound slow clients could hold connections forever";
    checker.lasting("server.header-timeout", server.header_timeout, forever);
    checker.lasting("server.body-timeout", server.body_timeout, forever);
    checker.lasting("server.write-timeout", server.write_timeout, forever);
    let kept = "every request would need a connection of its own";
    checker.lasting("server.idle-timeout", server.idle_timeout, kept);
    let none = "no request could be answered";
    checker.positive(
        "server.concurrency-limit",
        server.concurrency_limit.into(),
        none,
    );
    checker.positive(
        "server.max-connections",
        server.max_connections.into(),
        none,
    );
    if server.max_connections != 0 && server.max_connections < server.concurrency_limit {
        checker.wrong(
            "server.max-connections",
            format!(
                "{} connections cannot carry the {} concurrent requests of server.concurrency-limit; raise one or lower the other",
                server.max_connections, server.concurrency_limit
            ),
        );
    }
}

fn database(config: &Config, checker: &mut Checker<'_>) {
    const CONNECTION: &str = "database.connection-string";
    let database = &config.database;
    if database.connection_string.is_empty() {
        checker.wrong(
            CONNECTION,
            "is required, e.g. postgresql://user:password@host:5432/livepatch; give it here, in LP_DATABASE_CONNECTION_STRING, or in a file named by LP_DATABASE_CONNECTION_STRING_FILE",
        );
    } else if let Some(parsed) =
        connection(CONNECTION, database.connection_string.expose(), checker)
        && database.ca.is_some()
        && parsed.without_tls()
    {
        checker.wrong(
            "database.ca",
            "the connection string says sslmode=disable, so no certificate would be checked; use sslmode=verify-full, or leave database.ca out",
        );
    }
    let none = "no query could be made";
    checker.positive(
        "database.connection-pool-max",
        database.pool_max.into(),
        none,
    );
    let renewed = "every query would make a new connection";
    checker.lasting(
        "database.connection-lifetime-max",
        database.connection_lifetime_max,
        renewed,
    );
    if database.work_mem == Some(0) {
        checker.wrong(
            "database.work_mem",
            "must not be 0; leave it out for the database's own",
        );
    }
    if config.patch_storage.kind == StorageKind::Postgres {
        let own = &config.patch_storage.postgres_connection_string;
        if !own.is_empty() {
            connection(
                "patch-storage.postgres-connection-string",
                own.expose(),
                checker,
            );
        }
    }
}

/// Reads a connection string and complains where that fails.
fn connection(key: &'static str, text: &str, checker: &mut Checker<'_>) -> Option<Connection> {
    let parsed = connection::parse(text);
    match &parsed {
        Some(parsed) if parsed.names_a_host() => {}
        Some(_) => checker.wrong(
            key,
            "names no host; add one, e.g. host=/run/postgresql or host=db.example.com",
        ),
        None => checker.wrong(
            key,
            "cannot be read; expected postgresql://user:password@host:5432/name?sslmode=verify-full, or host=... user=... password=... dbname=...; in a URL, percent-encode special characters of the password; sslmode is disable, prefer, require, verify-ca or verify-full",
        ),
    }
    parsed
}

fn storage(config: &Config, checker: &mut Checker<'_>) {
    const ENDPOINT: &str = "patch-storage.s3-endpoint";
    let storage = &config.patch_storage;
    let s3 = &storage.s3;
    let is_s3 = storage.kind == StorageKind::S3;
    if is_s3 && s3.bucket.is_empty() {
        checker.wrong(
            "patch-storage.s3-bucket",
            "is required when patch-storage.type is s3",
        );
    }
    let pair = "give both keys, or neither to use the credentials of the instance or container";
    match (s3.access_key.is_empty(), s3.secret_key.is_empty()) {
        (false, true) => checker.wrong(
            "patch-storage.s3-secret-key",
            format!("is missing beside patch-storage.s3-access-key; {pair}"),
        ),
        (true, false) => checker.wrong(
            "patch-storage.s3-access-key",
            format!("is missing beside patch-storage.s3-secret-key; {pair}"),
        ),
        _ => {}
    }
    if !is_s3 && !s3.presign.is_zero() {
        checker.wrong(
            "patch-storage.s3-presign",
            "only works when patch-storage.type is s3",
        );
    }
    if s3.presign > MAX_PRESIGN {
        checker.wrong("patch-storage.s3-presign", "S3 allows at most seven days");
    }
    if !s3.presign.is_zero() && s3.presign < Duration::from_secs(1) {
        checker.wrong(
            "patch-storage.s3-presign",
            "must be at least 1s, or 0s for never",
        );
    }
    checker.lasting(
        "patch-storage.s3-timeout",
        s3.timeout,
        "no request could be answered in time",
    );
    if let Err(message) = endpoint(&s3.endpoint, s3.secure) {
        checker.wrong(ENDPOINT, message);
    }
    let plain = !s3.secure && !s3.endpoint.is_empty() && !s3.endpoint.starts_with("https://");
    if s3.ca.is_some() && plain {
        checker.wrong(
            "patch-storage.s3-ca",
            "patch-storage.s3-endpoint is reached without TLS, so no certificate would be checked; set patch-storage.s3-secure to true, or leave patch-storage.s3-ca out",
        );
    }
}

fn endpoint(text: &str, secure: bool) -> Result<(), String> {
    const EXAMPLE: &str = "expected host, host:port or a URL such as https://s3.example.com:9000";
    if text.is_empty() {
        return Ok(());
    }
    let url = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url: http::Uri = url
        .parse()
        .map_err(|_| format!("is not an address; {EXAMPLE}"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
        return Err(format!("is not an address; {EXAMPLE}"));
    }
    if url
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(
            "must not hold a user or password; use patch-storage.s3-access-key and s3-secret-key"
                .to_owned(),
        );
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() {
        return Err(format!(
            "must not hold a path; {EXAMPLE}; the bucket goes to patch-storage.s3-bucket"
        ));
    }
    if secure && text.starts_with("http://") {
        return Err("is an http URL while patch-storage.s3-secure asks for TLS; make it https, or set s3-secure to false".to_owned());
    }
    Ok(())
}

fn trust(config: &Config, checker: &mut Checker<'_>) {
    let trust = &config.patch_trust;
    match (trust.policy, trust.certificates.is_empty()) {
        (TrustPolicy::Require, true) => checker.wrong(
            "patch-trust.certificates",
            "patch-trust.policy is require and there is no certificate to check signatures with; list Canonical's, which lie in /snap/canonical-livepatch/current/keys/ on a machine with the client installed, or set patch-trust.policy to warn or off",
        ),
        (TrustPolicy::Warn, true) => checker.notice(
            NoticeLevel::Warning,
            "patch-trust.certificates",
            "no certificate is given, so every signature will be reported as not trusted",
        ),
        (TrustPolicy::Off, _) => checker.notice(
            NoticeLevel::Warning,
            "patch-trust.policy",
            "signatures are not checked before patches are served; clients still check them",
        ),
        _ => {}
    }
}

fn bounds(config: &Config, checker: &mut Checker<'_>) {
    let cache = &config.patch_cache;
    if cache.enabled {
        let off = "set patch-cache.enabled to false for no cache";
        checker.positive("patch-cache.cache-size", cache.size, off);
        checker.lasting("patch-cache.cache-ttl", cache.ttl, off);
        if cache.max_bytes < MIN_CACHE_BYTES {
            checker.wrong(
                "patch-cache.max-bytes",
                format!("less than 1MiB holds hardly one payload; {off}"),
            );
        }
    }

    let ingest = &config.ingest;
    let nothing = "nothing could be taken in";
    checker.positive("ingest.max-bundle-bytes", ingest.max_bundle_bytes, nothing);
    checker.positive(
        "ingest.max-unpacked-bytes",
        ingest.max_unpacked_bytes,
        nothing,
    );
    checker.positive("ingest.max-entries", ingest.max_entries.into(), nothing);
    checker.positive("ingest.parallelism", ingest.parallelism.into(), nothing);
    if ingest.max_unpacked_bytes != 0 && ingest.max_unpacked_bytes < ingest.max_bundle_bytes {
        checker.wrong(
            "ingest.max-unpacked-bytes",
            "is smaller than ingest.max-bundle-bytes; a bundle is larger unpacked than packed",
        );
    }

    let reports = &config.machine_reports;
    let off = "set machine-reports.database.enabled to false to keep no history";
    checker.positive(
        "machine-reports.database.retention-days",
        reports.retention_days.into(),
        off,
    );
    let spin = "the clean-up would never rest";
    checker.lasting(
        "machine-reports.database.cleanup-interval",
        reports.cleanup_interval,
        spin,
    );

    let webhooks = &config.webhooks;
    let untold = "nobody could be told of anything";
    checker.lasting("webhooks.timeout", webhooks.timeout, untold);
    checker.positive(
        "webhooks.max-attempts",
        webhooks.max_attempts.into(),
        untold,
    );
    checker.positive(
        "webhooks.retention-days",
        webhooks.retention_days.into(),
        "nobody could see what became of a delivery",
    );

    let check_in = &config.check_in;
    checker.positive(
        "check-in.queue",
        check_in.queue.into(),
        "no check-in could be stored",
    );
    let interval = check_in.interval;
    if interval < Duration::from_mins(1)
        || !interval.as_secs().is_multiple_of(60)
        || interval.subsec_nanos() != 0
    {
        checker.wrong(
            "check-in.interval",
            "must be whole minutes, at least 1m; that is how clients are told",
        );
    }
}

fn auth(config: &Config, checker: &mut Checker<'_>) {
    let auth = &config.auth;
    if auth.basic_enabled && auth.basic_users.is_empty() {
        checker.wrong(
            "auth.basic.users",
            "auth.basic.enabled is true and there is no user; add one as `htpasswd -nB NAME` prints it, or set auth.basic.enabled to false and use `livepatch-admin admin add`",
        );
    }
    if !auth.basic_enabled && !auth.basic_users.is_empty() {
        checker.notice(
            NoticeLevel::Warning,
            "auth.basic.users",
            "these users cannot log in, because auth.basic.enabled is false",
        );
    }
    let logged_out = "nobody could stay logged in";
    checker.lasting("auth.session.idle", auth.session_idle, logged_out);
    checker.lasting("auth.session.lifetime", auth.session_lifetime, logged_out);
    if !auth.session_lifetime.is_zero() && auth.session_idle > auth.session_lifetime {
        checker.wrong(
            "auth.session.idle",
            "is longer than auth.session.lifetime, so it would never take effect",
        );
    }
    let key = auth.machine_token_key.expose();
    if !key.is_empty() && hex::decode(key).is_ok_and(|bytes| bytes.len() < 32) {
        checker.wrong(
            "auth.machine-token-key",
            "is shorter than 32 bytes; make one with `openssl rand -hex 32`",
        );
    } else if !key.is_empty() && hex::decode(key).is_err() {
        checker.wrong(
            "auth.machine-token-key",
            "is not hexadecimal; make one with `openssl rand -hex 32`",
        );
    }
}
