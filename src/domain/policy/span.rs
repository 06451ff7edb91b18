//! Lengths of time as people write them: `4h`, `1d`, `90s`, `1day 12h`.

use crate::domain::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time in whole seconds, at most a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(u32);

impl Span {
    /// The longest.
    pub const MOST: Self = Self(366 * 24 * 3600);

    /// So many hours.
    pub const fn hours(hours: u64) -> Self {
        Self::seconds(hours.saturating_mul(3600))
    }

    /// So many seconds, at most the longest span.
    pub const fn seconds(seconds: u64) -> Self {
        let most = Self::MOST.0 as u64;
        Self(if seconds > most { most } else { seconds } as u32)
    }

    /// In seconds.
    pub const fn as_seconds(self) -> i64 {
        self.0 as i64
    }

    /// As the standard library has it.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&humantime::format_duration(self.as_duration()).to_string())
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = |why: String| ParseError::new("length of time", text, why);
        let parsed = humantime::parse_duration(text.trim())
            .map_err(|e| err(format!("{e}; write e.g. 4h, 1d or 90s")))?;
        if parsed.subsec_nanos() != 0 || parsed > Self::MOST.as_duration() {
            return Err(err("whole seconds, at most 366 days".to_owned()));
        }
        Ok(Self(parsed.as_secs() as u32))
    }
}

serde_as_str!(Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_show_alike() {
        for (text, seconds) in [
            ("4h", 14_400),
            ("1d", 86_400),
            ("0s", 0),
            ("1day 12h", 129_600),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.as_seconds(), seconds);
            assert_eq!(span.to_string().parse(), Ok(span));
        }
        for bad in ["", "4", "h", "500d", "1ms", "-4h"] {
            assert!(bad.parse::<Span>().is_err(), "{bad:?}");
        }
    }
}
