//! `quickstart`: everything in one directory - a private PostgreSQL, a folder as object store, an administrator - so that
//! somebody who has never seen this server has it running with one command, and keeps their data.

use super::postgres::PrivatePostgres;
use super::start::{Running, start};
use crate::config::{Config, TrustPolicy};
use crate::domain::{Role, Secret};
use crate::service::admins;
use crate::service::auth::{self, Caller};
use crate::wire::admin::PasswordChange;
use anyhow::{Context, bail};
use base64::Engine;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// What can be chosen.
#[derive(Debug)]
pub struct Options {
    /// Where everything is kept.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificates to trust from now on, besides those trusted before.
    pub certificates: Vec<PathBuf>,
    /// The administrator's password, if one is given.
    pub password: Option<Secret>,
}

/// A running quickstart.
#[derive(Debug)]
pub struct Quickstart {
    /// The server.
    pub running: Running,
    /// The password made for the administrator, the first time.
    pub new_password: Option<Secret>,
    /// The certificates that are trusted, as kept in the data directory.
    pub certificates: Vec<PathBuf>,
    postgres: PrivatePostgres,
    lock: File,
}

/// The administrator that a quickstart makes.
pub const ADMINISTRATOR: &str = "admin";

/// The file in the data directory that other commands are given with `--config`.
pub const CONFIGURATION: &str = "livepatch.yaml";

/// Starts everything.
pub async fn quickstart(options: Options) -> anyhow::Result<Quickstart> {
    let data = &options.data;
    std::fs::create_dir_all(data).with_context(|| {
        format!(
            "making the data directory {}; choose another with --data-dir",
            data.display()
        )
    })?;
    let lock = File::create(data.join("lock"))
        .with_context(|| format!("writing in {}", data.display()))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!(
            "another server runs on {}; stop it, or choose another place with --data-dir",
            data.display()
        );
    }
    let certificates = keep_certificates(&data.join("certificates"), &options.certificates)?;
    let postgres = PrivatePostgres::start(&data.join("postgres")).await?;
    let config = config(&options, &postgres, certificates.clone());
    if let Err(error) = keep_config(&data.join(CONFIGURATION), &config) {
        postgres.abandon();
        return Err(error);
    }
    let password = options.password.clone();
    let started = async {
        let running = start(config, true).await?;
        let new_password = make_administrator(&running, password).await?;
        anyhow::Ok((running, new_password))
    };
    match started.await {
        Ok((running, new_password)) => Ok(Quickstart {
            running,
            new_password,
            certificates,
            postgres,
            lock,
        }),
        Err(error) => {
            postgres.abandon();
            Err(error)
        }
    }
}

impl Quickstart {
    /// Stops the server, then its database.
    pub async fn stop(self) -> anyhow::Result<bool> {
        let drained = self.running.stop().await;
        let status = self.postgres.stop().await?;
        if !status.success() {
            tracing::warn!(%status, "PostgreSQL did not stop cleanly");
        }
        drop(self.lock);
        Ok(drained)
    }
}

fn config(options: &Options, postgres: &PrivatePostgres, certificates: Vec<PathBuf>) -> Config {
    let mut config = Config::default();
    config.server.address = options.listen;
    config.database.connection_string = Secret::new(postgres.url());
    config.patch_storage.filesystem_path = options.data.join("patches");
    config.patch_trust.policy = TrustPolicy::Require;
    config.patch_trust.certificates = certificates;
    config.machine_reports.enabled = true;
    config
}

/// Writes down what other commands, such as `export`, need to work on the same data while this server runs.
fn keep_config(path: &Path, config: &Config) -> anyhow::Result<()> {
    // JSON's strings and lists are YAML's as well.
    let connection = serde_json::to_string(config.database.connection_string.expose())?;
    let folder =
        serde_json::to_string(&std::path::absolute(&config.patch_storage.filesystem_path)?)?;
    let mut certificates = Vec::new();
    for certificate in &config.patch_trust.certificates {
        certificates.push(std::path::absolute(certificate)?);
    }
    // Without any, such commands are refused with the reason, as `serve` is.
    let trust = if certificates.is_empty() {
        String::new()
    } else {
        format!(
            "patch-trust.certificates: {}\n",
            serde_json::to_string(&certificates)?
        )
    };
    let text = format!(
        "# Written at each start; holds a password. For other commands on this data: livepatch-server export --config FILE ...\n\
        database.connection-string: {connection}\npatch-storage.type: filesystem\n\
        patch-storage.filesystem-path: {folder}\n{trust}"
    );
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    file.persist(path)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// Copies certificates into the data directory, so that a later start without them still trusts them, and lists all.
fn keep_certificates(directory: &Path, given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("making {}", directory.display()))?;
    for path in given {
        let bytes = std::fs::read(path)
            .with_context(|| format!("reading the certificate {}", path.display()))?;
        crate::bundle::TrustStore::new()
            .add(&bytes)
            .with_context(|| format!("{} holds no certificate", path.display()))?;
        let name = format!(
            "{}.pem",
            &crate::domain::Sha256::of(&bytes).to_string()[..16]
        );
        std::fs::write(directory.join(&name), bytes).with_context(|| format!("keeping {name}"))?;
    }
    let mut all: Vec<PathBuf> = std::fs::read_dir(directory)
        .with_context(|| format!("reading {}", directory.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    all.sort();
    Ok(all)
}

/// Makes the administrator the first time; returns the password if it was made here. Later, a password that is given
/// becomes the administrator's: whoever can start the server on its data has the way back in.
async fn make_administrator(
    running: &Running,
    given: Option<Secret>,
) -> anyhow::Result<Option<Secret>> {
    let core = &running.core;
    let Some(password) = given else {
        let password = random_password()?;
        let created = auth::ensure_admin(&core.db, ADMINISTRATOR, &password)
            .await
            .context("making the administrator")?;
        return Ok(created.then_some(password));
    };
    let what = "giving the administrator the password of LIVEPATCH_ADMIN_PASSWORD";
    let created = auth::ensure_admin(&core.db, ADMINISTRATOR, &password)
        .await
        .context(what)?;
    let source = "quickstart";
    if !created
        && auth::check_password(core, ADMINISTRATOR, &password, source)
            .await
            .is_err()
    {
        let caller = Caller {
            name: "system".to_owned(),
            role: Role::Admin,
            source: source.to_owned(),
            session: None,
            is_program: false,
        };
        let change = PasswordChange {
            password,
            current: None,
        };
        admins::change_password(core, &caller, ADMINISTRATOR, &change)
            .await
            .context(what)?;
        tracing::warn!("the administrator's password was set to that of LIVEPATCH_ADMIN_PASSWORD");
    }
    Ok(None)
}

fn random_password() -> anyhow::Result<Secret> {
    let mut random = [0u8; 15];
    openssl::rand::rand_bytes(&mut random).context("no randomness")?;
    Ok(Secret::new(
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(random),
    ))
}
