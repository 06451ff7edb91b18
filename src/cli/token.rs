//! `auth-token`: `auth-token NAME TIER` makes one, as Canonical's tool does; list and revoke.

use super::CliError;
use super::context::{Context, PageArgs, list};
use super::output::{Row, Show, View, flag, pairs};
use super::times::When;
use super::validity;
use crate::domain::{LabelKey, LabelValue, Labels, ParseError, TierName};
use crate::wire::admin::{
    AuthTokenCreate, AuthTokenCreated, AuthTokenEntry, PageQuery, TokenFormat,
};
use clap::{Args, Subcommand};

use reqwest::Method;
use std::collections::BTreeMap;

const EXAMPLES: &str = "\
Examples:
  livepatch-admin auth-token web-servers stable
  livepatch-admin auth-token lab beta --valid-until 90d --label rack=r1 --label site=berlin
  livepatch-admin auth-token list
  livepatch-admin auth-token revoke lab

The token is printed once and kept only as a hash. One token enables any number of machines:
  canonical-livepatch enable TOKEN";

/// Arguments of `auth-token`.
#[derive(Debug, Args)]
#[command(
    subcommand_negates_reqs = true,
    subcommand_precedence_over_arg = true,
    after_help = EXAMPLES
)]
pub struct AuthTokenArgs {
    /// Another command than making one.
    #[command(subcommand)]
    pub command: Option<AuthTokenCommand>,
    /// The token to make.
    #[command(flatten)]
    pub create: Option<CreateArgs>,
}

/// Commands on auth tokens.
#[derive(Debug, Subcommand)]
pub enum AuthTokenCommand {
    /// Make an auth token and print it; the same as `auth-token NAME TIER`
    Create(CreateArgs),
    /// List the auth tokens; the tokens themselves are not kept
    List(PageArgs),
    /// Revoke an auth token: it enables no more machines, and those it enabled are refused
    Revoke {
        /// Its name
        name: String,
    },
}

/// The token to make.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// A name for it
    pub name: String,
    /// The tier its machines are in
    pub tier: TierName,
    /// Until when it enables machines: a time, a day or a span such as 90d; machines it enabled stay enabled
    #[arg(long, value_name = "TIME")]
    pub valid_until: Option<When>,
    /// A label for the machines it enables; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    pub label: Vec<(LabelKey, LabelValue)>,
    /// Make it a UUID, for clients that take nothing else
    #[arg(long)]
    pub uuid: bool,
}

fn parse_label(text: &str) -> Result<(LabelKey, LabelValue), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("KEY=VALUE expected, e.g. rack=r1")?;
    let key = key.parse().map_err(|e: ParseError| e.why)?;
    Ok((key, value.parse().map_err(|e: ParseError| e.why)?))
}

impl Show for AuthTokenCreated {
    /// Only the token, so that `TOKEN=$(livepatch-admin auth-token ...)` works.
    fn show(&self, _: &View) -> String {
        self.token.expose().to_owned()
    }
}

impl Row for AuthTokenEntry {
    const HEADER: &'static [&'static str] = &[
        "name",
        "tier",
        "machines",
        "labels",
        "created",
        "by",
        "valid until",
        "last used",
        "revoked",
    ];
    const NONE: &'static str = "There are no auth tokens.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.tier.to_string(),
            self.machines.to_string(),
            pairs(&self.labels),
            view.time(self.created_at),
            self.created_by.clone(),
            view.some_time(self.valid_until),
            view.some_time(self.last_used),
            flag(self.revoked_at.is_some()),
        ]
    }
}

/// Runs a command on auth tokens.
pub async fn run(context: &Context, args: AuthTokenArgs) -> Result<(), CliError> {
    match (args.command, args.create) {
        (None, Some(create)) | (Some(AuthTokenCommand::Create(create)), None) => {
            make(context, create).await
        }
        (Some(AuthTokenCommand::List(page)), None) => {
            let page = list::<AuthTokenEntry, _>(
                &context.client()?,
                &["auth-tokens"],
                page,
                PageQuery::new,
            )
            .await?;
            context.show(&page)?;
            context.more(page.next_cursor.as_deref());
            Ok(())
        }
        (Some(AuthTokenCommand::Revoke { name }), None) => {
            context
                .client()?
                .tell(Method::DELETE, &["auth-tokens", &name])
                .await?;
            context.say(&format!("Auth token {name} is revoked."))
        }
        _ => Err(CliError::Usage(
            "either `auth-token NAME TIER` or one of create, list and revoke".to_owned(),
        )),
    }
}

async fn make(context: &Context, create: CreateArgs) -> Result<(), CliError> {
    let valid_until = validity::moment(context, create.valid_until)?;
    let given = create.label.len();
    let labels: BTreeMap<LabelKey, LabelValue> = create.label.into_iter().collect();
    if labels.len() < given {
        return Err(CliError::Usage("a label is given twice".to_owned()));
    }
    let labels = Labels::try_from(labels).map_err(|e| CliError::Usage(e.to_string()))?;
    let body = AuthTokenCreate {
        name: create.name,
        tier: create.tier,
        valid_until,
        labels,
        format: if create.uuid {
            TokenFormat::Uuid
        } else {
            TokenFormat::Token
        },
    };
    let created: AuthTokenCreated = context
        .client()?
        .send(Method::POST, &["auth-tokens"], &body)
        .await?;
    let what = format!("Auth token {} for tier {},", created.name, created.tier);
    validity::tell(context, &what, created.valid_until);
    context.show(&created)
}
