//! What every command has at hand: the server, the form of the output, and how to say things.

use super::args::Global;
use super::client::{Client, Credentials, is_loopback};
use super::error::CliError;
use super::login::split_auth;
use super::output::{Format, Show, View, render};
use super::store::Store;
use super::tls::TlsFiles;
use crate::domain::Secret;
use crate::wire::admin::Limit;
use clap::Args;
use jiff::tz::TimeZone;
use std::io::{ErrorKind, IsTerminal, Write, stderr, stdout};

/// The surroundings of a command.
#[derive(Debug)]
pub struct Context {
    /// Options that every command takes.
    pub global: Global,
    view: View,
}

impl Context {
    /// Looks at standard output and the local time zone.
    pub fn new(global: Global) -> Self {
        Self {
            global,
            view: View {
                terminal: stdout().is_terminal(),
                zone: TimeZone::system(),
            },
        }
    }

    /// The local time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.view.zone
    }

    /// Who looks at the output.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The session file.
    pub fn store(&self) -> Result<Store, CliError> {
        if let Some(path) = &self.global.session_file {
            return Ok(Store::at(path));
        }
        Store::default_path(
            std::env::var_os("XDG_STATE_HOME").as_deref(),
            std::env::var_os("HOME").as_deref(),
        )
        .map(Store::at)
        .ok_or_else(|| {
            CliError::Usage(
                "neither HOME nor XDG_STATE_HOME is set; say --session-file FILE".to_owned(),
            )
        })
    }

    /// The name under which sessions for the server are kept.
    pub fn server(&self) -> String {
        self.global.url.as_str().trim_end_matches('/').to_owned()
    }

    /// A client that authenticates: with the token in `LIVEPATCH_ADMIN_TOKEN`, else with the session kept for this server, else with
    /// `LIVEPATCH_ADMIN_AUTH`.
    pub fn client(&self) -> Result<Client, CliError> {
        let server = self.server();
        let given = std::env::var("LIVEPATCH_ADMIN_TOKEN").ok();
        if let Some(token) = given.filter(|token| !token.trim().is_empty()) {
            return self.client_with(Credentials::Bearer(Secret::new(token.trim())));
        }
        let environment = std::env::var("LIVEPATCH_ADMIN_AUTH").ok();
        let kept = match self.store() {
            Ok(store) => store.get(&server)?,
            // Without a home there is no session, but there may be the environment.
            Err(_) if environment.is_some() => None,
            Err(error) => return Err(error),
        };
        if let Some(kept) = kept {
            return self.client_with(Credentials::Bearer(kept.token));
        }
        match environment.as_deref().map(split_auth) {
            Some((user, Some(password))) => self.client_with(Credentials::Basic(user, password)),
            Some((_, None)) => Err(CliError::Usage(
                "LIVEPATCH_ADMIN_AUTH must be USER:PASSWORD".to_owned(),
            )),
            None => Err(CliError::NotLoggedIn { url: server }),
        }
    }

    /// A client with these credentials.
    pub fn client_with(&self, credentials: Credentials) -> Result<Client, CliError> {
        if self.global.url.scheme() == "http"
            && !is_loopback(&self.global.url)
            && !matches!(credentials, Credentials::None)
        {
            self.note("warning: the server is spoken to without TLS; anyone on the way can read the credentials");
        }
        let global = &self.global;
        let files = TlsFiles {
            ca: global.ca.as_deref(),
            certificate: global.tls_cert.as_deref(),
            key: global.tls_key.as_deref(),
        };
        Client::new(
            global.url.clone(),
            &files,
            global.timeout.into(),
            credentials,
        )
    }

    /// Prints a result.
    pub fn show(&self, value: &impl Show) -> Result<(), CliError> {
        let text =
            render(value, self.global.output, &self.view).map_err(|why| CliError::Answer {
                what: "the output".to_owned(),
                why,
            })?;
        self.print(&text)
    }

    /// Prints a line of result.
    pub fn print(&self, text: &str) -> Result<(), CliError> {
        match writeln!(stdout().lock(), "{text}") {
            // Who reads has seen enough, e.g. `head`.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|source| CliError::Io {
                doing: "write to standard output",
                source,
            }),
        }
    }

    /// Prints a result for programs; for people one sentence instead, unless quiet.
    pub fn done(&self, value: &impl Show, sentence: &str) -> Result<(), CliError> {
        if self.for_people() {
            self.say(sentence)
        } else {
            self.show(value)
        }
    }

    /// Prints a sentence for people, unless quiet; there is nothing in it for programs.
    pub fn say(&self, sentence: &str) -> Result<(), CliError> {
        if self.for_people() && !self.global.quiet {
            self.print(sentence)
        } else {
            Ok(())
        }
    }

    /// Whether people read the output.
    pub fn for_people(&self) -> bool {
        self.global.output == Format::Table
    }

    /// Says something aside, on standard error, unless quiet.
    pub fn note(&self, text: &str) {
        if !self.global.quiet {
            // Standard error may be closed; the result does not depend on it.
            let _ = writeln!(stderr().lock(), "{text}");
        }
    }

    /// Whether a progress bar would be seen.
    pub fn progress(&self) -> bool {
        !self.global.quiet && stderr().is_terminal()
    }

    /// Says how to see the rest of a list.
    pub fn more(&self, cursor: Option<&str>) {
        if self.for_people()
            && let Some(cursor) = cursor
        {
            self.note(&format!(
                "There are more: add --cursor {cursor} for the next page or --all for all of them."
            ));
        }
    }
}

/// Options of commands that list.
#[derive(Debug, Clone, Default, Args)]
pub struct PageArgs {
    /// Show at most this many (1 to 1000)
    #[arg(long, value_name = "N", value_parser = parse_limit, default_value = "100", conflicts_with = "all")]
    pub limit: Limit,
    /// Go on where an earlier page ended
    #[arg(long, value_name = "CURSOR", conflicts_with = "all")]
    pub cursor: Option<String>,
    /// Show everything, however long the list is
    #[arg(long)]
    pub all: bool,
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    text.parse::<u32>()
        .map_err(|_| "a number expected".to_owned())
        .and_then(|n| Limit::try_from(n).map_err(|e| e.why))
}

/// Follows a list as its options say.
pub async fn list<T, Q>(
    client: &Client,
    path: &[&str],
    page: PageArgs,
    mut query: impl FnMut(Option<String>, Limit) -> Q,
) -> Result<crate::wire::admin::Page<T>, CliError>
where
    T: serde::de::DeserializeOwned,
    Q: serde::Serialize,
{
    if page.all {
        client.all(path, query).await
    } else {
        client.get(path, &query(page.cursor, page.limit)).await
    }
}
