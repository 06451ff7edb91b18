//! The benchmarks: each figure is a ratio to a yardstick that is measured beside it, in turns, in the same run.
//!
//! Run by `make bench`, which brings PostgreSQL, an S3 server, wrk and nginx. Prints one table and writes
//! `target/bench/latest.json`. How to read it stands in `docs/explanation/benchmarks.md`.

mod checkins;
mod decide;
mod downloads;
mod intake;
mod report;
mod site;
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

const USAGE: &str =
    "usage: make bench [ROUNDS=N] [SECONDS=N] [ONLY=checkins|downloads|decide|intake]";

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
    if !["", "checkins", "downloads", "decide", "intake"].contains(&only.as_str()) {
        bail!("ONLY={only} is no group of benchmarks; {USAGE}");
    }
    let wanted = |group: &str| only.is_empty() || only == group;
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
        if wanted("intake") {
            rows.extend(intake::run(plan).await.context("intake")?);
        }
        anyhow::Ok(())
    })?;
    report::finish(&rows)
}
