//! Patch versions: `107.1`, announced as `LSN-0107-1`.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// The version of a patch. Ordered: patches are cumulative, so the highest suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatchVersion {
    /// The number of the security notice.
    pub major: u32,
    /// The revision of that notice.
    pub minor: u32,
}

impl PatchVersion {
    /// The Livepatch security notice that announces it, e.g. `LSN-0107-1`.
    pub fn notice(self) -> String {
        format!("LSN-{:04}-{}", self.major, self.minor)
    }

    /// One number that orders like the version; stored in the database (`0` there means none).
    pub const fn code(self) -> i64 {
        ((self.major as i64) << 20) | self.minor as i64
    }

    /// The inverse of [`Self::code`]; `None` for zero and below.
    pub const fn from_code(code: i64) -> Option<Self> {
        if code <= 0 {
            return None;
        }
        Some(Self {
            major: (code >> 20) as u32,
            minor: (code & 0xf_ffff) as u32,
        })
    }
}

impl fmt::Display for PatchVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for PatchVersion {
    type Err = ParseError;

    /// Reads `107.1`; both numbers below 1,000,000 and without leading zeros.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let number = |part: &str| {
            let plain = (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if plain && (part.len() == 1 || !part.starts_with('0')) {
                part.parse::<u32>().ok()
            } else {
                None
            }
        };
        let parsed = text.split_once('.').and_then(|(a, b)| {
            Some(Self {
                major: number(a)?,
                minor: number(b)?,
            })
        });
        match parsed {
            Some(version) if version.major > 0 => Ok(version),
            _ => Err(ParseError::new(
                "patch version",
                text,
                "two numbers expected, e.g. 107.1",
            )),
        }
    }
}

serde_as_str!(PatchVersion);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_by_number() {
        let v = |t: &str| t.parse::<PatchVersion>().unwrap();
        assert!(v("107.1") > v("99.12"));
        assert!(v("107.10") > v("107.9"));
        assert_eq!(v("107.1").notice(), "LSN-0107-1");
        assert_eq!(PatchVersion::from_code(v("107.1").code()), Some(v("107.1")));
        assert!(v("107.10").code() > v("107.9").code());
        for bad in [
            "",
            "107",
            "107.",
            ".1",
            "107.1.2",
            "0107.1",
            "-1.1",
            "0.1",
            "1.01",
            "9999999.1",
            "a.b",
        ] {
            assert!(bad.parse::<PatchVersion>().is_err(), "{bad:?} was accepted");
        }
    }
}
