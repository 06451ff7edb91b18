//! The one tolerant reader for what clients send.
//!
//! Clients of many ages write the same facts under differently spelled keys and with differently typed values, and the
//! real client's request bodies are not public. So keys match without regard to case, `-` and `_` (normalised in a small
//! stack buffer, without allocation), unknown keys and values of an unexpected shape are skipped and counted, and only
//! what is not a JSON object at all is an error. Text borrows from the body unless it holds escapes.
//!
//! Recursion follows known keys only and serde_json ends it at a depth of 128, so hostile nesting cannot exhaust the stack.

use jiff::{SpanRelativeTo, Timestamp, Unit, civil::Date};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// A body that is not a JSON object. The text holds a position, never a part of the body: bodies carry tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The body starts with something other than `{`.
    #[error(
        "the request body is not a JSON object; send the machine's status as {{...}}, or nothing"
    )]
    NotAnObject,
    /// The body is broken JSON or broken UTF-8.
    #[error(
        "the request body is not valid JSON: line {line}, column {column}; send a complete JSON object"
    )]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

/// What was skipped while reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Keys that no shape knows.
    pub unknown_keys: u32,
    /// Known keys whose value had a shape that says nothing (an array for a text, a time that does not parse).
    pub odd_values: u32,
}

/// A scalar as it was sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Scalar<'a> {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Cow<'a, str>),
}

impl<'a> Scalar<'a> {
    /// As text, without surrounding white space; nothing for null and for empty text.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(Cow::Borrowed(if value { "true" } else { "false" })),
            Self::Int(value) => Some(Cow::Owned(value.to_string())),
            Self::Float(value) => Some(Cow::Owned(value.to_string())),
            Self::Text(Cow::Borrowed(text)) => Some(text.trim())
                .filter(|t| !t.is_empty())
                .map(Cow::Borrowed),
            Self::Text(Cow::Owned(text)) => match text.trim() {
                "" => None,
                trimmed if trimmed.len() == text.len() => Some(Cow::Owned(text)),
                trimmed => Some(Cow::Owned(trimmed.to_owned())),
            },
        }
    }

    /// As a truth value: a boolean, a number, or a word for one.
    fn flag(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            Self::Int(value) => Some(*value != 0),
            Self::Text(text) => {
                let is =
                    |words: [&str; 4]| words.iter().any(|w| text.trim().eq_ignore_ascii_case(w));
                if is(["true", "yes", "on", "1"]) {
                    Some(true)
                } else if is(["false", "no", "off", "0"]) {
                    Some(false)
                } else {
                    None
                }
            }
            Self::Null | Self::Float(_) => None,
        }
    }

    /// As seconds: a number, a number as text, or a span in words (`1 day`, `2 days, 3 hours`, `26h3m0s`).
    fn seconds(&self) -> Option<u64> {
        let whole = |value: f64| {
            (value.is_finite() && (0.0..1e12).contains(&value)).then_some(value as u64)
        };
        match self {
            Self::Int(value) => u64::try_from(*value).ok(),
            Self::Float(value) => whole(*value),
            Self::Text(text) => {
                let text = text.trim();
                if let Ok(value) = text.parse::<f64>() {
                    return whole(value);
                }
                let span: jiff::Span = text.parse().ok()?;
                let total = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours()));
                total.ok().and_then(whole)
            }
            Self::Null | Self::Bool(_) => None,
        }
    }

    /// As an instant: RFC 3339 or unix seconds. `Ok(None)` for null, empty text and anything up to 1970, which is how
    /// clients write "never" (`0001-01-01T00:00:00Z`, `0`).
    fn time(&self) -> Result<Option<Timestamp>, ()> {
        let instant = match self {
            Self::Null => return Ok(None),
            Self::Bool(_) => return Err(()),
            Self::Int(value) => from_seconds(*value as f64)?,
            Self::Float(value) => from_seconds(*value)?,
            Self::Text(text) if text.trim().is_empty() => return Ok(None),
            Self::Text(text) => match text.trim().parse::<Timestamp>() {
                Ok(instant) => instant,
                Err(_) => from_seconds(text.trim().parse().map_err(|_| ())?)?,
            },
        };
        Ok((instant > Timestamp::UNIX_EPOCH).then_some(instant))
    }

    /// As a day: see [`super::parse_build_date`]; numbers are unix seconds. `Ok(None)` for null, empty and `unknown`.
    fn day(&self) -> Result<Option<Date>, ()> {
        match self {
            Self::Text(text) => match text.trim() {
                "" => Ok(None),
                text if text.eq_ignore_ascii_case("unknown") => Ok(None),
                text => super::parse_build_date(text).map(Some).ok_or(()),
            },
            other => Ok(other
                .time()?
                .map(|t| t.to_zoned(jiff::tz::TimeZone::UTC).date())),
        }
    }
}

/// Unix seconds as an instant; fractions do not count.
fn from_seconds(value: f64) -> Result<Timestamp, ()> {
    Timestamp::from_second(value as i64).map_err(|_| ())
}

/// A key, normalised: ASCII lower case without `-` and `_`. One that is too long to be known is empty.
struct Key {
    buffer: [u8; Key::MAX],
    len: usize,
}

impl Key {
    /// Longer than every known key.
    const MAX: usize = 32;

    fn new(text: &str) -> Self {
        let mut key = Self {
            buffer: [0; Self::MAX],
            len: 0,
        };
        for byte in text.bytes().filter(|b| !matches!(b, b'-' | b'_')) {
            if key.len == Self::MAX || !byte.is_ascii() {
                key.len = 0;
                break;
            }
            key.buffer[key.len] = byte.to_ascii_lowercase();
            key.len += 1;
        }
        key
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.buffer[..self.len]).unwrap_or_default()
    }
}

/// Runs `f` with the key in its normalised form.
pub(super) fn with_key<T>(key: &str, f: impl FnOnce(&str) -> T) -> T {
    f(Key::new(key).as_str())
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Normalise;
        impl Visitor<'_> for Normalise {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key::new(text))
            }
        }
        deserializer.deserialize_str(Normalise)
    }
}

/// Something a JSON value can be poured into. By default everything is refused, that is, skipped and counted.
pub(super) trait Target<'de>: Sized {
    /// Whether objects are understood.
    const OBJECT: bool = false;
    /// Whether arrays are understood: each element is then poured in by itself.
    const LIST: bool = false;

    /// An object begins.
    fn begin(&mut self) {}

    /// One key of an object, normalised, with its value, which must be consumed.
    fn key<A: MapAccess<'de>>(&mut self, _key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        value.unknown()
    }

    /// An object ends.
    fn end(&mut self, _tally: &mut Tally) {}

    /// A scalar stands where an object or list was expected.
    fn scalar(&mut self, scalar: Scalar<'de>, tally: &mut Tally) {
        if scalar != Scalar::Null {
            tally.odd_values += 1;
        }
    }
}

impl<'de> Target<'de> for Scalar<'de> {
    fn scalar(&mut self, scalar: Scalar<'de>, _tally: &mut Tally) {
        *self = scalar;
    }
}

/// The value of a key that is about to be read.
pub(super) struct Value<'m, A> {
    map: &'m mut A,
    tally: &'m mut Tally,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    /// Skips the value of a key that no shape knows.
    pub(super) fn unknown(self) -> Result<(), A::Error> {
        self.tally.unknown_keys += 1;
        self.skip()
    }

    /// Skips the value of a key that is known and not needed.
    pub(super) fn skip(self) -> Result<(), A::Error> {
        self.map.next_value::<IgnoredAny>().map(|_| ())
    }

    /// Pours the value into a target.
    pub(super) fn into(self, target: &mut impl Target<'de>) -> Result<(), A::Error> {
        self.map.next_value_seed(Pour {
            target,
            tally: self.tally,
            in_list: false,
        })
    }

    fn scalar(&mut self) -> Result<Scalar<'de>, A::Error> {
        let mut scalar = Scalar::Null;
        let seed = Pour {
            target: &mut scalar,
            tally: self.tally,
            in_list: false,
        };
        self.map.next_value_seed(seed)?;
        Ok(scalar)
    }

    /// Reads a text from any scalar.
    pub(super) fn text(mut self, into: &mut Option<Cow<'de, str>>) -> Result<(), A::Error> {
        *into = self.scalar()?.text();
        Ok(())
    }

    /// Reads a text; a number keeps the digits it was written with, since `107.10` and `107.1` are different patches.
    pub(super) fn exact_text(self, into: &mut Option<Cow<'de, str>>) -> Result<(), A::Error> {
        let raw: &'de RawValue = self.map.next_value()?;
        let json = raw.get();
        if json.starts_with(|c: char| c.is_ascii_digit()) {
            *into = Some(Cow::Borrowed(json));
            return Ok(());
        }
        let mut scalar = Scalar::Null;
        let seed = Pour {
            target: &mut scalar,
            tally: self.tally,
            in_list: false,
        };
        let mut reader = serde_json::Deserializer::from_str(json);
        seed.deserialize(&mut reader).map_err(A::Error::custom)?;
        *into = scalar.text();
        Ok(())
    }

    /// Reads a truth value.
    pub(super) fn flag(mut self, into: &mut Option<bool>) -> Result<(), A::Error> {
        let scalar = self.scalar()?;
        *into = scalar.flag();
        self.count_if(into.is_none() && scalar != Scalar::Null);
        Ok(())
    }

    /// Reads a time span in seconds.
    pub(super) fn seconds(mut self, into: &mut Option<u64>) -> Result<(), A::Error> {
        let scalar = self.scalar()?;
        *into = scalar.seconds();
        self.count_if(into.is_none() && scalar.text().is_some());
        Ok(())
    }

    /// Reads an instant.
    pub(super) fn time(mut self, into: &mut Option<Timestamp>) -> Result<(), A::Error> {
        let read = self.scalar()?.time();
        self.count_if(read.is_err());
        *into = read.ok().flatten();
        Ok(())
    }

    /// Reads a day.
    pub(super) fn day(mut self, into: &mut Option<Date>) -> Result<(), A::Error> {
        let read = self.scalar()?.day();
        self.count_if(read.is_err());
        *into = read.ok().flatten();
        Ok(())
    }

    fn count_if(&mut self, odd: bool) {
        if odd {
            self.tally.odd_values += 1;
        }
    }
}

/// Reads one JSON value of any shape into a target.
struct Pour<'t, T> {
    target: &'t mut T,
    tally: &'t mut Tally,
    in_list: bool,
}

impl<'de, T: Target<'de>> DeserializeSeed<'de> for Pour<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Target<'de>> Pour<'_, T> {
    fn take(self, scalar: Scalar<'de>) {
        self.target.scalar(scalar, self.tally);
    }
}

impl<'de, T: Target<'de>> Visitor<'de> for Pour<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.take(Scalar::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.take(Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.take(Scalar::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.take(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.take(Scalar::Float(value));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.take(Scalar::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.take(Scalar::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !T::LIST || self.in_list {
            self.tally.odd_values += 1;
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        loop {
            let seed = Pour {
                target: &mut *self.target,
                tally: &mut *self.tally,
                in_list: true,
            };
            if list.next_element_seed(seed)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if !T::OBJECT {
            self.tally.odd_values += 1;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        self.target.begin();
        while let Some(key) = map.next_key::<Key>()? {
            let value = Value {
                map: &mut map,
                tally: &mut *self.tally,
            };
            self.target.key(key.as_str(), value)?;
        }
        self.target.end(self.tally);
        Ok(())
    }
}

/// Reads a whole body into a target. An empty body and `null` count as `{}`.
pub(super) fn object<'de, T: Target<'de>>(
    body: &'de [u8],
    target: &mut T,
) -> Result<Tally, ReportError> {
    let mut tally = Tally::default();
    let trimmed = body.trim_ascii();
    if trimmed.is_empty() || trimmed == b"null" {
        return Ok(tally);
    }
    if !trimmed.starts_with(b"{") {
        return Err(ReportError::NotAnObject);
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let seed = Pour {
        target,
        tally: &mut tally,
        in_list: false,
    };
    let read = seed.deserialize(&mut reader).and_then(|()| reader.end());
    read.map(|()| tally).map_err(|e| ReportError::NotJson {
        line: e.line(),
        column: e.column(),
    })
}
