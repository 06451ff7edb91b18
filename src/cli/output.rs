//! What is printed: wire types exactly, as JSON or YAML, or tables for people.
//!
//! Tables are drawn with lines on a terminal and are plain aligned columns elsewhere. Nothing here does I/O.

use crate::wire::admin::Page;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// The form of the output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The wire type as JSON.
    Json,
    /// The wire type as YAML.
    Yaml,
}

/// Who looks.
#[derive(Debug, Clone)]
pub struct View {
    /// A terminal: lines around tables, cells wrapped to its width.
    pub terminal: bool,
    /// The zone times are shown in.
    pub zone: TimeZone,
}

impl View {
    /// A time in the local zone with its offset.
    pub fn time(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone())
            .strftime("%Y-%m-%d %H:%M:%S%:z")
            .to_string()
    }

    /// The same, or `-`.
    pub fn some_time(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(dash, |at| self.time(at))
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// A value, or `-`.
pub fn some(value: Option<impl Display>) -> String {
    value.map_or_else(dash, |v| v.to_string())
}

/// Text, or `-` if it is empty.
pub fn text(value: &str) -> String {
    if value.is_empty() {
        dash()
    } else {
        value.to_owned()
    }
}

/// `k=v k=v`, or `-`.
pub fn pairs<K: Display, V: Display>(map: &BTreeMap<K, V>) -> String {
    let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
    text(&pairs.join(" "))
}

/// A word of the wire, written as it stands there.
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => dash(),
    }
}

/// Bytes for people.
pub fn bytes(size: u64) -> String {
    indicatif::BinaryBytes(size).to_string()
}

/// `yes` or `-`.
pub fn flag(on: bool) -> String {
    if on { "yes".to_owned() } else { dash() }
}

/// `1 machine`, `2 machines`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Something that can be shown to a person.
pub trait Show: Serialize {
    /// Its text, without a line break at the end.
    fn show(&self, view: &View) -> String;
}

/// Something that makes a line of a table.
pub trait Row: Serialize {
    /// Headings.
    const HEADER: &'static [&'static str];
    /// What is said of an empty list.
    const NONE: &'static str;
    /// One cell per heading.
    fn cells(&self, view: &View) -> Vec<String>;
}

impl<T: Row> Show for Page<T> {
    fn show(&self, view: &View) -> String {
        rows(&self.items, view)
    }
}

/// A table of these.
pub fn rows<T: Row>(items: &[T], view: &View) -> String {
    if items.is_empty() {
        return T::NONE.to_owned();
    }
    table(T::HEADER, items.iter().map(|item| item.cells(view)), view)
}

/// A table.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, view: &View) -> String {
    let mut table = new_table(view);
    table.set_header(header.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    finish(table, view)
}

/// A list of properties; those whose value is `-` are left out.
pub fn properties<const N: usize>(list: [(&str, String); N], view: &View) -> String {
    let mut table = new_table(&View {
        terminal: false,
        zone: view.zone.clone(),
    });
    for (name, value) in list {
        if value != "-" {
            table.add_row([format!("{name}:"), value]);
        }
    }
    finish(
        table,
        &View {
            terminal: false,
            zone: view.zone.clone(),
        },
    )
}

fn new_table(view: &View) -> Table {
    let mut table = Table::new();
    if view.terminal {
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.force_no_tty();
    }
    table
}

fn finish(mut table: Table, view: &View) -> String {
    if !view.terminal {
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
    }
    table.trim_fmt()
}

/// Text blocks with an empty line between them; empty ones are left out.
pub fn blocks(parts: impl IntoIterator<Item = String>) -> String {
    let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.join("\n\n")
}

/// A titled block, indented.
pub fn titled(title: &str, body: &str) -> String {
    let mut text = title.to_owned();
    for line in body.lines() {
        let _ = write!(text, "\n  {line}");
    }
    text
}

/// Without control characters, which steer terminals: some texts come from machines, and whoever has an auth token
/// chooses them.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// The value in this form, without a line break at the end.
///
/// # Errors
/// If the value cannot be serialised; none of the wire types can cause it.
pub fn render(value: &impl Show, format: Format, view: &View) -> Result<String, String> {
    let text = match format {
        Format::Table => return Ok(printable(&value.show(view))),
        Format::Json => serde_json::to_string_pretty(value).map_err(|e| e.to_string())?,
        Format::Yaml => serde_saphyr::to_string(value).map_err(|e| e.to_string())?,
    };
    Ok(text.trim_end().to_owned())
}
