//! Downloads of 300 KiB over TLS, from the cache, against nginx over TLS with the same certificate. Both have OpenSSL and let
//! the client choose the cipher; connections are kept, so that it is records that are measured and not handshakes.

use crate::checkins::pair;
use crate::downloads::nginx;
use crate::report::Row;
use crate::{Plan, site};
use anyhow::{Context, ensure};
use livepatch_onprem::config::Tls;
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: usize = 300 << 10;
const CONNECTIONS: u32 = 32;

/// A certificate for this machine that signs itself, and its key.
fn certificate(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=bench"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .context("openssl does not run; tests/setup.sh bench installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "openssl made no certificate: {said}"
    );
    Ok((certificate, key))
}

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let database = site::database("bench_tls").await?;
    let (certificate, key) = certificate(folder.path())?;
    let mut config = site::config(&database, &folder.path().join("patches"));
    config.server.tls = Some(Tls {
        certificate: certificate.clone(),
        key: key.clone(),
        ..Tls::default()
    });
    let server = site::start(config).await?;
    let (name, bytes) = site::payload(&server.core, SIZE).await?;
    let files = folder.path().join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join(&name), &bytes)?;
    let pair_of_files = Some((certificate.as_path(), key.as_path()));
    let (nginx, theirs) = nginx(folder.path(), &files, &name, pair_of_files).await?;
    let ours = format!("https://{}/v1/patches/{name}", server.address);
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&certificate)?)?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([authority])
        .build()?;
    for each in [&ours, &theirs] {
        let got = client.get(each).send().await?.error_for_status()?;
        ensure!(got.bytes().await? == bytes, "{each} serves something else");
    }
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("downloads over TLS: round {} of {}", round + 1, plan.rounds);
        rounds.push(pair(plan, round, CONNECTIONS, (&ours, &theirs), None).await?);
    }
    drop(nginx);
    server.stop().await;
    Ok(vec![Row::of_pairs(
        "download 300 KiB over TLS, cached / nginx",
        1.0,
        1.2,
        &rounds,
    )])
}
