//! Ground layer: the field's words as types. Pure values, parsed once by fallible constructors; no I/O, no clock.

pub mod arch;
pub mod certificate;
pub mod event;
pub mod fault;
pub mod fix;
pub mod grant;
pub mod ids;
pub mod kernel;
pub mod label;
pub mod machine;
pub mod minimum;
pub mod patch;
pub mod policy;
pub mod role;
pub mod scope;
pub mod secret;
pub mod selector;
pub mod signing;
pub mod tier;
pub mod token;
pub mod webhook;

pub use arch::Architecture;
pub use event::{EventKind, EventPattern};
pub use fix::Fix;
pub use grant::Grant;
pub use ids::{MachineId, Sha256};
pub use kernel::{KernelBase, KernelParts, KernelVersion};
pub use label::{LabelChanges, LabelKey, LabelValue, Labels};
pub use machine::{Fate, KernelSupport, MachineState, States};
pub use minimum::MinimumKernel;
pub use patch::PatchVersion;
pub use policy::Policy;
pub use role::Role;
pub use scope::Scope;
pub use secret::Secret;
pub use selector::Selector;
pub use signing::{PublicKey, Signature, SigningKey};
pub use tier::TierName;

/// A value that did not parse: what it was meant to be, what was given, and why it was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a valid {what}: {why}")]
pub struct ParseError {
    /// The kind of value, e.g. `kernel version`.
    pub what: &'static str,
    /// The text as given, cut to 120 characters.
    pub given: String,
    /// What a correct value looks like or which rule was broken.
    pub why: String,
}

impl ParseError {
    /// Builds an error; `given` is shortened so that hostile input cannot blow up logs.
    pub fn new(what: &'static str, given: &str, why: impl Into<String>) -> Self {
        Self {
            what,
            given: given.chars().take(120).collect(),
            why: why.into(),
        }
    }
}

/// Implements serde as a string through `Display` and `FromStr`.
macro_rules! serde_as_str {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use serde_as_str;
