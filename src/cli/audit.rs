//! `audit`: list, verify.

use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, blocks, properties, some, text};
use super::times::When;
use super::{CliError, Exit};
use crate::wire::admin::{AuditEntry, AuditQuery, AuditVerdict, PageQuery};
use clap::{Args, Subcommand};
use jiff::Timestamp;

/// Commands on the audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List entries, newest first
    #[command(after_help = "Example: livepatch-admin audit list --action patch.promote --since 7d")]
    List(ListArgs),
    /// Check that no entry was changed or removed; exit code 7 if one was
    #[command(
        after_help = "Keep the head that is printed in another place: it proves later that nothing before it was changed."
    )]
    Verify,
}

/// Arguments of `audit list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only by this administrator
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only this action, e.g. patch.promote
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Only on this target, e.g. 107.1
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
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

impl Row for AuditEntry {
    const HEADER: &'static [&'static str] =
        &["#", "when", "who", "from", "action", "target", "details"];
    const NONE: &'static str = "There are no such entries.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.seq.to_string(),
            view.time(self.at),
            self.actor.clone(),
            self.source.clone(),
            self.action.clone(),
            text(&self.target),
            text(if self.details == "{}" {
                ""
            } else {
                &self.details
            }),
        ]
    }
}

impl Show for AuditVerdict {
    fn show(&self, view: &View) -> String {
        let sentence = if self.ok {
            "The audit log is whole: every entry follows from the one before."
        } else {
            "The audit log was tampered with or damaged."
        };
        blocks([
            sentence.to_owned(),
            properties(
                [
                    ("Entries", self.entries.to_string()),
                    ("Head", self.head.to_string()),
                    ("Broken at", some(self.broken_at)),
                    ("Why", some(self.why.as_ref())),
                ],
                view,
            ),
        ])
    }
}

/// Runs a command on the audit log.
pub async fn run(context: &Context, command: AuditCommand) -> Result<Exit, CliError> {
    let client = context.client()?;
    match command {
        AuditCommand::List(args) => {
            let now = Timestamp::now();
            let moment = |when: Option<When>| {
                when.map(|w| w.ago(now, context.zone()))
                    .transpose()
                    .map_err(CliError::Usage)
            };
            let (since, until) = (moment(args.since)?, moment(args.until)?);
            let page =
                list::<AuditEntry, _>(&client, &["audit"], args.page, |cursor, limit| AuditQuery {
                    actor: args.actor.clone(),
                    action: args.action.clone(),
                    target: args.target.clone(),
                    since,
                    until,
                    cursor,
                    limit: Some(limit),
                })
                .await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(Exit::Ok)
        }
        AuditCommand::Verify => {
            let verdict: AuditVerdict = client
                .get(&["audit", "verify"], &PageQuery::default())
                .await?;
            context.show(&verdict)?;
            Ok(if verdict.ok { Exit::Ok } else { Exit::Unsound })
        }
    }
}
