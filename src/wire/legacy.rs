//! The old client's API: `POST /api/machine-tokens` and `PUT /api/machine/{machine-token}`.
//!
//! Public: the two paths, the status codes and the error texts, which the Ubuntu Pro client searches for as substrings.
//! The bodies are not public: requests are read as a [`super::ClientReport`], a PUT is answered like
//! `POST /v1/client/{machine-id}/updates`, and the answer to an enabling POST is ours.

use super::Token;
use crate::domain::TierName;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Body of every 401 of the client APIs, as plain text (public).
pub const UNAUTHORIZED: &str = "unauthorized";

/// Error body of the old API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct LegacyError {
    /// What is wrong; other software searches it for fixed words.
    #[schema(value_type = String)]
    pub error: Cow<'static, str>,
}

impl LegacyError {
    /// 403 of `POST /api/machine-tokens`: the auth token is not known, revoked or expired.
    pub const UNKNOWN_AUTH_TOKEN: Self = Self::new("Unknown Auth-Token");
    /// 403 of `PUT /api/machine/{machine-token}`: the machine token is not valid.
    pub const INVALID_MACHINE_TOKEN: Self = Self::new("Invalid Machine Token");
    /// Enabling on a kernel for which no patches are made.
    pub const UNSUPPORTED_KERNEL: Self = Self::new("unsupported kernel");

    const fn new(text: &'static str) -> Self {
        Self {
            error: Cow::Borrowed(text),
        }
    }

    /// An error with other words.
    pub fn other(text: impl Into<Cow<'static, str>>) -> Self {
        Self { error: text.into() }
    }
}

/// Answer to `POST /api/machine-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LegacyRegisterAnswer {
    /// What the machine shows from now on, in the path of its PUTs.
    #[schema(value_type = String)]
    pub machine_token: Token<'static>,
    /// The tier the machine is in.
    #[schema(value_type = String)]
    pub tier: TierName,
}
