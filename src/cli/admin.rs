//! `admin`: list, add, passwd, role, remove; service tokens are in `service_tokens`.

use super::context::Context;
use super::output::{Row, Show, View, properties, word};
use super::service_tokens::{self, ServiceTokenCommand};
use super::{CliError, prompt};
use crate::domain::{Role, Secret};
use crate::wire::admin::{AdminCreate, AdminEntry, PageQuery, PasswordChange, RoleChange, WhoAmI};
use clap::{Args, Subcommand, ValueHint};
use reqwest::Method;
use std::path::PathBuf;

/// Commands on administrators.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// List the administrators
    List,
    /// Add an administrator; asks for the password
    #[command(after_help = "Example: livepatch-admin admin add maria --role operator")]
    Add {
        /// Name
        name: String,
        /// What the administrator may do: viewer sees, operator acts, admin also manages administrators
        #[arg(long, value_name = "ROLE", default_value = "operator")]
        role: Role,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Set a new password; one's own needs the present one
    Passwd {
        /// Name
        name: String,
        /// Where the password comes from.
        #[command(flatten)]
        password: PasswordArgs,
        /// File with the present password in its first line, for one's own
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        current_file: Option<PathBuf>,
    },
    /// Set what an administrator may do
    Role {
        /// Name
        name: String,
        /// viewer, operator or admin
        role: Role,
    },
    /// Remove an administrator and end the sessions
    Remove {
        /// Name
        name: String,
    },
    /// Service tokens: with which programs use the admin API
    #[command(subcommand)]
    Token(ServiceTokenCommand),
}

/// Where a new password comes from.
#[derive(Debug, Args)]
pub struct PasswordArgs {
    /// File with the password in its first line; without it, asks, or reads a line of standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub password_file: Option<PathBuf>,
}

impl PasswordArgs {
    fn read(&self, name: &str) -> Result<Secret, CliError> {
        match &self.password_file {
            Some(path) => prompt::secret_file(path),
            None => prompt::new_secret(&format!("New password of {name}")),
        }
    }
}

impl Row for AdminEntry {
    const HEADER: &'static [&'static str] = &["name", "role", "kept in", "created", "changed"];
    const NONE: &'static str = "There are no administrators.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.to_string(),
            word(&self.origin),
            view.some_time(self.created_at),
            view.some_time(self.changed_at),
        ]
    }
}

impl Show for AdminEntry {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Name", self.name.clone()),
                ("Role", self.role.to_string()),
                ("Kept in", word(&self.origin)),
                ("Created", view.some_time(self.created_at)),
                ("Changed", view.some_time(self.changed_at)),
            ],
            view,
        )
    }
}

/// Runs a command on administrators.
pub async fn run(context: &Context, command: AdminCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        AdminCommand::Token(command) => service_tokens::run(context, command).await,
        AdminCommand::List => {
            let page = client
                .all::<AdminEntry, _>(&["admins"], PageQuery::new)
                .await?;
            context.show(&page)
        }
        AdminCommand::Add {
            name,
            role,
            password,
        } => {
            let password = password.read(&name)?;
            let body = AdminCreate {
                name,
                password,
                role,
            };
            let entry: AdminEntry = client.send(Method::POST, &["admins"], &body).await?;
            context.done(
                &entry,
                &format!("Administrator {} ({}) is added.", entry.name, entry.role),
            )
        }
        AdminCommand::Passwd {
            name,
            password,
            current_file,
        } => {
            let current = if let Some(path) = &current_file {
                Some(prompt::secret_file(path)?)
            } else {
                let me: WhoAmI = client.get(&["session"], &PageQuery::default()).await?;
                (me.user == name)
                    .then(|| prompt::secret("Present password"))
                    .transpose()?
            };
            let password = password.read(&name)?;
            client
                .tell_with(
                    Method::PUT,
                    &["admins", &name, "password"],
                    &PasswordChange { password, current },
                )
                .await?;
            context.say(&format!("The password of {name} is changed."))
        }
        AdminCommand::Role { name, role } => {
            let entry: AdminEntry = client
                .send(
                    Method::PUT,
                    &["admins", &name, "role"],
                    &RoleChange { role },
                )
                .await?;
            context.done(&entry, &format!("{} is {} now.", entry.name, entry.role))
        }
        AdminCommand::Remove { name } => {
            client.tell(Method::DELETE, &["admins", &name]).await?;
            context.say(&format!("Administrator {name} is removed."))
        }
    }
}
