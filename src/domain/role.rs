//! Roles of administrators, least first.

use super::{ParseError, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// What an administrator may do. Ordered: a role may do all that lesser ones may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sees everything but secrets, changes nothing.
    Viewer,
    /// Also acts on patches, tiers, machines, tokens and storage.
    Operator,
    /// Also manages administrators and their sessions.
    Admin,
}

impl Role {
    /// Every role, least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| ParseError::new("role", text, "one of viewer, operator, admin expected"))
    }
}

serde_as_str!(Role);
