//! Shares of machines or reports, exact to a millionth.

use crate::domain::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

const WHOLE: u32 = 1_000_000;

/// A share from nothing to everything, in millionths; written `10%` or `0.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// Everything.
    pub const ALL: Self = Self(WHOLE);
    /// Nothing.
    pub const NONE: Self = Self(0);

    /// So many of a million; more than a million is everything.
    pub const fn millionths(count: u32) -> Self {
        Self(if count > WHOLE { WHOLE } else { count })
    }

    /// So many of a hundred; more than a hundred is everything.
    pub const fn percent(count: u32) -> Self {
        Self::millionths(count.saturating_mul(WHOLE / 100))
    }

    /// The share that `part` is of `whole`, rounded down; nothing of nothing is nothing.
    pub fn of_counts(part: u64, whole: u64) -> Self {
        let millionths = u128::from(part) * u128::from(WHOLE) / u128::from(whole.max(1));
        Self::millionths(u32::try_from(millionths).unwrap_or(WHOLE))
    }

    /// This share of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / u128::from(WHOLE)) as u64
    }

    /// Whether `part` is a greater share of `whole` than this. Nothing of nothing is not.
    pub fn exceeded(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(WHOLE) > u128::from(whole) * u128::from(self.0)
    }

    /// In millionths.
    pub const fn as_millionths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 10_000, self.0 % 10_000);
        let text = if rest == 0 {
            format!("{whole}%")
        } else {
            let rest = format!("{rest:04}");
            format!("{whole}.{}%", rest.trim_end_matches('0'))
        };
        f.pad(&text)
    }
}

impl FromStr for Share {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || {
            ParseError::new(
                "share",
                text,
                "a percentage from 0% to 100% expected, e.g. 10% or 0.5%",
            )
        };
        let number = text.trim().strip_suffix('%').ok_or_else(err)?.trim_end();
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let fits = digits(whole)
            && whole.len() <= 3
            && rest.len() <= 4
            && (digits(rest) || !number.contains('.'));
        if !fits {
            return Err(err());
        }
        let whole: u32 = whole.parse().map_err(|_| err())?;
        let rest: u32 = format!("{rest:0<4}").parse().map_err(|_| err())?;
        let millionths = whole * 10_000 + rest;
        if millionths > WHOLE {
            return Err(err());
        }
        Ok(Self(millionths))
    }
}

serde_as_str!(Share);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (text, millionths) in [
            ("10%", 100_000),
            ("0.5%", 5_000),
            ("100%", WHOLE),
            ("0%", 0),
            ("33.3333 %", 333_333),
        ] {
            let share: Share = text.parse().unwrap();
            assert_eq!(share.as_millionths(), millionths, "{text}");
            assert_eq!(share.to_string().parse(), Ok(share));
        }
        for bad in [
            "",
            "%",
            "10",
            "101%",
            "-1%",
            "1.%",
            "0.00001%",
            "1e1%",
            "100.0001%",
            ".5%",
        ] {
            assert!(bad.parse::<Share>().is_err(), "{bad:?}");
        }
        let half_percent = Share::millionths(5_000);
        assert!(
            half_percent.exceeded(1, 199)
                && !half_percent.exceeded(1, 200)
                && !half_percent.exceeded(0, 0)
        );
        assert_eq!(Share::percent(10).of(95), 9);
        assert_eq!(Share::of_counts(1, 3).to_string(), "33.3333%");
    }
}
