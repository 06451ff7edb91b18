//! What a patch mends.

use serde::{Deserialize, Serialize};

/// One thing that a patch mends. Its shape on the wire, in bundles and in the database is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Fix {
    /// Usually the CVE's id, e.g. `CVE-2024-1086`.
    pub name: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Where it is tracked: a bug number or an address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bug: String,
}
