//! The oldest kernel that patches are wanted for: `5.15`, `5.15.0` or `5.15.0-107`.

use super::{KernelVersion, ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// A lower bound on kernels: as many of series, patch level and ABI as were given. What was not given counts as lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MinimumKernel {
    numbers: [u32; 4],
    given: usize,
}

impl MinimumKernel {
    /// Whether a kernel is this one or newer.
    pub fn admits(&self, kernel: &KernelVersion) -> bool {
        let base = kernel.base();
        let of = [
            u32::from(base.major),
            u32::from(base.minor),
            u32::from(base.patch),
            kernel.abi(),
        ];
        of[..self.given] >= self.numbers[..self.given]
    }
}

impl fmt::Display for MinimumKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.numbers[..self.given].iter().enumerate() {
            let separator = ["", ".", ".", "-"][at];
            write!(f, "{separator}{number}")?;
        }
        Ok(())
    }
}

impl FromStr for MinimumKernel {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = || {
            ParseError::new(
                "minimum kernel version",
                text,
                "expected e.g. 5.15, 5.15.0 or 5.15.0-107",
            )
        };
        let (base, abi) = match text.split_once('-') {
            Some((base, abi)) => (base, Some(abi)),
            None => (text, None),
        };
        let mut parts: Vec<&str> = base.split('.').collect();
        let whole = matches!(parts.len(), 2 | 3) && (abi.is_none() || parts.len() == 3);
        if !whole {
            return Err(wrong());
        }
        parts.extend(abi);
        let mut numbers = [0; 4];
        for (number, part) in numbers.iter_mut().zip(&parts) {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong());
            }
            *number = part.parse().map_err(|_| wrong())?;
        }
        Ok(Self {
            numbers,
            given: parts.len(),
        })
    }
}

serde_as_str!(MinimumKernel);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_compared() {
        let kernel: KernelVersion = "5.15.0-107.117-generic".parse().unwrap();
        for (text, admits) in [
            ("5.15", true),
            ("5.15.0", true),
            ("5.15.0-107", true),
            ("5.15.0-108", false),
            ("5.16", false),
            ("4.4", true),
            ("6.8.0-1", false),
        ] {
            let minimum: MinimumKernel = text.parse().unwrap();
            assert_eq!(minimum.admits(&kernel), admits, "{text}");
            assert_eq!(minimum.to_string(), text);
        }
        for wrong in [
            "",
            "5",
            "5.",
            "5.15-7",
            "5.15.0-",
            "5.15.0.1",
            "a.b",
            "5.15.0-1-2",
            "99999999999.1",
        ] {
            assert!(wrong.parse::<MinimumKernel>().is_err(), "{wrong}");
        }
    }
}
