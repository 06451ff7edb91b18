//! Login, sessions and administrators.
//!
//! `POST login`, `POST logout`, `GET session`, `GET sessions`, `DELETE sessions/{id}`; `GET|POST admins`,
//! `PUT admins/{name}/password`, `PUT admins/{name}/role`, `DELETE admins/{name}`.

use super::{expose, expose_some};
use crate::domain::{Role, Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// `POST login`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LoginRequest {
    /// Name of the administrator.
    pub user: String,
    /// Password in clear.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String, format = Password)]
    pub password: Secret,
}

/// A new session.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LoginAnswer {
    /// `lps_...`; shown only here.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String)]
    pub token: Secret,
    /// Name of the administrator.
    pub user: String,
    /// What the session may do.
    #[schema(value_type = String)]
    pub role: Role,
    /// The session ends then, used or not.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// It ends earlier if it is not used for this many seconds.
    pub idle_seconds: u64,
}

/// `GET session`: whom the server takes the caller for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct WhoAmI {
    /// Name of the administrator.
    pub user: String,
    /// What the caller may do.
    #[schema(value_type = String)]
    pub role: Role,
    /// The session; absent with Basic authentication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
}

/// A session as it is listed; its token is never shown again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    /// Id, to end it with.
    pub id: Uuid,
    /// Name of the administrator.
    pub user: String,
    /// What the session may do.
    #[schema(value_type = String)]
    pub role: Role,
    /// Address it was opened from.
    pub source: String,
    /// When it was opened.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it was last used, to the minute.
    #[schema(value_type = String, format = DateTime)]
    pub last_used: Timestamp,
    /// The session ends then, used or not.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// Whether it is the caller's own.
    #[serde(default)]
    pub current: bool,
}

/// Where an administrator is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AdminOrigin {
    /// In the database; can be changed here.
    Database,
    /// In the configuration (`auth.basic.users`); is changed there.
    Configuration,
}

/// An administrator as listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AdminEntry {
    /// Name.
    pub name: String,
    /// What the administrator may do.
    #[schema(value_type = String)]
    pub role: Role,
    /// Where it is kept.
    pub origin: AdminOrigin,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created_at: Option<Timestamp>,
    /// When password or role last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub changed_at: Option<Timestamp>,
}

/// `POST admins`, answered with an [`AdminEntry`].
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AdminCreate {
    /// Name, not yet taken.
    pub name: String,
    /// First password in clear.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String, format = Password)]
    pub password: Secret,
    /// What the administrator may do.
    #[schema(value_type = String)]
    pub role: Role,
}

/// `PUT admins/{name}/password`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PasswordChange {
    /// The new password in clear.
    #[serde(serialize_with = "expose")]
    #[schema(value_type = String, format = Password)]
    pub password: Secret,
    /// The present password; required for one's own.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "expose_some"
    )]
    #[schema(value_type = Option<String>, format = Password)]
    pub current: Option<Secret>,
}

/// `PUT admins/{name}/role`, answered with an [`AdminEntry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RoleChange {
    /// What the administrator may do from now on.
    #[schema(value_type = String)]
    pub role: Role,
}
