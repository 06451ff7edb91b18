//! `machine`: list, show, revoke, forget, history; and `explain`. Moving and labelling are in `selected`.

use super::args::SelectorArgs;
use super::context::{Context, PageArgs, list};
use super::output::{
    Row, Show, View, blocks, bytes, flag, pairs, properties, some, table, titled, word,
};
use super::selected::{self, LabelArgs, MoveArgs};
use super::times::When;
use super::{CliError, prompt};
use crate::domain::{Architecture, Fate, MachineId, PatchVersion, States, TierName};
use crate::wire::admin::{
    Explanation, HistoryEntry, HistoryKind, HistoryQuery, Machine, MachineQuery, MachineRevoke,
    PageQuery,
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;

const LIST: &str = "\
Examples:
  livepatch-admin machine list --tier stable --state apply-failed
  livepatch-admin machine list -l rack=r1,kernel=5.15.0-*,!retired";

/// Commands on machines.
#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// List machines
    #[command(
        after_help = LIST
    )]
    List(ListArgs),
    /// Show one machine
    Show {
        /// Its id, as in /etc/machine-id
        id: MachineId,
    },
    /// Move machines to a tier, whatever their auth tokens say
    Move(MoveArgs),
    /// Set and take away labels of machines
    Label(LabelArgs),
    /// Refuse a machine's tokens from now on; it can be enabled again with an auth token
    Revoke {
        /// Its id
        id: MachineId,
        /// Why; stands in the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Delete what is known of a machine
    Forget {
        /// Its id
        id: MachineId,
    },
    /// What a machine reported, newest first
    History(HistoryArgs),
}

/// Arguments of `machine list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only in this tier
    #[arg(long, value_name = "TIER")]
    pub tier: Option<TierName>,
    /// Only in this state, or in one of several: apply-failed,applied-with-bug
    #[arg(long, value_name = "STATES")]
    pub state: Option<States>,
    /// Only with this kernel
    #[arg(long, value_name = "KERNEL")]
    pub kernel: Option<String>,
    /// Only with kernels of this flavour
    #[arg(long, value_name = "FLAVOUR")]
    pub flavour: Option<String>,
    /// Only of this architecture
    #[arg(long, value_name = "ARCH")]
    pub arch: Option<Architecture>,
    /// Only with this patch in their reports
    #[arg(long, value_name = "VERSION")]
    pub patch: Option<PatchVersion>,
    /// Only those that last checked in before this: a time, a day or a span such as 2h
    #[arg(long, value_name = "TIME")]
    pub last_seen_before: Option<When>,
    /// With --patch: not only those that report it but those that report it or were offered it last, and of whom this came of
    /// it: waiting, failed, applied or any
    #[arg(long, value_name = "FATE", requires = "patch")]
    pub fate: Option<Fate>,
    /// Only those that are selected.
    #[command(flatten)]
    pub which: SelectorArgs,
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Arguments of `machine history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Its id
    pub id: MachineId,
    /// Not before: a time, a day, or a span back from now such as 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// Before: a time, a day, or a span back from now
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
    /// Which part of the list.
    #[command(flatten)]
    pub page: PageArgs,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "The same reasons stand in the answer that the machine gets.")]
pub struct ExplainArgs {
    /// Id of the machine, as in /etc/machine-id
    pub machine_id: MachineId,
}

impl Row for Machine {
    const HEADER: &'static [&'static str] = &[
        "machine",
        "tier",
        "state",
        "applied",
        "offered",
        "kernel",
        "arch",
        "last check",
        "client",
    ];
    const NONE: &'static str = "There are no such machines.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.machine_id.to_string(),
            self.tier.to_string(),
            self.state.to_string(),
            some(self.applied),
            some(self.offered),
            some(self.kernel.as_ref()),
            some(self.architecture),
            view.some_time(self.last_check),
            some(self.client_version.as_ref()),
        ]
    }
}

impl Show for Machine {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Machine", self.machine_id.to_string()),
                ("Tier", self.tier.to_string()),
                ("Moved there", flag(self.moved)),
                ("Labels", pairs(&self.labels)),
                ("Auth token", some(self.auth_token.as_ref())),
                ("Revoked before", view.some_time(self.revoked_before)),
                ("State", self.state.to_string()),
                ("Applied", some(self.applied)),
                ("Offered", some(self.offered)),
                ("Offered at", view.some_time(self.offered_at)),
                ("Last answer", some(self.outcome.as_ref())),
                ("Last check", view.some_time(self.last_check)),
                ("Kernel", some(self.kernel.as_ref())),
                ("Architecture", some(self.architecture)),
                ("Kernel built", some(self.build_date)),
                ("Supported", self.supported.to_string()),
                ("CPU", some(self.cpu_model.as_ref())),
                ("Started", view.some_time(self.boot_time)),
                ("Client", some(self.client_version.as_ref())),
                ("Registered", view.time(self.registered_at)),
            ],
            view,
        )
    }
}

impl Row for HistoryEntry {
    const HEADER: &'static [&'static str] = &[
        "when", "what", "state", "patch", "offered", "answer", "tier", "kernel", "message",
    ];
    const NONE: &'static str = "The machine has not reported in this time.";

    fn cells(&self, view: &View) -> Vec<String> {
        let what = match (self.kind, &self.ping_type) {
            (HistoryKind::Ping, Some(ping)) => ping.clone(),
            (kind, _) => word(&kind),
        };
        vec![
            view.time(self.at),
            what,
            self.state.to_string(),
            some(self.applied),
            some(self.offered),
            some(self.outcome.as_ref()),
            some(self.tier.as_ref()),
            some(self.kernel.as_ref()),
            some(self.message.as_ref()),
        ]
    }
}

impl Show for Explanation {
    fn show(&self, view: &View) -> String {
        let tier = if self.moved {
            format!("{} (moved there by an administrator)", self.tier)
        } else {
            self.tier.to_string()
        };
        let answer = match &self.offered {
            Some(offered) => format!("{}: {}", self.outcome, offered.version),
            None => self.outcome.clone(),
        };
        let mut reasons: Vec<String> = self
            .reasons
            .iter()
            .enumerate()
            .map(|(at, reason)| format!("{}. {} [{}]", at + 1, reason.text, reason.code))
            .collect();
        if reasons.is_empty() {
            reasons.push("none given".to_owned());
        }
        let offered = self.offered.as_ref().map_or_else(String::new, |offered| {
            titled(
                "Offered",
                &properties(
                    [
                        ("Patch", offered.version.to_string()),
                        ("File", offered.filename.clone()),
                        ("SHA-256", offered.sha256.to_string()),
                        ("Size", bytes(offered.size)),
                    ],
                    view,
                ),
            )
        });
        blocks([
            properties(
                [
                    ("Machine", self.machine_id.to_string()),
                    ("Answer", answer),
                    ("Refused", some(self.refused.as_ref())),
                    ("Tier", tier),
                    ("Auth token", some(self.auth_token.as_ref())),
                    ("Kernel", some(self.kernel.as_ref())),
                    ("Architecture", some(self.architecture)),
                    ("Kernel built", some(self.build_date)),
                    ("Supported", self.supported.to_string()),
                    ("Upgrade by", some(self.upgrade_required_date)),
                    ("State", self.state.to_string()),
                    ("Applied", some(self.applied)),
                    ("Last check", view.some_time(self.last_check)),
                ],
                view,
            ),
            titled("Why", &reasons.join("\n")),
            offered,
        ])
    }
}

/// A summary of machines by version and state; used by the report too.
pub fn machine_table(machines: &[Machine], view: &View) -> String {
    if machines.is_empty() {
        return Machine::NONE.to_owned();
    }
    table(
        Machine::HEADER,
        machines.iter().map(|m| m.cells(view)),
        view,
    )
}

/// Runs a command on machines.
pub async fn run(context: &Context, command: MachineCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        MachineCommand::List(args) => {
            let seen = args
                .last_seen_before
                .map(|when| when.ago(Timestamp::now(), context.zone()))
                .transpose()
                .map_err(CliError::Usage)?;
            let page = list::<Machine, _>(&client, &["machines"], args.page, |cursor, limit| {
                MachineQuery {
                    tier: args.tier.clone(),
                    state: args.state.clone(),
                    kernel: args.kernel.clone(),
                    flavour: args.flavour.clone(),
                    architecture: args.arch,
                    version: args.patch,
                    last_seen_before: seen,
                    fate: args.fate,
                    selector: args.which.selector.clone(),
                    cursor,
                    limit: Some(limit),
                }
            })
            .await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(())
        }
        MachineCommand::Show { id } => {
            let id = id.to_string();
            let machine: Machine = client
                .get(&["machines", &id], &PageQuery::default())
                .await?;
            context.show(&machine)
        }
        MachineCommand::Move(args) => selected::move_to(context, &client, args).await,
        MachineCommand::Label(args) => selected::label(context, &client, args).await,
        MachineCommand::Revoke { id, reason } => {
            let machine: Machine = client
                .send(
                    Method::POST,
                    &["machines", &id.to_string(), "revoke"],
                    &MachineRevoke { reason },
                )
                .await?;
            context.done(
                &machine,
                &format!("Machine {id} is refused until it is enabled again."),
            )
        }
        MachineCommand::Forget { id } => {
            prompt::confirm(
                &format!("Delete what is known of machine {id}"),
                context.global.yes,
            )?;
            client
                .tell(Method::DELETE, &["machines", &id.to_string()])
                .await?;
            context.say(&format!("Machine {id} is forgotten."))
        }
        MachineCommand::History(args) => {
            let now = Timestamp::now();
            let moment = |when: Option<When>| {
                when.map(|w| w.ago(now, context.zone()))
                    .transpose()
                    .map_err(CliError::Usage)
            };
            let (since, until) = (moment(args.since)?, moment(args.until)?);
            let page = list::<HistoryEntry, _>(
                &client,
                &["machines", &args.id.to_string(), "history"],
                args.page,
                |cursor, limit| HistoryQuery {
                    since,
                    until,
                    cursor,
                    limit: Some(limit),
                },
            )
            .await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(())
        }
    }
}

/// Runs `explain`.
pub async fn explain(context: &Context, args: ExplainArgs) -> Result<(), CliError> {
    let id = args.machine_id.to_string();
    let explanation: Explanation = context
        .client()?
        .get(&["machines", &id, "explain"], &PageQuery::default())
        .await?;
    context.show(&explanation)
}
