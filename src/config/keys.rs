//! The one table of configuration keys: what each is called, what it takes, what it stands at, and what this version
//! does with it.
//!
//! Canonical's keys (names, types and defaults stand in the public documentation of its on-prem server) are in
//! `canonical.rs`, ours in `ours.rs`. Everything else that knows keys, loading, `config show`, `config keys` and the
//! reference page, reads this table; a key that is not in it is refused.

mod canonical;
mod ours;

use std::sync::LazyLock;

/// One configuration key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The dotted name, e.g. `database.connection-string`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// The value it has when not given, as it would be written; empty: none.
    pub default: &'static str,
    /// Canonical's default where ours is another one.
    pub canonical_default: Option<&'static str>,
    /// What this version does with it.
    pub status: Status,
    /// One line for people.
    pub about: &'static str,
    /// Whose key it is.
    pub origin: Origin,
}

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Known from Canonical's server.
    Canonical,
    /// Defined by this project.
    Ours,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number from 0 to 4294967295.
    Int,
    /// A decimal number.
    Float,
    /// A number of bytes, with a unit if wanted: `67108864` or `64MiB`.
    Bytes,
    /// A duration with units: `1h`, `30m`, `1h0m0s`.
    Duration,
    /// Free text.
    Text,
    /// A YAML list, or texts separated by commas.
    List,
    /// A file or folder.
    Path,
    /// As `List`, of files.
    Paths,
    /// An address and port to listen on.
    Address,
    /// A URL; a password in it is masked when shown.
    Url,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A text that is never shown.
    Secret,
    /// A PostgreSQL connection string; its password is never shown.
    Connection,
    /// `name:bcrypt-hash` pairs; the hashes are never shown.
    Users,
}

impl Kind {
    /// Whether the value is kept from output, and can be given as a file.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::Connection | Self::Users)
    }

    /// The kind in one word or a few, for tables.
    pub fn label(self) -> String {
        match self {
            Self::Bool => "boolean".to_owned(),
            Self::Int => "integer".to_owned(),
            Self::Float => "number".to_owned(),
            Self::Bytes => "size".to_owned(),
            Self::Duration => "duration".to_owned(),
            Self::Text => "string".to_owned(),
            Self::List => "list".to_owned(),
            Self::Path => "path".to_owned(),
            Self::Paths => "list of paths".to_owned(),
            Self::Address => "address:port".to_owned(),
            Self::Url => "URL".to_owned(),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Secret => "secret".to_owned(),
            Self::Connection => "secret (connection string)".to_owned(),
            Self::Users => "secret (list of name:bcrypt-hash)".to_owned(),
        }
    }
}

/// What this version does with a key.
#[derive(Debug, Clone, Copy)]
pub enum Status {
    /// It is obeyed.
    Used,
    /// Accepted and answered by one line that says what serves its purpose here.
    Replaced(&'static Answer),
    /// Accepted and checked; its feature does not exist yet, and switching it on is answered by one line.
    NotYet(&'static Feature),
    /// Refused, with what to do instead.
    Refused(&'static Answer),
}

/// The answer to a group of keys that are not obeyed.
#[derive(Debug)]
pub struct Answer {
    /// The group, e.g. `profiler.*`.
    pub group: &'static str,
    /// What serves the purpose instead.
    pub text: &'static str,
}

/// A feature of Canonical's server that this version does not have yet.
#[derive(Debug)]
pub struct Feature {
    /// The key that switches it on when true.
    pub switch: &'static str,
    /// What is missing for now, and what to do meanwhile.
    pub text: &'static str,
}

impl Key {
    /// The environment variable that overrides it: `LP_`, upper case, `.` and `-` as `_`.
    pub fn variable(&self) -> String {
        let name = self.name.to_ascii_uppercase().replace(['.', '-'], "_");
        format!("LP_{name}")
    }

    /// The first segment of the name, e.g. `patch-storage`.
    pub fn section(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }

    /// Whether it is obeyed.
    pub const fn is_used(&self) -> bool {
        matches!(self.status, Status::Used)
    }

    /// What this version does with it, in one line.
    pub fn status_line(&self) -> String {
        match self.status {
            Status::Used => "used".to_owned(),
            Status::Replaced(answer) => format!("ignored: {}", answer.text),
            Status::NotYet(feature) => format!("not in this version: {}", feature.text),
            Status::Refused(answer) => format!("refused: {}", answer.text),
        }
    }
}

static TABLE: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys: Vec<Key> = canonical::KEYS.iter().chain(ours::KEYS).copied().collect();
    keys.sort_by_key(|key| key.name);
    keys
});

/// Every key, ordered by name.
pub fn all() -> &'static [Key] {
    &TABLE
}

/// The key of that exact name.
pub fn find(name: &str) -> Option<&'static Key> {
    let table = all();
    table
        .binary_search_by_key(&name, |key| key.name)
        .ok()
        .map(|at| &table[at])
}

/// Writes a table of keys; one line each, so that it can be read as a table.
macro_rules! keys {
    ($origin:ident; $($name:literal $kind:expr, $default:literal $(canonical $theirs:literal)?, $status:expr, $about:literal;)*) => {
        /// The keys of this file.
        pub(super) const KEYS: &[super::Key] = &[$(super::Key {
            name: $name,
            kind: $kind,
            default: $default,
            canonical_default: super::keys!(@optional $($theirs)?),
            status: $status,
            about: $about,
            origin: super::Origin::$origin,
        }),*];
    };
    (@optional) => { None };
    (@optional $value:literal) => { Some($value) };
}
use keys;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_variables_are_unique() {
        let names: BTreeSet<_> = all().iter().map(|key| key.name).collect();
        let variables: BTreeSet<_> = all().iter().map(Key::variable).collect();
        assert_eq!((names.len(), variables.len()), (all().len(), all().len()));
        for key in all().iter().filter(|key| key.kind.is_secret()) {
            assert!(
                find(&format!("{}-file", key.name)).is_none(),
                "{}",
                key.name
            );
            assert!(!variables.contains(&format!("{}_FILE", key.variable())));
        }
    }

    #[test]
    fn a_name_is_never_also_a_section() {
        for key in all() {
            let below = format!("{}.", key.name);
            assert!(
                !all().iter().any(|other| other.name.starts_with(&below)),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn switches_exist_and_are_booleans_of_their_feature() {
        for key in all() {
            if let Status::NotYet(feature) = key.status {
                let switch = find(feature.switch).expect(feature.switch);
                assert_eq!(switch.kind, Kind::Bool, "{}", key.name);
                assert!(matches!(switch.status, Status::NotYet(f) if f.switch == feature.switch));
            }
        }
    }

    #[test]
    fn every_line_is_one_line() {
        for key in all() {
            assert!(
                !key.about.is_empty() && !key.about.contains('\n'),
                "{}",
                key.name
            );
            assert!(!key.status_line().contains('\n'), "{}", key.name);
        }
    }
}
