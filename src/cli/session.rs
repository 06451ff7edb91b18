//! `session`: show one's own, list, end.

use super::CliError;
use super::context::Context;
use super::output::{Row, Show, View, flag, properties};
use crate::wire::admin::{PageQuery, Session, WhoAmI};
use clap::Subcommand;
use reqwest::Method;
use uuid::Uuid;

/// Commands on sessions.
#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// Show whom the server takes you for
    Show,
    /// List the sessions
    List,
    /// End a session
    End {
        /// Its id
        id: Uuid,
    },
}

impl Row for Session {
    const HEADER: &'static [&'static str] = &[
        "id",
        "user",
        "role",
        "from",
        "opened",
        "last used",
        "until",
        "this one",
    ];
    const NONE: &'static str = "There are no sessions.";

    fn cells(&self, view: &View) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.user.clone(),
            self.role.to_string(),
            self.source.clone(),
            view.time(self.created_at),
            view.time(self.last_used),
            view.time(self.expires_at),
            flag(self.current),
        ]
    }
}

impl Show for WhoAmI {
    fn show(&self, view: &View) -> String {
        let session = self.session.as_ref();
        properties(
            [
                ("User", self.user.clone()),
                ("Role", self.role.to_string()),
                (
                    "Session",
                    session.map_or_else(
                        || "none; authenticated with name and password".to_owned(),
                        |s| s.id.to_string(),
                    ),
                ),
                ("Opened", view.some_time(session.map(|s| s.created_at))),
                ("Until", view.some_time(session.map(|s| s.expires_at))),
            ],
            view,
        )
    }
}

/// Runs a command on sessions.
pub async fn run(context: &Context, command: SessionCommand) -> Result<(), CliError> {
    let client = context.client()?;
    match command {
        SessionCommand::Show => {
            let me: WhoAmI = client.get(&["session"], &PageQuery::default()).await?;
            context.show(&me)
        }
        SessionCommand::List => {
            let page = client
                .all::<Session, _>(&["sessions"], PageQuery::new)
                .await?;
            context.show(&page)
        }
        SessionCommand::End { id } => {
            client
                .tell(Method::DELETE, &["sessions", &id.to_string()])
                .await?;
            context.say(&format!("Session {id} is ended."))
        }
    }
}
