//! Turns texts and YAML nodes into values of a key's kind. Pure.
//!
//! An empty text stands for "not given", so that a variable that is set to nothing gives the default.

use super::connection;
use super::keys::{Key, Kind};
use super::yaml::Raw;
use crate::domain::Secret;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The longest duration, so that no sum of a clock and a duration overflows: ten years.
const MAX_DURATION: Duration = Duration::from_hours(24 * 3650);

/// A value of a key.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Not given, and there is no default.
    Unset,
    /// A truth value.
    Bool(bool),
    /// A whole number, or a number of bytes.
    Int(u64),
    /// A decimal number.
    Float(f64),
    /// A duration.
    Duration(Duration),
    /// Text, a path or one of a set of words.
    Text(String),
    /// Texts or paths.
    List(Vec<String>),
    /// An address to listen on.
    Address(SocketAddr),
    /// A URL, which may hold a password.
    Url(Secret),
    /// A text that is never shown.
    Secret(Secret),
    /// A connection string, whose password is never shown.
    Connection(Secret),
    /// `name:hash` pairs, whose hashes are never shown.
    Users(Secret),
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shown())
    }
}

impl Value {
    /// The value as a JSON value (and, since that is YAML, as YAML), with secrets masked.
    pub fn shown(&self) -> serde_json::Value {
        match self {
            Self::Unset => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Duration(value) => duration_text(*value).into(),
            Self::Text(value) => value.clone().into(),
            Self::List(values) => values.clone().into(),
            Self::Address(value) => value.to_string().into(),
            Self::Url(value) => masked_url(value.expose()).into(),
            Self::Connection(value) => connection::parse(value.expose())
                .map_or_else(|| "***".to_owned(), |parsed| parsed.masked())
                .into(),
            Self::Secret(_) => "***".into(),
            Self::Users(value) => split(value.expose())
                .map(|user| {
                    let name = user.split_once(':').map_or("***", |(name, _)| name);
                    format!("{name}:***")
                })
                .collect::<Vec<_>>()
                .into(),
        }
    }
}

/// A URL without its user, password and query.
fn masked_url(text: &str) -> String {
    let Ok(url) = text.parse::<http::Uri>() else {
        return "***".to_owned();
    };
    let user = match url.authority() {
        Some(authority) if authority.as_str().contains('@') => "***@",
        _ => "",
    };
    let host = url.host().unwrap_or_default();
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    let query = if url.query().is_some() { "?***" } else { "" };
    format!(
        "{}://{user}{host}{port}{}{query}",
        url.scheme_str().unwrap_or_default(),
        url.path().trim_end_matches('/')
    )
}

/// A duration as configuration takes it, e.g. `1h 30m`.
pub(super) fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The parts of a list in one text: separated by commas or lines, trimmed, none empty.
pub(super) fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', '\n'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// The default of a key. The table's defaults are checked by a test, so an unreadable one counts as none.
pub(super) fn default_of(key: &Key) -> Value {
    parse_text(key.kind, key.default).unwrap_or(Value::Unset)
}

/// Reads what was given for a key. The error says what was expected; it holds the value only if that is no secret.
pub(super) fn parse(key: &Key, raw: &Raw) -> Result<Value, String> {
    let kind = key.kind;
    match raw {
        Raw::Null => Ok(default_of(key)),
        // `off` is a truth value to YAML and a word to us; as written it is clear which is meant.
        Raw::Scalar { truth: true, text } if takes_word(kind, text) => parse_text(kind, text),
        Raw::Scalar { truth: true, text } if kind != Kind::Bool => Err(format!(
            "expected {}, got the truth value {text}; put it in quotes if it is meant as text",
            expectation(kind)
        )),
        Raw::Scalar { text, .. } if text.trim().is_empty() => Ok(default_of(key)),
        Raw::Scalar { text, .. } => parse_text(kind, text),
        Raw::List(items) => {
            if !matches!(kind, Kind::List | Kind::Paths | Kind::Users) {
                return Err(format!("expected {}, got a list", expectation(kind)));
            }
            let mut texts = Vec::new();
            for item in items {
                match &item.raw {
                    Raw::Scalar { text, truth: false } => texts.push(text.clone()),
                    _ => return Err(format!("line {}: expected a text in the list", item.line)),
                }
            }
            if kind == Kind::Users {
                return Ok(Value::Users(Secret::new(texts.join(","))));
            }
            Ok(Value::List(texts))
        }
        Raw::Map(_) => Err(format!("expected {}, got a mapping", expectation(kind))),
    }
}

fn takes_word(kind: Kind, text: &str) -> bool {
    matches!(kind, Kind::Choice(words) if words.iter().any(|word| word.eq_ignore_ascii_case(text.trim())))
}

fn parse_text(kind: Kind, text: &str) -> Result<Value, String> {
    let trimmed = text.trim();
    let wrong = || format!("expected {}, got {:?}", expectation(kind), cut(trimmed));
    if trimmed.is_empty() {
        return Ok(match kind {
            Kind::List | Kind::Paths => Value::List(Vec::new()),
            _ => Value::Unset,
        });
    }
    Ok(match kind {
        Kind::Bool => Value::Bool(parse_bool(trimmed).ok_or_else(wrong)?),
        Kind::Int => Value::Int(trimmed.parse::<u32>().map_err(|_| wrong())?.into()),
        Kind::Float => {
            let number: f64 = trimmed.parse().map_err(|_| wrong())?;
            Value::Float(if number.is_finite() {
                number
            } else {
                return Err(wrong());
            })
        }
        Kind::Bytes => Value::Int(parse_bytes(trimmed).ok_or_else(wrong)?),
        Kind::Duration => {
            let duration = humantime::parse_duration(trimmed).map_err(|_| wrong())?;
            if duration > MAX_DURATION {
                return Err(format!(
                    "expected at most ten years, got {:?}",
                    cut(trimmed)
                ));
            }
            Value::Duration(duration)
        }
        Kind::Text | Kind::Path => Value::Text(trimmed.to_owned()),
        Kind::List | Kind::Paths => Value::List(split(trimmed).map(str::to_owned).collect()),
        Kind::Address => Value::Address(parse_address(trimmed).ok_or_else(wrong)?),
        Kind::Url => {
            let valid = trimmed
                .parse::<http::Uri>()
                .is_ok_and(|uri| uri.host().is_some());
            if !valid {
                return Err(format!("expected {}", expectation(kind)));
            }
            // Paths are added with a slash of their own.
            Value::Url(Secret::new(trimmed.trim_end_matches('/')))
        }
        Kind::Choice(words) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(trimmed));
            Value::Text((*word.ok_or_else(wrong)?).to_owned())
        }
        // A secret may begin or end with a space; only the end of its last line goes.
        Kind::Secret => Value::Secret(Secret::new(text.trim_end_matches(['\n', '\r']))),
        Kind::Connection => Value::Connection(Secret::new(trimmed)),
        Kind::Users => Value::Users(Secret::new(trimmed)),
    })
}

fn expectation(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Int => "a whole number from 0 to 4294967295".to_owned(),
        Kind::Float => "a number".to_owned(),
        Kind::Bytes => "a number of bytes such as 67108864 or 64MiB".to_owned(),
        Kind::Duration => "a duration with units such as 30s, 10m or 1h30m".to_owned(),
        Kind::Text | Kind::Secret => "a text".to_owned(),
        Kind::List => "a list, or texts separated by commas".to_owned(),
        Kind::Path => "a path".to_owned(),
        Kind::Paths => "a list of paths, or paths separated by commas".to_owned(),
        Kind::Address => {
            "an address and port such as 127.0.0.1:8080, [::]:8080 or :8080".to_owned()
        }
        Kind::Url => "a URL such as https://host:port/path".to_owned(),
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
        Kind::Connection => "a PostgreSQL connection string".to_owned(),
        Kind::Users => "name:bcrypt-hash pairs separated by commas".to_owned(),
    }
}

fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a number of bytes such as `67108864` or `64MiB`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// An address and port; a missing host means every address, as in Canonical's server, and `localhost` the loopback.
fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':')?;
    let host = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => return None,
    };
    Some(SocketAddr::new(host, port.parse().ok()?))
}

/// A value's parts for the typed configuration; each answers with the empty value where nothing was given.
impl Value {
    pub(super) fn as_bool(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    pub(super) fn as_int(&self) -> u64 {
        match self {
            Self::Int(value) => *value,
            _ => 0,
        }
    }

    pub(super) fn as_float(&self) -> f64 {
        match self {
            Self::Float(value) => *value,
            _ => 0.0,
        }
    }

    pub(super) fn as_duration(&self) -> Duration {
        match self {
            Self::Duration(value) => *value,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn as_text(&self) -> &str {
        match self {
            Self::Text(value) => value,
            _ => "",
        }
    }

    pub(super) fn as_path(&self) -> Option<PathBuf> {
        Some(self.as_text())
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    }

    pub(super) fn as_list(&self) -> &[String] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }

    /// A URL may hold a password.
    pub(super) fn as_url(&self) -> Secret {
        match self {
            Self::Url(value) => value.clone(),
            _ => Secret::default(),
        }
    }

    pub(super) fn as_secret(&self) -> Secret {
        match self {
            Self::Secret(value) | Self::Connection(value) | Self::Users(value) => value.clone(),
            _ => Secret::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    #[test]
    fn every_default_is_of_its_kind() {
        for key in keys::all() {
            let value = parse_text(key.kind, key.default);
            assert!(value.is_ok(), "{}: {value:?}", key.name);
            if let Some(theirs) = key.canonical_default {
                assert!(
                    parse_text(key.kind, theirs).is_ok_and(|v| v != value.unwrap()),
                    "{}",
                    key.name
                );
            }
        }
    }

    #[test]
    fn durations() {
        let parse = |text| parse_text(Kind::Duration, text).map(|v| v.as_duration().as_secs());
        assert_eq!(parse("1h0m0s"), Ok(3600));
        assert_eq!(parse("30m"), Ok(1800));
        assert_eq!(parse("1h 30m"), Ok(5400));
        assert_eq!(parse("0s"), Ok(0));
        for wrong in ["30", "-1h", "1 fortnight", "h", "20years"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_booleans_and_addresses() {
        assert_eq!(parse_bytes("64MiB"), Some(64 << 20));
        assert_eq!(parse_bytes("64 MB"), Some(64_000_000));
        assert_eq!(parse_bytes("7"), Some(7));
        assert_eq!(parse_bytes("99999999TiB"), None);
        assert_eq!(parse_bytes("MiB"), None);
        assert_eq!(
            (parse_bool("True"), parse_bool("OFF"), parse_bool("maybe")),
            (Some(true), Some(false), None)
        );
        let address = |text| parse_address(text).map(|a| a.to_string());
        assert_eq!(address(":8080").as_deref(), Some("0.0.0.0:8080"));
        assert_eq!(address("localhost:1").as_deref(), Some("127.0.0.1:1"));
        assert_eq!(address("[::1]:443").as_deref(), Some("[::1]:443"));
        assert_eq!(address("8080"), None);
        assert_eq!(address("example.com:80"), None);
    }

    #[test]
    fn debug_shows_no_secret() {
        for kind in [Kind::Secret, Kind::Connection, Kind::Users, Kind::Url] {
            let value = parse_text(kind, "postgresql://someone:canary@host/x").unwrap();
            assert!(!format!("{value:?}").contains("canary"), "{kind:?}");
        }
    }
}
