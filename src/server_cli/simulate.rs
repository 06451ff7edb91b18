//! `simulate`: what a policy does, over a fleet that exists only in memory.

use crate::cli::output::Format;
use crate::cli::policy;
use crate::domain::fault::Fault;
use crate::domain::policy::{Policy, Span, Zone};
use crate::domain::{PatchVersion, TierName};
use crate::rollout::simulate::{Outcome, Scenario, simulate};
use anyhow::{Context, anyhow};
use clap::{Args, ValueHint};
use jiff::Timestamp;
use serde_json::json;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
The same is simulated twice: with the policy, and promoted by hand to all at once, where somebody notices after --noticed-after.
The default policy is 10% for 4h, 50% for 1d, 100%, with a gate of 50 machines and 0.5%.

Examples:
  livepatch-server simulate --fault rate=0.02,state=apply-failed
  livepatch-server simulate --policy policy.yaml --tier stable --fleet machines=1000000,interval=1h --fault rate=1%,state=crash";

/// Arguments of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SimulateArgs {
    /// File with the policies of tiers; without it the default policy is tried
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    policy: Option<PathBuf>,
    /// The tier whose policy it is; needed if the file has several
    #[arg(long, value_name = "TIER")]
    tier: Option<TierName>,
    /// The fleet: machines (up to 1000000) and the interval of their check-ins
    #[arg(
        long,
        value_name = "SPEC",
        default_value = "machines=100000,interval=1h"
    )]
    fleet: Fleet,
    /// What is wrong with the patch: rate and state (apply-failed, applied-with-bug or crash); without it it is good
    #[arg(long, value_name = "SPEC")]
    fault: Option<Fault>,
    /// The patch; its version decides who is first
    #[arg(long, value_name = "VERSION", default_value = "107.1")]
    patch: PatchVersion,
    /// When it is promoted [default: now]
    #[arg(long, value_name = "TIME")]
    start: Option<Timestamp>,
    /// How long is looked
    #[arg(long, value_name = "TIME", default_value = "30d")]
    limit: Span,
    /// Promoted by hand: after how long somebody notices a bad patch
    #[arg(long, value_name = "TIME", default_value = "90m")]
    noticed_after: Span,
    /// Form of the output
    #[arg(long, short, value_name = "FORM", value_enum, default_value = "table")]
    output: Format,
}

/// A fleet as a person gives it.
#[derive(Debug, Clone, Copy)]
struct Fleet {
    machines: u32,
    interval: Span,
}

/// The most machines.
const MOST: u32 = 1_000_000;

impl std::str::FromStr for Fleet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut fleet = Self {
            machines: 100_000,
            interval: Span::hours(1),
        };
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some(("machines", value)) => {
                    let machines = value.parse().ok().filter(|n| (1..=MOST).contains(n));
                    fleet.machines =
                        machines.ok_or_else(|| format!("{value:?}: from 1 to {MOST} machines"))?;
                }
                Some(("interval", value)) => {
                    let interval: Span = value
                        .parse()
                        .map_err(|e: crate::domain::ParseError| e.to_string())?;
                    if interval.as_seconds() < 60 || interval.as_seconds() % 60 != 0 {
                        return Err(format!("{value:?}: whole minutes expected"));
                    }
                    fleet.interval = interval;
                }
                _ => {
                    return Err(format!(
                        "{part:?} is not known; write machines=N,interval=TIME"
                    ));
                }
            }
        }
        Ok(fleet)
    }
}

fn chosen(args: &SimulateArgs) -> anyhow::Result<Policy> {
    let Some(path) = &args.policy else {
        return Ok(Policy::example());
    };
    let file =
        policy::read(path, args.fleet.interval).map_err(|error| anyhow!("{}", error.render()))?;
    let spec = match &args.tier {
        Some(tier) => file
            .policies
            .get(tier)
            .with_context(|| format!("{} has no policy for tier {tier}", path.display()))?,
        None if file.policies.len() == 1 => file.policies.values().next().context("no policy")?,
        None => {
            let tiers: Vec<String> = file.policies.keys().map(ToString::to_string).collect();
            return Err(anyhow!(
                "{} has policies for {}; say which with --tier",
                path.display(),
                tiers.join(", ")
            ));
        }
    };
    // What could be wrong was named when the file was read.
    spec.read()
        .map_err(|problems| anyhow!("the policy cannot be read: {problems:?}"))
}

fn told(title: &str, outcome: &Outcome, zone: &Zone) -> String {
    let mut text = format!("{title}\n");
    for line in outcome.transcript(zone).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

fn value(outcome: &Outcome) -> serde_json::Value {
    let timeline: Vec<_> = outcome
        .timeline
        .iter()
        .map(|happened| json!({ "at": happened.at, "offered": happened.offered, "text": happened.text }))
        .collect();
    json!({
        "timeline": timeline, "machines": outcome.machines, "offered": outcome.offered, "applied": outcome.applied,
        "failed": outcome.failed, "silent": outcome.silent, "halted": outcome.halted, "ended-at": outcome.ended_at,
    })
}

/// Runs both simulations and prints what came of them.
pub(super) fn run(args: SimulateArgs) -> anyhow::Result<ExitCode> {
    let policy = chosen(&args)?;
    let zone = policy.schedule.zone.clone();
    let guarded = Scenario {
        policy: Some(policy),
        machines: args.fleet.machines,
        interval: args.fleet.interval,
        version: args.patch,
        fault: args.fault,
        start: args.start.unwrap_or_else(Timestamp::now),
        limit: args.limit,
        noticed_after: args.noticed_after,
    };
    let by_hand = Scenario {
        policy: None,
        ..guarded.clone()
    };
    let (guarded, by_hand) = (simulate(&guarded), simulate(&by_hand));
    match args.output {
        Format::Table => {
            let fault = args.fault.map_or_else(
                || "The patch is good.".to_owned(),
                |fault| format!("Here {fault}."),
            );
            print!(
                "{} machines check in every {}. {fault}\n\n{}\n{}",
                args.fleet.machines,
                args.fleet.interval,
                told("With the policy", &guarded, &zone),
                told("Promoted by hand, to all at once", &by_hand, &zone)
            );
        }
        Format::Json | Format::Yaml => {
            let both = json!({ "with-policy": value(&guarded), "by-hand": value(&by_hand) });
            let text = if args.output == Format::Json {
                serde_json::to_string_pretty(&both)?
            } else {
                serde_saphyr::to_string(&both)?
            };
            println!("{}", text.trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}
