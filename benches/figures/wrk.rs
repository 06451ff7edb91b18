//! Driving wrk: one run, requests per second, and an error if any answer was not a success.

use crate::Plan;
use anyhow::{Context, bail};
use std::path::Path;
use tokio::process::Command;

/// One measurement: `connections` over one thread, for as long as the plan says.
pub(crate) async fn run(
    plan: Plan,
    connections: u32,
    url: &str,
    script: Option<(&Path, &Path)>,
) -> anyhow::Result<f64> {
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
    let busy = cpu_seconds()?;
    let output = command
        .output()
        .await
        .context("wrk does not run; tests/setup.sh bench installs it")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| {
        let line = text.lines().find(|l| l.trim_start().starts_with(name))?;
        line.split_once(':')?.1.trim().parse::<f64>().ok()
    };
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
    let rate = value("Requests/sec").with_context(|| format!("wrk said no rate:\n{text}"))?;
    let each = (cpu_seconds()? - busy) / (rate * plan.seconds.as_secs_f64()) * 1e6;
    eprintln!("  {url} -c{connections}: {rate:.0}/s, {each:.1} us of this process's CPU each");
    Ok(rate)
}

/// CPU time of this process, in which the servers run but neither wrk nor PostgreSQL nor nginx, in seconds. Other work on
/// the machine disturbs it less than it disturbs the rate.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    // The name, in parentheses, may hold spaces; user and system time are the 12th and 13th word after it.
    let (_, words) = stat
        .rsplit_once(')')
        .context("no name in /proc/self/stat")?;
    let mut ticks = 0.0;
    for word in words.split_whitespace().skip(11).take(2) {
        ticks += word.parse::<f64>()?;
    }
    // Linux counts these in hundredths of a second for every program, whatever its own clock.
    Ok(ticks / 100.0)
}
