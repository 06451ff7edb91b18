//! `quickstart`: the command around `app::quickstart`, and what it tells a person who sees it for the first time.

use super::serve::{runtime, told_to_stop};
use crate::app::quickstart::{ADMINISTRATOR, Options, Quickstart, quickstart};
use crate::db::audit::Actor;
use crate::domain::Secret;
use crate::service::ingest;
use crate::telemetry::logs::{self, LogFormat};
use anyhow::Context;
use clap::Args;
use rustix::process::geteuid;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Arguments of `quickstart`.
#[derive(Debug, Args)]
#[command(
    after_help = "The administrator is `admin`. LIVEPATCH_ADMIN_PASSWORD sets the password, also at a later start; \
    without it one is made and printed once.\n\nExamples:\n  livepatch-server quickstart\n  \
    livepatch-server quickstart --data-dir ./data --listen 127.0.0.1:9000 --trust-certificate signing.pem"
)]
pub(super) struct QuickstartArgs {
    /// Where everything is kept [default: /var/lib/livepatch-onprem as root, else ~/.local/share/livepatch-onprem]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Trust modules signed with this certificate (PEM or DER), from now on; may be given several times
    #[arg(long, value_name = "FILE")]
    trust_certificate: Vec<PathBuf>,
    /// Take in this bundle at start, unless it is there; may be given several times
    #[arg(long, value_name = "FILE")]
    upload: Vec<PathBuf>,
    /// error, warn, info, debug or trace
    #[arg(long, default_value = "warn")]
    log_level: String,
}

pub(super) fn run(args: QuickstartArgs) -> anyhow::Result<ExitCode> {
    logs::init(&args.log_level, LogFormat::Text).context("--log-level")?;
    let password = std::env::var("LIVEPATCH_ADMIN_PASSWORD")
        .ok()
        .filter(|p| !p.is_empty())
        .map(Secret::new);
    let options = Options {
        data: args.data_dir.map_or_else(default_data_dir, Ok)?,
        listen: args.listen,
        certificates: args.trust_certificate,
        password: password.clone(),
    };
    let data = options.data.clone();
    runtime()?.block_on(async move {
        let stop = told_to_stop()?;
        tokio::pin!(stop);
        let server = tokio::select! {
            started = quickstart(options) => started?,
            // Nothing is lost by stopping before the start was complete; the next start cleans up.
            () = &mut stop => return Ok(ExitCode::SUCCESS),
        };
        for file in &args.upload {
            if let Err(error) = take_in(&server, file).await {
                eprintln!("warning: {}: {error:#}", file.display());
            }
        }
        print_welcome(&server, &data, password.is_some());
        stop.await;
        eprintln!("stopping");
        let drained = server.stop().await?;
        Ok(if drained {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}

fn default_data_dir() -> anyhow::Result<PathBuf> {
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/livepatch-onprem"));
    }
    if let Some(data) = std::env::var_os("XDG_DATA_HOME").filter(|v| !v.is_empty()) {
        return Ok(PathBuf::from(data).join("livepatch-onprem"));
    }
    let home = std::env::var_os("HOME")
        .context("neither HOME nor XDG_DATA_HOME is set; choose a place with --data-dir")?;
    Ok(PathBuf::from(home).join(".local/share/livepatch-onprem"))
}

/// Sends a file through the one door in.
async fn take_in(server: &Quickstart, file: &Path) -> anyhow::Result<()> {
    let name = file
        .file_name()
        .and_then(|n| n.to_str())
        .context("the path has no file name")?;
    let content = tokio::fs::File::open(file)
        .await
        .context("it cannot be opened")?;
    let body = tokio_util::io::ReaderStream::new(content);
    let actor = Actor {
        name: "system".to_owned(),
        source: "quickstart".to_owned(),
    };
    let outcome =
        ingest::bundle(&server.running.core, &actor, "quickstart", name, None, body).await?;
    if let Some(reason) = outcome.reason {
        anyhow::bail!("it was set aside: {reason}");
    }
    Ok(())
}

fn print_welcome(server: &Quickstart, data: &Path, password_given: bool) {
    let url = format!("http://{}", server.running.address);
    let (password, shown) = match &server.new_password {
        Some(password) => (password.expose(), password.expose()),
        None if password_given => ("(that of LIVEPATCH_ADMIN_PASSWORD)", "PASSWORD"),
        None => (
            "(printed at the first start; LIVEPATCH_ADMIN_PASSWORD sets a new one)",
            "PASSWORD",
        ),
    };
    let certificate = server
        .certificates
        .first()
        .map_or_else(String::new, |path| format!(" --cert {}", path.display()));
    println!(
        "\nlivepatch-server {} is running; Ctrl-C stops it and keeps its data.\n",
        env!("CARGO_PKG_VERSION")
    );
    println!("  URL            {url}");
    println!("  administrator  {ADMINISTRATOR}");
    println!("  password       {password}");
    println!("  data           {}", data.display());
    if server.certificates.is_empty() {
        println!(
            "\n  No certificate is trusted yet, so every bundle will be quarantined: give --trust-certificate FILE."
        );
    }
    println!("\nTry, in another terminal:\n");
    println!("  export LIVEPATCH_URL={url}");
    println!("  livepatch-admin login -a {ADMINISTRATOR}:{shown}");
    println!("  livepatch-admin patch list");
    println!("  livepatch-admin auth-token first-token edge");
    println!("  livepatch-client enable --server {url}{certificate} TOKEN");
    println!("  livepatch-admin machine list\n");
}
