//! What a service token may do: the whole of a role, or a role in one section of the admin API.

use super::{ParseError, Role, serde_as_str};
use std::fmt;
use std::str::FromStr;

/// Sections of the admin API that can be granted. Those that hand out access themselves (administrators, sessions, service
/// tokens) are not among them.
pub const SECTIONS: [&str; 18] = [
    "audit",
    "auth-tokens",
    "captures",
    "coverage",
    "jobs",
    "kernels",
    "machines",
    "patches",
    "payloads",
    "policies",
    "quarantine",
    "reports",
    "rollouts",
    "storage",
    "sync",
    "sync-tokens",
    "tiers",
    "webhooks",
];

/// Where access is handed out: only a grant for everything opens these.
pub const GUARDED: [&str; 4] = ["admins", "service-tokens", "sessions", "logout"];

/// The section that an operation belongs to whose path, below the API's base, begins with this segment.
pub fn section_of(segment: &str) -> &str {
    match segment {
        "promote-all" => "patches",
        "sync-peers" => "sync",
        "webhook-deliveries" => "webhooks",
        other => other,
    }
}

/// Who somebody is may be asked with any token.
const WHO_AM_I: &str = "session";

/// A grant such as `read`, `admin` or `patches:write`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grant {
    section: Option<&'static str>,
    role: Role,
}

impl Grant {
    /// The role it gives in a section; `None`: none.
    pub fn role_in(self, section: &str) -> Option<Role> {
        self.section
            .is_none_or(|own| own == section)
            .then_some(self.role)
    }
}

/// Grants as people read them.
pub fn list(grants: &[Grant]) -> String {
    let words: Vec<String> = grants.iter().map(Grant::to_string).collect();
    words.join(", ")
}

/// The most that some grants give in a section.
pub fn role_in(grants: &[Grant], section: &str) -> Option<Role> {
    let most = grants.iter().filter_map(|grant| grant.role_in(section));
    most.max()
        .or_else(|| (section == WHO_AM_I).then_some(Role::Viewer))
}

const fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "read",
        Role::Operator => "write",
        Role::Admin => "admin",
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.section {
            Some(section) => write!(f, "{section}:{}", word(self.role)),
            None => f.pad(word(self.role)),
        }
    }
}

impl FromStr for Grant {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |why: String| ParseError::new("scope", text, why);
        let (section, role) = match text.split_once(':') {
            Some((section, role)) => (Some(section), role),
            None => (None, text),
        };
        let role = Role::ALL
            .into_iter()
            .find(|known| word(*known) == role)
            .ok_or_else(|| {
                wrong("expected read, write or admin, or one of them for a section, such as patches:write".to_owned())
            })?;
        let section = section
            .map(|section| {
                if GUARDED.contains(&section) {
                    return Err(wrong(format!(
                        "access is handed out in {section}; only `admin` without a section opens it"
                    )));
                }
                SECTIONS
                    .into_iter()
                    .find(|known| *known == section)
                    .ok_or_else(|| wrong(format!("sections are {}", SECTIONS.join(", "))))
            })
            .transpose()?;
        Ok(Self { section, role })
    }
}

serde_as_str!(Grant);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_read_and_print() {
        for text in [
            "read",
            "write",
            "admin",
            "patches:write",
            "sync-tokens:read",
        ] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("viewer", "expected read, write or admin"),
            ("patch:read", "sections are"),
            ("patches:", "expected read"),
            (":read", "sections are"),
            ("admins:admin", "access is handed out in admins"),
            ("service-tokens:write", "access is handed out"),
        ] {
            let error = text.parse::<Grant>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_most_counts() {
        let grants: Vec<Grant> = ["read", "patches:write", "patches:read"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        assert_eq!(role_in(&grants, "patches"), Some(Role::Operator));
        assert_eq!(role_in(&grants, "tiers"), Some(Role::Viewer));
        assert_eq!(role_in(&grants[1..], "tiers"), None);
        assert_eq!(role_in(&grants[1..], "admins"), None);
    }
}
