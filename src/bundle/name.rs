//! The file name of a bundle: `livepatch-<kernel>-<patch version>-<arch>.tar.bz2`.
//!
//! Invariant: `Display` gives back exactly what was parsed, and never holds a path separator.

use crate::domain::{Architecture, KernelVersion, ParseError, PatchVersion, serde_as_str};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "livepatch-";
const SUFFIX: &str = ".tar.bz2";

/// Which payload a bundle is: one patch version for one kernel and architecture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleName {
    /// The exact kernel build the payload is for.
    pub kernel: KernelVersion,
    /// The patch it carries.
    pub version: PatchVersion,
    /// The processor architecture of that kernel.
    pub architecture: Architecture,
}

impl fmt::Display for BundleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PREFIX}{}-{}-{}{SUFFIX}",
            self.kernel, self.version, self.architecture
        )
    }
}

impl FromStr for BundleName {
    type Err = ParseError;

    /// Reads from the right, because flavours hold hyphens. Directories are not accepted: pass the last path component.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let err = |why: &str| ParseError::new("bundle file name", text, why);
        let shape = "expected livepatch-KERNEL-VERSION-ARCH.tar.bz2, \
                     e.g. livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2";
        let inner = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_suffix(SUFFIX))
            .ok_or_else(|| err(shape))?;
        let (rest, architecture) = inner.rsplit_once('-').ok_or_else(|| err(shape))?;
        let (kernel, version) = rest.rsplit_once('-').ok_or_else(|| err(shape))?;
        let part = |e: ParseError| err(&format!("{e}; {shape}"));
        let name = Self {
            kernel: kernel.parse().map_err(part)?,
            version: version.parse().map_err(part)?,
            architecture: architecture.parse().map_err(part)?,
        };
        // `x86_64` is a known architecture, but file names carry Debian's word for it.
        if name.architecture.as_str() != architecture {
            return Err(err(&format!(
                "write the architecture as {}",
                name.architecture
            )));
        }
        Ok(name)
    }
}

serde_as_str!(BundleName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_read_from_the_right() {
        let name: BundleName = "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2"
            .parse()
            .unwrap();
        assert_eq!(name.kernel.to_string(), "5.15.0-107.117-generic");
        assert_eq!(name.version.to_string(), "107.1");
        assert_eq!(name.architecture, Architecture::Amd64);
        let name: BundleName = "livepatch-6.8.0-1.2~24.04.1-ibm-gt-tdx-9.12-s390x.tar.bz2"
            .parse()
            .unwrap();
        assert_eq!(name.kernel.flavour(), "ibm-gt-tdx");
        assert_eq!(name.version.to_string(), "9.12");
    }

    #[test]
    fn wrong_names_are_refused() {
        for bad in [
            "",
            "livepatch-",
            "livepatch-.tar.bz2",
            "livepatch---.tar.bz2",
            "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.gz",
            "livepatch-5.15.0-107.117-generic-107.1-x86_64.tar.bz2",
            "livepatch-5.15.0-107.117-generic-107-amd64.tar.bz2",
            "livepatch-5.15.0-107.117-107.1-amd64.tar.bz2",
            "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2/",
            "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2\n",
            "../livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
            "livepatch-../5.15.0-107.117-generic-107.1-amd64.tar.bz2",
            "Livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
        ] {
            assert!(bad.parse::<BundleName>().is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn display_is_the_exact_inverse(text in "livepatch-[0-9]\\.[1-9]{1,2}\\.0-[1-9][0-9]{0,3}\\.[1-9][0-9]{0,2}(~2[0-9]\\.04\\.1)?-[a-z]{1,6}(-[a-z]{1,3}[0-9]?){0,2}-[1-9][0-9]{0,2}\\.[0-9]-(amd64|arm64|s390x|ppc64el|riscv64|armhf|i386|x86_64)\\.tar\\.bz2") {
            match text.parse::<BundleName>() {
                Ok(name) => prop_assert_eq!(name.to_string(), text),
                Err(_) => prop_assert!(text.contains("x86_64"), "{} was refused", text),
            }
        }

        #[test]
        fn what_is_accepted_is_a_plain_file_name(text in "(livepatch-)?[ -~]{0,60}(\\.tar\\.bz2)?") {
            if let Ok(name) = text.parse::<BundleName>() {
                let shown = name.to_string();
                prop_assert!(!shown.contains('/') && !shown.contains('\\') && !shown.contains(".."));
                prop_assert_eq!(shown, text);
            }
        }
    }
}
