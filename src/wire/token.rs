//! A token as it stands in a message: it must be written to the wire and never to a log.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A token inside a request or an answer. `Debug` hides it; `Serialize` does not.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Token<'a>(Cow<'a, str>);

impl<'a> Token<'a> {
    /// Wraps a token.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }

    /// Gives the token out; the call's name marks every place that does.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A copy that borrows from nothing.
    pub fn into_owned(self) -> Token<'static> {
        Token(Cow::Owned(self.0.into_owned()))
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
