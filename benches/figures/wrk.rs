//! Driving wrk: one run, requests per second, and an error if any answer was not a success.

use crate::Plan;
use crate::process::cpu_seconds;
use anyhow::{Context, bail};
use std::path::Path;
use tokio::process::Command;

/// One measurement: `connections` over one thread, for as long as the plan says. Requests per second.
pub(crate) async fn run(
    plan: Plan,
    connections: u32,
    url: &str,
    script: Option<(&Path, &Path)>,
) -> anyhow::Result<f64> {
    let busy = cpu_seconds(std::process::id())?;
    let text = said(plan, connections, url, script).await?;
    let line = text
        .lines()
        .find(|line| line.trim_start().starts_with("Requests/sec"));
    let rate: f64 = line
        .and_then(|line| line.split_once(':')?.1.trim().parse().ok())
        .with_context(|| format!("wrk said no rate:\n{text}"))?;
    // Of this process, in which the servers run but neither wrk nor PostgreSQL nor nginx: other work on the machine disturbs it
    // less than it disturbs the rate.
    let busy = cpu_seconds(std::process::id())? - busy;
    let each = busy / (rate * plan.seconds.as_secs_f64()) * 1e6;
    eprintln!("  {url} -c{connections}: {rate:.0}/s, {each:.1} us of this process's CPU each");
    Ok(rate)
}

/// The same; how many requests were answered.
pub(crate) async fn count(plan: Plan, connections: u32, url: &str) -> anyhow::Result<f64> {
    let text = said(plan, connections, url, None).await?;
    text.lines()
        .find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok())
        .with_context(|| format!("wrk said no number of requests:\n{text}"))
}

async fn said(
    plan: Plan,
    connections: u32,
    url: &str,
    script: Option<(&Path, &Path)>,
) -> anyhow::Result<String> {
    let mut command = Command::new("wrk");
    command
        .args(["-t1", &format!("-c{connections}")])
        .arg(format!("-d{}s", plan.seconds.as_secs()))
        .args(["--timeout", "10s"]);
    if let Some((script, _)) = script {
        command.arg("-s").arg(script);
    }
    command.arg(url);
    if let Some((_, input)) = script {
        command.arg("--").arg(input);
    }
    let output = command
        .output()
        .await
        .context("wrk does not run; tests/setup.sh bench installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!(
            "wrk failed: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // A server that refuses quickly would look fast.
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("not every request of {url} was answered well:\n{text}");
    }
    Ok(text.into_owned())
}
