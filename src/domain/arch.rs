//! Processor architectures, under Debian's names, as they stand in patch file names.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// An architecture for which Ubuntu builds kernels. The discriminant is stored in the database: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i16)]
pub enum Architecture {
    /// x86-64.
    Amd64 = 1,
    /// 64-bit ARM.
    Arm64 = 2,
    /// IBM Z.
    S390x = 3,
    /// 64-bit little-endian POWER.
    Ppc64el = 4,
    /// 64-bit RISC-V.
    Riscv64 = 5,
    /// 32-bit ARM, hard float.
    Armhf = 6,
    /// 32-bit x86.
    I386 = 7,
}

impl Architecture {
    /// Every architecture, in the order of their database codes.
    pub const ALL: [Self; 7] = [
        Self::Amd64,
        Self::Arm64,
        Self::S390x,
        Self::Ppc64el,
        Self::Riscv64,
        Self::Armhf,
        Self::I386,
    ];

    /// Debian's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::S390x => "s390x",
            Self::Ppc64el => "ppc64el",
            Self::Riscv64 => "riscv64",
            Self::Armhf => "armhf",
            Self::I386 => "i386",
        }
    }

    /// The number stored in the database.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The inverse of [`Self::code`].
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.code() == code)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = ParseError;

    /// Reads Debian's name or what `uname -m` says (`x86_64`, `aarch64`, ...).
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Ok(match text {
            "amd64" | "x86_64" => Self::Amd64,
            "arm64" | "aarch64" => Self::Arm64,
            "s390x" => Self::S390x,
            "ppc64el" | "ppc64le" => Self::Ppc64el,
            "riscv64" => Self::Riscv64,
            "armhf" | "armv7l" => Self::Armhf,
            "i386" | "i686" => Self::I386,
            _ => {
                let names = Self::ALL.map(Self::as_str).join(", ");
                return Err(ParseError::new(
                    "architecture",
                    text,
                    format!("known are {names}"),
                ));
            }
        })
    }
}

serde_as_str!(Architecture);
