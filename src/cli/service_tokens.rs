//! `admin token`: add, list, revoke service tokens, with which programs use the admin API.

use super::CliError;
use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, flag};
use super::validity::{self, Validity};
use crate::domain::{Grant, grant};
use crate::wire::admin::{PageQuery, ServiceTokenCreate, ServiceTokenCreated, ServiceTokenEntry};
use clap::{Args, Subcommand};
use reqwest::Method;

const EXAMPLES: &str = "\
Examples:
  livepatch-admin admin token add dashboard --scope read
  livepatch-admin admin token add promoter --scope patches:write --scope rollouts:read --valid-until 365d
  LIVEPATCH_ADMIN_TOKEN=$(livepatch-admin --quiet admin token add ci --scope patches:write) livepatch-admin patch list

Scopes: read, write and admin are what the roles viewer, operator and admin may do; with a section of the API before
them (patches:write) only there. The token is printed once and kept only as a hash. Programs send it as
`Authorization: Bearer`, and livepatch-admin takes it from LIVEPATCH_ADMIN_TOKEN.";

/// Commands on service tokens.
#[derive(Debug, Subcommand)]
pub enum ServiceTokenCommand {
    /// Make a service token, with which a program uses the admin API, and print it
    #[command(after_help = EXAMPLES)]
    Add(AddArgs),
    /// List the service tokens; the tokens themselves are not kept
    List(PageArgs),
    /// Revoke a service token: programs that show it are refused from now on
    Revoke {
        /// Its name
        name: String,
    },
}

/// The token to make.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A name for it
    pub name: String,
    /// What it may do, e.g. read or patches:write; may be given several times
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        required = true,
        value_delimiter = ','
    )]
    pub scopes: Vec<Grant>,
    /// Until when.
    #[command(flatten)]
    pub validity: Validity,
}

impl Show for ServiceTokenCreated {
    /// Only the token, so that `TOKEN=$(livepatch-admin admin token add ...)` works.
    fn show(&self, _: &View) -> String {
        self.token.expose().to_owned()
    }
}

impl Row for ServiceTokenEntry {
    const HEADER: &'static [&'static str] = &[
        "name",
        "scopes",
        "created",
        "by",
        "valid until",
        "last used",
        "revoked",
    ];
    const NONE: &'static str = "There are no service tokens.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.name.clone(),
            grant::list(&self.scopes),
            view.time(self.created_at),
            self.created_by.clone(),
            view.some_time(self.valid_until),
            view.some_time(self.last_used),
            flag(self.revoked_at.is_some()),
        ]
    }
}

/// Runs a command on service tokens.
pub async fn run(context: &Context, command: ServiceTokenCommand) -> Result<(), CliError> {
    match command {
        ServiceTokenCommand::Add(args) => add(context, args).await,
        ServiceTokenCommand::List(page) => {
            let client = context.client()?;
            let page =
                list::<ServiceTokenEntry, _>(&client, &["service-tokens"], page, PageQuery::new)
                    .await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(())
        }
        ServiceTokenCommand::Revoke { name } => {
            context
                .client()?
                .tell(Method::DELETE, &["service-tokens", &name])
                .await?;
            context.say(&format!("Service token {name} is revoked."))
        }
    }
}

async fn add(context: &Context, args: AddArgs) -> Result<(), CliError> {
    let body = ServiceTokenCreate {
        name: args.name,
        scopes: args.scopes,
        valid_until: validity::moment(context, args.validity.valid_until)?,
        no_expiry: args.validity.no_expiry,
    };
    let created: ServiceTokenCreated = context
        .client()?
        .send(Method::POST, &["service-tokens"], &body)
        .await?;
    let may = grant::list(&created.scopes);
    let what = format!("Service token {} may: {may};", created.name);
    validity::tell(context, &what, created.valid_until);
    context.show(&created)
}
