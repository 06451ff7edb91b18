//! `sync-tokens`: add, list, revoke; and the servers that report with them.

use super::CliError;
use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, flag};
use super::validity::{self, Validity};
use crate::domain::TierName;
use crate::wire::admin::{PageQuery, PeerEntry, SyncTokenCreate, SyncTokenCreated, SyncTokenEntry};
use clap::{Args, Subcommand};
use reqwest::Method;

const EXAMPLES: &str = "\
Examples:
  livepatch-admin sync-tokens add stable berlin
  livepatch-admin sync-tokens add stable berlin --valid-until 365d
  livepatch-admin sync-tokens revoke berlin

The token is printed once and kept only as a hash. The other server shows it as patch-sync.token.";

/// Commands on sync tokens.
#[derive(Debug, Subcommand)]
pub enum SyncTokensCommand {
    /// Make a sync token, with which another server pulls a tier and those after it, and print it
    #[command(after_help = EXAMPLES)]
    Add(AddArgs),
    /// List the sync tokens; the tokens themselves are not kept
    List(PageArgs),
    /// Revoke a sync token: servers that show it are refused from now on
    Revoke {
        /// Its name
        name: String,
    },
}

/// The token to make.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The tier to pull
    pub tier: TierName,
    /// A name for it
    pub name: String,
    /// Until when.
    #[command(flatten)]
    pub validity: Validity,
}

impl Show for SyncTokenCreated {
    /// Only the token, so that `TOKEN=$(livepatch-admin sync-tokens add ...)` works.
    fn show(&self, _: &View) -> String {
        self.token.expose().to_owned()
    }
}

impl Row for SyncTokenEntry {
    const HEADER: &'static [&'static str] = &[
        "name",
        "tier",
        "created",
        "by",
        "valid until",
        "last used",
        "revoked",
    ];
    const NONE: &'static str = "There are no sync tokens.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.tier.to_string(),
            view.time(self.created_at),
            self.created_by.clone(),
            view.some_time(self.valid_until),
            view.some_time(self.last_used),
            flag(self.revoked_at.is_some()),
        ]
    }
}

impl Row for PeerEntry {
    const HEADER: &'static [&'static str] =
        &["deployment", "via", "machines", "one by one", "reported"];
    const NONE: &'static str = "No server has reported to this one.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.deployment.clone(),
            self.via.clone(),
            self.machines.clone(),
            self.machine_reports.to_string(),
            view.time(self.reported_at),
        ]
    }
}

/// Runs a command on sync tokens.
pub async fn run(context: &Context, command: SyncTokensCommand) -> Result<(), CliError> {
    match command {
        SyncTokensCommand::Add(args) => add(context, args).await,
        SyncTokensCommand::List(page) => {
            let client = context.client()?;
            let page =
                list::<SyncTokenEntry, _>(&client, &["sync-tokens"], page, PageQuery::new).await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(())
        }
        SyncTokensCommand::Revoke { name } => {
            context
                .client()?
                .tell(Method::DELETE, &["sync-tokens", &name])
                .await?;
            context.say(&format!("Sync token {name} is revoked."))
        }
    }
}

/// Lists the servers that pull from this one.
pub async fn peers(context: &Context, page: PageArgs) -> Result<(), CliError> {
    let client = context.client()?;
    let page = list::<PeerEntry, _>(&client, &["sync-peers"], page, PageQuery::new).await?;
    context.show(&page)?;
    context.more(page.next_cursor.as_deref());
    Ok(())
}

async fn add(context: &Context, args: AddArgs) -> Result<(), CliError> {
    let body = SyncTokenCreate {
        name: args.name,
        tier: args.tier,
        valid_until: validity::moment(context, args.validity.valid_until)?,
        no_expiry: args.validity.no_expiry,
    };
    let created: SyncTokenCreated = context
        .client()?
        .send(Method::POST, &["sync-tokens"], &body)
        .await?;
    let what = format!("Sync token {} for tier {},", created.name, created.tier);
    validity::tell(context, &what, created.valid_until);
    context.show(&created)
}
