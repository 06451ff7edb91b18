//! `rollout`: list, show, forecast, reach, approve, pause, resume, abort, block; and `preview promote`.

use super::args::{ScopeArgs, SelectorArgs};
use super::context::Context;
use super::output::{
    Row, Show, View, blocks, bytes, count, properties, rows, some, table, text, titled,
};
use super::patch::scope_text;
use super::{CliError, prompt, reach};
use crate::domain::policy::Zone;
use crate::domain::{PatchVersion, TierName};
use crate::wire::admin::{
    ForecastQuery, Page, PatchForecast, PromoteOutcome, PromoteRequest, RolloutAct, RolloutDetail,
    RolloutEntry, RolloutForecast, RolloutHealth, RolloutQuery,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde::Serialize;

const LIST: &str = "\
A tier with a policy lets machines in by phases; `livepatch-admin policy` shows and sets policies.

Examples:
  livepatch-admin rollout list
  livepatch-admin rollout list --version 107.1 --all
  livepatch-admin rollout show 12";

/// Commands on rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// List the rollouts that are under way or stand still
    #[command(after_help = LIST)]
    List {
        /// Only of this patch, e.g. 107.1
        #[arg(long, value_name = "VERSION")]
        version: Option<PatchVersion>,
        /// Only in this tier
        #[arg(long, value_name = "TIER")]
        tier: Option<TierName>,
        /// Also those that ended
        #[arg(long)]
        all: bool,
    },
    /// Show one: what machines report against the gate, by kernel, its timeline and what would become of it
    Show {
        /// Its number, as in the list
        id: i64,
    },
    /// Say how a patch would come to each tier: machines, phases, hours
    #[command(after_help = "Example: livepatch-admin rollout forecast 107.1")]
    Forecast {
        /// The patch, e.g. 107.1
        version: PatchVersion,
        /// As if it were promoted to this tier now
        #[arg(long, value_name = "TIER")]
        tier: Option<TierName>,
        /// For which machines.
        #[command(flatten)]
        which: SelectorArgs,
    },
    /// List whom a patch has reached: who has it, who was offered it, who is silent
    Reach(reach::ReachArgs),
    /// Let one begin that awaits a second person; not by who promoted the patch
    Approve(ActArgs),
    /// Let nobody in for a while
    Pause(ActArgs),
    /// Go on after a pause, a halt or an abort; what failed before a halt counts no more
    Resume(ActArgs),
    /// End one and hold its patch: who runs it keeps it
    Abort(ActArgs),
    /// End one and block its patch: who runs it may go back to a lower version
    Block(ActArgs),
}

/// What is acted on, and why.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// Number of the rollout, as in the list
    pub id: i64,
    /// Why; stands in the audit log and in the rollout's timeline
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

/// Commands that look ahead.
#[derive(Debug, Subcommand)]
pub enum PreviewCommand {
    /// What promoting a patch to a tier would mean; nothing is changed
    #[command(
        after_help = "Examples:\n  livepatch-admin preview promote 107.1 stable\n  livepatch-admin preview promote 107.1 stable -l rack=r1"
    )]
    Promote {
        /// The patch, e.g. 107.1
        version: PatchVersion,
        /// The tier it would reach
        tier: TierName,
        /// For which kernels.
        #[command(flatten)]
        scope: ScopeArgs,
        /// For which machines.
        #[command(flatten)]
        which: SelectorArgs,
    },
}

/// A time in the zone of a policy, which people who wrote it think in.
fn at(zone: &str, at: Option<Timestamp>) -> String {
    let zone: Zone = zone.parse().unwrap_or_default();
    some(at.map(|at| zone.show(at)))
}

fn stands(entry: &RolloutEntry) -> String {
    match entry.opening.as_str() {
        "frozen" | "outside-window" => {
            let until = at(&entry.zone, entry.opens_at);
            format!("{} ({} until {until})", entry.state, entry.opening)
        }
        _ => entry.state.clone(),
    }
}

fn phase(entry: &RolloutEntry) -> String {
    match entry.phases {
        0 => "-".to_owned(),
        phases => format!("{} of {phases}", entry.phase.min(phases)),
    }
}

impl Row for RolloutEntry {
    const HEADER: &'static [&'static str] = &[
        "id", "patch", "tier", "for", "state", "phase", "share", "begun", "why",
    ];
    const NONE: &'static str = "No rollout is under way; --all also lists those that ended.";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.version.to_string(),
            self.tier.to_string(),
            scope_text(&self.scope),
            stands(self),
            phase(self),
            self.share.clone(),
            at(&self.zone, Some(self.begun_at)),
            text(&self.reason),
        ]
    }
}

fn health(health: &RolloutHealth) -> Vec<String> {
    [
        health.offered,
        health.applied,
        health.failed,
        health.silent,
        health.pending,
    ]
    .map(|machines| machines.to_string())
    .into()
}

fn ahead(forecast: &RolloutForecast, zone: &str, view: &View) -> String {
    let phases = forecast.phases.iter().map(|phase| {
        vec![
            phase.phase.to_string(),
            phase.share.clone(),
            phase.machines.to_string(),
            at(zone, Some(phase.at)),
        ]
    });
    let end = match forecast.ends_at {
        Some(end) => format!("At its end: {}", at(zone, Some(end))),
        None => "Not at its end within four months.".to_owned(),
    };
    let peak = format!(
        "Downloads per second at most: {:.1}",
        forecast.peak_downloads_per_second
    );
    if forecast.phases.is_empty() {
        return format!("{end}\n{peak}");
    }
    let phases = table(&["phase", "share", "machines", "opens"], phases, view);
    format!("{phases}\n{end}\n{peak}")
}

impl Show for RolloutDetail {
    fn show(&self, view: &View) -> String {
        let entry = &self.rollout;
        let gate = self.gate.as_ref().map(|gate| {
            format!(
                "{} of {} machines reported; {} failing, {} allowed",
                gate.reported, gate.machines, gate.failing, gate.failure_rate
            )
        });
        let kernels = self.kernels.iter().map(|kernel| {
            let mut cells = vec![text(&kernel.kernel), some(kernel.architecture)];
            cells.extend(health(&kernel.health));
            cells
        });
        let events = self.events.iter().map(|event| {
            vec![
                at(&entry.zone, Some(event.at)),
                event.kind.clone(),
                event.actor.clone(),
                event.text.clone(),
            ]
        });
        let forecast = self.forecast.as_ref();
        blocks([
            properties(
                [
                    ("Rollout", entry.id.to_string()),
                    ("Patch", entry.version.to_string()),
                    ("Tier", entry.tier.to_string()),
                    ("For", scope_text(&entry.scope)),
                    ("State", stands(entry)),
                    ("Why", text(&entry.reason)),
                    ("Phase", phase(entry)),
                    ("Let in", entry.share.clone()),
                    ("Begun", at(&entry.zone, Some(entry.begun_at))),
                    ("Phase since", at(&entry.zone, Some(entry.phase_at))),
                    ("Ended", at(&entry.zone, entry.ended_at)),
                    ("Asked for by", entry.requested_by.clone()),
                    ("Approved by", some(entry.approved_by.as_ref())),
                    ("Machines", self.health.machines.to_string()),
                    ("Counted", at(&entry.zone, Some(self.as_of))),
                    ("Gate", some(gate)),
                ],
                view,
            ),
            titled(
                "What machines report that were offered it",
                &table(
                    &[
                        "kernel", "arch", "offered", "applied", "failed", "silent", "pending",
                    ],
                    kernels,
                    view,
                ),
            ),
            forecast.map_or_else(String::new, |forecast| {
                titled("If all goes well", &ahead(forecast, &entry.zone, view))
            }),
            titled(
                "Timeline",
                &table(&["when", "what", "who", "text"], events, view),
            ),
        ])
    }
}

impl Show for PatchForecast {
    fn show(&self, view: &View) -> String {
        let tiers = self.tiers.iter().map(|tier| {
            vec![
                tier.tier.to_string(),
                tier.begins.clone(),
                at(&tier.zone, tier.at),
                tier.machines.to_string(),
                tier.kernels.to_string(),
                bytes(tier.bytes),
                format!("{:.1}/s", tier.forecast.peak_downloads_per_second),
                at(&tier.zone, tier.forecast.ends_at),
            ]
        });
        let header = [
            "tier",
            "how it comes",
            "from",
            "machines",
            "kernels",
            "bytes",
            "peak",
            "done",
        ];
        let phases = self
            .tiers
            .iter()
            .filter(|tier| !tier.forecast.phases.is_empty());
        let phases = phases.map(|tier| {
            titled(
                &format!("Phases in {}", tier.tier),
                &ahead(&tier.forecast, &tier.zone, view),
            )
        });
        let gaps = if self.kernels_without_payload.is_empty() {
            String::new()
        } else {
            titled(
                "Kernels of machines for which it has no payload",
                &rows(&self.kernels_without_payload, view),
            )
        };
        let head = format!("How {} comes to the tiers, if all goes well", self.version);
        blocks(
            [titled(&head, &table(&header, tiers, view))]
                .into_iter()
                .chain(phases)
                .chain([gaps]),
        )
    }
}

/// What a promotion would mean: what it touches, and what would become of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Preview {
    promotion: PromoteOutcome,
    forecast: PatchForecast,
}

impl Show for Preview {
    fn show(&self, view: &View) -> String {
        blocks([self.promotion.show(view), self.forecast.show(view)])
    }
}

/// Runs a command that looks ahead.
pub async fn preview(context: &Context, command: PreviewCommand) -> Result<(), CliError> {
    let PreviewCommand::Promote {
        version,
        tier,
        scope,
        which,
    } = command;
    let client = context.client()?;
    let body = PromoteRequest {
        tier: tier.clone(),
        scope: scope.scope()?,
        reason: None,
        dry_run: true,
        selector: which.selector.clone(),
    };
    let version = version.to_string();
    let promotion: PromoteOutcome = client
        .send(Method::POST, &["patches", &version, "promote"], &body)
        .await?;
    let query = ForecastQuery {
        tier: Some(tier),
        selector: which.selector,
    };
    let forecast: PatchForecast = client
        .get(&["patches", &version, "forecast"], &query)
        .await?;
    context.show(&Preview {
        promotion,
        forecast,
    })
}

async fn act(context: &Context, verb: &str, args: ActArgs) -> Result<(), CliError> {
    let body = RolloutAct {
        reason: args.reason,
    };
    let id = args.id.to_string();
    let client = context.client()?;
    let detail: RolloutDetail = client
        .send(Method::POST, &["rollouts", &id, verb], &body)
        .await?;
    let entry = &detail.rollout;
    let offered = count(detail.health.offered, "machine was", "machines were");
    let sentence = format!(
        "Rollout {id} of {} in {} is {} now, at {}; {offered} offered the patch so far.",
        entry.version, entry.tier, entry.state, entry.share
    );
    context.done(&detail, &sentence)
}

/// Runs a command on rollouts.
pub async fn run(context: &Context, command: RolloutCommand) -> Result<(), CliError> {
    match command {
        RolloutCommand::List { version, tier, all } => {
            let query = RolloutQuery { version, tier, all };
            let page: Page<RolloutEntry> = context.client()?.get(&["rollouts"], &query).await?;
            context.show(&page)
        }
        RolloutCommand::Show { id } => {
            let id = id.to_string();
            let detail: RolloutDetail = context
                .client()?
                .get(&["rollouts", &id], &RolloutQuery::default())
                .await?;
            context.show(&detail)
        }
        RolloutCommand::Forecast {
            version,
            tier,
            which,
        } => {
            let version = version.to_string();
            let query = ForecastQuery {
                tier,
                selector: which.selector,
            };
            let forecast: PatchForecast = context
                .client()?
                .get(&["patches", &version, "forecast"], &query)
                .await?;
            context.show(&forecast)
        }
        RolloutCommand::Reach(args) => reach::run(context, args).await,
        RolloutCommand::Approve(args) => act(context, "approve", args).await,
        RolloutCommand::Pause(args) => act(context, "pause", args).await,
        RolloutCommand::Resume(args) => act(context, "resume", args).await,
        RolloutCommand::Abort(args) => act(context, "abort", args).await,
        RolloutCommand::Block(args) => {
            let what = format!("Block the patch of rollout {}", args.id);
            prompt::confirm(&what, context.global.yes)?;
            act(context, "block", args).await
        }
    }
}
