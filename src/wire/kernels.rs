//! `GET /v1/api/kernels/supported` (public): query and answer, and the dates kernels are built on.

use super::read;
use crate::domain::{KernelBase, KernelSupport, ParseError};
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The query. Parameters are matched like the keys of reports; `flavor` is accepted beside `flavour`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SupportedQuery<'a> {
    /// Series or whole version of the kernel: `5.15`, `5.15.0`, `5.15.0-107.117-generic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_version: Option<Cow<'a, str>>,
    /// Flavour, e.g. `generic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavour: Option<Cow<'a, str>>,
    /// Architecture, e.g. `amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Cow<'a, str>>,
    /// Code name of the Ubuntu release, e.g. `jammy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codename: Option<Cow<'a, str>>,
    /// When the kernel was built, ISO 8601, or `unknown`; see [`Self::build_day`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_date: Option<Cow<'a, str>>,
}

impl<'a> SupportedQuery<'a> {
    /// Reads decoded parameters; unknown and empty ones are ignored, of repeated ones the last counts.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>) -> Self {
        let mut query = Self::default();
        for (key, value) in pairs {
            let field = read::with_key(&key, |key| match key {
                "kernelversion" | "kernel" => Some(&mut query.kernel_version),
                "flavour" | "flavor" => Some(&mut query.flavour),
                "architecture" | "arch" => Some(&mut query.architecture),
                "codename" | "series" => Some(&mut query.codename),
                "builddate" | "kernelbuilddate" => Some(&mut query.build_date),
                _ => None,
            });
            if let Some(field) = field.filter(|_| !value.is_empty()) {
                *field = Some(value);
            }
        }
        query
    }

    /// The kernel's base: what stands before the first `-`. `None` if no kernel was given.
    pub fn base(&self) -> Option<Result<KernelBase, ParseError>> {
        let text = self.kernel_version.as_deref()?;
        Some(text.split('-').next().unwrap_or(text).parse())
    }

    /// The day the kernel was built, if it is given and can be read.
    pub fn build_day(&self) -> Option<Date> {
        self.build_date.as_deref().and_then(parse_build_date)
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SupportedAnswer {
    /// Whether patches are made for the kernel.
    #[serde(rename = "Supported")]
    #[schema(value_type = String)]
    pub supported: KernelSupport,
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Reads the day a kernel was built on: ISO 8601 (`2024-02-07`, with or without a time), unix seconds, or what
/// `uname -v` prints (`#110-Ubuntu SMP Wed Feb 7 13:27:48 UTC 2024`, its last five or six words).
pub fn parse_build_date(text: &str) -> Option<Date> {
    let text = text.trim();
    if let Some(day) = text.get(..10).and_then(|day| day.parse::<Date>().ok()) {
        let rest = &text[10..];
        return (rest.is_empty() || rest.starts_with(['T', 't', ' '])).then_some(day);
    }
    if !text.is_empty() && text.len() <= 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        let instant = jiff::Timestamp::from_second(text.parse().ok()?).ok()?;
        return Some(instant.to_zoned(jiff::tz::TimeZone::UTC).date());
    }
    // Debian ends with the day of the packaging: `... Debian 6.1.147-1 (2025-08-02)`.
    let last = text.rsplit(' ').next().unwrap_or_default();
    if let Some(day) = last.strip_prefix('(').and_then(|day| day.strip_suffix(')')) {
        return day.parse().ok();
    }
    // From the right: year, zone, time, day, month.
    let mut words = text.split_ascii_whitespace().rev();
    let year: i16 = words.next().filter(|w| w.len() == 4)?.parse().ok()?;
    let mut day_text = None;
    for word in words.by_ref().take(3) {
        if !word.contains(':') && word.bytes().all(|b| b.is_ascii_digit()) {
            day_text = Some(word);
            break;
        }
    }
    let month_text = words.next()?;
    let month = MONTHS.iter().position(|m| *m == month_text)? + 1;
    Date::new(year, i8::try_from(month).ok()?, day_text?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_dates_in_every_form() {
        let day = |y, m, d| Some(Date::constant(y, m, d));
        for text in [
            "2024-02-07",
            "2024-02-07T13:27:48Z",
            "2024-02-07 13:27:48+00:00",
            "1707312468",
            "#110-Ubuntu SMP Wed Feb 7 13:27:48 UTC 2024",
            "#110~20.04.1-Ubuntu SMP PREEMPT_DYNAMIC Wed Feb  7 13:27:48 UTC 2024",
            "Wed Feb 7 13:27:48 2024",
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-07)",
        ] {
            assert_eq!(parse_build_date(text), day(2024, 2, 7), "{text}");
        }
        for text in [
            "",
            "unknown",
            "2024-13-07",
            "2024-02-07x",
            "7 Feb",
            "#1 SMP 2024",
            "Feb 7 2024x",
        ] {
            assert_eq!(parse_build_date(text), None, "{text}");
        }
    }
}
