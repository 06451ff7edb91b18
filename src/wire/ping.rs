//! Pings: what a client says around the insertion of a module. The names of the types are public; the body is ours.

use super::Token;
use super::read::{self, ReportError, Target, Value};
use serde::de::MapAccess;
use std::borrow::Cow;
use std::fmt;

macro_rules! ping_types {
    ($($(#[$meta:meta])* $variant:ident = $code:literal => $word:literal,)*) => {
        /// The moment a ping speaks of. The codes are stored in the database: append only.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        #[repr(i16)]
        pub enum PingType {
            /// A type that is not known.
            #[default]
            Other = 0,
            $($(#[$meta])* $variant = $code,)*
        }

        impl PingType {
            /// Every type.
            pub const ALL: &[Self] = &[Self::Other, $(Self::$variant),*];

            /// The word on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    Self::Other => "other",
                    $(Self::$variant => $word,)*
                }
            }
        }
    };
}

ping_types! {
    /// The module is about to be inserted.
    Before = 1 => "ping_before",
    /// The module was inserted.
    After = 2 => "ping_after",
    /// Tasks are moving to the new code.
    Transition = 3 => "ping_transition",
    /// The patch has just been applied.
    Applied = 4 => "ping_0",
    /// One minute after.
    After1Minute = 5 => "ping_1",
    /// Five minutes after.
    After5Minutes = 6 => "ping_2",
    /// Fifteen minutes after.
    After15Minutes = 7 => "ping_3",
    /// The insertion failed.
    Error = 8 => "ping_err",
    /// As [`Self::Before`], after a reboot.
    BeforeRebooted = 9 => "ping_before_rebooted",
    /// As [`Self::After`], after a reboot.
    AfterRebooted = 10 => "ping_after_rebooted",
    /// As [`Self::Transition`], after a reboot.
    TransitionRebooted = 11 => "ping_transition_rebooted",
    /// As [`Self::Applied`], after a reboot.
    AppliedRebooted = 12 => "ping_0_rebooted",
    /// As [`Self::After1Minute`], after a reboot.
    After1MinuteRebooted = 13 => "ping_1_rebooted",
    /// As [`Self::After5Minutes`], after a reboot.
    After5MinutesRebooted = 14 => "ping_2_rebooted",
    /// As [`Self::After15Minutes`], after a reboot.
    After15MinutesRebooted = 15 => "ping_3_rebooted",
    /// As [`Self::Error`], after a reboot.
    ErrorRebooted = 16 => "ping_err_rebooted",
}

impl PingType {
    /// The number stored in the database.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The inverse of [`Self::code`].
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.code() == code)
    }

    /// Reads a type without regard to case, `-` and `_`; what is not known is [`Self::Other`].
    pub fn read(text: &str) -> Self {
        read::with_key(text, |given| {
            let known = |t: &&Self| read::with_key(t.as_str(), |word| word == given);
            Self::ALL.iter().find(known).copied().unwrap_or_default()
        })
    }

    /// The type of the same moment after a reboot.
    #[must_use]
    pub const fn rebooted(self) -> Self {
        match self {
            Self::Before => Self::BeforeRebooted,
            Self::After => Self::AfterRebooted,
            Self::Transition => Self::TransitionRebooted,
            Self::Applied => Self::AppliedRebooted,
            Self::After1Minute => Self::After1MinuteRebooted,
            Self::After5Minutes => Self::After5MinutesRebooted,
            Self::After15Minutes => Self::After15MinutesRebooted,
            Self::Error => Self::ErrorRebooted,
            other => other,
        }
    }

    /// Whether the ping says that something failed.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::ErrorRebooted)
    }
}

impl fmt::Display for PingType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl serde::Serialize for PingType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for PingType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer).map(|text| Self::read(&text))
    }
}

/// The body of `POST /v1/client/{machine-id}/pings`. Written exactly, read tolerantly by [`Self::parse`].
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PingReport<'a> {
    /// Which moment it speaks of.
    #[schema(value_type = String)]
    pub ping_type: PingType,
    /// The running kernel, unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kernel: Option<Cow<'a, str>>,
    /// The patch, unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub patch_version: Option<Cow<'a, str>>,
    /// The state of the patch, unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub patch_state: Option<Cow<'a, str>>,
    /// The architecture, unchecked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub architecture: Option<Cow<'a, str>>,
    /// What went wrong, in the client's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub message: Option<Cow<'a, str>>,
    /// The machine's token, where it does not come in a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine_token: Option<Token<'a>>,
    /// Keys that no known shape has.
    #[serde(skip)]
    pub unknown_keys: u32,
    /// Known keys whose values said nothing.
    #[serde(skip)]
    pub odd_values: u32,
}

impl<'a> PingReport<'a> {
    /// Reads a request body.
    pub fn parse(body: &'a [u8]) -> Result<Self, ReportError> {
        let mut ping = Self::default();
        let tally = read::object(body, &mut ping)?;
        ping.unknown_keys = tally.unknown_keys;
        ping.odd_values = tally.odd_values;
        Ok(ping)
    }
}

impl<'de> Target<'de> for PingReport<'de> {
    const OBJECT: bool = true;

    fn key<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "pingtype" | "ping" | "type" => {
                let mut text = None;
                value.text(&mut text)?;
                self.ping_type = text.as_deref().map_or(PingType::Other, PingType::read);
                Ok(())
            }
            "kernel" | "kernelversion" => value.text(&mut self.kernel),
            "patchversion" | "version" => value.exact_text(&mut self.patch_version),
            "patchstate" | "state" => value.text(&mut self.patch_state),
            "architecture" | "arch" => value.text(&mut self.architecture),
            "message" | "error" => value.text(&mut self.message),
            "machinetoken" => {
                let mut text = None;
                value.text(&mut text)?;
                self.machine_token = text.map(Token::new);
                Ok(())
            }
            // The machine stands in the path.
            "machineid" => value.skip(),
            _ => value.unknown(),
        }
    }
}
