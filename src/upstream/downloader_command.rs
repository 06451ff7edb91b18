//! Canonical's downloader as a tool: what it is given, what its failures mean, and `enable` when it asks for that.
//!
//! The words of its failures are not documented. The likely ones are looked for, and what it said is always told, one line of it,
//! without the token and without addresses that may hold a password.

use super::UpstreamError;
use super::downloader_run::{Ended, Failure, Job, run};
use crate::config::{PatchSync, Proxy};
use crate::domain::Secret;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The most that `list` may print, in bytes: some hundred thousand items.
pub(super) const MAX_LIST: usize = 64 << 20;
/// The longest complaint that is repeated, in characters.
const MAX_COMPLAINT: usize = 400;
/// Variables that the command is given as the server has them.
const PASSED: [&str; 9] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TMPDIR",
    "TZ",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// How long the commands may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// `enable` and one `list`.
    pub short: Duration,
    /// `get-files`, whatever it fetches.
    pub fetch: Duration,
    /// And for each file.
    pub each: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            short: Duration::from_mins(5),
            fetch: Duration::from_mins(5),
            each: Duration::from_mins(1),
        }
    }
}

/// The environment of the command. Nothing else of ours is passed on: it may hold secrets. `Debug` shows names only.
struct Environment(Vec<(OsString, OsString)>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// The command and what it is given.
#[derive(Debug)]
pub(super) struct Tool {
    /// A name on the search path, or a path.
    pub(super) command: String,
    token: Secret,
    environment: Environment,
    /// How long it may take.
    pub(super) patience: Patience,
    /// Ends what runs.
    pub(super) stopping: CancellationToken,
}

/// A command that did not do what it was asked for.
enum Trouble {
    /// It wants `enable` first.
    NotEnabled(String),
    /// Anything else.
    Other(UpstreamError),
}

impl Tool {
    pub(super) fn new(sync: &PatchSync, token: Secret, stopping: CancellationToken) -> Self {
        Self {
            command: sync.downloader_command.clone(),
            token,
            environment: Environment(environment(&sync.proxy)),
            patience: Patience::default(),
            stopping,
        }
    }

    /// Runs a command to its end, whatever that is.
    async fn once(
        &self,
        arguments: Vec<OsString>,
        patience: Duration,
        whole_output: Option<usize>,
    ) -> Result<Ended, Trouble> {
        let what = arguments
            .first()
            .map(|word| word.to_string_lossy().into_owned())
            .unwrap_or_default();
        let name = format!("`{} {what}`", self.command);
        let job = Job {
            command: &self.command,
            arguments,
            environment: &self.environment.0,
            patience,
            whole_output,
            stopping: &self.stopping,
        };
        let ended = run(job).await.map_err(|failure| {
            Trouble::Other(match failure {
                Failure::Start(error) => cannot_start(&self.command, &error),
                Failure::Pipe(error) => {
                    UpstreamError::Local(format!("{name} could not be listened to: {error}"))
                }
                Failure::TimedOut => UpstreamError::Unreachable(format!(
                    "{name} did not end within {}; it was killed, and what it fetched is kept; look whether the network or the proxy lets it through",
                    humantime::format_duration(patience)
                )),
                Failure::Stopped => UpstreamError::Unreachable(format!(
                    "{name} was ended because the server stops; what it fetched is kept"
                )),
                Failure::TooMuch => UpstreamError::Nonsense(format!(
                    "{name} printed more than {MAX_LIST} bytes; narrow patch-sync.architectures, patch-sync.flavors or patch-sync.kernel-prefixes"
                )),
            })
        })?;
        tracing::debug!(command = name, status = %ended.status, said = self.said(&ended), "the downloader ended");
        if ended.status.success() {
            return Ok(ended);
        }
        Err(self.sort(&name, &ended))
    }

    /// What a command said last: its complaint, else its output; one line, without the token, cut.
    pub(super) fn said(&self, ended: &Ended) -> String {
        let blank = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_whitespace);
        let bytes = if blank(&ended.complaint) {
            &ended.output
        } else {
            &ended.complaint
        };
        let mut text = String::from_utf8_lossy(bytes).into_owned();
        if !self.token.is_empty() {
            text = text.replace(self.token.expose(), "[masked]");
        }
        for (_, value) in &self.environment.0 {
            // The address of a proxy may hold a password.
            let value = value.to_string_lossy();
            if value.contains("://") && value.contains('@') {
                text = text.replace(&*value, "[masked]");
            }
        }
        let text = text
            .split(|c: char| c.is_control() || c.is_whitespace())
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let skip = text.chars().count().saturating_sub(MAX_COMPLAINT);
        text.chars().skip(skip).collect()
    }

    /// What kind of failure it is. The words are not documented, so that the broadest that make sense are looked for; the text is
    /// always shown too.
    fn sort(&self, name: &str, ended: &Ended) -> Trouble {
        let said = self.said(ended);
        let low = said.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| low.contains(word));
        let ending = match ended.status.signal() {
            Some(signal) => format!("was killed by signal {signal}"),
            None => format!("ended with code {}", ended.status.code().unwrap_or(-1)),
        };
        let told = if said.is_empty() {
            format!("{name} {ending} and said nothing")
        } else {
            format!("{name} {ending}: {said}")
        };
        if has(&["no space left", "disk full", "quota exceeded", "enospc"]) {
            return Trouble::Other(UpstreamError::Local(format!(
                "{told}; make room where it keeps its files"
            )));
        }
        if has(&[
            "not enabled",
            "not been enabled",
            "enable first",
            "run enable",
            "downloader enable",
            "please enable",
            "must be enabled",
            "no token",
            "missing token",
        ]) {
            return Trouble::NotEnabled(told);
        }
        if has(&["tier"]) {
            return Trouble::Other(UpstreamError::Denied(format!(
                "{told}; set patch-sync.downloader-tier to a tier that the token is entitled to, or leave it out"
            )));
        }
        if has(&[
            "unauthorized",
            "unauthorised",
            "forbidden",
            "invalid token",
            "not entitled",
        ]) {
            return Trouble::Other(UpstreamError::Denied(format!(
                "{told}; enable the command with a token that is entitled to Livepatch"
            )));
        }
        Trouble::Other(UpstreamError::Unreachable(told))
    }

    /// Runs a command; if it is not enabled and there is a token, enables it and runs it again.
    pub(super) async fn run(
        &self,
        arguments: Vec<OsString>,
        patience: Duration,
        whole_output: Option<usize>,
    ) -> Result<Ended, UpstreamError> {
        let told = match self.once(arguments.clone(), patience, whole_output).await {
            Ok(ended) => return Ok(ended),
            Err(Trouble::Other(error)) => return Err(error),
            Err(Trouble::NotEnabled(told)) => told,
        };
        let by_hand = format!(
            "run `{} enable TOKEN` as the account of this server, or set patch-sync.token",
            self.command
        );
        if self.token.is_empty() {
            return Err(UpstreamError::Denied(format!("{told}; {by_hand}")));
        }
        tracing::info!(command = self.command, "enabling the downloader");
        let enable = vec![OsString::from("enable"), self.token.expose().into()];
        match self.once(enable, self.patience.short, None).await {
            Ok(_) => {}
            Err(Trouble::Other(error @ (UpstreamError::Local(_) | UpstreamError::Denied(_)))) => {
                return Err(error);
            }
            Err(Trouble::NotEnabled(told) | Trouble::Other(UpstreamError::Unreachable(told))) => {
                return Err(UpstreamError::Denied(format!(
                    "{told}; the token of patch-sync.token did not enable it; is it entitled to Livepatch?"
                )));
            }
            Err(Trouble::Other(error)) => return Err(error),
        }
        match self.once(arguments, patience, whole_output).await {
            Ok(ended) => Ok(ended),
            Err(Trouble::Other(error)) => Err(error),
            Err(Trouble::NotEnabled(told)) => {
                Err(UpstreamError::Denied(format!("{told}; {by_hand}")))
            }
        }
    }
}

fn cannot_start(command: &str, error: &io::Error) -> UpstreamError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => {
            "install it (`sudo snap install canonical-livepatch-downloader`), or set patch-sync.downloader-command to where it is"
        }
        io::ErrorKind::PermissionDenied => {
            "the account of this server must be allowed to execute it; patch-sync.downloader-command names it"
        }
        _ => "patch-sync.downloader-command names it",
    };
    UpstreamError::Local(format!("cannot run {command}: {error}; {what}"))
}

fn environment(proxy: &Proxy) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> = PASSED
        .iter()
        .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
        .collect();
    if proxy.enabled {
        let no_proxy = Secret::new(proxy.no_proxy.join(","));
        for (names, value) in [
            (["http_proxy", "HTTP_PROXY"], &proxy.http),
            (["https_proxy", "HTTPS_PROXY"], &proxy.https),
            (["no_proxy", "NO_PROXY"], &no_proxy),
        ] {
            if !value.is_empty() {
                all.extend(names.map(|name| (name.into(), value.expose().into())));
            }
        }
    }
    all
}
