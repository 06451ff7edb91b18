//! A private PostgreSQL for `quickstart`: a cluster in the data directory, reachable only through a Unix socket and a
//! password, running as long as the server does.
//!
//! PostgreSQL refuses to run as root; there it runs as an account without rights, which must be able to reach the data
//! directory. It is put in a process group of its own, so that Ctrl-C reaches the server first and the cluster is
//! stopped when the last check-in is committed.

use anyhow::{Context, bail};
use rustix::process::{Signal, geteuid, kill_process};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the cluster may take to answer at first. A crashed one replays its log before.
const START: Duration = Duration::from_mins(1);
/// The longest path of a Unix socket that the kernel takes.
const SOCKET_PATH_MAX: usize = 100;
const USER: &str = "livepatch";
const DATABASE: &str = "livepatch";

/// A cluster that runs until it is stopped.
#[derive(Debug)]
pub struct PrivatePostgres {
    child: Child,
    bin: PathBuf,
    data: PathBuf,
    account: Option<Account>,
    url: String,
}

/// An account to run as.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// Finds the directory of PostgreSQL's server programs: the newest under `/usr/lib/postgresql`, else what `PATH` holds.
pub fn find_programs() -> anyhow::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .filter(|(_, bin)| bin.join("initdb").is_file() && bin.join("postgres").is_file())
        .collect();
    versions.sort();
    if let Some((_, bin)) = versions.pop() {
        return Ok(bin);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        .map(|dir| dir.join("initdb").canonicalize().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or(dir))
        .context("PostgreSQL's server programs (initdb, postgres) were not found; install the package `postgresql`, or use `livepatch-server serve` with a database of your own")
}

/// The account to run as when we are root: `postgres` where there is one, else `nobody`.
fn unprivileged_account() -> anyhow::Result<Option<Account>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let find = |name: &str| {
        let line = passwd
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Account {
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    };
    find("postgres").or_else(|| find("nobody")).map(Some).context("PostgreSQL does not run as root, and there is no account `postgres` or `nobody` to run it as")
}

impl PrivatePostgres {
    /// Makes the cluster in `directory` if there is none, starts it, and waits until it answers.
    pub async fn start(directory: &Path) -> anyhow::Result<Self> {
        let bin = find_programs()?;
        let account = unprivileged_account()?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let data = directory.join("cluster");
        let password_file = directory.join("password");
        let password = password(&password_file)?;
        make_owned(&data, account)?;
        if let Some(account) = account {
            check_reachable(&data, account)?;
        }
        if !data.join("PG_VERSION").is_file() {
            tracing::info!(directory = %data.display(), "making a private PostgreSQL cluster");
            initialise(&bin, &data, &password, account)?;
        }
        check_version(&bin, &data)?;
        stop_leftover(&bin, &data, account)?;
        let socket = socket_directory(directory, account)?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(directory.join("postgres.log"))
            .with_context(|| format!("opening {}", directory.join("postgres.log").display()))?;
        let child = as_account(Command::new(bin.join("postgres")), account)
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "max_connections=100",
                "-c",
                "unix_socket_permissions=0700",
                "-c",
            ])
            .arg(format!("unix_socket_directories={}", socket.display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the log of PostgreSQL")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", bin.join("postgres").display()))?;
        let url = |database: &str| {
            format!(
                "host={} user={USER} password={password} dbname={database}",
                socket.display()
            )
        };
        let mut cluster = Self {
            child,
            bin,
            data,
            account,
            url: url(DATABASE),
        };
        cluster
            .wait_until_ready(&url("postgres"), &directory.join("postgres.log"))
            .await?;
        Ok(cluster)
    }

    /// Connection string of the server's database.
    pub fn url(&self) -> &str {
        &self.url
    }

    async fn wait_until_ready(&mut self, maintenance: &str, log: &Path) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let last = match tokio_postgres::connect(maintenance, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    let driver = tokio::spawn(connection);
                    let there = client
                        .query_opt("select from pg_database where datname = $1", &[&DATABASE])
                        .await
                        .context("looking for the server's database")?;
                    if there.is_none() {
                        client
                            .batch_execute(&format!("create database {DATABASE}"))
                            .await
                            .context("making the server's database")?;
                    }
                    driver.abort();
                    return Ok(());
                }
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait().context("watching PostgreSQL")? {
                bail!(
                    "PostgreSQL ended with {status} before it was ready; its log is {}",
                    log.display()
                );
            }
            if started.elapsed() > START {
                bail!(
                    "PostgreSQL did not answer within {} s ({last}); its log is {}",
                    START.as_secs(),
                    log.display()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops the cluster: sessions are ended, everything committed is on disk.
    pub async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        // SIGINT asks PostgreSQL for a fast shutdown.
        kill_process(pid, Signal::INT).context("asking PostgreSQL to stop")?;
        let waited = tokio::task::spawn_blocking(move || self.child.wait())
            .await
            .context("waiting for PostgreSQL")?;
        waited.context("waiting for PostgreSQL")
    }

    /// Ends what is left when starting goes wrong later on.
    pub fn abandon(mut self) {
        let _ = pg_ctl(&self.bin, &self.data, self.account, &["-m", "fast", "stop"]);
        let _ = self.child.wait();
    }
}

/// The cluster's password, made at first and kept where only we can read it.
fn password(file: &Path) -> anyhow::Result<String> {
    if let Ok(text) = std::fs::read_to_string(file) {
        return Ok(text.trim().to_owned());
    }
    let mut random = [0u8; 24];
    openssl::rand::rand_bytes(&mut random).context("no randomness")?;
    let text = hex::encode(random);
    let parent = file.parent().context("the password's directory")?;
    let mut temporary =
        tempfile::NamedTempFile::new_in(parent).context("keeping the cluster's password")?;
    temporary
        .write_all(text.as_bytes())
        .context("keeping the cluster's password")?;
    temporary
        .persist(file)
        .with_context(|| format!("keeping {}", file.display()))?;
    Ok(text)
}

fn make_owned(directory: &Path, account: Option<Account>) -> anyhow::Result<()> {
    let what = || format!("making {}", directory.display());
    std::fs::create_dir_all(directory).with_context(what)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .with_context(what)?;
    if let Some(Account { uid, gid }) = account {
        chown(directory, Some(uid), Some(gid)).with_context(what)?;
    }
    Ok(())
}

fn as_account(mut command: Command, account: Option<Account>) -> Command {
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    // PostgreSQL complains if it cannot enter the directory it is started in.
    command.current_dir("/");
    command
}

/// Says early, and which directory it is, when the account cannot get to its data.
fn check_reachable(data: &Path, account: Account) -> anyhow::Result<()> {
    let data = data
        .canonicalize()
        .with_context(|| format!("finding {}", data.display()))?;
    let reached = as_account(Command::new("test"), Some(account))
        .arg("-w")
        .arg(&data)
        .status()
        .context("looking whether PostgreSQL can reach its data")?;
    if !reached.success() {
        bail!(
            "PostgreSQL runs as user id {} here, because it refuses to run as root, and that user cannot reach {}; choose another place with --data-dir, e.g. /var/lib/livepatch-onprem",
            account.uid,
            data.display()
        );
    }
    Ok(())
}

fn initialise(
    bin: &Path,
    data: &Path,
    password: &str,
    account: Option<Account>,
) -> anyhow::Result<()> {
    // The account must be able to read it; it is gone when this function ends.
    let mut file = tempfile::NamedTempFile::new().context("giving initdb the password")?;
    file.write_all(password.as_bytes())
        .context("giving initdb the password")?;
    if let Some(Account { uid, gid }) = account {
        chown(file.path(), Some(uid), Some(gid)).context("giving initdb the password")?;
    }
    let output = as_account(Command::new(bin.join("initdb")), account)
        .arg("-D")
        .arg(data)
        .args([
            "-U",
            USER,
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-locale",
            "--pwfile",
        ])
        .arg(file.path())
        .output()
        .with_context(|| format!("starting {}", bin.join("initdb").display()))?;
    if !output.status.success() {
        bail!(
            "initdb could not make a cluster in {}: {}",
            data.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// A cluster of another major version is not touched.
fn check_version(bin: &Path, data: &Path) -> anyhow::Result<()> {
    let cluster = std::fs::read_to_string(data.join("PG_VERSION"))
        .context("reading the cluster's version")?;
    let output = Command::new(bin.join("postgres"))
        .arg("--version")
        .output()
        .context("asking postgres its version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let program = text
        .split_whitespace()
        .nth(2)
        .and_then(|v| v.split('.').next())
        .unwrap_or_default();
    if cluster.trim() != program {
        bail!(
            "the cluster in {} was made by PostgreSQL {}, and the installed one is {program}; install that version, or move the data with pg_dump",
            data.display(),
            cluster.trim()
        );
    }
    Ok(())
}

fn pg_ctl(
    bin: &Path,
    data: &Path,
    account: Option<Account>,
    args: &[&str],
) -> anyhow::Result<ExitStatus> {
    as_account(Command::new(bin.join("pg_ctl")), account)
        .arg("-D")
        .arg(data)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .with_context(|| format!("starting {}", bin.join("pg_ctl").display()))
}

/// A server that was killed leaves its cluster running; the data directory's lock makes sure that it is nobody else's.
fn stop_leftover(bin: &Path, data: &Path, account: Option<Account>) -> anyhow::Result<()> {
    if pg_ctl(bin, data, account, &["status"])?.success() {
        tracing::warn!("a PostgreSQL left over from a server that was killed is stopped");
        pg_ctl(bin, data, account, &["-m", "fast", "-w", "stop"])?;
    }
    Ok(())
}

/// Where the socket lies: in the directory if its path is short enough, else under the system's temporary directory.
fn socket_directory(directory: &Path, account: Option<Account>) -> anyhow::Result<PathBuf> {
    let directory = directory
        .canonicalize()
        .with_context(|| format!("finding {}", directory.display()))?;
    let mut socket = directory.join("socket");
    if socket.as_os_str().len() > SOCKET_PATH_MAX {
        let name = crate::domain::Sha256::of(directory.as_os_str().as_encoded_bytes()).to_string();
        socket = std::env::temp_dir().join(format!("livepatch-{}", &name[..16]));
    }
    make_owned(&socket, account)?;
    Ok(socket)
}
