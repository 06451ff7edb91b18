//! What can go wrong in the client, and the exit code each kind ends with.

use std::time::Duration;

/// Exit code for success.
pub const EXIT_OK: u8 = 0;
/// Exit code for everything that has no code of its own: network, files, insertion.
pub const EXIT_FAILED: u8 = 1;
/// Exit code for wrong arguments.
pub const EXIT_USAGE: u8 = 2;
/// Exit code for a server that does not accept the token.
pub const EXIT_REFUSED: u8 = 3;
/// Exit code for a patch that is not what it should be.
pub const EXIT_VERIFICATION: u8 = 4;

/// How the network failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFailure {
    /// No answer in time.
    Timeout,
    /// Nobody listens there.
    Refused,
    /// Anything else: the connection broke, TLS, name resolution.
    Broken,
}

/// A failure of the client. Every text says what failed, on what, and what to do next; none holds a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other or the stored state.
    #[error("{0}")]
    Usage(String),
    /// A file or a fact of this machine cannot be had.
    #[error("{0}")]
    Local(String),
    /// No answer came.
    #[error(
        "{what} failed: {url} could not be reached: {why}; check the address, the network and --ca"
    )]
    Network {
        /// What was being done.
        what: &'static str,
        /// Address without credentials.
        url: String,
        /// The chain of causes.
        why: String,
        /// What kind of failure it was.
        kind: NetworkFailure,
    },
    /// The server does not accept the token (401 or 403).
    #[error(
        "{what} was refused by {url}: {status} {detail}; check the token with the server's administrator"
    )]
    Refused {
        /// What was being done.
        what: &'static str,
        /// Address without credentials.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's words, shortened.
        detail: String,
    },
    /// The server answered with another error.
    #[error("{what} failed: {url} answered {status} {detail}")]
    Server {
        /// What was being done.
        what: &'static str,
        /// Address without credentials.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's words, shortened.
        detail: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is not what the protocol says.
    #[error(
        "{what} failed: the answer of {url} cannot be read: {why}; is this a livepatch server?"
    )]
    Answer {
        /// What was being done.
        what: &'static str,
        /// Address without credentials.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// A patch is not what the server said, or not signed by whom it must be, or not for this kernel.
    #[error("{0}; it was not used")]
    Verification(String),
    /// The kernel did not take the module.
    #[error("{0}")]
    Insert(String),
    /// The work was interrupted by a signal.
    #[error("interrupted by a signal")]
    Interrupted,
}

impl Error {
    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Refused { .. } => EXIT_REFUSED,
            Self::Verification(_) => EXIT_VERIFICATION,
            Self::Local(_)
            | Self::Network { .. }
            | Self::Server { .. }
            | Self::Answer { .. }
            | Self::Insert(_)
            | Self::Interrupted => EXIT_FAILED,
        }
    }

    /// How long the server asked to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The causes of an error below its first line, which only repeats the URL.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if causes.last() != Some(&text) {
            causes.push(text);
        }
        source = cause.source();
    }
    if causes.is_empty() {
        return if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            "no answer".to_owned()
        };
    }
    causes.join(": ")
}

/// A failure on a file: what, which, why.
pub(super) fn file(doing: &str, path: &std::path::Path, why: impl std::fmt::Display) -> Error {
    Error::Local(format!("cannot {doing} {}: {why}", path.display()))
}
