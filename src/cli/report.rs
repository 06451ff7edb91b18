//! `report`: machines by version and state, and how a patch fares.

use super::CliError;
use super::args::SelectorArgs;
use super::context::{Context, PageArgs};
use super::machine::machine_table;
use super::output::{Row, Show, View, blocks, pairs, properties, rows, some, text};
use crate::domain::{PatchVersion, States, TierName};
use crate::wire::admin::{
    KernelHealth, Limit, MachinesReport, MachinesReportQuery, PatchHealth, PatchHealthQuery,
    VersionStateCount,
};
use clap::{Args, Subcommand};

/// Reports.
#[derive(Debug, Subcommand)]
pub enum ReportCommand {
    /// Machines of a tier by patch and state
    Machines(MachinesArgs),
    /// How a patch fares on the machines of a tier
    #[command(after_help = "Example: livepatch-admin report patch-health beta 107.1")]
    PatchHealth {
        /// The tier
        tier: TierName,
        /// The patch, e.g. 107.1
        version: PatchVersion,
        /// Only those that are selected.
        #[command(flatten)]
        which: SelectorArgs,
    },
}

/// Arguments of `report machines`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  livepatch-admin report machines stable
  livepatch-admin report machines stable -l rack=r1
  livepatch-admin report machines stable 107.1 apply-failed --all --output json")]
pub struct MachinesArgs {
    /// The tier
    pub tier: TierName,
    /// Only machines with this patch applied
    pub version: Option<PatchVersion>,
    /// Only machines in this state
    pub state: Option<States>,
    /// Only those that are selected.
    #[command(flatten)]
    pub which: SelectorArgs,
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageArgs,
}

impl Row for VersionStateCount {
    const HEADER: &'static [&'static str] = &["patch", "state", "machines"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            some(self.version),
            self.state.to_string(),
            self.machines.to_string(),
        ]
    }
}

impl Show for MachinesReport {
    fn show(&self, view: &View) -> String {
        let head = properties(
            [
                ("Tier", self.tier.to_string()),
                ("Machines", self.total.to_string()),
                ("As of", view.time(self.as_of)),
            ],
            view,
        );
        if self.total == 0 {
            return head;
        }
        blocks([
            head,
            rows(&self.counts, view),
            machine_table(&self.machines.items, view),
        ])
    }
}

impl Row for KernelHealth {
    const HEADER: &'static [&'static str] = &["kernel", "arch", "machines", "failed", "states"];
    const NONE: &'static str = "none";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.kernel.clone(),
            some(self.architecture),
            self.machines.to_string(),
            self.failed.to_string(),
            pairs(&self.states),
        ]
    }
}

impl Show for PatchHealth {
    fn show(&self, view: &View) -> String {
        let kernels = if self.kernels.is_empty() {
            String::new()
        } else {
            rows(&self.kernels, view)
        };
        blocks([
            properties(
                [
                    ("Patch", self.version.to_string()),
                    ("Tier", self.tier.to_string()),
                    ("Machines", self.machines.to_string()),
                    ("As of", view.time(self.as_of)),
                    (
                        "Failed",
                        format!("{} ({:.2}%)", self.failed, self.failed_share * 100.0),
                    ),
                    ("States", text(&pairs(&self.states))),
                ],
                view,
            ),
            kernels,
        ])
    }
}

/// Runs a report.
pub async fn run(context: &Context, command: ReportCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        ReportCommand::Machines(args) => {
            let query = |cursor, limit| MachinesReportQuery {
                tier: args.tier.clone(),
                version: args.version,
                state: args.state.clone(),
                selector: args.which.selector.clone(),
                cursor,
                limit: Some(limit),
            };
            let path = ["reports", "machines"];
            let limit = if args.page.all {
                Limit::MAX
            } else {
                args.page.limit
            };
            let mut report: MachinesReport = client
                .get(&path, &query(args.page.cursor.clone(), limit))
                .await?;
            while args.page.all
                && let Some(cursor) = report.machines.next_cursor.take()
            {
                let more: MachinesReport = client.get(&path, &query(Some(cursor), limit)).await?;
                report.machines.items.extend(more.machines.items);
                report.machines.next_cursor = more.machines.next_cursor;
            }
            context.show(&report)?;
            context.more(report.machines.next_cursor.as_deref());
            Ok(())
        }
        ReportCommand::PatchHealth {
            tier,
            version,
            which,
        } => {
            let health: PatchHealth = client
                .get(
                    &["reports", "patch-health"],
                    &PatchHealthQuery {
                        tier,
                        version,
                        selector: which.selector,
                    },
                )
                .await?;
            context.show(&health)
        }
    }
}
