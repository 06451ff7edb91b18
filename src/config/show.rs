//! Prints effective configuration, secrets masked. The YAML is itself a configuration file, apart from the secrets.

use super::error::Source;
use super::keys::{self, Origin};
use super::load::Values;
use super::value::{Value, default_of};
use std::fmt::Write as _;

/// The effective configuration as YAML, each value with its source as a comment. Keys that are not obeyed are shown only
/// if they were given.
pub fn yaml(values: &Values) -> String {
    let mut out = String::new();
    let mut section = "";
    for (key, effective) in values.iter() {
        let given = effective.source != Source::Default;
        if !key.is_used() && !given {
            continue;
        }
        if section != key.section() && !section.is_empty() {
            out.push('\n');
        }
        section = key.section();
        let status = if key.is_used() {
            String::new()
        } else {
            format!("; {}", key.status_line())
        };
        line(
            &mut out,
            key.name,
            &effective.value,
            &format!("  # {}{status}", effective.source),
        );
    }
    out
}

/// As [`yaml`], as a JSON object of `{"value", "source"}` by key.
pub fn json(values: &Values) -> serde_json::Value {
    let entries = values
        .iter()
        .filter(|(key, effective)| key.is_used() || effective.source != Source::Default)
        .map(|(key, effective)| {
            let entry = serde_json::json!({
                "value": effective.value.shown(),
                "source": effective.source.to_string(),
            });
            (key.name.to_owned(), entry)
        });
    serde_json::Value::Object(entries.collect())
}

/// The defaults of every key that is obeyed, commented out and explained: a configuration file to begin with.
pub fn defaults() -> String {
    let mut out = String::from(
        "# Every key that livepatch-server obeys, at its default. Take away the # before what you change.\n",
    );
    let mut section = "";
    for key in keys::all().iter().filter(|key| key.is_used()) {
        if section != key.section() {
            let _ = write!(out, "\n# {}\n", key.section());
        }
        section = key.section();
        let _ = writeln!(out, "\n# {}", key.about);
        if let (Origin::Canonical, Some(theirs)) = (key.origin, key.canonical_default) {
            let _ = writeln!(out, "# Canonical's default is {theirs}.");
        }
        out.push_str("# ");
        line(&mut out, key.name, &default_of(key), "");
    }
    out
}

/// `key: value` in YAML. A JSON value is a YAML value; plain words go without quotes.
fn line(out: &mut String, name: &str, value: &Value, comment: &str) {
    let value = match value.shown() {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) if is_plain(&text) => text,
        other => other.to_string(),
    };
    let space = if value.is_empty() { "" } else { " " };
    let _ = writeln!(out, "{name}:{space}{value}{comment}");
}

/// Whether YAML reads this text back as itself without quotes. Cautious: quotes do no harm.
fn is_plain(text: &str) -> bool {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_'));
    let reserved = [
        "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf",
    ];
    let duration = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == ' ')
        && humantime::parse_duration(text).is_ok();
    (word && !reserved.contains(&text.to_ascii_lowercase().as_str())) || duration
}
