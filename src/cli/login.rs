//! `login` and `logout`.

use super::client::Credentials;
use super::context::Context;
use super::output::{Show, View, properties};
use super::store::Kept;
use super::{CliError, prompt};
use crate::domain::{Role, Secret};
use crate::wire::admin::{LoginAnswer, LoginRequest};
use clap::{Args, ValueHint};
use jiff::Timestamp;
use reqwest::Method;
use serde::Serialize;
use std::path::PathBuf;

const EXAMPLES: &str = "\
A password in the argument can be seen by other users of this machine. Better:
  livepatch-admin login -a admin                     asks for the password
  livepatch-admin login -a - < file                  reads USER:PASSWORD from standard input
  livepatch-admin login --auth-file /run/secrets/lp  reads USER:PASSWORD from a file
With LIVEPATCH_ADMIN_AUTH=USER:PASSWORD in the environment no login is needed at all.";

/// Arguments of `login`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct LoginArgs {
    /// USER (asks for the password), USER:PASSWORD, or - for standard input
    #[arg(long, short, value_name = "AUTH", env = "LIVEPATCH_ADMIN_AUTH", hide_env_values = true,
          required_unless_present = "auth_file", value_parser = parse_auth, allow_hyphen_values = true)]
    pub auth: Option<Secret>,
    /// File with USER:PASSWORD in its first line; counts more than --auth
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub auth_file: Option<PathBuf>,
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "clap wants a result; everything is accepted here"
)]
fn parse_auth(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

/// Parts `USER:PASSWORD` at the first colon; the password is `None` if there is none.
pub fn split_auth(text: &str) -> (String, Option<Secret>) {
    match text.split_once(':') {
        Some((user, password)) => (user.to_owned(), Some(Secret::new(password))),
        None => (text.to_owned(), None),
    }
}

/// What is said about a new session; its token stays in the session file.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LoggedIn {
    /// The server.
    pub url: String,
    /// Name of the administrator.
    pub user: String,
    /// What the session may do.
    pub role: Role,
    /// The session ends then, used or not.
    pub expires_at: Timestamp,
    /// It ends earlier if it is not used for this many seconds.
    pub idle_seconds: u64,
}

impl Show for LoggedIn {
    fn show(&self, view: &View) -> String {
        properties(
            [
                ("Server", self.url.clone()),
                ("User", self.user.clone()),
                ("Role", self.role.to_string()),
                ("Until", view.time(self.expires_at)),
            ],
            view,
        )
    }
}

/// Opens a session and keeps it.
pub async fn login(context: &Context, args: LoginArgs) -> Result<(), CliError> {
    let given = match (args.auth_file, args.auth) {
        (Some(path), _) => prompt::secret_file(&path)?,
        (None, Some(auth)) if auth.expose() == "-" => {
            prompt::secret("User and password (USER:PASSWORD)")?
        }
        (None, Some(auth)) => auth,
        (None, None) => {
            return Err(CliError::Usage(
                "say who logs in with --auth or --auth-file".to_owned(),
            ));
        }
    };
    let (user, password) = split_auth(given.expose());
    if user.is_empty() {
        return Err(CliError::Usage(
            "the name of the user is empty; USER or USER:PASSWORD expected".to_owned(),
        ));
    }
    let password = match password {
        Some(password) => password,
        None => prompt::secret(&format!("Password of {user}"))?,
    };
    // Before anything is sent: a place to keep the session.
    let store = context.store()?;
    let client = context.client_with(Credentials::None)?;
    let answer: LoginAnswer = client
        .send(Method::POST, &["login"], &LoginRequest { user, password })
        .await
        .map_err(wrong_password)?;
    let shown = LoggedIn {
        url: context.server(),
        user: answer.user.clone(),
        role: answer.role,
        expires_at: answer.expires_at,
        idle_seconds: answer.idle_seconds,
    };
    store.put(&context.server(), Kept::from(answer))?;
    let sentence = format!(
        "Logged in to {} as {} ({}).",
        shown.url, shown.user, shown.role
    );
    context.done(&shown, &sentence)
}

/// At a login the usual advice for 401, to log in, leads nowhere.
fn wrong_password(error: CliError) -> CliError {
    match error {
        CliError::Problem(problem) if problem.status == 401 => {
            CliError::LoginRefused(if problem.detail.is_empty() {
                "the server refused the login".to_owned()
            } else {
                problem.detail
            })
        }
        other => other,
    }
}

/// Ends the session here and on the server.
pub async fn logout(context: &Context) -> Result<(), CliError> {
    let server = context.server();
    let store = context.store()?;
    let Some(kept) = store.get(&server)? else {
        return context.say(&format!("There is no session on {server}."));
    };
    let client = context.client_with(Credentials::Bearer(kept.token))?;
    let told = client.tell(Method::POST, &["logout"]).await;
    // The session is forgotten here even if the server cannot be told.
    store.remove(&server)?;
    match told {
        Err(CliError::Problem(problem)) if problem.status == 401 => {}
        other => other?,
    }
    context.say(&format!("Logged out from {server}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_hold_colons() {
        let (user, password) = split_auth("admin:a:b");
        assert_eq!(
            (user.as_str(), password.unwrap().expose()),
            ("admin", "a:b")
        );
        assert_eq!(split_auth("admin"), ("admin".to_owned(), None));
    }
}
