//! What is wrong with a configuration, and what is worth saying about one that is right.
//!
//! No message holds a secret, nor the value of a key that is not known (it may be a misspelt secret).

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The key was not given.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, counted from 1; 0 when not known.
        line: u64,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A file that holds one secret.
    SecretFile {
        /// Its path.
        path: PathBuf,
        /// The key or environment variable that names it.
        via: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment { variable } => write!(f, "environment {variable}"),
            Self::SecretFile { path, via } => write!(f, "{}, named by {via}", path.display()),
        }
    }
}

/// The kinds of errors, for callers that branch on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A file cannot be read.
    File,
    /// The configuration file is not YAML, or not a mapping.
    Syntax,
    /// There is no key of that name.
    UnknownKey,
    /// The value is not what the key takes.
    WrongType,
    /// The key is given more than once in one place.
    Duplicate,
    /// Values that cannot be together, or one that cannot work.
    Contradiction,
    /// A key or value that is known and refused on purpose.
    Refused,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}: {message}", .source_text)]
pub struct ConfigError {
    /// The dotted key, the environment variable or the file it is about.
    pub path: String,
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// What is wrong and what to do.
    pub message: String,
    /// Where the value came from, as shown after the path; empty when that says nothing new.
    source_text: String,
}

impl ConfigError {
    /// An error about `path`.
    pub fn new(kind: ErrorKind, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            kind,
            message: message.into(),
            source_text: String::new(),
        }
    }

    /// The same, saying where the value came from.
    #[must_use]
    pub fn at(mut self, source: &Source) -> Self {
        self.source_text = match source {
            Source::Default => String::new(),
            Source::Environment { variable } if *variable == self.path => String::new(),
            other => format!(" ({other})"),
        };
        self
    }
}

/// How much a notice matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeLevel {
    /// Worth knowing; nothing is lost.
    Note,
    /// Something that was asked for does not happen.
    Warning,
}

/// One line about a configuration that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub level: NoticeLevel,
    /// The keys it is about.
    pub keys: Vec<&'static str>,
    /// What happens instead.
    pub text: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            NoticeLevel::Note => "note",
            NoticeLevel::Warning => "warning",
        };
        write!(f, "{level}: {}: {}", self.keys.join(", "), self.text)
    }
}
