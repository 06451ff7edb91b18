//! What can go wrong with an object, in the variants that callers branch on.

use super::content::Expect;
use super::key::Key;
use crate::domain::Sha256;
use std::sync::Arc;

/// The cause below an error, for logs.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failure of the object store. Every variant names the storage (`place`), and the object where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no such object.
    #[error(
        "{key} is missing in {place}; fetch it again from upstream or remove it from the catalog"
    )]
    NotFound {
        /// The object.
        key: Key,
        /// The storage.
        place: Arc<str>,
    },
    /// The object's bytes are not the ones expected. None of them was handed out.
    #[error(
        "{key} in {place} is corrupt: SHA-256 {expected} expected, {got} found; it is not served"
    )]
    Corrupt {
        /// The object.
        key: Key,
        /// The storage.
        place: Arc<str>,
        /// The digest it should have.
        expected: Sha256,
        /// The digest it has.
        got: Sha256,
    },
    /// The object is shorter than expected. None of it was handed out.
    #[error(
        "{key} in {place} is truncated: {expected} bytes expected, {got} found; it is not served"
    )]
    Truncated {
        /// The object.
        key: Key,
        /// The storage.
        place: Arc<str>,
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        got: u64,
    },
    /// The object is longer than expected or allowed. It was not read further.
    #[error("{key} in {place} is larger than the {limit} bytes expected; it is not served")]
    TooLarge {
        /// The object.
        key: Key,
        /// The storage.
        place: Arc<str>,
        /// Bytes it may have.
        limit: u64,
    },
    /// A file was changed while it was being sent; the download was cut off.
    #[error("{key} in {place} was changed while it was being sent; the download was cut off")]
    Changed {
        /// The object.
        key: Key,
        /// The storage.
        place: Arc<str>,
    },
    /// What was given to store is not what it was said to be. Nothing was stored.
    #[error("refused to store {key}: {expected} expected, {got} given; nothing was stored")]
    WrongContent {
        /// The object.
        key: Key,
        /// What was promised.
        expected: Expect,
        /// What was given.
        got: Expect,
    },
    /// There is no room. Nothing was stored.
    #[error("{place} is full: {source}; free or add space, nothing was stored")]
    Full {
        /// The storage.
        place: Arc<str>,
        /// What the storage said.
        source: Cause,
    },
    /// The storage refused the request: wrong or missing credentials or rights.
    #[error(
        "{place} refused to {operation}: {why}; check the credentials and rights in patch-storage"
    )]
    Denied {
        /// The storage.
        place: Arc<str>,
        /// What was tried.
        operation: &'static str,
        /// What the storage said.
        why: String,
    },
    /// The storage cannot be reached, did not answer in time, or failed. Worth trying again.
    #[error("could not {operation} in {place}: {source}")]
    Unavailable {
        /// The storage.
        place: Arc<str>,
        /// What was tried.
        operation: &'static str,
        /// What went wrong.
        source: Cause,
    },
    /// Too many payloads are being held in memory for slow downloads. Worth trying again.
    #[error("too many payloads are being sent at once; try again in a few seconds")]
    Busy,
    /// The storage's configuration cannot work.
    #[error("patch-storage: {what}")]
    Setup {
        /// Which key, what is wrong with it, and what to do.
        what: String,
    },
}

impl BlobError {
    /// The object that the failure is about.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::NotFound { key, .. }
            | Self::Corrupt { key, .. }
            | Self::Truncated { key, .. }
            | Self::TooLarge { key, .. }
            | Self::Changed { key, .. }
            | Self::WrongContent { key, .. } => Some(key),
            Self::Full { .. }
            | Self::Denied { .. }
            | Self::Unavailable { .. }
            | Self::Busy
            | Self::Setup { .. } => None,
        }
    }

    /// Whether the stored object itself is bad (missing, damaged, wrong size), so that it must be quarantined and fetched
    /// again; asking the storage again would not help.
    pub fn is_bad_object(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Corrupt { .. }
                | Self::Truncated { .. }
                | Self::TooLarge { .. }
        )
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Busy | Self::Changed { .. }
        )
    }

    /// Builds [`BlobError::Unavailable`].
    pub(super) fn unavailable(
        place: &Arc<str>,
        operation: &'static str,
        source: impl Into<Cause>,
    ) -> Self {
        Self::Unavailable {
            place: place.clone(),
            operation,
            source: source.into(),
        }
    }

    /// Sorts an error of a file operation into the variants above.
    pub(super) fn from_io(
        place: &Arc<str>,
        operation: &'static str,
        error: std::io::Error,
    ) -> Self {
        use std::io::ErrorKind;
        let place = place.clone();
        match error.kind() {
            // FileTooLarge is what a size limit of the process or filesystem answers instead of "no space".
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full {
                    place,
                    source: error.into(),
                }
            }
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Denied {
                place,
                operation,
                why: error.to_string(),
            },
            _ => Self::unavailable(&place, operation, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_errors_are_sorted() {
        let place: Arc<str> = "the folder /x".into();
        let of =
            |code| BlobError::from_io(&place, "write", std::io::Error::from_raw_os_error(code));
        for code in [28, 122, 27] {
            assert!(matches!(of(code), BlobError::Full { .. }), "{code}");
        }
        for code in [13, 1, 30] {
            assert!(matches!(of(code), BlobError::Denied { .. }), "{code}");
        }
        assert!(of(5).is_transient());
    }
}
