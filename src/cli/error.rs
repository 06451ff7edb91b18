//! What can go wrong in a command, how it is told, and the exit code it ends with.
//!
//! Every message says what failed and on what; [`CliError::hint`] says what to do next.

use crate::wire::Problem;
use std::path::PathBuf;

/// How a command ended. The numbers are documented in `docs/reference/exit-codes.md` and do not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed, for a reason that has no code of its own.
    Failure = 1,
    /// The command line is wrong; nothing was sent.
    Usage = 2,
    /// Not logged in, or the role does not allow it.
    Auth = 3,
    /// What was named does not exist.
    NotFound = 4,
    /// Refused by a rule, or it conflicts with how things stand.
    Refused = 5,
    /// The server cannot be reached or is not ready.
    Unreachable = 6,
    /// Done, but something was quarantined or does not verify.
    Unsound = 7,
}

impl Exit {
    /// Every exit code with its name and meaning, for the reference.
    pub const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Ok, "ok", "The command did what it was asked for."),
        (
            Self::Failure,
            "failure",
            "It failed for a reason that has no code of its own: the request is malformed, a file cannot be read, the server \
             made an error (the message then carries a request id to look for in the server's log), or a question was \
             answered with no.",
        ),
        (
            Self::Usage,
            "usage",
            "The command line is wrong, or a destructive command was given without `--yes` where nobody can be asked. \
             Nothing was changed.",
        ),
        (
            Self::Auth,
            "not logged in or forbidden",
            "There is no session, it has ended, the role does not allow this (HTTP 401 and 403), or the server asks for a \
             certificate that was not shown.",
        ),
        (
            Self::NotFound,
            "not found",
            "What was named does not exist (HTTP 404).",
        ),
        (
            Self::Refused,
            "refused",
            "It conflicts with how things stand or a rule forbids it: the name is taken, the tier is in use, too many \
             failed logins (HTTP 409, 410, 412, 422, 423 and 429).",
        ),
        (
            Self::Unreachable,
            "unreachable",
            "The server cannot be reached, its certificate is not trusted, it did not answer in time, or it is not ready \
             (HTTP 502, 503 and 504).",
        ),
        (
            Self::Unsound,
            "done, but not all is sound",
            "The command ran to its end, but a file was quarantined, an object is damaged or missing, the audit log's \
             chain is broken, or `drift` found other policies than those of the file.",
        ),
    ];

    /// The code that belongs to an HTTP status.
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Auth,
            404 => Self::NotFound,
            409 | 410 | 412 | 422 | 423 | 429 => Self::Refused,
            502..=504 => Self::Unreachable,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The server refused.
    #[error("{}", problem_text(.0))]
    Problem(Box<Problem>),
    /// No answer came.
    #[error("no answer from the server at {url}: {why}")]
    Unreachable {
        /// The server.
        url: String,
        /// The chain of causes.
        why: String,
    },
    /// The server's certificate is not trusted.
    #[error("the certificate of the server at {url} is not trusted: {why}")]
    Untrusted {
        /// The server.
        url: String,
        /// The chain of causes.
        why: String,
    },
    /// The server asks for a certificate, and ours is missing or not good.
    #[error("the server at {url} wants to be shown another certificate: {why}")]
    NotShown {
        /// The server.
        url: String,
        /// Its words.
        why: String,
    },
    /// Something answered, but not as this server would.
    #[error("the answer to {what} cannot be read: {why}")]
    Answer {
        /// Method and path.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no session for this server.
    #[error("not logged in to {url}")]
    NotLoggedIn {
        /// The server.
        url: String,
    },
    /// Name or password are wrong.
    #[error("login refused: {0}")]
    LoginRefused(String),
    /// The command line is wrong in a way that only shows later.
    #[error("{0}")]
    Usage(String),
    /// The person said no.
    #[error("{0}: not confirmed, nothing was changed")]
    Declined(String),
    /// A file could not be dealt with.
    #[error("cannot {doing} {}: {why}", path.display())]
    File {
        /// What was tried, e.g. `read`.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The terminal or standard input could not be read, or standard output not written.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A job gave up.
    #[error("job {id} ({kind}) failed: {why}")]
    Job {
        /// Its id.
        id: i64,
        /// Its kind.
        kind: String,
        /// What the server says.
        why: String,
    },
    /// A run of sync did not come to its end.
    #[error("sync run {id} {}: {why}", if *waits { "waits" } else { "failed" })]
    Sync {
        /// Its id.
        id: i64,
        /// It needs a person.
        waits: bool,
        /// What the server says.
        why: String,
    },
    /// A webhook did not take the event that tries it out.
    #[error("the webhook {webhook:?} did not take the event: {why}")]
    Delivery {
        /// Its name.
        webhook: String,
        /// What the server says.
        why: String,
    },
}

fn problem_text(problem: &Problem) -> String {
    if problem.detail.is_empty() {
        format!("{} (HTTP {})", problem.title, problem.status)
    } else {
        problem.detail.clone()
    }
}

impl CliError {
    /// Builds [`Self::File`].
    pub fn file(doing: &'static str, path: impl Into<PathBuf>, why: impl ToString) -> Self {
        Self::File {
            doing,
            path: path.into(),
            why: why.to_string(),
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Problem(problem) => Exit::of_status(problem.status),
            Self::Unreachable { .. } | Self::Untrusted { .. } => Exit::Unreachable,
            Self::NotLoggedIn { .. } | Self::LoginRefused(_) | Self::NotShown { .. } => Exit::Auth,
            Self::Usage(_) => Exit::Usage,
            Self::Sync { waits: true, .. } => Exit::Refused,
            Self::Answer { .. }
            | Self::Declined(_)
            | Self::File { .. }
            | Self::Io { .. }
            | Self::Job { .. }
            | Self::Delivery { .. }
            | Self::Sync { waits: false, .. } => Exit::Failure,
        }
    }

    /// Whether every further request would end the same way.
    pub fn is_general(&self) -> bool {
        matches!(self.exit(), Exit::Auth | Exit::Unreachable | Exit::Usage)
    }

    /// What to do next, where there is something to say that the message does not.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Problem(problem) => match problem.status {
                401 => "log in: livepatch-admin login -a USER",
                403 => {
                    "`livepatch-admin session show` tells your role; ask an administrator with a higher one"
                }
                429 => "wait a little before the next try",
                507 => "free space where the server keeps its files, and send it again",
                502..=504 => {
                    "try again; if it stays so, look at /debug/status and the log of the server"
                }
                500.. => "look for the request id in the server's log",
                _ => return None,
            },
            Self::Unreachable { url, .. } if url.starts_with("https:") => {
                "check that the server runs and that --url (LIVEPATCH_URL) is right; one that asks for a certificate wants --tls-cert and --tls-key"
            }
            Self::Unreachable { .. } => {
                "check that the server runs and that --url (LIVEPATCH_URL) is right"
            }
            Self::Untrusted { why, .. } if why.contains("mismatch") => {
                "use a name in --url that the certificate is for"
            }
            Self::Untrusted { why, .. } if why.contains("expired") => {
                "the server's certificate has to be renewed (server.tls.certificate)"
            }
            Self::NotShown { .. } => {
                "give one that its server.tls.client-ca signed with --tls-cert FILE --tls-key FILE (LIVEPATCH_TLS_CERT, LIVEPATCH_TLS_KEY)"
            }
            Self::Untrusted { .. } => {
                "give the authority that signed it with --ca FILE (LIVEPATCH_CA_CRT)"
            }
            Self::Answer { .. } => {
                "check that --url (LIVEPATCH_URL) names a livepatch server of this version"
            }
            Self::NotLoggedIn { .. } => "log in: livepatch-admin login -a USER",
            Self::Job { .. } => "see what it did so far: livepatch-admin job show ID",
            Self::Sync { waits: true, .. } => {
                "look at it: livepatch-admin sync preview, then: livepatch-admin sync confirm"
            }
            Self::Sync { .. } => {
                "see what it did: livepatch-admin sync report ID; what was fetched is not fetched again"
            }
            Self::Delivery { .. } => {
                "see that the receiver answers with a status of 200 to 299, and try again: livepatch-admin webhook test NAME"
            }
            Self::LoginRefused(_) => {
                "check name and password; `livepatch-admin admin passwd NAME` by another administrator sets a new one"
            }
            Self::Usage(_) | Self::Declined(_) | Self::File { .. } | Self::Io { .. } => {
                return None;
            }
        };
        Some(hint.to_owned())
    }

    /// The whole message as it stands on standard error.
    pub fn render(&self) -> String {
        let mut lines = vec![format!("error: {self}")];
        if let Self::Problem(problem) = self {
            for item in &problem.errors {
                lines.push(format!("  {}: {}", item.pointer, item.detail));
            }
            if problem.status >= 500
                && let Some(id) = &problem.request_id
            {
                lines.push(format!("  request id: {id}"));
            }
        }
        if let Some(hint) = self.hint() {
            lines.push(format!("  next: {hint}"));
        }
        super::output::printable(&lines.join("\n"))
    }
}

/// An error with all its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ProblemItem;

    #[test]
    fn problems_have_exit_codes() {
        for (status, exit) in [
            (400, Exit::Failure),
            (401, Exit::Auth),
            (403, Exit::Auth),
            (404, Exit::NotFound),
            (409, Exit::Refused),
            (422, Exit::Refused),
            (429, Exit::Refused),
            (500, Exit::Failure),
            (503, Exit::Unreachable),
        ] {
            let error = CliError::Problem(Box::new(Problem::new(status, "x", "X", "y")));
            assert_eq!(error.exit(), exit, "{status}");
        }
        for (at, (exit, ..)) in Exit::ALL.into_iter().enumerate() {
            assert_eq!(exit as usize, at);
        }
    }

    #[test]
    fn a_message_says_what_failed_and_what_to_do() {
        let mut problem = Problem::new(500, "internal", "Internal error", "");
        problem.request_id = Some("abc".into());
        let text = CliError::Problem(Box::new(problem)).render();
        assert_eq!(
            text,
            "error: Internal error (HTTP 500)\n  request id: abc\n  next: look for the request id in the server's log"
        );
        let mut problem = Problem::new(400, "bad-request", "Bad request", "the body is wrong");
        problem.request_id = Some("abc".into());
        problem.errors.push(ProblemItem {
            pointer: "/tier".into(),
            detail: "unknown field".into(),
        });
        let text = CliError::Problem(Box::new(problem)).render();
        assert_eq!(text, "error: the body is wrong\n  /tier: unknown field");
        let expired = Problem::new(401, "unauthorized", "Unauthorized", "the session has ended");
        assert!(
            CliError::Problem(Box::new(expired))
                .render()
                .ends_with("next: log in: livepatch-admin login -a USER")
        );
    }
}
