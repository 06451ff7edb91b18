//! `tier`: list, create, rename, move, delete.

use super::context::Context;
use super::output::{Row, Show, View, count, properties, some};
use super::{CliError, prompt};
use crate::domain::TierName;
use crate::wire::admin::{PageQuery, Tier, TierChange, TierCreate, TierDeleteQuery, TierDeleted};
use clap::{Args, Subcommand};
use reqwest::Method;

/// Commands on tiers.
#[derive(Debug, Subcommand)]
pub enum TierCommand {
    /// List the tiers, first to last
    List,
    /// Create a tier; without a place it becomes the last
    #[command(after_help = "Example: livepatch-admin tier create canary --after edge")]
    Create {
        /// Its name
        name: TierName,
        /// Its place in the order.
        #[command(flatten)]
        place: Place,
    },
    /// Rename a tier; machines, tokens and promotions stay with it
    Rename {
        /// Its present name
        name: TierName,
        /// Its new name
        #[arg(value_name = "NEW-NAME")]
        new_name: TierName,
    },
    /// Move a tier to another place in the order
    #[command(after_help = "Example: livepatch-admin tier move canary --before beta")]
    Move {
        /// Its name
        name: TierName,
        /// Its new place.
        #[command(flatten)]
        place: NewPlace,
    },
    /// Delete a tier; refused while machines or tokens use it, unless --move-to says where they go
    Delete {
        /// Its name
        name: TierName,
        /// Where its machines and auth tokens go
        #[arg(long, value_name = "TIER")]
        move_to: Option<TierName>,
    },
}

/// A place in the order that may be left open.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Place {
    /// Just before this tier
    #[arg(long, value_name = "TIER")]
    pub before: Option<TierName>,
    /// Just after this tier
    #[arg(long, value_name = "TIER")]
    pub after: Option<TierName>,
}

/// A place in the order.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct NewPlace {
    /// Just before this tier
    #[arg(long, value_name = "TIER")]
    pub before: Option<TierName>,
    /// Just after this tier
    #[arg(long, value_name = "TIER")]
    pub after: Option<TierName>,
}

impl Row for Tier {
    const HEADER: &'static [&'static str] =
        &["#", "tier", "machines", "auth tokens", "patches", "newest"];
    const NONE: &'static str = "There are no tiers.";

    fn cells(&self, _: &View) -> Vec<String> {
        vec![
            (self.position + 1).to_string(),
            self.name.to_string(),
            self.machines.to_string(),
            self.auth_tokens.to_string(),
            self.patches.to_string(),
            some(self.newest_patch),
        ]
    }
}

impl Show for Tier {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Tier", self.name.to_string()),
                ("Position", (self.position + 1).to_string()),
                ("Machines", self.machines.to_string()),
                ("Auth tokens", self.auth_tokens.to_string()),
                ("Patches", self.patches.to_string()),
                ("Newest", some(self.newest_patch)),
                ("Created", view.time(self.created_at)),
            ],
            view,
        )
    }
}

impl Show for TierDeleted {
    fn show(&self, _: &View) -> String {
        let mut text = format!("Tier {} is deleted", self.name);
        if let Some(to) = &self.moved_to {
            text = format!(
                "{text}; {} and {} went to {to}",
                count(self.machines, "machine", "machines"),
                count(self.auth_tokens, "auth token", "auth tokens")
            );
        }
        text + "."
    }
}

/// Runs a command on tiers.
pub async fn run(context: &Context, command: TierCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        TierCommand::List => {
            let page = client.all::<Tier, _>(&["tiers"], PageQuery::new).await?;
            context.show(&page)
        }
        TierCommand::Create { name, place } => {
            let body = TierCreate {
                name,
                before: place.before,
                after: place.after,
            };
            let tier: Tier = client.send(Method::POST, &["tiers"], &body).await?;
            context.done(
                &tier,
                &format!(
                    "Tier {} is created, number {}.",
                    tier.name,
                    tier.position + 1
                ),
            )
        }
        TierCommand::Rename { name, new_name } => {
            let body = TierChange {
                name: Some(new_name),
                ..TierChange::default()
            };
            let tier: Tier = client
                .send(Method::PATCH, &["tiers", name.as_str()], &body)
                .await?;
            context.done(&tier, &format!("Tier {name} is now called {}.", tier.name))
        }
        TierCommand::Move { name, place } => {
            let body = TierChange {
                before: place.before,
                after: place.after,
                ..TierChange::default()
            };
            let tier: Tier = client
                .send(Method::PATCH, &["tiers", name.as_str()], &body)
                .await?;
            context.done(
                &tier,
                &format!("Tier {} is now number {}.", tier.name, tier.position + 1),
            )
        }
        TierCommand::Delete { name, move_to } => {
            prompt::confirm(&format!("Delete tier {name}"), context.global.yes)?;
            let request = client
                .request(Method::DELETE, &["tiers", name.as_str()])?
                .query(&TierDeleteQuery { move_to });
            let deleted: TierDeleted = client.read(request).await?;
            context.done(&deleted, &deleted.show(context.view()))
        }
    }
}
