//! Typed names of objects. Pure.
//!
//! Payloads and quarantined files are named by their content, so that a name can be checked against the bytes and two
//! writers of one name write the same. Only [`Key::Found`] carries a name that someone else gave.

use crate::domain::{ParseError, Sha256};
use std::fmt;

/// Where verified payloads lie.
pub(super) const PAYLOADS: &str = "objects/sha256/";
/// Where files lie that were refused, until an administrator decides.
pub(super) const QUARANTINE: &str = "quarantine/sha256/";
/// First components of paths that are ours; nothing below them counts as found.
const OURS: &[&str] = &["objects", "quarantine", WORK];
/// The filesystem backend's folder for files being written.
pub(super) const WORK: &str = ".livepatch-work";
/// What a bundle's name ends with.
const BUNDLE_SUFFIX: &str = ".tar.bz2";

/// The name of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A payload that may be served: `objects/sha256/<first two digits>/<digest>`.
    Payload(Sha256),
    /// A file that was refused: `quarantine/sha256/<first two digits>/<digest>`.
    Quarantine(Sha256),
    /// A tarball that lies elsewhere in the storage under its own name, put there by someone else.
    Found(FoundPath),
}

impl Key {
    /// The digest that the name promises, where it does.
    pub fn sha256(&self) -> Option<Sha256> {
        match self {
            Self::Payload(sha256) | Self::Quarantine(sha256) => Some(*sha256),
            Self::Found(_) => None,
        }
    }

    /// Reads the digest out of a path below `prefix` ([`PAYLOADS`] or [`QUARANTINE`]); `None` if it is not named as
    /// we name objects.
    pub(super) fn digest_in(prefix: &str, path: &str) -> Option<Sha256> {
        let (folder, digest) = path.strip_prefix(prefix)?.split_once('/')?;
        let lower = digest.bytes().all(|b| !b.is_ascii_uppercase());
        (lower && digest.get(..2) == Some(folder)).then_some(())?;
        digest.parse().ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, sha256) = match self {
            Self::Payload(sha256) => (PAYLOADS, sha256),
            Self::Quarantine(sha256) => (QUARANTINE, sha256),
            Self::Found(path) => return f.write_str(path.as_str()),
        };
        write!(f, "{prefix}{:02x}/{sha256}", sha256.0[0])
    }
}

/// The path of a tarball inside the storage: relative, plain, ending in `.tar.bz2`, and outside our own folders.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FoundPath(String);

impl FoundPath {
    /// The path as text, components separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last component.
    pub fn file_name(&self) -> &str {
        self.0
            .rsplit_once('/')
            .map_or(self.0.as_str(), |(_, name)| name)
    }

    /// Whether `path` lies in a folder that this server itself writes.
    pub(super) fn is_ours(path: &str) -> bool {
        path.split('/').next().is_some_and(|c| OURS.contains(&c))
    }
}

impl fmt::Display for FoundPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for FoundPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |why| Err(ParseError::new("path in the storage", text, why));
        if text.len() > 1024 {
            return refuse("it is longer than 1,024 bytes");
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return refuse("it holds control characters or backslashes");
        }
        if text.split('/').any(|c| matches!(c, "" | "." | "..")) {
            return refuse("it must be relative, without empty, '.' or '..' components");
        }
        if Self::is_ours(text) {
            return refuse("it lies in a folder that the server keeps for itself");
        }
        if !text.ends_with(BUNDLE_SUFFIX) {
            return refuse("a name ending in .tar.bz2 is expected");
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_content_and_back() {
        let sha256 = Sha256::of(b"x");
        let payload = Key::Payload(sha256).to_string();
        assert_eq!(payload, format!("objects/sha256/2d/{sha256}"));
        assert_eq!(Key::digest_in(PAYLOADS, &payload), Some(sha256));
        let quarantine = Key::Quarantine(sha256).to_string();
        assert_eq!(quarantine, format!("quarantine/sha256/2d/{sha256}"));
        assert_eq!(Key::digest_in(PAYLOADS, &quarantine), None);
        for stray in [
            format!("objects/sha256/{sha256}"),
            format!("objects/sha256/00/{sha256}"),
            format!("objects/sha256/2d/{sha256}0"),
            format!("objects/sha256/2d/{}", sha256.to_string().to_uppercase()),
            "objects/sha256/2d/2d".to_owned(),
            "objects/sha256/é/é".to_owned(),
        ] {
            assert_eq!(Key::digest_in(PAYLOADS, &stray), None, "{stray}");
        }
    }

    #[test]
    fn found_paths_cannot_leave_the_storage_or_enter_our_folders() {
        let good: FoundPath = "from downloader/a.tar.bz2".parse().unwrap();
        assert_eq!(good.file_name(), "a.tar.bz2");
        for bad in [
            "",
            "/a.tar.bz2",
            "../a.tar.bz2",
            "x/../a.tar.bz2",
            "x//a.tar.bz2",
            "./a.tar.bz2",
            "objects/sha256/a.tar.bz2",
            "quarantine/a.tar.bz2",
            ".livepatch-work/a.tar.bz2",
            "a.tar",
            "a\n.tar.bz2",
            "a\\b.tar.bz2",
            &format!("{}.tar.bz2", "x".repeat(1100)),
        ] {
            assert!(bad.parse::<FoundPath>().is_err(), "{bad}");
        }
    }
}
