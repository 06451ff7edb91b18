//! `healthcheck`: asks a running server, for container and service managers that have no HTTP client.

use crate::domain::certificate::pkcs8;
use anyhow::Context;
use clap::Args;
use reqwest::{Certificate, Identity, Url};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  livepatch-server healthcheck\n  \
    livepatch-server healthcheck --url http://127.0.0.1:8080 --wait 60s --dependencies\n  \
    livepatch-server healthcheck --url https://127.0.0.1:8443 --ca ca.pem --name patches.example.com")]
pub(super) struct HealthcheckArgs {
    /// Where the server is
    #[arg(long, env = "LIVEPATCH_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Certificates (PEM) to trust besides the system's
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_CA_CRT",
        hide_env_values = true
    )]
    ca: Option<PathBuf>,
    /// The name that the server's certificate is for, where it is not the host in --url
    #[arg(long, value_name = "HOST")]
    name: Option<String>,
    /// Certificate (PEM) to show to a server that asks for one
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_TLS_CERT",
        hide_env_values = true,
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of that certificate
    #[arg(
        long,
        value_name = "FILE",
        env = "LIVEPATCH_TLS_KEY",
        hide_env_values = true,
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Also ask for its database and storage, not only for the server itself
    #[arg(long)]
    dependencies: bool,
    /// Ask again and again for this long until it is well
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
}

pub(super) fn run(args: HealthcheckArgs) -> anyhow::Result<ExitCode> {
    let path = if args.dependencies {
        "/debug/status"
    } else {
        "/readyz"
    };
    super::serve::runtime()?.block_on(async move {
        let (client, base) = client(&args).await?;
        let url = format!("{}{path}", base.trim_end_matches('/'));
        let until = Instant::now() + args.wait.unwrap_or_default();
        loop {
            let answer = ask(&client, &url).await;
            match answer {
                Ok(text) => {
                    println!("{}", text.trim());
                    return Ok(ExitCode::SUCCESS);
                }
                Err(why) if Instant::now() >= until => {
                    eprintln!("error: {url}: {why}");
                    return Ok(ExitCode::FAILURE);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    })
}

/// A client that believes and shows what it is told to, and the address to ask.
async fn client(args: &HealthcheckArgs) -> anyhow::Result<(reqwest::Client, String)> {
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut builder = reqwest::Client::builder()
        .timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        // Whether this server answers is not to depend on another one.
        .no_proxy();
    if let Some(path) = &args.ca {
        let found = Certificate::from_pem_bundle(&read(path)?)
            .ok()
            .filter(|found| !found.is_empty())
            .with_context(|| format!("there is no PEM certificate in {}", path.display()))?;
        builder = builder.tls_certs_merge(found);
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let private = pkcs8(&read(key)?).with_context(|| {
            format!(
                "there is no PEM key without a passphrase in {}",
                key.display()
            )
        })?;
        let identity =
            Identity::from_pkcs8_pem(&read(certificate)?, &private).with_context(|| {
                format!(
                    "there is no PEM certificate of that key in {}",
                    certificate.display()
                )
            })?;
        builder = builder.identity(identity);
    }
    let mut url: Url = args
        .url
        .parse()
        .with_context(|| format!("--url {}", args.url))?;
    if let Some(name) = &args.name {
        let host = url.host_str().context("--url names no host")?.to_owned();
        let port = url.port_or_known_default().context("--url names no port")?;
        let host = host.trim_matches(['[', ']']);
        let found = tokio::net::lookup_host((host, port)).await;
        let addresses: Vec<_> = found
            .with_context(|| format!("looking for {host}"))?
            .collect();
        builder = builder.resolve_to_addrs(name, &addresses);
        url.set_host(Some(name))
            .with_context(|| format!("--name {name}"))?;
    }
    let client = builder.build().context("making an HTTP client")?;
    Ok((client, url.to_string()))
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let response = client.get(url).send().await.map_err(|e| describe(&e))?;
    let status = response.status();
    let text = response.text().await.map_err(|e| describe(&e))?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {}", text.trim()))
    }
}

fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
