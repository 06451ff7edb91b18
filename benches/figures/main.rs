//! The benchmarks: each figure is a ratio to a yardstick that is measured beside it, in turns, in the same run.
//!
//! Run by `make bench`, which brings PostgreSQL, an S3 server, wrk and nginx. Prints one table and writes
//! `target/bench/latest.json`. How to read it stands in `docs/explanation/benchmarks.md`.

mod allocations;
mod checkins;
mod cpu;
mod decide;
mod downloads;
mod intake;
mod load;
mod million;
mod payloads;
mod process;
mod report;
mod site;
mod tls;
mod wrk;

use anyhow::{Context, bail};
use report::Row;
use std::time::Duration;

/// How long and how often is measured.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rounds: usize,
    seconds: Duration,
}

/// The groups of `ONLY=`. The last takes minutes and is measured only when it is named.
const GROUPS: [&str; 10] = [
    "decide",
    "checkins",
    "downloads",
    "tls",
    "cpu",
    "intake",
    "start",
    "reports",
    "overload",
    "hold",
];
const USAGE: &str = "usage: make bench [ROUNDS=N] [SECONDS=N] \
    [ONLY=decide|checkins|downloads|tls|cpu|intake|start|reports|overload], make bench-hold [DURATION=10m]";

fn number(name: &str, default: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text
            .parse()
            .ok()
            .filter(|n| *n > 0)
            .with_context(|| format!("{name}={text} is not a number from 1 on; {USAGE}")),
        _ => Ok(default),
    }
}

fn main() -> anyhow::Result<()> {
    // The filter of a server as it comes (`info`), without the lines about its start.
    livepatch_onprem::telemetry::logs::init(
        "error,livepatch_onprem::http=info",
        livepatch_onprem::config::LogFormat::Json,
    )?;
    let plan = Plan {
        rounds: number("ROUNDS", 5)? as usize,
        seconds: Duration::from_secs(number("SECONDS_EACH", 4)?),
    };
    let only = std::env::var("ONLY").unwrap_or_default();
    if !only.is_empty() && !GROUPS.contains(&only.as_str()) {
        bail!("ONLY={only} is no group of benchmarks; {USAGE}");
    }
    let duration = match std::env::var("DURATION") {
        Ok(text) if !text.is_empty() => humantime::parse_duration(&text)
            .with_context(|| format!("DURATION={text} is no time such as 10m; {USAGE}"))?,
        _ => Duration::from_mins(10),
    };
    let wanted = |group: &str| only == group || (only.is_empty() && group != "hold");
    let mut rows: Vec<Row> = Vec::new();
    if wanted("decide") {
        rows.extend(decide::run(plan)?);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if wanted("checkins") {
            rows.extend(checkins::run(plan).await.context("check-ins")?);
        }
        if wanted("downloads") {
            rows.extend(downloads::run(plan).await.context("downloads")?);
        }
        if wanted("tls") {
            rows.extend(tls::run(plan).await.context("downloads over TLS")?);
        }
        if wanted("cpu") {
            rows.extend(cpu::run(plan).await.context("CPU per download")?);
        }
        if wanted("intake") {
            rows.extend(intake::run(plan).await.context("intake")?);
        }
        if ["start", "reports", "overload", "hold"]
            .iter()
            .any(|g| wanted(g))
        {
            let site = million::Site::make().await?;
            if wanted("start") {
                rows.extend(million::start(plan, &site).await.context("start")?);
            }
            if wanted("reports") {
                rows.extend(million::reports(plan, &site).await.context("reports")?);
            }
            if wanted("overload") {
                rows.extend(load::overload(plan, &site).await.context("overload")?);
            }
            if wanted("hold") {
                rows.extend(load::hold(duration, &site).await.context("hold")?);
            }
        }
        anyhow::Ok(())
    })?;
    report::finish(&rows)
}
