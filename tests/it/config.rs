//! Configuration as an administrator meets it: every key, every refusal with its words, no secret in any output.

use livepatch_onprem::config::{
    self, Config, ConfigError, ErrorKind, LOCATION_VARIABLE, Loaded, NoticeLevel, Source, Value,
    keys, load_with,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod output;

/// A file that is accepted, to which tests add.
const MINIMAL: &str = "database.connection-string: postgresql://livepatch@localhost/livepatch\n\
                       patch-trust.certificates: /etc/livepatch/canonical.pem\n";
const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

/// Loads `yaml` as `/c.yaml`, with variables and with other files by name.
fn load(
    yaml: &str,
    env: &[(&str, &str)],
    files: &[(&str, &str)],
) -> Result<Loaded, Vec<ConfigError>> {
    let mut all: BTreeMap<PathBuf, String> = files
        .iter()
        .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
        .collect();
    all.insert(PathBuf::from("/c.yaml"), yaml.to_owned());
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_with(Some(Path::new("/c.yaml")), env, &|path| {
        all.get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    })
}

/// As `load`, of `MINIMAL` and more lines.
fn with(more: &str) -> Result<Loaded, Vec<ConfigError>> {
    load(&format!("{MINIMAL}{more}"), &[], &[])
}

fn errors(result: Result<Loaded, Vec<ConfigError>>) -> String {
    let errors = result
        .map(|loaded| loaded.config)
        .expect_err("must be refused");
    errors.iter().fold(String::new(), |mut text, error| {
        let _ = writeln!(text, "{error}");
        text
    })
}

/// A value that a key of each kind takes, where its default is none.
fn sample(key: &keys::Key) -> String {
    let theirs = key.canonical_default.unwrap_or(key.default);
    if !theirs.is_empty() {
        return theirs.to_owned();
    }
    match key.kind {
        keys::Kind::Bool => "false".to_owned(),
        keys::Kind::Int | keys::Kind::Bytes => "16".to_owned(),
        keys::Kind::Float => "0.5".to_owned(),
        keys::Kind::Duration => "1h".to_owned(),
        keys::Kind::Address => "127.0.0.1:1".to_owned(),
        keys::Kind::Url => "https://example.com/x".to_owned(),
        keys::Kind::Connection => "host=localhost user=u".to_owned(),
        keys::Kind::Users => format!("admin:{BCRYPT}"),
        keys::Kind::Choice(words) => words[0].to_owned(),
        _ if key.name == "server.url-template" => "https://example.com/{filename}".to_owned(),
        _ if key.name == "auth.machine-token-key" => "ab".repeat(32),
        _ if key.name == "auth.oauth.roles" => "group=admin".to_owned(),
        _ if key.name == "tracing.headers" => "x-key=y".to_owned(),
        _ if key.name.ends_with("s3-ca") => String::new(),
        _ if key.name == "patch-sync.architectures" => "amd64".to_owned(),
        _ if key.name == "patch-sync.minimum-kernel-version" => "5.15".to_owned(),
        _ if key.name == "patch-sync.upstream-key" => format!("ed25519:{}", "ab".repeat(32)),
        _ => "something".to_owned(),
    }
}

#[test]
fn every_key_is_accepted_from_file_and_environment_with_canonicals_default() {
    for key in keys::all() {
        let refused = matches!(key.status, keys::Status::Refused(_));
        let value = sample(key);
        // Keys that need another one beside them.
        let beside = match key.name {
            "patch-storage.s3-access-key" => "patch-storage.s3-secret-key: x\n",
            "patch-storage.s3-secret-key" => "patch-storage.s3-access-key: x\n",
            "patch-sync.upstream-tls-certificate" => "patch-sync.upstream-tls-key: x\n",
            "patch-sync.upstream-tls-key" => "patch-sync.upstream-tls-certificate: x\n",
            "server.tls.certificate" => "server.tls.key: x\n",
            "server.tls.key" => "server.tls.certificate: x\n",
            "server.tls.client-ca" => "server.tls.certificate: x\nserver.tls.key: x\n",
            _ => "",
        };
        let base: String = MINIMAL
            .lines()
            .filter(|line| !line.starts_with(key.name))
            .fold(beside.to_owned(), |text, line| format!("{text}{line}\n"));
        let quoted = serde_json::Value::from(value.clone());
        let nested = key.name.replace('.', ":\n").split('\n').enumerate().fold(
            String::new(),
            |mut text, (depth, part)| {
                let _ = write!(
                    text,
                    "{}{}{part}",
                    if depth == 0 { "" } else { "\n" },
                    "  ".repeat(depth)
                );
                text
            },
        );
        let dotted = load(&format!("{base}{}: {quoted}\n", key.name), &[], &[]);
        let plain = if value.contains(['$', '{', ':', '=']) {
            None
        } else {
            Some(load(&format!("{base}{}: {value}\n", key.name), &[], &[]))
        };
        // A section that is nested cannot be given beside dotted keys of the same name, only beside others.
        let nested = load(&format!("{base}{nested}: {quoted}\n"), &[], &[]);
        let variable = load(&base, &[(&key.variable(), &value)], &[]);
        for result in [Some(dotted), plain, Some(nested), Some(variable)]
            .into_iter()
            .flatten()
        {
            match result {
                Ok(loaded) => {
                    assert!(!refused, "{} must be refused", key.name);
                    let effective = loaded.sources.get(key.name);
                    assert_eq!(
                        effective.source == Source::Default,
                        value.is_empty(),
                        "{}",
                        key.name
                    );
                }
                Err(errors) => {
                    assert!(refused, "{}: {errors:?}", key.name);
                    assert_eq!(errors.len(), 1, "{errors:?}");
                    assert!(errors[0].message.contains("s3api"), "{errors:?}");
                }
            }
        }
    }
}

#[test]
fn canonicals_keys_are_as_documented() {
    let mut table = String::new();
    for key in keys::all()
        .iter()
        .filter(|key| key.origin == keys::Origin::Canonical)
    {
        let default = key.canonical_default.unwrap_or(key.default);
        let _ = writeln!(
            table,
            "{} | {} | {default} | {}",
            key.name,
            key.kind.label(),
            key.variable()
        );
    }
    insta::assert_snapshot!("canonical_keys", table);
}

#[test]
fn the_tables_defaults_are_those_of_the_types() {
    let loaded = load(
        "database.connection-string: host=localhost\npatch-trust.policy: require\npatch-trust.certificates: /x\n",
        &[],
        &[],
    )
    .unwrap();
    let mut config = loaded.config;
    config.database.connection_string = livepatch_onprem::domain::Secret::default();
    config.patch_trust.certificates.clear();
    assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
}

#[test]
fn values_reach_the_typed_configuration() {
    let config = with(
        "server:\n  server-address: ':9000'\n  log-format: text\n  shutdown-grace: 1m30s\npatch-storage: {type: S3, s3-bucket: 2024}\n\
         patch-storage.s3-presign: 10m\nauth.basic.enabled: 'True'\nauth.basic.users: ['a:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC']\n\
         patch-cache.max-bytes: 1GiB\ndatabase.work_mem: \"8\"\nmachine-reports.database: {enabled: yes}\ningest.spool-directory: /var/tmp\n",
    )
    .unwrap()
    .config;
    assert_eq!(config.server.address.to_string(), "0.0.0.0:9000");
    assert_eq!(config.server.log_format, config::LogFormat::Text);
    assert_eq!(config.server.shutdown_grace, Duration::from_secs(90));
    assert_eq!(config.patch_storage.kind, config::StorageKind::S3);
    assert_eq!(config.patch_storage.s3.bucket, "2024");
    assert_eq!(config.patch_storage.s3.presign, Duration::from_mins(10));
    assert!(config.auth.basic_enabled && config.machine_reports.enabled);
    assert_eq!(config.auth.basic_users[0].name, "a");
    assert_eq!(config.auth.basic_users[0].hash.expose(), BCRYPT);
    assert_eq!(config.patch_cache.max_bytes, 1 << 30);
    assert_eq!(config.database.work_mem, Some(8));
    assert_eq!(
        config.ingest.spool_directory.as_deref(),
        Some(Path::new("/var/tmp"))
    );
}

#[test]
fn the_environment_overrides_the_file_and_nothing_is_nothing() {
    let yaml = format!("{MINIMAL}server.log-level: debug\nserver.burst-limit:\npatch-cache:\n");
    let env = [
        ("LP_SERVER_LOG_LEVEL", "warn"),
        ("LP_SERVER_BURST_LIMIT", ""),
        ("OTHER", "x"),
    ];
    let loaded = load(&yaml, &env, &[]).unwrap();
    assert_eq!(loaded.config.server.log_level, "warn");
    assert_eq!(loaded.config.server.burst_limit, 500);
    assert_eq!(
        loaded.sources.get("server.log-level").source.to_string(),
        "environment LP_SERVER_LOG_LEVEL"
    );
    assert_eq!(
        loaded
            .sources
            .get("patch-trust.certificates")
            .source
            .to_string(),
        "/c.yaml:2"
    );
    assert_eq!(
        loaded.sources.get("server.burst-limit").source,
        Source::Default
    );
}

#[test]
fn text_that_looks_like_a_number_stays_text() {
    let loaded = with("patch-sync.minimum-kernel-version: 5.10\npatch-sync.token: 0123\n").unwrap();
    let value = &loaded
        .sources
        .get("patch-sync.minimum-kernel-version")
        .value;
    assert_eq!(*value, Value::Text("5.10".to_owned()));
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let none = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let env = || {
        [
            ("LP_DATABASE_CONNECTION_STRING", "host=x"),
            ("LP_PATCH_TRUST_POLICY", "warn"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let loaded = load_with(None, env(), &none).unwrap();
    assert_eq!(loaded.file, None);

    let named = env().chain([(LOCATION_VARIABLE.to_owned(), "/missing.yaml".to_owned())]);
    let text = errors(load_with(None, named, &none));
    assert!(
        text.starts_with("/missing.yaml: cannot read the configuration file"),
        "{text}"
    );
    let text = errors(load_with(Some(Path::new("/other.yaml")), env(), &none));
    assert!(text.starts_with("/other.yaml: cannot read"), "{text}");

    let denied = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    assert!(errors(load_with(None, env(), &denied)).contains("/etc/livepatch.yaml"));
}

#[test]
fn unknown_keys_wrong_types_and_duplicates_are_refused_with_their_path() {
    let yaml = "\
database.connection-string: host=localhost
patch-trust.certificates: [/a.pem, /b.pem]
server:
  log_level: info
  burst-limit: many
  concurrency-limit: -1
  redirect-downloads: maybe
  header-timeout: 30
  log-level: yes
  server-address: nowhere
patch-cache:
  cache-size: 10
patch-cache.cache-size: 20
database: just text
auth.basic.users:
  a: b
patch-storage.type: [s3]
patch-storage.filesystem: /x
tracing.sample-rate: lots
something.else: secret-canary
patch-storage.typ: s3
patch-trust.policy: strict
";
    let env = [
        ("LP_SERVER_LOG_LEVLE", "info"),
        ("LP_WHATEVER", "secret-canary"),
        ("LP_SERVER_BURST_LIMIT_FILE", "/x"),
    ];
    let text = errors(load(yaml, &env, &[]));
    assert!(!text.contains("canary"), "{text}");
    insta::assert_snapshot!("refusals", text);
}

#[test]
fn files_that_are_not_mappings_are_refused() {
    for (yaml, expected) in [
        ("a: [1\nb: 2", "/c.yaml:"),
        ("just text", "expected a YAML mapping"),
        ("- a\n- b\n", "expected a YAML mapping"),
        ("? [a]\n: b\n", "plain word"),
        (
            "patch-sync.token: \"canary\nserver.log-level: info\n",
            "/c.yaml:",
        ),
        ("patch-sync.token: canary: canary\n", "/c.yaml:1"),
        ("patch-sync.token: !!int canary\n", "/c.yaml:1"),
        ("patch-sync.token: {canary\n", "/c.yaml:"),
    ] {
        let text = errors(load(yaml, &[], &[]));
        assert!(text.contains(expected), "{yaml}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains("canary"), "{text}");
    }
}

#[test]
fn contradictions_are_refused_with_what_to_do() {
    let mut all = String::new();
    let cases = [
        "patch-trust.certificates:",
        "database.connection-string:",
        "database.connection-string: postgresql://u:canary@h:port/db",
        "database.connection-string: user=u password=canary dbname=x",
        "database.connection-string: host=h sslmode=verify password=canary",
        "database.connection-string: host=h sslmode=disable\ndatabase.ca: /ca.pem",
        "database: {connection-pool-max: 0, connection-lifetime-max: 0s, work_mem: 0}",
        "patch-storage.type: s3",
        "patch-storage: {type: s3, s3-bucket: b, s3-access-key: canary}",
        "patch-storage: {type: s3, s3-bucket: b, s3-secret-key: canary}",
        "patch-storage: {type: s3, s3-bucket: b, s3-endpoint: 'http://h', s3-secure: true}",
        "patch-storage: {type: s3, s3-bucket: b, s3-endpoint: 'https://u:p@h/x'}",
        "patch-storage: {type: s3, s3-bucket: b, s3-endpoint: 'https://h/b'}",
        "patch-storage: {type: s3, s3-bucket: b, s3-endpoint: 'h:9000', s3-ca: /ca.pem}",
        "patch-storage: {type: s3, s3-bucket: b, s3-presign: 8d, s3-timeout: 0s}",
        "patch-storage.s3-presign: 10m",
        "patch-storage.type: swift",
        "patch-storage: {swift-container: c, swift-username: u}",
        "patch-storage: {type: postgres, postgres-connection-string: 'postgresql://u:canary@'}",
        "server.redirect-downloads: true",
        "server: {redirect-downloads: true, url-template: 'http://127.0.0.1:8080/v1/patches/{filename}'}",
        "server: {redirect-downloads: true, url-template: 'http://localhost/x/{filename}', server-address: '[::]:80'}",
        "server: {redirect-downloads: true, url-template: 'http://h/{filename}'}\npatch-storage: {type: s3, s3-bucket: b, s3-presign: 10m}",
        "server.url-template: https://h/patches/",
        "server.url-template: ftp://h/{filename}",
        "server.url-template: /patches/{filename}",
        "server.url-template: https://{filename}.example.com/",
        "server.url-template: https://u:p@h/{filename}",
        "server: {header-timeout: 0s, body-timeout: 0s}",
        "server: {concurrency-limit: 0, max-connections: 0}",
        "server.max-connections: 10",
        "server.log-level: inof",
        "patch-sync.upstream-tls-certificate: /c.pem",
        "patch-sync.upstream-tls-key: /c.key",
        "server.tls.certificate: /s.pem",
        "server.tls.key: /s.key",
        "server.tls: {client-ca: /ca.pem}",
        "server.tls: {certificate: /s.pem, key: /s.key, client-auth: required}",
        "server.tls: {certificate: /s.pem, key: /s.key, client-auth: optional, handshake-timeout: 0s}",
        "server.tls: {client-auth: maybe}",
        "server: {server-address: '127.0.0.1:8080', admin-address: '127.0.0.1:8080', ops-address: '127.0.0.1:8080'}",
        "patch-cache: {cache-size: 0, cache-ttl: 0s, max-bytes: 1KiB}",
        "ingest: {max-bundle-bytes: 0, max-unpacked-bytes: 0, max-entries: 0, parallelism: 0}",
        "ingest.max-unpacked-bytes: 1MiB",
        "machine-reports.database: {retention-days: 0, cleanup-interval: 0s}",
        "check-in: {interval: 90s, queue: 0}",
        "auth.basic.enabled: true",
        "auth.basic.users: 'a,:x,b:canary,c:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC,c:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC'",
        "auth.session: {idle: 2h, lifetime: 1h}",
        "auth.session: {idle: 0s, lifetime: 0s}",
        "auth.machine-token-key: canary",
        "auth.machine-token-key: abcdef",
        "auth.oauth.enabled: true",
        "auth.oauth: {sig-algs: 'none,HS256,RS256,rs256', roles: 'x,=admin,ops=root'}",
        "auth.oauth: {enabled: true, issuer: i, audience: a, jwks.url: 'https://sso/keys', allowed-email-ids: a@b, default-role: none}",
        "auth.oauth: {enabled: true, issuer: i, audience: a, jwks.url: 'https://sso/keys', roles: 'ops=admin', role-claim: '', sig-algs: []}",
        "auth.oauth: {enabled: true, issuer: i, audience: a, jwks: {url: 'https://sso/keys', refresh-interval: 0s, refresh-unknown-kid-limit: 0s}, roles: 'ops=admin'}",
        "auth.oauth.default-role: owner",
        "server: {signed-downloads: true, signed-downloads-validity: 0s}",
        "server.security-log: security.log",
        "tracing: {sample-rate: 1.5, headers: canary}",
    ];
    for case in cases {
        let base: String = MINIMAL
            .lines()
            .filter(|line| !case.starts_with(line.split(':').next().unwrap_or_default()))
            .fold(String::new(), |text, line| format!("{text}{line}\n"));
        let found = load(&format!("{base}{case}\n"), &[], &[]);
        let text = match found {
            Ok(_) => panic!("accepted: {case}"),
            Err(errors) => self::errors(Err(errors)),
        };
        assert!(!text.contains("canary"), "{text}");
        let shown = case.replace("canary", "...").replace(BCRYPT, "HASH");
        let _ = writeln!(all, "{shown}\n{text}");
    }
    insta::assert_snapshot!("contradictions", all);
}

#[test]
fn keys_that_are_not_obeyed_are_answered_by_one_line_a_group() {
    let loaded = with(
        "profiler: {enabled: true, hostname: x, sample_rate: 100}\ninflux.enabled: false\ntimescale_db.enabled: true\nauth.sso.enabled: true\n\
         server: {is-hosted: true, is-leader: true}\ningress-interface: nginx-route\ncloud_delay.enabled: true\nkpi-reports.enabled: 'true'\n\
         patch-blocklist.enabled: true\nmachine-reports.database.cleanup-row-limit: 1000\n\
         patch-sync: {enabled: true, interval: 1h}\ncontracts.enabled: true\ntracing: {enabled: false, sample-rate: 0.5}\notel-metrics.enabled: true\n\
         cve-sync.enabled: true\ncve-lookup.enabled: true\nlsn-sync.enabled: true\n\
         patch-trust.policy: off\nauth.basic.users: 'a:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC'\n",
    )
    .unwrap();
    assert!(
        loaded
            .notices
            .iter()
            .any(|notice| notice.level == NoticeLevel::Note)
    );
    let lines: Vec<String> = loaded.notices.iter().map(ToString::to_string).collect();
    let text = lines.join("\n");
    insta::assert_snapshot!("notices", text);
}

#[test]
fn secrets_come_from_files_too() {
    const VALUE: &str = "LP_DATABASE_CONNECTION_STRING";
    const FILE: &str = "LP_DATABASE_CONNECTION_STRING_FILE";
    let base = "patch-trust.certificates: /x\n";
    let file = [
        ("/run/db", "host=localhost password=from-file\n"),
        ("/run/empty", "\n"),
    ];
    let named = format!("{base}database:\n  connection-string-file: /run/db\n");
    let loaded = load(&named, &[], &file).unwrap();
    assert_eq!(
        loaded.config.database.connection_string.expose(),
        "host=localhost password=from-file"
    );
    assert_eq!(
        loaded
            .sources
            .get("database.connection-string")
            .source
            .to_string(),
        "/run/db, named by database.connection-string-file"
    );

    let loaded = load(
        &format!("{base}database.connection-string: host=other\n"),
        &[(FILE, "/run/db")],
        &file,
    )
    .unwrap();
    assert!(
        loaded
            .config
            .database
            .connection_string
            .expose()
            .contains("from-file")
    );
    let loaded = load(&named, &[(VALUE, "host=env"), (FILE, "")], &file).unwrap();
    assert_eq!(
        loaded.config.database.connection_string.expose(),
        "host=env"
    );

    let both = errors(load(base, &[(VALUE, "host=h"), (FILE, "/run/db")], &file));
    insta::assert_snapshot!(both, @"LP_DATABASE_CONNECTION_STRING_FILE: given both as a value (environment LP_DATABASE_CONNECTION_STRING) and as a file; keep one of them");
    let both = errors(load(
        &format!("{named}database.connection-string: host=h\n"),
        &[],
        &file,
    ));
    insta::assert_snapshot!(both, @"database.connection-string-file (/c.yaml:3): given both as a value (/c.yaml:4) and as a file; keep one of them");
    let missing = errors(load(base, &[(FILE, "/run/none")], &file));
    assert!(
        missing.contains("LP_DATABASE_CONNECTION_STRING_FILE: cannot read /run/none"),
        "{missing}"
    );
    let empty = errors(load(base, &[(FILE, "/run/empty")], &file));
    assert!(empty.contains("/run/empty is empty"), "{empty}");
    let huge = "x".repeat(100_000);
    let large = errors(load(base, &[(FILE, "/run/huge")], &[("/run/huge", &huge)]));
    assert!(large.contains("larger than 65536 bytes"), "{large}");

    let users = format!("first:{BCRYPT}\nsecond:{BCRYPT}\n");
    let loaded = load(
        &format!("{MINIMAL}auth.basic: {{enabled: true, users-file: /run/htpasswd}}\n"),
        &[],
        &[("/run/htpasswd", &users)],
    )
    .unwrap();
    assert_eq!(loaded.config.auth.basic_users.len(), 2);
}

#[test]
fn errors_have_kinds_to_branch_on() {
    let found = with("nonsense: 1\nserver.burst-limit: x\nauth.basic.enabled: true\n").unwrap_err();
    let kinds: Vec<_> = found.iter().map(|error| error.kind).collect();
    assert_eq!(
        kinds,
        [
            ErrorKind::UnknownKey,
            ErrorKind::WrongType,
            ErrorKind::Contradiction
        ]
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever stands in file and environment: an answer, no panic, and no error without a path and a message.
    #[test]
    fn any_input_gets_an_answer(yaml in "([a-z.*&:{}\\[\\],'\"# \n-]|server|log-level|: |true|5m){0,60}", at in 0..200usize, value in "\\PC{0,40}") {
        let key = &keys::all()[at % keys::all().len()];
        for result in [load(&yaml, &[(&key.variable(), &value)], &[]), load(&format!("{}: {value}\n{yaml}", key.name), &[], &[])] {
            if let Err(errors) = result {
                proptest::prop_assert!(!errors.is_empty());
                proptest::prop_assert!(errors.iter().all(|error| !error.path.is_empty() && !error.message.is_empty()));
            }
        }
    }
}
