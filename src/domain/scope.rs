//! The part of a patch that a promotion, a block or a hold speaks of.

use super::{Architecture, KernelVersion, ParseError, kernel::check_flavour};
use std::fmt;

/// Narrows an action to a kernel, a flavour or an architecture; empty means the whole patch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Scope {
    /// Exactly this kernel.
    pub kernel: Option<KernelVersion>,
    /// All kernels of this flavour.
    pub flavour: Option<String>,
    /// Only this architecture.
    pub architecture: Option<Architecture>,
}

impl Scope {
    /// Builds a scope from texts as given on a command line or a query string; empty texts count as not given.
    pub fn parse(
        kernel: Option<&str>,
        flavour: Option<&str>,
        arch: Option<&str>,
    ) -> Result<Self, ParseError> {
        let given = |t: Option<&str>| t.filter(|t| !t.is_empty()).map(ToOwned::to_owned);
        let flavour = given(flavour);
        if let Some(flavour) = &flavour {
            check_flavour(flavour).map_err(|why| ParseError::new("flavour", flavour, why))?;
        }
        let scope = Self {
            kernel: given(kernel).map(|t| t.parse()).transpose()?,
            flavour,
            architecture: given(arch).map(|t| t.parse()).transpose()?,
        };
        if let (Some(kernel), Some(flavour)) = (&scope.kernel, &scope.flavour)
            && kernel.flavour() != flavour
        {
            return Err(ParseError::new(
                "scope",
                flavour,
                format!("kernel {kernel} is not of this flavour"),
            ));
        }
        Ok(scope)
    }

    /// Whether the scope is the whole patch.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a payload for this kernel and architecture falls under the scope.
    pub fn covers(&self, kernel: &KernelVersion, arch: Architecture) -> bool {
        self.kernel.as_ref().is_none_or(|k| k == kernel)
            && self.flavour.as_ref().is_none_or(|f| f == kernel.flavour())
            && self.architecture.is_none_or(|a| a == arch)
    }

    /// Whether everything under `other` also falls under this scope.
    pub fn contains(&self, other: &Self) -> bool {
        let flavour = other.flavour.as_deref();
        let flavour = flavour.or_else(|| other.kernel.as_ref().map(KernelVersion::flavour));
        (self.kernel.is_none() || self.kernel == other.kernel)
            && (self.flavour.is_none() || self.flavour.as_deref() == flavour)
            && (self.architecture.is_none() || self.architecture == other.architecture)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.pad("all kernels");
        }
        let mut parts = Vec::new();
        if let Some(kernel) = &self.kernel {
            parts.push(format!("kernel {kernel}"));
        }
        if let Some(flavour) = &self.flavour {
            parts.push(format!("flavour {flavour}"));
        }
        if let Some(arch) = self.architecture {
            parts.push(format!("architecture {arch}"));
        }
        f.pad(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_cover_and_contradict() {
        let kernel: KernelVersion = "5.15.0-107.117-aws".parse().unwrap();
        let scope = Scope::parse(None, Some("aws"), Some("amd64")).unwrap();
        assert!(scope.covers(&kernel, Architecture::Amd64));
        assert!(!scope.covers(&kernel, Architecture::Arm64));
        assert_eq!(scope.to_string(), "flavour aws, architecture amd64");
        assert!(Scope::parse(Some("5.15.0-107.117-aws"), Some("generic"), None).is_err());
        assert!(Scope::parse(Some(""), None, None).unwrap().is_all());

        let one = Scope::parse(Some("5.15.0-107.117-aws"), None, Some("amd64")).unwrap();
        assert!(scope.contains(&one) && !one.contains(&scope));
        assert!(Scope::default().contains(&one) && scope.contains(&scope));
        let other = Scope::parse(None, Some("generic"), None).unwrap();
        assert!(!other.contains(&one) && !scope.contains(&Scope::default()));
    }
}
