//! `coverage`: how well the machines are covered, and which lose the cover of their kernel.

use super::CliError;
use super::args::SelectorArgs;
use super::context::Context;
use super::output::{Row, Show, View, blocks, properties, rows, some, table, word};
use crate::domain::LabelKey;
use crate::wire::admin::{
    Coverage, CoverageBy, CoverageCounts, CoverageQuery, Horizon, HorizonKernel, HorizonQuery,
};
use clap::{Args, Subcommand};

/// Arguments of `coverage`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  livepatch-admin coverage
  livepatch-admin coverage --by label=rack
  livepatch-admin coverage --by kernel -l rack=r1
  livepatch-admin coverage horizon"
)]
pub struct CoverageArgs {
    /// What the machines are grouped by: tier, kernel, flavour, or label=KEY
    #[arg(long, value_name = "WHAT", default_value = "tier", value_parser = parse_by)]
    pub by: By,
    /// Only those that are selected.
    #[command(flatten)]
    pub which: SelectorArgs,
    /// Look ahead instead.
    #[command(subcommand)]
    pub command: Option<CoverageCommand>,
}

/// Commands below `coverage`.
#[derive(Debug, Subcommand)]
pub enum CoverageCommand {
    /// Machines whose kernel loses its cover within 90 days, or has lost it
    Horizon(SelectorArgs),
}

/// What machines are grouped by.
#[derive(Debug, Clone)]
pub struct By(CoverageBy, Option<LabelKey>);

fn parse_by(text: &str) -> Result<By, String> {
    match text {
        "tier" => Ok(By(CoverageBy::Tier, None)),
        "kernel" => Ok(By(CoverageBy::Kernel, None)),
        "flavour" => Ok(By(CoverageBy::Flavour, None)),
        _ => {
            let key = text
                .strip_prefix("label=")
                .ok_or("tier, kernel, flavour or label=KEY expected")?;
            let key: LabelKey = key.parse().map_err(|e| format!("{e}"))?;
            Ok(By(CoverageBy::Label, Some(key)))
        }
    }
}

fn share(ratio: f64) -> String {
    // Cut, not rounded: 99.96% are not all.
    format!("{:.1}%", (ratio * 1000.0).floor() / 10.0)
}

fn cells(name: String, counts: &CoverageCounts) -> Vec<String> {
    let mut cells = vec![name, share(counts.ratio)];
    let numbers = [
        counts.machines,
        counts.covered,
        counts.behind,
        counts.failed,
        counts.no_payload,
        counts.kernel_upgrade_required + counts.kernel_end_of_life,
        counts.unsupported,
        counts.unknown,
        counts.silent,
    ];
    cells.extend(numbers.map(|number| number.to_string()));
    cells
}

impl Show for Coverage {
    fn show(&self, view: &View) -> String {
        let by = match &self.label {
            Some(label) => label.to_string(),
            None => word(&self.by),
        };
        let header = [
            by.as_str(),
            "covered",
            "machines",
            "up to date",
            "behind",
            "failed",
            "no payload",
            "kernel too old",
            "unsupported",
            "unknown",
            "silent",
        ];
        let groups = self
            .groups
            .iter()
            .map(|group| cells(some(group.name.as_ref()), &group.counts));
        let total = cells("all".to_owned(), &self.total);
        let left_out = match self.left_out {
            0 => String::new(),
            more => format!("{more} groups with fewer machines are left out."),
        };
        blocks([
            properties([("As of", view.time(self.as_of))], view),
            table(&header, groups.chain([total]), view),
            left_out,
        ])
    }
}

impl Row for HorizonKernel {
    const HEADER: &'static [&'static str] =
        &["kernel", "arch", "built", "machines", "on", "in", "then"];
    const NONE: &'static str = "No machine's kernel loses its cover within 90 days.";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.kernel.clone(),
            some(self.architecture),
            some(self.build_date),
            self.machines.to_string(),
            some(self.on),
            match self.days {
                0 => "now".to_owned(),
                1 => "1 day".to_owned(),
                days => format!("{days} days"),
            },
            self.becomes.to_string(),
        ]
    }
}

impl Show for Horizon {
    fn show(&self, view: &View) -> String {
        blocks([
            properties(
                [
                    ("As of", view.time(self.as_of)),
                    ("Upgrade now", self.now.to_string()),
                    ("Within 30 days", self.within_30_days.to_string()),
                    ("Within 60 days", self.within_60_days.to_string()),
                    ("Within 90 days", self.within_90_days.to_string()),
                    ("Age not known", self.age_unknown.to_string()),
                ],
                view,
            ),
            rows(&self.kernels, view),
        ])
    }
}

/// Runs `coverage`.
pub async fn run(context: &Context, args: CoverageArgs) -> Result<(), CliError> {
    let client = context.client()?;
    if let Some(CoverageCommand::Horizon(which)) = args.command {
        let query = HorizonQuery {
            selector: which.selector,
        };
        let horizon: Horizon = client.get(&["coverage", "horizon"], &query).await?;
        return context.show(&horizon);
    }
    let By(by, label) = args.by;
    let query = CoverageQuery {
        by: Some(by),
        label,
        selector: args.which.selector,
    };
    let coverage: Coverage = client.get(&["coverage"], &query).await?;
    context.show(&coverage)
}
