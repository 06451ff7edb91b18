//! What a service can answer instead of a result. One file under `http/` turns these into answers.

use crate::blob::BlobError;
use crate::db::DbError;
use std::time::Duration;

/// A refusal or a failure, in the words that the caller reads.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The request is wrong in itself: says what, and what would be right.
    #[error("{0}")]
    Invalid(String),
    /// No valid proof of who asks.
    #[error("{0}")]
    Unauthorized(String),
    /// Known, but not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// What is asked for does not exist.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// Kind of thing.
        what: &'static str,
        /// Name as given.
        name: String,
    },
    /// A rule stands against it now: says which, and what would help.
    #[error("{0}")]
    Conflict(String),
    /// More bytes than allowed.
    #[error("{0}")]
    TooLarge(String),
    /// The caller took too long.
    #[error("{0}")]
    Timeout(String),
    /// Too many attempts.
    #[error("{why}")]
    Throttled {
        /// What was counted.
        why: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// Something this depends on is not there now; trying again later is right.
    #[error("{0}")]
    Unavailable(String),
    /// There is no room; nothing was stored. Says where, and what would help.
    #[error("{0}")]
    Full(String),
    /// A service outside that this request needs is not there now; the text is for the caller.
    #[error("{why}")]
    Away {
        /// What is away, and what that means.
        why: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A fault of ours or of stored data; the text goes to the log, not to the caller.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ServiceError {
    /// There is no `what` of this name.
    pub fn not_found(what: &'static str, name: impl ToString) -> Self {
        Self::NotFound {
            what,
            name: name.to_string(),
        }
    }
}

impl From<DbError> for ServiceError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(_) | DbError::Retry(_) => Self::Unavailable(error.to_string()),
            DbError::Exists(_) | DbError::Referenced(_) => Self::Conflict(error.to_string()),
            DbError::Statement { .. } | DbError::Row(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<BlobError> for ServiceError {
    fn from(error: BlobError) -> Self {
        match error {
            // The object is the fault, and trying again does not help.
            BlobError::NotFound { .. }
            | BlobError::Corrupt { .. }
            | BlobError::Truncated { .. }
            | BlobError::TooLarge { .. }
            | BlobError::WrongContent { .. } => Self::Internal(error.to_string()),
            BlobError::Full { .. } => Self::Full(error.to_string()),
            BlobError::Changed { .. }
            | BlobError::Denied { .. }
            | BlobError::Unavailable { .. }
            | BlobError::Busy
            | BlobError::Setup { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<crate::domain::ParseError> for ServiceError {
    fn from(error: crate::domain::ParseError) -> Self {
        Self::Invalid(error.to_string())
    }
}
