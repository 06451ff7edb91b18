//! Files whose bytes were compared with their hash once, and have not changed since.
//!
//! Hashing a file for every download would cost more than sending it. So a digest that was found good is remembered
//! together with the file's identity: device, inode, size, and both times. Any write, rename over it, or restored backup
//! changes at least one of them, and the file is hashed again. Two gaps are closed: a file changed so recently that a
//! further change might not move its times (their grain can be a second) is not remembered, and after every piece that
//! is read the file is looked at again before the piece is sent. What stays open is a disk that answers wrongly without
//! any write; `storage verify` is for that.

use super::error::BlobError;
use super::key::Key;
use crate::domain::Sha256;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file younger than this since its last change is not remembered.
const SETTLED: Duration = Duration::from_secs(2);
/// Entries kept; beyond that the memory starts anew. About 120 bytes each.
const MOST: usize = 200_000;
/// Locks that keep many requests for one file from hashing it at once.
const STRIPES: usize = 64;

/// The identity and state of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Looks at an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether the last change is long enough ago that another would show in the times.
    fn settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = self.changed.0.max(self.modified.0);
        u64::try_from(last).is_ok_and(|last| last + SETTLED.as_secs() < now.as_secs())
    }
}

/// An open file whose bytes are the ones expected.
#[derive(Debug)]
pub(super) struct VerifiedFile {
    file: File,
    stamp: Stamp,
    key: Key,
    place: Arc<str>,
}

impl VerifiedFile {
    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Fails if the file is no longer the one that was verified. To be asked after reading and before sending.
    pub(super) fn check_unchanged(&self) -> Result<(), BlobError> {
        let now = Stamp::of(&self.file).map_err(|e| self.failed(e))?;
        // A link count that fell to zero (the object was replaced or deleted) moves the change time, but the bytes
        // behind the open file stay what they were.
        let same = Stamp {
            changed: self.stamp.changed,
            ..now
        } == self.stamp;
        if same && (now.changed == self.stamp.changed || self.is_unlinked()) {
            return Ok(());
        }
        Err(BlobError::Changed {
            key: self.key.clone(),
            place: self.place.clone(),
        })
    }

    fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.nlink() == 0)
    }

    /// The error for a read that failed.
    pub(super) fn failed(&self, error: io::Error) -> BlobError {
        BlobError::from_io(&self.place, "read a payload", error)
    }

    /// The error for a file that ended early.
    pub(super) fn ended(&self, at: u64) -> BlobError {
        BlobError::Truncated {
            key: self.key.clone(),
            place: self.place.clone(),
            expected: self.stamp.size,
            got: at,
        }
    }
}

/// The memory of what was verified.
#[derive(Debug)]
pub(super) struct Verified {
    known: Mutex<HashMap<Sha256, Stamp>>,
    stripes: [tokio::sync::Mutex<()>; STRIPES],
}

impl Default for Verified {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            stripes: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
        }
    }
}

impl Verified {
    /// The lock to hold while hashing the file of `sha256`.
    pub(super) async fn turn(&self, sha256: Sha256) -> tokio::sync::MutexGuard<'_, ()> {
        self.stripes[usize::from(sha256.0[0]) % STRIPES]
            .lock()
            .await
    }

    /// Whether a file in this state was found to have this digest.
    pub(super) fn knows(&self, sha256: Sha256, stamp: Stamp) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&sha256) == Some(&stamp)
    }

    /// Remembers that a file in this state has this digest, if its state is old enough to mean something.
    pub(super) fn remember(&self, sha256: Sha256, stamp: Stamp, now: SystemTime) {
        if !stamp.settled(now) {
            return;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(sha256, stamp);
    }
}

/// Puts the pieces together; the caller has verified `file` in state `stamp`.
pub(super) fn verified(file: File, stamp: Stamp, key: &Key, place: &Arc<str>) -> VerifiedFile {
    VerifiedFile {
        file,
        stamp,
        key: key.clone(),
        place: place.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn only_settled_files_are_remembered_and_any_change_is_seen() {
        let mut temporary = tempfile::NamedTempFile::new().unwrap();
        temporary.write_all(b"payload").unwrap();
        let file = temporary.reopen().unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let sha256 = Sha256::of(b"payload");
        let memory = Verified::default();

        let now = SystemTime::now();
        memory.remember(sha256, stamp, now);
        assert!(!memory.knows(sha256, stamp), "it changed just now");
        memory.remember(sha256, stamp, now + Duration::from_secs(10));
        assert!(memory.knows(sha256, stamp));
        memory.remember(sha256, stamp, UNIX_EPOCH);
        assert!(
            memory.knows(sha256, stamp),
            "a clock set back forgets nothing"
        );

        let key = Key::Payload(sha256);
        let open = verified(file, stamp, &key, &"x".into());
        open.check_unchanged().unwrap();
        // Same length, other bytes, and a time that a fast test would not move by itself.
        temporary.as_file().set_len(0).unwrap();
        temporary.write_all(b"PAYLOAD").unwrap();
        temporary
            .as_file()
            .set_modified(now + Duration::from_secs(5))
            .unwrap();
        assert!(matches!(
            open.check_unchanged(),
            Err(BlobError::Changed { .. })
        ));
        assert!(!memory.knows(sha256, Stamp::of(open.file()).unwrap()));
    }

    #[test]
    fn a_file_replaced_while_it_is_read_stays_good() {
        let temporary = tempfile::NamedTempFile::new().unwrap();
        let file = temporary.reopen().unwrap();
        let stamp = Stamp::of(&file).unwrap();
        let open = verified(file, stamp, &Key::Payload(Sha256::of(b"")), &"x".into());
        drop(temporary);
        open.check_unchanged().unwrap();
    }
}
