//! Intake of 2,000 signed payloads of about 300 KiB from another server into a real S3 server, against `rclone copy` of the same
//! files into the same S3 server; what it takes in memory; and a second run that finds nothing new.
//!
//! Besides against `rclone copy` and unpacking them with the usual decoder at the same time: what anyone has to do who both
//! stores the files and looks inside.
//!
//! The server that takes in is a process of its own, so that its memory is its own. The one it pulls from is in this one.

use crate::report::{Better, Row, median};
use crate::{Plan, payloads, site};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use livepatch_onprem::app::Running;
use livepatch_onprem::config::TrustPolicy;
use livepatch_onprem::service::{ingest, peer, promotions};
use livepatch_onprem::wire::admin::{PromoteRequest, SyncTokenCreate, WireScope};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PAYLOADS: u32 = 2000;
/// A tier for each round: the patch reaches it only then, so that each round takes everything in anew.
const TIERS: [&str; 3] = ["beta", "candidate", "stable"];
const PASSWORD: &str = "bench-only";
const FLOOR_MEMORY: f64 = 64.0;

pub(crate) async fn run(plan: Plan) -> anyhow::Result<Vec<Row>> {
    let count = crate::number("PAYLOADS", PAYLOADS.into())? as u32;
    let folder = tempfile::tempdir()?;
    let files = folder.path().join("files");
    std::fs::create_dir(&files)?;
    let (key, certificate) = payloads::signer(folder.path())?;
    eprintln!("intake: making {count} signed payloads");
    let started = Instant::now();
    payloads::make(&files, count, &key, &certificate)?;
    let bytes = std::fs::read_dir(&files)?.try_fold(0, |sum, file| {
        file.and_then(|file| file.metadata())
            .map(|it| sum + it.len())
    })?;
    let kibibytes = bytes / 1024 / u64::from(count);
    eprintln!(
        "intake: made in {:.0} s, {kibibytes} KiB each; the upstream takes them in",
        started.elapsed().as_secs_f64()
    );
    let database = site::database("bench_upstream").await?;
    let mut config = site::config(&database, &folder.path().join("upstream"));
    config.patch_trust.policy = TrustPolicy::Require;
    config.patch_trust.certificates = vec![certificate.clone()];
    // What a peer asks for once is not worth keeping.
    config.patch_cache.enabled = false;
    let upstream = site::start(config).await?;
    fill(&upstream, &files).await?;

    let mut copies = Vec::new();
    let mut looks = Vec::new();
    let mut memory = Vec::new();
    let mut again = Vec::new();
    for round in 0..plan.rounds.min(TIERS.len()) {
        let first = async || ours(&upstream, folder.path(), &certificate, round, count).await;
        let (taken, copied, looked);
        if round % 2 == 0 {
            taken = first().await?;
            copied = rclone(&files, &format!("copied{round}"), count)?;
            looked = copy_and_unpack(&files, round, count)?;
        } else {
            looked = copy_and_unpack(&files, round, count)?;
            copied = rclone(&files, &format!("copied{round}"), count)?;
            taken = first().await?;
        }
        eprintln!(
            "intake: round {}: ours {:.1} s ({:.1} s of processor), rclone {copied:.1} s, with unpacking {looked:.1} s, grew by {:.0} MiB, second run {:.2} s",
            round + 1,
            taken.seconds,
            taken.cpu,
            taken.mebibytes,
            taken.again
        );
        let count = f64::from(count);
        copies.push((count / taken.seconds, count / copied));
        looks.push((count / taken.seconds, count / looked));
        memory.push(taken.mebibytes);
        again.push(taken.again);
    }
    upstream.stop().await;
    let least = |name, rounds: Vec<f64>, floor, detail: String| Row {
        name,
        ratio: median(rounds.iter().copied()),
        better: Better::Lower,
        floor,
        aim: None,
        rounds,
        detail,
    };
    Ok(vec![
        Row::of_pairs(
            "intake from a peer into S3 / rclone copy",
            1.0,
            1.5,
            &copies,
        ),
        Row::of_pairs("intake / rclone copy and unpacking", 1.0, 1.25, &looks),
        least(
            "intake, growth of memory in MiB",
            memory,
            FLOOR_MEMORY,
            format!("{count} payloads of {kibibytes} KiB"),
        ),
        least(
            "second run with nothing new, seconds",
            again,
            1.0,
            "from the request to its end".to_owned(),
        ),
    ])
}

/// Takes the files in upstream, where they stay in the first tier for now.
async fn fill(upstream: &Running, files: &Path) -> anyhow::Result<()> {
    use futures_util::{StreamExt as _, TryStreamExt as _, stream};
    let names: Vec<PathBuf> = std::fs::read_dir(files)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    stream::iter(names)
        .map(|path| async move {
            let name = path
                .file_name()
                .context("no name")?
                .to_string_lossy()
                .into_owned();
            let bytes = Bytes::from(std::fs::read(&path)?);
            let body = stream::iter([Ok(bytes)]);
            ingest::bundle(&upstream.core, &site::actor(), "upload", &name, None, body).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(4)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

fn bucket(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(&site::service("LIVEPATCH_TEST_S3_DIR")?).join(name);
    std::fs::create_dir(&path)?;
    Ok(path)
}

/// Copies the files with rclone; seconds taken.
fn rclone(files: &Path, name: &str, count: u32) -> anyhow::Result<f64> {
    let folder = bucket(name)?;
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/rclone");
    let tool = if tool.exists() { tool } else { "rclone".into() };
    let started = Instant::now();
    let status = Command::new(tool)
        .args(["copy", "--transfers", "16"])
        .arg(files)
        .arg(format!("s3:{name}"))
        .env("RCLONE_CONFIG", "/dev/null")
        .env("RCLONE_CONFIG_S3_TYPE", "s3")
        .env("RCLONE_CONFIG_S3_PROVIDER", "Other")
        .env(
            "RCLONE_CONFIG_S3_ENDPOINT",
            site::service("LIVEPATCH_TEST_S3")?,
        )
        .env(
            "RCLONE_CONFIG_S3_ACCESS_KEY_ID",
            site::service("LIVEPATCH_TEST_S3_KEY")?,
        )
        .env(
            "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY",
            site::service("LIVEPATCH_TEST_S3_SECRET")?,
        )
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .status()
        .context("rclone does not run; tests/setup.sh bench installs it")?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(status.success(), "rclone: {status}");
    let copied = std::fs::read_dir(&folder)?.count();
    ensure!(
        copied == count as usize,
        "rclone copied {copied} of {count}"
    );
    std::fs::remove_dir_all(folder)?;
    Ok(seconds)
}

/// Copies the files with rclone and unpacks them meanwhile; seconds until both are done.
fn copy_and_unpack(files: &Path, round: usize, count: u32) -> anyhow::Result<f64> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let copied = scope.spawn(|| rclone(files, &format!("looked{round}"), count));
        payloads::unpack(files)?;
        let copied = copied.join();
        copied.map_err(|_| anyhow::anyhow!("copying failed"))??;
        anyhow::Ok(())
    })?;
    Ok(started.elapsed().as_secs_f64())
}

/// What a round came to.
struct Taken {
    seconds: f64,
    /// Processor time of the server that takes in.
    cpu: f64,
    mebibytes: f64,
    again: f64,
}

/// A server of its own process, killed on drop.
struct Below {
    process: Child,
    url: String,
    client: reqwest::Client,
    /// Of a session: checking a password costs time and memory that are not the intake's.
    token: String,
}

impl Drop for Below {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn ours(
    upstream: &Running,
    folder: &Path,
    certificate: &Path,
    round: usize,
    count: u32,
) -> anyhow::Result<Taken> {
    let core = &upstream.core;
    // Empty until the patch is promoted, so that the first contact is not measured.
    let tier = TIERS[round];
    let token = peer::tokens::create(
        core,
        &site::actor(),
        SyncTokenCreate {
            name: format!("bench{round}"),
            tier: tier.parse()?,
            valid_until: None,
            no_expiry: false,
        },
    )
    .await?;
    let name = format!("taken{round}");
    let path = bucket(&name)?;
    let below = start(upstream, folder, certificate, &name, token.token.expose()).await?;
    below.ended(1).await?;
    let before = below.status("VmRSS")?;
    // Forget the peak so far.
    std::fs::write(format!("/proc/{}/clear_refs", below.process.id()), "5")?;
    let request = PromoteRequest {
        tier: tier.parse()?,
        scope: WireScope::default(),
        selector: None,
        reason: None,
        dry_run: false,
    };
    promotions::promote(core, &site::actor(), "107.1".parse()?, &request).await?;
    let (started, ticks) = (Instant::now(), below.cpu()?);
    let report = below.triggered().await?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = below.cpu()? - ticks;
    let mebibytes = (below.status("VmHWM")? - before) / 1024.0;
    ensure!(report["outcome"]["added"] == count, "{report:#}");
    let started = Instant::now();
    let report = below.triggered().await?;
    let again = started.elapsed().as_secs_f64();
    ensure!(report["outcome"]["fetched"] == 0, "{report:#}");
    drop(below);
    std::fs::remove_dir_all(path)?;
    Ok(Taken {
        seconds,
        cpu,
        mebibytes,
        again,
    })
}

async fn start(
    upstream: &Running,
    folder: &Path,
    certificate: &Path,
    bucket: &str,
    token: &str,
) -> anyhow::Result<Below> {
    let database = site::database(&format!("bench_{bucket}")).await?;
    let address = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let hash = bcrypt::hash(PASSWORD, 4)?;
    let spool = folder.join("spool");
    std::fs::create_dir_all(&spool)?;
    let process = Command::new(env!("CARGO_BIN_EXE_livepatch-server"))
        .arg("serve")
        .env_clear()
        .env("LP_DATABASE_CONNECTION_STRING", database)
        .env("LP_SERVER_SERVER_ADDRESS", address.to_string())
        .env("LP_AUTH_BASIC_ENABLED", "true")
        .env("LP_AUTH_BASIC_USERS", format!("admin:{hash}"))
        .env("LP_PATCH_TRUST_CERTIFICATES", certificate)
        .env("LP_INGEST_SPOOL_DIRECTORY", spool)
        .env("LP_PATCH_STORAGE_TYPE", "s3")
        .env("LP_PATCH_STORAGE_S3_BUCKET", bucket)
        .env(
            "LP_PATCH_STORAGE_S3_ENDPOINT",
            site::service("LIVEPATCH_TEST_S3")?,
        )
        .env(
            "LP_PATCH_STORAGE_S3_ACCESS_KEY",
            site::service("LIVEPATCH_TEST_S3_KEY")?,
        )
        .env(
            "LP_PATCH_STORAGE_S3_SECRET_KEY",
            site::service("LIVEPATCH_TEST_S3_SECRET")?,
        )
        .env("LP_PATCH_SYNC_ENABLED", "true")
        .env(
            "LP_PATCH_SYNC_UPSTREAM_URL",
            format!("http://{}", upstream.address),
        )
        .env("LP_PATCH_SYNC_TOKEN", token)
        .env("LP_SERVER_LOG_LEVEL", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()?;
    let mut below = Below {
        process,
        url: format!("http://{address}/v1/admin"),
        client: reqwest::Client::builder().no_proxy().build()?,
        token: String::new(),
    };
    for _ in 0..1200 {
        if let Ok(token) = below.log_in().await {
            below.token = token;
            return Ok(below);
        }
        if let Some(status) = below.process.try_wait()? {
            bail!("the server that takes in ended: {status}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the server that takes in did not start within a minute")
}

impl Below {
    async fn log_in(&self) -> anyhow::Result<String> {
        let body = serde_json::json!({ "user": "admin", "password": PASSWORD });
        let request = self.client.post(format!("{}/login", self.url)).json(&body);
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer["token"].as_str().context("no token")?.to_owned())
    }

    async fn ask(&self, method: &str, path: &str) -> anyhow::Result<Value> {
        let url = format!("{}/{path}", self.url);
        let request = self.client.request(method.parse()?, url);
        let answer = request.bearer_auth(&self.token).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The report of a run that came to its end.
    async fn ended(&self, id: u64) -> anyhow::Result<Value> {
        loop {
            if let Ok(report) = self.ask("GET", &format!("sync/reports/{id}")).await
                && !report["run"]["finished-at"].is_null()
            {
                ensure!(report["run"]["state"] == "done", "{report:#}");
                return Ok(report);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn triggered(&self) -> anyhow::Result<Value> {
        let run = self.ask("POST", "sync/trigger").await?;
        self.ended(run["id"].as_u64().context("no run")?).await
    }

    /// Processor time so far, in seconds: fields 14 and 15 of `/proc/PID/stat`, in hundredths on Linux.
    fn cpu(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, after) = text.rsplit_once(')').context("no process name")?;
        let ticks = after.split_whitespace().skip(11).take(2);
        let ticks: Vec<f64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / 100.0)
    }

    /// A line of the process's status, in KiB.
    fn status(&self, name: &str) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}:")));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number
            .with_context(|| format!("no {name}"))?
            .parse()
            .context("a number of KiB")
    }
}
