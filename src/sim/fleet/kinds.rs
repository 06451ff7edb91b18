//! Errors as words to count by.

use crate::sim::error::{Error, NetworkFailure};

/// Answered well, but the server says that it lost the report.
pub(super) const NOT_STORED: &str = "not-stored";
/// Due, but no connection was free before the run ended.
pub(super) const NOT_SENT: &str = "not-sent";
/// Sent, but not answered when the run ended.
pub(super) const CUT_OFF: &str = "cut-off";

/// The kind of an error; free of anything that differs between two machines.
pub(super) fn kind(error: &Error) -> String {
    match error {
        Error::Refused { status, .. } | Error::Server { status, .. } => format!("status-{status}"),
        Error::Network { kind, .. } => match kind {
            NetworkFailure::Timeout => "timeout",
            NetworkFailure::Refused => "connection-refused",
            NetworkFailure::Broken => "connection-broken",
        }
        .to_owned(),
        Error::Answer { .. } => "unreadable-answer".to_owned(),
        Error::Verification(_) => "wrong-content".to_owned(),
        Error::Usage(_) | Error::Local(_) | Error::Insert(_) | Error::Interrupted => {
            "local".to_owned()
        }
    }
}
