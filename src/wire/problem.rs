//! Problem details (RFC 9457): the error body of everything but the old client API.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// An error body. Of what went wrong inside the server it carries nothing but the request id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Problem {
    /// A name for programs: `urn:livepatch-onprem:problem:` and a word.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: Cow<'static, str>,
    /// The kind of problem in a few words; the same for every problem of this type.
    #[schema(value_type = String)]
    pub title: Cow<'static, str>,
    /// The HTTP status.
    pub status: u16,
    /// What failed here, on what, and what to do.
    pub detail: String,
    /// The path the request was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The request's id, as in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The parts of the request that are wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemItem>,
}

/// One wrong part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ProblemItem {
    /// Where: a JSON pointer into the body, or the name of a parameter.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// The media type of a problem.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";
    /// What every type begins with.
    pub const TYPE_PREFIX: &'static str = "urn:livepatch-onprem:problem:";

    /// A problem; `code` is the last word of its type, e.g. `not-found`.
    pub fn new(
        status: u16,
        code: &str,
        title: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: Cow::Owned(format!("{}{code}", Self::TYPE_PREFIX)),
            title: title.into(),
            status,
            detail: detail.into(),
            instance: None,
            request_id: None,
            errors: Vec::new(),
        }
    }

    /// The last word of the type, if the type is one of ours.
    pub fn code(&self) -> Option<&str> {
        self.kind.strip_prefix(Self::TYPE_PREFIX)
    }
}
