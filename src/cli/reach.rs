//! `rollout reach`: whom a patch has reached.

use super::CliError;
use super::args::SelectorArgs;
use super::context::{Context, PageArgs};
use super::csv::csv;
use super::output::{Show, View, blocks, flag, properties, some, table, text, titled, word};
use crate::domain::PatchVersion;
use crate::wire::admin::{Limit, Reach, ReachQuery, ReachedMachine};
use clap::Args;
use std::fmt::Display;

/// Arguments of `rollout reach`.
#[derive(Debug, Args)]
#[command(after_help = "\
After a patch was blocked, held, aborted or halted: who has it, who was offered it and has
checked in since, and who is silent. A machine that was offered another patch since is
listed only if it runs this one.

Examples:
  livepatch-admin rollout reach 107.1
  livepatch-admin rollout reach 107.1 --all --csv > 107.1.csv")]
pub struct ReachArgs {
    /// The patch, e.g. 107.1
    pub version: PatchVersion,
    /// Print the machines as CSV, for a spreadsheet
    #[arg(long)]
    pub csv: bool,
    /// Only those that are selected.
    #[command(flatten)]
    pub which: SelectorArgs,
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Columns of the CSV.
const COLUMNS: [&str; 11] = [
    "machine-id",
    "tier",
    "kernel",
    "architecture",
    "standing",
    "state",
    "runs",
    "offered-at",
    "last-check",
    "polled-since",
    "silent",
];

/// A value, or nothing: no dash, which people read and programs do not.
fn maybe(value: Option<impl Display>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn line(machine: &ReachedMachine) -> Vec<String> {
    vec![
        machine.machine_id.to_string(),
        machine.tier.to_string(),
        maybe(machine.kernel.as_ref()),
        maybe(machine.architecture),
        word(&machine.standing),
        machine.state.to_string(),
        maybe(machine.runs),
        maybe(machine.offered_at),
        maybe(machine.last_check),
        maybe(machine.polled_since),
        machine.silent.to_string(),
    ]
}

impl Show for Reach {
    fn show(&self, view: &View) -> String {
        let totals = self.totals.iter().map(|total| {
            vec![
                word(&total.standing),
                total.machines.to_string(),
                some(total.polled_since),
                total.silent.to_string(),
            ]
        });
        let machines = self.items.iter().map(|machine| {
            vec![
                machine.machine_id.to_string(),
                machine.tier.to_string(),
                text(machine.kernel.as_deref().unwrap_or_default()),
                some(machine.architecture),
                word(&machine.standing),
                machine.state.to_string(),
                some(machine.runs),
                view.some_time(machine.offered_at),
                view.some_time(machine.last_check),
                flag(machine.polled_since.unwrap_or_default()),
                flag(machine.silent),
            ]
        });
        let stopped = self.stopped_at.map_or_else(
            || "no: it goes on being offered".to_owned(),
            |at| view.time(at),
        );
        let listed = if self.items.is_empty() {
            "No machine runs it or was offered it last.".to_owned()
        } else {
            let header = [
                "machine",
                "tier",
                "kernel",
                "arch",
                "standing",
                "state",
                "runs",
                "offered",
                "last check",
                "polled since",
                "silent",
            ];
            table(&header, machines, view)
        };
        blocks([
            properties(
                [("Patch", self.version.to_string()), ("Stopped", stopped)],
                view,
            ),
            titled(
                "Machines that it has reached",
                &table(
                    &["standing", "machines", "polled since", "silent"],
                    totals,
                    view,
                ),
            ),
            listed,
        ])
    }
}

/// Runs `rollout reach`.
pub async fn run(context: &Context, args: ReachArgs) -> Result<(), CliError> {
    let client = context.client()?;
    let version = args.version.to_string();
    let path = ["patches", &version, "reach"];
    let limit = if args.page.all {
        Limit::MAX
    } else {
        args.page.limit
    };
    let query = |cursor| ReachQuery {
        selector: args.which.selector.clone(),
        cursor,
        limit: Some(limit),
    };
    let mut reach: Reach = client.get(&path, &query(args.page.cursor)).await?;
    while args.page.all
        && let Some(cursor) = reach.next_cursor.take()
    {
        let more: Reach = client.get(&path, &query(Some(cursor))).await?;
        reach.items.extend(more.items);
        reach.next_cursor = more.next_cursor;
    }
    if args.csv {
        context.print(&csv(&COLUMNS, reach.items.iter().map(line)))?;
    } else {
        context.show(&reach)?;
    }
    context.more(reach.next_cursor.as_deref());
    Ok(())
}
