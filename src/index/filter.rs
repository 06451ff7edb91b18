//! Which payloads a deployment wants.

use crate::bundle::BundleName;
use crate::domain::{Architecture, KernelVersion, MinimumKernel};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The filters of `patch-sync.*`; what is empty does not filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct IntakeFilter {
    /// `patch-sync.architectures`
    pub architectures: Vec<Architecture>,
    /// `patch-sync.flavors`
    pub flavours: Vec<String>,
    /// `patch-sync.minimum-kernel-version`
    pub minimum_kernel: Option<MinimumKernel>,
    /// `patch-sync.kernel-prefixes`
    pub kernel_prefixes: Vec<String>,
    /// With `patch-sync.only-our-kernels`: the kernels that machines run.
    pub only: Option<BTreeSet<KernelVersion>>,
}

/// The filter that a payload did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skipped {
    /// Not among `patch-sync.architectures`.
    Architecture,
    /// Not among `patch-sync.flavors`.
    Flavour,
    /// Older than `patch-sync.minimum-kernel-version`.
    Minimum,
    /// Begins with none of `patch-sync.kernel-prefixes`.
    Prefix,
    /// No machine runs it (`patch-sync.only-our-kernels`).
    NotOurs,
}

impl Skipped {
    /// The key of the filter.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Architecture => "patch-sync.architectures",
            Self::Flavour => "patch-sync.flavors",
            Self::Minimum => "patch-sync.minimum-kernel-version",
            Self::Prefix => "patch-sync.kernel-prefixes",
            Self::NotOurs => "patch-sync.only-our-kernels",
        }
    }
}

impl IntakeFilter {
    /// Whether a payload is wanted, or the first filter that says no.
    pub fn admits(&self, name: &BundleName) -> Result<(), Skipped> {
        let kernel = &name.kernel;
        let check = |passes: bool, filter| if passes { Ok(()) } else { Err(filter) };
        check(
            self.architectures.is_empty() || self.architectures.contains(&name.architecture),
            Skipped::Architecture,
        )?;
        check(
            self.flavours.is_empty() || self.flavours.iter().any(|f| f == kernel.flavour()),
            Skipped::Flavour,
        )?;
        check(
            self.minimum_kernel
                .is_none_or(|minimum| minimum.admits(kernel)),
            Skipped::Minimum,
        )?;
        let text = kernel.to_string();
        check(
            self.kernel_prefixes.is_empty()
                || self
                    .kernel_prefixes
                    .iter()
                    .any(|p| text.starts_with(p.as_str())),
            Skipped::Prefix,
        )?;
        check(
            self.only.as_ref().is_none_or(|ours| ours.contains(kernel)),
            Skipped::NotOurs,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BundleName {
        text.parse().unwrap()
    }

    #[test]
    fn each_filter_says_no_in_its_turn() {
        let generic = name("livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2");
        assert_eq!(IntakeFilter::default().admits(&generic), Ok(()));
        let mut filter = IntakeFilter {
            architectures: vec!["amd64".parse().unwrap()],
            flavours: vec!["generic".to_owned()],
            minimum_kernel: Some("5.15".parse().unwrap()),
            kernel_prefixes: vec!["5.15.0-10".to_owned()],
            only: Some([generic.kernel.clone()].into()),
        };
        assert_eq!(filter.admits(&generic), Ok(()));
        for (other, why) in [
            (
                "livepatch-5.15.0-107.117-generic-107.1-arm64.tar.bz2",
                Skipped::Architecture,
            ),
            (
                "livepatch-5.15.0-107.117-aws-107.1-amd64.tar.bz2",
                Skipped::Flavour,
            ),
            (
                "livepatch-5.4.0-107.117-generic-107.1-amd64.tar.bz2",
                Skipped::Minimum,
            ),
            (
                "livepatch-5.15.0-97.117-generic-107.1-amd64.tar.bz2",
                Skipped::Prefix,
            ),
            (
                "livepatch-5.15.0-107.118-generic-107.1-amd64.tar.bz2",
                Skipped::NotOurs,
            ),
        ] {
            assert_eq!(filter.admits(&name(other)), Err(why), "{other}");
        }
        filter.only = Some(BTreeSet::new());
        assert_eq!(filter.admits(&generic), Err(Skipped::NotOurs));
    }
}
