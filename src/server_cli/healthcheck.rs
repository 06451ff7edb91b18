//! `healthcheck`: asks a running server, for container and service managers that have no HTTP client.

use anyhow::Context;
use clap::Args;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  livepatch-server healthcheck\n  \
    livepatch-server healthcheck --url http://127.0.0.1:8080 --wait 60s --dependencies")]
pub(super) struct HealthcheckArgs {
    /// Where the server is
    #[arg(long, env = "LIVEPATCH_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
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
    let url = format!("{}{path}", args.url.trim_end_matches('/'));
    super::serve::runtime()?.block_on(async move {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("making an HTTP client")?;
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
