//! What the nouns share: pages, their queries, and the scope of an action.

use crate::domain::{Architecture, KernelVersion, ParseError, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Ask with this cursor for what follows; absent on the last page. Opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A list that is complete in one page.
    pub fn whole(items: Vec<T>) -> Self {
        Self {
            items,
            next_cursor: None,
        }
    }
}

/// How many items a page may hold: 1 to 1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Limit(u32);

impl Limit {
    /// The most that is given at once.
    pub const MAX: Self = Self(1000);

    /// The number of items.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl TryFrom<u32> for Limit {
    type Error = ParseError;

    fn try_from(number: u32) -> Result<Self, ParseError> {
        if (1..=Self::MAX.0).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ParseError::new(
                "limit",
                &number.to_string(),
                "1 to 1000 expected",
            ))
        }
    }
}

impl From<Limit> for u32 {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

/// The query of lists that take nothing but a place to go on from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next-cursor` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Items per page, 1 to 1000; 100 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<Limit>,
}

impl PageQuery {
    /// The page after this cursor, of at most so many.
    #[must_use]
    pub const fn new(cursor: Option<String>, limit: Limit) -> Self {
        Self {
            cursor,
            limit: Some(limit),
        }
    }
}

/// The part of a patch that an action speaks of; an empty object means the whole patch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Scope)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireScope {
    /// Exactly this kernel, e.g. `5.15.0-107.117-generic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kernel: Option<KernelVersion>,
    /// All kernels of this flavour, e.g. `aws-fips`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
    /// Only this architecture, by Debian's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Architecture>,
}

impl WireScope {
    /// Whether nothing narrows it.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl TryFrom<WireScope> for Scope {
    type Error = ParseError;

    /// Fails if the flavour is malformed or is not the kernel's.
    fn try_from(wire: WireScope) -> Result<Self, ParseError> {
        Self::parse(
            wire.kernel.map(|k| k.to_string()).as_deref(),
            wire.flavour.as_deref(),
            wire.architecture.map(Architecture::as_str),
        )
    }
}

impl From<Scope> for WireScope {
    fn from(scope: Scope) -> Self {
        Self {
            kernel: scope.kernel,
            flavour: scope.flavour,
            architecture: scope.architecture,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_scopes_are_checked_while_they_are_read() {
        assert_eq!(serde_json::from_str::<Limit>("1000").unwrap(), Limit::MAX);
        for bad in ["0", "1001", "-1", "\"10\""] {
            assert!(
                serde_json::from_str::<Limit>(bad).is_err(),
                "{bad} was accepted"
            );
        }
        let scope: WireScope =
            serde_json::from_str(r#"{"kernel":"5.15.0-107.117-aws","flavour":"generic"}"#).unwrap();
        assert!(Scope::try_from(scope).is_err());
        assert!(serde_json::from_str::<WireScope>(r#"{"flavor":"aws"}"#).is_err());
        assert!(
            Scope::try_from(serde_json::from_str::<WireScope>("{}").unwrap())
                .unwrap()
                .is_all()
        );
    }
}
