//! `capture`: start, list, show, stop.

use super::CliError;
use super::context::Context;
use super::output::{Row, Show, View, blocks, count, properties, some, word};
use crate::domain::MachineId;
use crate::wire::admin::{Capture, CaptureContent, CaptureStart, PageQuery};
use clap::{Args, Subcommand};
use reqwest::Method;
use std::net::IpAddr;

const EXAMPLES: &str = "\
Secrets are masked before anything is recorded. The file can be attached to a report:
  livepatch-admin capture start --machine 3f1c... --for 2h
  livepatch-admin capture show 1 --output json > capture.json";

/// Commands on captures.
#[derive(Debug, Subcommand)]
pub enum CaptureCommand {
    /// Record the raw requests of a machine or an address for a while
    #[command(after_help = EXAMPLES)]
    Start(StartArgs),
    /// List the captures
    List,
    /// Show what a capture recorded
    Show {
        /// Its id
        id: i64,
    },
    /// End a capture and delete what it recorded
    Stop {
        /// Its id
        id: i64,
    },
}

/// Arguments of `capture start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Whose requests.
    #[command(flatten)]
    pub whose: Whose,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    pub time: humantime::Duration,
    /// End after this many requests
    #[arg(long, value_name = "N")]
    pub max_records: Option<u32>,
}

/// Whose requests are recorded; with both, only those that are of the machine and from the address.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct Whose {
    /// Requests of this machine
    #[arg(long, value_name = "MACHINE-ID")]
    pub machine: Option<MachineId>,
    /// Requests from this address
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
}

impl Row for Capture {
    const HEADER: &'static [&'static str] = &[
        "id", "machine", "address", "from", "until", "records", "state", "by",
    ];
    const NONE: &'static str = "There are no captures.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            some(self.machine_id),
            some(self.address),
            view.time(self.created_at),
            view.time(self.until),
            format!("{}/{}", self.records, self.max_records),
            if self.active { "records" } else { "ended" }.to_owned(),
            self.actor.clone(),
        ]
    }
}

impl Show for Capture {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Capture", self.id.to_string()),
                ("Machine", some(self.machine_id)),
                ("Address", some(self.address)),
                ("From", view.time(self.created_at)),
                ("Until", view.time(self.until)),
                (
                    "Records",
                    format!("{} of at most {}", self.records, self.max_records),
                ),
                ("By", self.actor.clone()),
            ],
            view,
        )
    }
}

impl Show for CaptureContent {
    fn show(&self, view: &View) -> String {
        let head = self.capture.show(view);
        let records = self.records.iter().map(|record| {
            let body = serde_json::to_string_pretty(&record.record)
                .unwrap_or_else(|_| word(&record.record));
            format!("{}\n{body}", view.time(record.at))
        });
        blocks(std::iter::once(head).chain(records))
    }
}

/// Runs a command on captures.
pub async fn run(context: &Context, command: CaptureCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        CaptureCommand::Start(args) => {
            let body = CaptureStart {
                machine_id: args.whose.machine,
                address: args.whose.address,
                seconds: args.time.as_secs(),
                max_records: args.max_records,
            };
            let capture: Capture = client.send(Method::POST, &["captures"], &body).await?;
            let sentence = format!(
                "Capture {} records until {} or until {} are there.",
                capture.id,
                context.view().time(capture.until),
                count(capture.max_records.into(), "request", "requests")
            );
            context.done(&capture, &sentence)
        }
        CaptureCommand::List => {
            let page = client
                .all::<Capture, _>(&["captures"], PageQuery::new)
                .await?;
            context.show(&page)
        }
        CaptureCommand::Show { id } => {
            let content: CaptureContent = client
                .get(&["captures", &id.to_string()], &PageQuery::default())
                .await?;
            context.show(&content)
        }
        CaptureCommand::Stop { id } => {
            client
                .tell(Method::DELETE, &["captures", &id.to_string()])
                .await?;
            context.say(&format!("Capture {id} is ended and deleted."))
        }
    }
}
