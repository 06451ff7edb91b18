//! The programs as people run them: the release binaries in processes of their own, whose CPU time and memory can be read.

use anyhow::{Context, bail, ensure};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `USER_HZ`: in what `/proc/PID/stat` counts time, on every architecture that Ubuntu is made for.
const TICKS_PER_SECOND: f64 = 100.0;
/// How long a server may take to be ready before the benchmark gives up.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server; told to stop when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// From its start until `/readyz` was answered.
    pub(crate) ready: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts `livepatch-server serve` on a database, with its defaults but for `more`, and waits until it is ready.
    pub(crate) async fn start(
        database: &str,
        folder: &Path,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let address = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let config = folder.join("livepatch.yaml");
        std::fs::write(&config, format!("server:\n  server-address: {address}\n"))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_livepatch-server"));
        command
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .env("LP_DATABASE_CONNECTION_STRING", database)
            .env(
                "LP_PATCH_STORAGE_FILESYSTEM_PATH",
                folder.join("patches").display().to_string(),
            )
            .env("LP_PATCH_TRUST_POLICY", "off")
            // A line for each request, as by default, to where nobody looks.
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("server.log"))?);
        for (name, value) in more {
            command.env(name, value);
        }
        let started = Instant::now();
        let child = command.spawn().context("livepatch-server does not run")?;
        let mut server = Self {
            child,
            address,
            ready: Duration::ZERO,
        };
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{address}/readyz");
        loop {
            if let Ok(answer) = client.get(&url).send().await
                && answer.status().is_success()
            {
                server.ready = started.elapsed();
                return Ok(server);
            }
            let ended = server.child.try_wait()?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                bail!(
                    "livepatch-server was not ready: {}",
                    std::fs::read_to_string(folder.join("server.log"))?
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it holds in memory now, in MiB.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
            .context("/proc/PID/status says no VmRSS")?;
        Ok(kib / 1024.0)
    }
}

/// CPU time that a process and its children that still run have used, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let own = |pid: u32| -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th word after it.
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok());
        let sum = ticks(11).zip(ticks(12)).context("/proc/PID/stat")?;
        Ok((sum.0 + sum.1) / TICKS_PER_SECOND)
    };
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children
        .split_ascii_whitespace()
        .map(|child| own(child.parse()?))
        .try_fold(own(pid)?, |sum, child| Ok(sum + child?))
}

/// A simulated fleet.
pub(crate) struct Fleet<'a> {
    /// The server.
    pub(crate) server: SocketAddr,
    /// Its machines.
    pub(crate) machines: u32,
    /// Auth token, and the file of machine tokens.
    pub(crate) token: &'a str,
    pub(crate) tokens: &'a Path,
    /// What kernels they run.
    pub(crate) kernels: &'a Path,
    /// Check-ins per second.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    pub(crate) connections: u32,
    /// Where to write what was acknowledged.
    pub(crate) ledger: Option<&'a Path>,
}

impl Fleet<'_> {
    /// Runs `livepatch-client fleet`; its summary.
    pub(crate) async fn run(&self) -> anyhow::Result<serde_json::Value> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_livepatch-client"));
        command
            .args(["fleet", "--token", self.token, "--output", "json"])
            .args(["--server", &format!("http://{}", self.server)])
            .args(["--machines", &self.machines.to_string()])
            .args(["--rate", &self.rate.to_string()])
            .args(["--duration", &format!("{}ms", self.duration.as_millis())])
            .args(["--connections", &self.connections.to_string()])
            .arg("--tokens")
            .arg(self.tokens)
            .arg("--kernels")
            .arg(self.kernels)
            .kill_on_drop(true);
        if let Some(ledger) = self.ledger {
            command.arg("--ledger").arg(ledger);
        }
        let output = command.output().await?;
        ensure!(
            output.status.success(),
            "livepatch-client fleet failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
