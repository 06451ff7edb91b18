//! Kernel versions as Ubuntu writes them: `5.15.0-107.117-generic` is base `5.15.0`, ABI `107`, upload `117`,
//! flavour `generic`. The flavour may hold hyphens and the upload a backport suffix (`13~24.04.1`).
//! Source: field 2 of `/proc/version_signature`.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// The upstream part of a kernel version, e.g. `5.15.0`; the series is its first two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelBase {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number; `0` in all current Ubuntu kernels.
    pub patch: u16,
}

impl KernelBase {
    /// The series as written in the table of supported kernels: `5.15`.
    pub fn series(self) -> String {
        format!("{}.{}", self.major, self.minor)
    }

    /// Whether `series` is what [`Self::series`] writes.
    pub fn is_of(self, series: &str) -> bool {
        let number = |text: &str, value: u16| number::<u16>(text) == Some(value);
        series
            .split_once('.')
            .is_some_and(|(major, minor)| number(major, self.major) && number(minor, self.minor))
    }
}

impl fmt::Display for KernelBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for KernelBase {
    type Err = ParseError;

    /// Reads two or three numbers: `5.15` or `5.15.0`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = || {
            ParseError::new(
                "kernel series",
                text,
                "two or three numbers expected, e.g. 5.15.0",
            )
        };
        let mut parts = text.split('.').map(number::<u16>);
        let major = parts.next().flatten().ok_or_else(err)?;
        let minor = parts.next().flatten().ok_or_else(err)?;
        let patch = match parts.next() {
            Some(part) => part.ok_or_else(err)?,
            None => 0,
        };
        if parts.next().is_some() {
            return Err(err());
        }
        Ok(Self {
            major,
            minor,
            patch,
        })
    }
}

/// A decimal number without sign and without leading zeros that would not be written back.
fn number<T: FromStr>(text: &str) -> Option<T> {
    let plain =
        text.bytes().all(|b| b.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// One exact kernel build. `Display` gives back precisely what was parsed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelVersion {
    base: KernelBase,
    abi: u32,
    upload: u32,
    /// What follows the upload number, from `~` or `+` on, e.g. `~24.04.1`; empty for most kernels.
    backport: String,
    flavour: String,
}

impl KernelVersion {
    /// The longest accepted text. Real ones are below 50 characters.
    pub const MAX_LEN: usize = 128;

    /// Upstream part, e.g. `5.15.0`.
    pub fn base(&self) -> KernelBase {
        self.base
    }

    /// ABI number, e.g. `107`.
    pub fn abi(&self) -> u32 {
        self.abi
    }

    /// Upload number with its backport suffix, e.g. `117` or `13~24.04.1`.
    pub fn upload(&self) -> String {
        format!("{}{}", self.upload, self.backport)
    }

    /// Flavour, e.g. `generic` or `ibm-gt-tdx`.
    pub fn flavour(&self) -> &str {
        &self.flavour
    }

    /// What `uname -r` prints on this kernel and what a module's `vermagic` begins with: `5.15.0-107-generic`.
    pub fn release(&self) -> String {
        format!("{}-{}-{}", self.base, self.abi, self.flavour)
    }

    /// The name Canonical's modules for this kernel carry, e.g. `lkp_Ubuntu_6_8_0_1047_50_aws_121`
    /// (public: seen in `lsmod` output that people posted).
    pub fn module_name(&self, patch_major: u32) -> String {
        format!(
            "lkp_Ubuntu_{}_{patch_major}",
            self.to_string()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        )
    }

    /// The series' key for "is at least this version": base, then ABI, then upload.
    pub fn order_key(&self) -> (KernelBase, u32, u32) {
        (self.base, self.abi, self.upload)
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}.{}{}-{}",
            self.base, self.abi, self.upload, self.backport, self.flavour
        )
    }
}

/// A kernel version's parts, borrowed from its text: what a check-in needs of a kernel that no patch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelParts<'a> {
    /// Upstream part.
    pub base: KernelBase,
    abi: u32,
    upload: u32,
    backport: &'a str,
    /// Flavour.
    pub flavour: &'a str,
}

impl<'a> KernelParts<'a> {
    /// Reads a text by the rules of [`KernelVersion`]; allocates only for an error.
    pub fn read(text: &'a str) -> Result<Self, ParseError> {
        let err = |why: &str| ParseError::new("kernel version", text, why);
        if text.len() > KernelVersion::MAX_LEN {
            return Err(err("longer than 128 characters"));
        }
        let shape = "expected BASE-ABI.UPLOAD-FLAVOUR, e.g. 5.15.0-107.117-generic";
        let (base_text, rest) = text.split_once('-').ok_or_else(|| err(shape))?;
        let (build, flavour) = rest.split_once('-').ok_or_else(|| err(shape))?;
        let base: KernelBase = base_text.parse().map_err(|_| err(shape))?;
        if base_text.matches('.').count() != 2 {
            return Err(err("the base must have three numbers, e.g. 5.15.0"));
        }
        let (abi, upload) = build.split_once('.').ok_or_else(|| err(shape))?;
        let cut = upload.find(['~', '+']).unwrap_or(upload.len());
        let (upload, backport) = upload.split_at(cut);
        let abi = number(abi).ok_or_else(|| err("the ABI is not a number"))?;
        let upload = number(upload).ok_or_else(|| err("the upload is not a number"))?;
        if !backport
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'~' | b'+' | b'.'))
            || backport.len() == 1
        {
            return Err(err(
                "the backport suffix may hold letters, digits, '.', '~' and '+'",
            ));
        }
        check_flavour(flavour).map_err(|why| err(&why))?;
        Ok(Self {
            base,
            abi,
            upload,
            backport,
            flavour,
        })
    }
}

impl FromStr for KernelVersion {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = KernelParts::read(text)?;
        Ok(Self {
            base: parts.base,
            abi: parts.abi,
            upload: parts.upload,
            backport: parts.backport.to_owned(),
            flavour: parts.flavour.to_owned(),
        })
    }
}

/// Checks a flavour: lower-case letters, digits and inner hyphens, beginning with a letter.
pub fn check_flavour(text: &str) -> Result<(), String> {
    let ok = text.len() <= 40
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if ok {
        Ok(())
    } else {
        Err("a flavour is made of a-z, 0-9 and inner hyphens, e.g. generic or aws-fips".to_owned())
    }
}

serde_as_str!(KernelVersion);
serde_as_str!(KernelBase);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_of_a_kernel_version() {
        let k: KernelVersion = "5.15.0-107.117-generic".parse().unwrap();
        assert_eq!(
            (
                k.base().series().as_str(),
                k.abi(),
                k.upload().as_str(),
                k.flavour()
            ),
            ("5.15", 107, "117", "generic")
        );
        assert_eq!(k.release(), "5.15.0-107-generic");
        let k: KernelVersion = "6.8.0-1047.50-aws".parse().unwrap();
        assert_eq!(k.module_name(121), "lkp_Ubuntu_6_8_0_1047_50_aws_121");
        let k: KernelVersion = "7.0.0-1013.13~24.04.1-aws".parse().unwrap();
        assert_eq!((k.upload().as_str(), k.flavour()), ("13~24.04.1", "aws"));
        let k: KernelVersion = "6.8.0-1.2-ibm-gt-tdx".parse().unwrap();
        assert_eq!(k.flavour(), "ibm-gt-tdx");
    }

    #[test]
    fn wrong_kernel_versions_are_refused() {
        for bad in [
            "",
            "5.15",
            "5.15.0",
            "5.15.0-107",
            "5.15.0-107-generic",
            "5.15.0-107.117",
            "5.15.0-107.117-",
            "5.15-107.117-generic",
            "5.15.0-107.117-Generic",
            "05.15.0-107.117-generic",
            "5.15.0-107.117~-generic",
            "5.15.0-107.117-generic/../x",
            "5.15.0-107.117-generic\n",
            "5.15.0--107.117-generic",
            "5.15.0-107.-generic",
            "5.15.0-99999999999.1-generic",
        ] {
            assert!(
                bad.parse::<KernelVersion>().is_err(),
                "{bad:?} was accepted"
            );
        }
    }

    proptest! {
        #[test]
        fn display_is_the_inverse_of_parse(text in "[0-9]{1,2}\\.[0-9]{1,2}\\.[0-9]-[0-9]{1,4}\\.[0-9]{1,3}(~[0-9]{2}\\.[0-9]{2}\\.[0-9])?-[a-z]{1,5}(-[a-z]{1,4})?") {
            if let Ok(kernel) = text.parse::<KernelVersion>() {
                prop_assert_eq!(kernel.to_string(), text);
            }
        }

        #[test]
        fn no_input_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<KernelVersion>();
        }
    }
}
