//! Tier names.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// The name of a tier: a named, ordered stop on a patch's way out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TierName(String);

impl TierName {
    /// The tiers a new installation starts with, first to last.
    pub const DEFAULTS: [&'static str; 4] = ["edge", "beta", "candidate", "stable"];

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TierName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let ok = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
            });
        if ok {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseError::new(
                "tier name",
                text,
                "1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
            ))
        }
    }
}

serde_as_str!(TierName);
