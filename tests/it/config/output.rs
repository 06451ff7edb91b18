//! What `livepatch-server config` prints, and that no secret is in it.

use super::{BCRYPT, load};
use livepatch_onprem::config::{self, Config, keys};
use livepatch_onprem::server_cli::config::{ConfigArgs, execute};
use std::fmt::Write as _;
use std::path::Path;

#[derive(clap::Parser)]
#[command(name = "config")]
struct Cli {
    #[command(flatten)]
    args: ConfigArgs,
}

/// Runs `livepatch-server config ...`: exit code, standard output, standard error.
fn run(args: &[&str], env: &[(&str, &str)]) -> (u8, String, String) {
    let cli =
        <Cli as clap::Parser>::try_parse_from([&["config"], args].concat()).expect("arguments");
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = execute(cli.args, env, &mut out, &mut err).unwrap();
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

#[test]
fn show_prints_everything_but_secrets_and_can_be_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    let secrets = keys::all()
        .iter()
        .filter(|key| key.kind.is_secret() && !key.name.contains("swift"))
        .fold(String::new(), |mut text, key| {
            let value = match key.kind {
                keys::Kind::Connection => {
                    "postgresql://u:can/ary@h/db?options=canary".replace("can/ary", "p/canary")
                }
                keys::Kind::Users => format!("admin:{BCRYPT}"),
                _ if key.name == "auth.machine-token-key" => "cafe".repeat(16),
                _ if key.name == "tracing.headers" => "x-key=canary".to_owned(),
                _ => "canary".to_owned(),
            };
            let _ = writeln!(text, "{}: '{value}'", key.name);
            text
        });
    let proxy = "patch-sync.proxy.http: http://user:canary@proxy:3128\n";
    std::fs::write(
        &path,
        format!("{secrets}{proxy}patch-trust.certificates: /x.pem\nserver.url-template: 'https://h/{{filename}}'\nserver.log-level: \"info,a=debug\"\n"),
    )
    .unwrap();
    let file = path.to_str().unwrap();
    let env = [("LP_SERVER_BURST_LIMIT", "7")];
    let (code, yaml, err) = run(&["show", "--config", file], &env);
    assert_eq!((code, err.as_str()), (0, ""));
    let (_, json, _) = run(&["show", "--config", file, "--output", "json"], &env);
    let loaded = Config::load(
        Some(&path),
        [("LP_SERVER_BURST_LIMIT".to_owned(), "7".to_owned())].into_iter(),
    )
    .unwrap();
    let debug = format!("{loaded:?}");
    for text in [&yaml, &json, &debug] {
        for secret in ["canary", "cafe", "c4WoMPo3"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(
        yaml.contains("server.burst-limit: 7  # environment LP_SERVER_BURST_LIMIT"),
        "{yaml}"
    );
    insta::assert_snapshot!("show", yaml.replace(file, "/c.yaml"));
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["server.burst-limit"]["value"], 7);
    assert_eq!(
        parsed["server.log-level"]["source"],
        format!("{file}:{}", secrets.lines().count() + 4)
    );

    // What is shown is a configuration with the same meaning, but for the secrets.
    let without_secrets: String = yaml
        .lines()
        .filter(|line| {
            keys::find(line.split(": ").next().unwrap()).is_none_or(|key| !key.kind.is_secret())
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let again = load(
        &format!("{without_secrets}database.connection-string: host=h\n"),
        &[],
        &[],
    )
    .unwrap();
    for (key, effective) in loaded
        .sources
        .iter()
        .filter(|(key, _)| key.is_used() && !key.kind.is_secret())
        // The password in a proxy's URL is not shown either.
        .filter(|(_, effective)| !effective.value.shown().to_string().contains("***"))
    {
        assert_eq!(
            again.sources.get(key.name).value,
            effective.value,
            "{}",
            key.name
        );
    }
}

#[test]
fn the_commented_defaults_are_the_defaults() {
    let (code, text, _) = run(&["show", "--defaults"], &[("LP_NONSENSE", "x")]);
    assert_eq!(code, 0);
    assert!(
        text.lines()
            .all(|line| line.is_empty() || line.starts_with("# "))
    );
    let active: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| {
            line.split(':')
                .next()
                .is_some_and(|name| keys::find(name).is_some())
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(
        active.lines().count(),
        keys::all().iter().filter(|key| key.is_used()).count()
    );
    let env = [
        ("LP_DATABASE_CONNECTION_STRING", "host=h"),
        ("LP_PATCH_TRUST_CERTIFICATES", "/x"),
    ];
    let loaded = load(&active, &env, &[]).unwrap();
    for (key, effective) in config::Values::defaults().iter() {
        if !env.iter().any(|(name, _)| *name == key.variable()) {
            assert_eq!(
                loaded.sources.get(key.name).value,
                effective.value,
                "{}",
                key.name
            );
        }
    }
}

#[test]
fn check_says_everything_and_looks_at_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let file = at("c.yaml");
    std::fs::write(at("not.pem"), "hello").unwrap();
    std::fs::write(
        &file,
        format!(
            "database: {{connection-string: host=h, ca: {}}}\npatch-trust.certificates: [{}, {}]\ningest.spool-directory: {}\npatch-storage.filesystem-path: {}\nprofiler.enabled: true\n",
            at("missing.pem"), at("not.pem"), at("folder"), at("spool"), at("not.pem")
        ),
    )
    .unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    let (code, out, err) = run(&["check", "--config", &file], &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    insta::assert_snapshot!(
        "check_files",
        err.replace(folder.path().to_str().unwrap(), "/tmp")
    );

    let key = openssl::pkey::PKey::from_rsa(openssl::rsa::Rsa::generate(2048).unwrap()).unwrap();
    let mut certificate = openssl::x509::X509::builder().unwrap();
    certificate.set_pubkey(&key).unwrap();
    let now = openssl::asn1::Asn1Time::days_from_now(0).unwrap();
    certificate.set_not_before(&now).unwrap();
    certificate.set_not_after(&now).unwrap();
    certificate
        .sign(&key, openssl::hash::MessageDigest::sha256())
        .unwrap();
    std::fs::write(at("good.der"), certificate.build().to_der().unwrap()).unwrap();
    std::fs::write(
        &file,
        format!(
            "database.connection-string: host=h\npatch-trust.certificates: {}\n",
            at("good.der")
        ),
    )
    .unwrap();
    let (code, out, err) = run(
        &["check", "--config", &file],
        &[("LP_SERVER_LOG_LEVEL", "warn")],
    );
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out.replace(folder.path().to_str().unwrap(), "/tmp"),
        "configuration is good: 2 keys from /tmp/c.yaml, 1 from the environment, 0 from files of secrets\n"
    );

    let (code, _, err) = run(&["check", "--config", &at("none.yaml")], &[]);
    assert_eq!(code, 1);
    assert!(
        err.contains("none.yaml: cannot read the configuration file"),
        "{err}"
    );
}

#[test]
fn keys_lists_every_key() {
    let (code, out, _) = run(&["keys"], &[]);
    assert_eq!(code, 0);
    for key in keys::all() {
        assert!(
            out.contains(key.name) && out.contains(&key.variable()),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration.md");
    let page = config::reference::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "docs/reference/configuration.md is not what src/config/keys says; run `make docs` (UPDATE_DOCS=1) and commit it"
    );
}

#[test]
fn help_says_what_each_command_does() {
    let mut command = <Cli as clap::CommandFactory>::command().term_width(100);
    let mut text = command.render_help().to_string();
    for name in ["check", "show"] {
        let sub = command.find_subcommand_mut(name).unwrap();
        let _ = write!(text, "\n--- {name}\n{}", sub.render_help());
    }
    insta::assert_snapshot!("help", text);
}

/// From what Juju prints to a configuration that the server takes.
#[test]
fn convert_writes_a_file_that_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (old, new) = (path("old.yaml"), path("new.yaml"));
    let setting = |name: &str, value: &str| {
        format!("  {name}:\n    default: x\n    source: user\n    value: {value}\n")
    };
    let settings: String = [
        ("patchstore", "s3"),
        ("s3_bucket", "patches"),
        ("s3_endpoint", "https://s3.example.com"),
        ("s3_access_key_id", "canary-id"),
        ("s3_secret_key", "canary-key"),
        ("auth_basic_users", &format!("'admin:{BCRYPT}'")),
        ("auth_lp_teams", "https://launchpad.net/~ops"),
        ("sync_flavors", "generic,aws"),
        ("sync_upstream_tier", "updates"),
        ("dbconn_max", "20"),
    ]
    .map(|(name, value)| setting(name, value))
    .concat();
    std::fs::write(
        &old,
        format!("application: livepatch\nsettings:\n{settings}"),
    )
    .unwrap();
    let (code, out, err) = run(&["convert", &old, "-o", &new], &[]);
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(!err.contains("canary"), "{err}");
    insta::assert_snapshot!("convert", err.replace(&new, "NEW"));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&new).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // What is missing can only be missing: with it the server takes the file.
    let env = [
        ("LP_DATABASE_CONNECTION_STRING", "host=localhost user=u"),
        ("LP_PATCH_TRUST_POLICY", "off"),
    ];
    let (code, shown, err) = run(&["show", "--config", &new], &env);
    assert_eq!(code, 0, "{err}");
    assert!(
        shown.contains("patch-storage.s3-bucket") && shown.contains("generic"),
        "{shown}"
    );
    // What is there already is not overwritten, and what cannot be read is said.
    let again = <Cli as clap::Parser>::try_parse_from(["config", "convert", &old, "-o", &new]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert!(execute(again.unwrap().args, Vec::new(), &mut out, &mut err).is_err());
    let (code, _, err) = run(&["convert", &path("nothing")], &[]);
    assert!(code == 1 && err.contains("nothing"), "{err}");
}
