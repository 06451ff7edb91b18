//! The commands over TLS, as processes: whom they believe, what they show, and what they say when it is not enough.

use crate::support::PASSWORD;
use crate::support::kmod;
use crate::support::pki::{Authority, Pki, Request};
use crate::support::server::TestServer;
use livepatch_onprem::config::ClientAuth;
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

const ADMIN: &str = env!("CARGO_BIN_EXE_livepatch-admin");
const CLIENT: &str = env!("CARGO_BIN_EXE_livepatch-client");
const SERVER: &str = env!("CARGO_BIN_EXE_livepatch-server");

/// Runs a command in `home`: exit code and all it said.
async fn run(program: &str, home: &Path, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("HOME", home);
    command.env("LIVEPATCH_ADMIN_AUTH", format!("admin:{PASSWORD}"));
    let output = command.envs(env.iter().copied()).output().await.unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let text = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_believes_a_private_authority_when_told() {
    let pki = Pki::new();
    let server = TestServer::with_tls(&pki, |_| {}).await;
    server.upload(&kmod::real_bundle("107.1", "patched")).await;
    let token = server.token("test", "edge").await;
    let home = tempfile::tempdir().unwrap();
    let ca = pki.authority.file(pki.folder.path(), "ca.pem");
    let other = Authority::new("a stranger").file(pki.folder.path(), "other.pem");
    let (ca, other) = (ca.to_str().unwrap(), other.to_str().unwrap());
    let url = server.url.as_str();
    let local = format!("https://localhost:{}", server.address().port());
    let state = home.path().join("state");
    let state = state.to_str().unwrap();
    let cert = kmod::keys().cert;
    let kernel = kmod::kernel().to_string();

    let list = ["tier", "list", "--url", url];
    let (code, said) = run(
        ADMIN,
        home.path(),
        &[&list[..], &["--ca", ca]].concat(),
        &[],
    )
    .await;
    assert!(code == 0 && said.contains("edge"), "{said}");
    let env = [("LIVEPATCH_CA_CRT", ca)];
    let (code, said) = run(ADMIN, home.path(), &["tier", "list", "--url", &local], &env).await;
    assert!(code == 0 && said.contains("edge"), "{said}");
    let (code, said) = run(
        ADMIN,
        home.path(),
        &[&list[..], &["--ca", other]].concat(),
        &[],
    )
    .await;
    assert!(
        code == 6 && said.contains("is not trusted"),
        "{code} {said}"
    );

    let check = ["healthcheck", "--url", url];
    for (more, good) in [
        (&["--ca", ca][..], true),
        (&["--ca", other], false),
        (&[], false),
    ] {
        let (code, said) = run(SERVER, home.path(), &[&check[..], more].concat(), &[]).await;
        assert_eq!(code == 0, good, "{more:?}: {said}");
        assert_eq!(said.contains("certificate"), !good, "{said}");
    }
    // By the name that the certificate is for, wherever that leads to.
    let address = format!("https://127.0.0.1:{}", server.address().port());
    let named = |name| ["healthcheck", "--url", &address, "--ca", ca, "--name", name];
    let (code, said) = run(SERVER, home.path(), &named("localhost"), &[]).await;
    assert!(code == 0, "{said}");
    let (code, said) = run(SERVER, home.path(), &named("patches.example.com"), &[]).await;
    assert!(code == 1 && said.contains("mismatch"), "{said}");

    let enable = |ca| {
        [
            "--state-dir",
            state,
            "--kernel",
            &kernel,
            "enable",
            "--server",
            url,
            "--ca",
            ca,
            "--cert",
            cert.to_str().unwrap(),
            "--tls-patch-download",
            &token,
        ]
    };
    let (code, said) = run(CLIENT, home.path(), &enable(other), &[]).await;
    assert!(code != 0 && said.contains("certificate"), "{said}");
    let (code, said) = run(CLIENT, home.path(), &enable(ca), &[]).await;
    assert!(
        code == 0 && said.contains("107.1 was verified and kept"),
        "{said}"
    );
    // The authority is remembered.
    let (code, said) = run(CLIENT, home.path(), &["--state-dir", state, "check"], &[]).await;
    assert!(code == 0, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_shows_a_certificate_when_asked_and_says_what_is_missing() {
    let pki = Pki::new();
    let folder = pki.folder.path();
    let machines = Authority::new("machines");
    let clients = machines.file(folder, "machines.pem");
    let server = TestServer::with(|config| {
        let mut tls = pki.config();
        tls.client_ca = Some(clients);
        tls.client_auth = ClientAuth::Required;
        config.server.tls = Some(tls);
    })
    .await;
    let request = Request {
        names: &["someone"],
        client: true,
        ..Request::default()
    };
    let ca = pki.authority.file(folder, "ca.pem");
    let good = machines.issue(&request).files(folder, "good");
    let bad = Authority::new("strangers")
        .issue(&request)
        .files(folder, "bad");
    let text = |path: &std::path::PathBuf| path.to_str().unwrap().to_owned();
    let (ca, good, bad) = (
        text(&ca),
        (text(&good.0), text(&good.1)),
        (text(&bad.0), text(&bad.1)),
    );
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let state = state.to_str().unwrap();
    let url = server.url.as_str();
    let fleet = [
        "fleet",
        "--server",
        url,
        "--machines",
        "2",
        "--token",
        "lpa_none",
        "--duration",
        "1s",
    ];
    let kernel = kmod::kernel().to_string();
    let enable = [
        "--state-dir",
        state,
        "--kernel",
        &kernel,
        "enable",
        "--server",
        url,
        "lpa_none",
    ];
    for (program, args, passed) in [
        (ADMIN, &["tier", "list", "--url", url][..], Some("edge")),
        (SERVER, &["healthcheck", "--url", url], None),
        // Past the handshake: it is the token that is refused.
        (CLIENT, &enable, Some("401")),
        (CLIENT, &fleet, Some("401")),
    ] {
        let with = async |pair: Option<&(String, String)>| {
            let mut args = args.to_vec();
            args.extend(["--ca", &ca]);
            if let Some((certificate, key)) = pair {
                args.extend(["--tls-cert", certificate, "--tls-key", key]);
            }
            run(program, home.path(), &args, &[]).await
        };
        let is_past = |(code, said): &(i32, String)| match passed {
            Some(words) => said.contains(words),
            None => *code == 0,
        };
        let ended = with(Some(&good)).await;
        assert!(is_past(&ended), "{args:?}: {ended:?}");
        for pair in [None, Some(&bad)] {
            let ended = with(pair).await;
            assert!(ended.0 != 0 && !is_past(&ended), "{args:?}: {ended:?}");
        }
        // A key that is none.
        let mixed = (good.0.clone(), good.0.clone());
        let (code, said) = with(Some(&mixed)).await;
        assert!(code != 0 && said.contains("key"), "{args:?}: {said}");
    }
    // The administrator is told what to do.
    let list = ["tier", "list", "--url", url, "--ca", &ca];
    let (code, said) = run(ADMIN, home.path(), &list, &[]).await;
    // With TLS 1.3 the refusal comes after the handshake: whether it or the end of the connection is seen first is open.
    assert!(code == 3 || code == 6, "{code} {said}");
    assert!(said.contains("--tls-cert"), "{said}");
    let half = [&list[..], &["--tls-cert", &good.0]].concat();
    let (code, said) = run(ADMIN, home.path(), &half, &[]).await;
    assert!(code == 2 && said.contains("--tls-key"), "{said}");
    // From the environment, as everything of its kind.
    let env = [
        ("LIVEPATCH_URL", url),
        ("LIVEPATCH_CA_CRT", &ca),
        ("LIVEPATCH_TLS_CERT", &good.0),
        ("LIVEPATCH_TLS_KEY", &good.1),
    ];
    for (program, args) in [(ADMIN, &["tier", "list"][..]), (SERVER, &["healthcheck"])] {
        let (code, said) = run(program, home.path(), args, &env).await;
        assert_eq!(code, 0, "{said}");
    }
}
