//! `kernels`: the table of supported kernels, shown and replaced.

use super::context::Context;
use super::csv::csv;
use super::output::{Row, Show, View, blocks, count, rows, some, table, titled};
use super::{CliError, prompt};
use crate::wire::admin::{KernelsImport, KernelsOutcome, Page, PageQuery, SupportedKernel};
use clap::{Subcommand, ValueHint};
use reqwest::Method;
use std::path::PathBuf;

/// Commands on the table of supported kernels.
#[derive(Debug, Subcommand)]
pub enum KernelsCommand {
    /// Show the table: for which kernels patches are made, and for how long
    List {
        /// Print it as CSV, as `import` reads it
        #[arg(long)]
        csv: bool,
    },
    /// Put the table of a file in its place: all of it, or nothing
    #[command(after_help = "\
The file is CSV with the header
  release,codename,architecture,series,kind,flavours,months,end-of-life
Flavours are separated by spaces; the last column may be empty or missing.

Examples:
  livepatch-admin kernels list --csv > kernels.csv
  livepatch-admin kernels import kernels.csv --dry-run")]
    Import {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
        /// Why; stands in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

impl Row for SupportedKernel {
    const HEADER: &'static [&'static str] = &[
        "release",
        "codename",
        "arch",
        "series",
        "kind",
        "months",
        "end of life",
        "flavours",
    ];
    const NONE: &'static str = "The table is empty.";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            self.release.clone(),
            self.codename.clone(),
            self.architecture.to_string(),
            self.series.clone(),
            self.kind.clone(),
            self.months.to_string(),
            some(self.end_of_life),
            self.flavours.join(" "),
        ]
    }
}

/// A line as it stands in a file.
fn line(kernel: &SupportedKernel) -> Vec<String> {
    vec![
        kernel.release.clone(),
        kernel.codename.clone(),
        kernel.architecture.to_string(),
        kernel.series.clone(),
        kernel.kind.clone(),
        kernel.flavours.join(" "),
        kernel.months.to_string(),
        kernel
            .end_of_life
            .map_or_else(String::new, |day| day.to_string()),
    ]
}

const COLUMNS: [&str; 8] = [
    "release",
    "codename",
    "architecture",
    "series",
    "kind",
    "flavours",
    "months",
    "end-of-life",
];

impl KernelsOutcome {
    fn changes(&self) -> usize {
        self.added.len() + self.removed.len() + self.changed.len()
    }
}

impl Show for KernelsOutcome {
    fn show(&self, view: &View) -> String {
        let list = |title: &str, kernels: &[SupportedKernel]| {
            if kernels.is_empty() {
                String::new()
            } else {
                titled(title, &rows(kernels, view))
            }
        };
        let changed = self.changed.iter().flat_map(|change| {
            [("-", &change.before), ("+", &change.after)].map(|(sign, kernel)| {
                let mut cells = vec![sign.to_owned()];
                cells.extend(kernel.cells(view));
                cells
            })
        });
        let header: Vec<&str> = [""]
            .into_iter()
            .chain(SupportedKernel::HEADER.iter().copied())
            .collect();
        let changed = if self.changed.is_empty() {
            String::new()
        } else {
            titled("Changes", &table(&header, changed, view))
        };
        let end = match (self.changes(), self.dry_run) {
            (0, _) => "The server has this table; nothing changes.".to_owned(),
            (_, true) => "Nothing was changed.".to_owned(),
            (changes, false) => format!(
                "The table is replaced: {} changed.",
                count(changes as u64, "line", "lines")
            ),
        };
        blocks([
            list("Comes", &self.added),
            list("Goes", &self.removed),
            changed,
            end,
        ])
    }
}

/// Runs a command on the table of supported kernels.
pub async fn run(context: &Context, command: KernelsCommand) -> Result<(), CliError> {
    match command {
        KernelsCommand::List { csv: as_csv } => {
            let page: Page<SupportedKernel> = context
                .client()?
                .get(&["kernels"], &PageQuery::default())
                .await?;
            if as_csv {
                return context.print(&csv(&COLUMNS, page.items.iter().map(line)));
            }
            context.show(&page)
        }
        KernelsCommand::Import {
            file,
            dry_run,
            reason,
        } => {
            let csv = std::fs::read_to_string(&file)
                .map_err(|error| CliError::file("read", &file, error))?;
            let mut body = KernelsImport {
                csv,
                reason,
                dry_run: true,
            };
            let client = context.client()?;
            let path = ["kernels"];
            let outcome: KernelsOutcome = client.send(Method::PUT, &path, &body).await?;
            if dry_run || outcome.changes() == 0 {
                return context.show(&outcome);
            }
            if !context.global.yes {
                context.note(&outcome.show(context.view()));
            }
            prompt::confirm(
                "Put this table in the place of the other",
                context.global.yes,
            )?;
            body.dry_run = false;
            let outcome: KernelsOutcome = client.send(Method::PUT, &path, &body).await?;
            context.show(&outcome)
        }
    }
}
