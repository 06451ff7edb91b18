//! Cursors: opaque to the caller, checked when they come back.

use super::ServiceError;
use crate::wire::admin::{Limit, Page};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::str::FromStr;

/// The longest cursor that is looked at.
const MAX_LEN: usize = 512;

/// Makes the cursor of a list of this kind from the place to go on after.
pub fn encode(kind: &str, place: &[&dyn ToString]) -> String {
    let mut text = kind.to_owned();
    for part in place {
        text.push('\n');
        text.push_str(&part.to_string());
    }
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

/// Reads a cursor that [`encode`] made for this kind of list, with exactly `N` parts.
pub fn decode<const N: usize>(kind: &str, cursor: &str) -> Result<[String; N], ServiceError> {
    let text = (cursor.len() <= MAX_LEN)
        .then(|| BASE64_URL_SAFE_NO_PAD.decode(cursor).ok())
        .flatten()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(foreign)?;
    let mut parts = text.split('\n');
    if parts.next() != Some(kind) {
        return Err(foreign());
    }
    let parts: Vec<String> = parts.map(ToOwned::to_owned).collect();
    parts.try_into().map_err(|_| foreign())
}

/// Reads one part of a cursor.
pub fn part<T: FromStr>(text: &str) -> Result<T, ServiceError> {
    text.parse().map_err(|_| foreign())
}

/// Reads a cursor of one part: after what the page begins; `None` for the first page.
pub fn after<T: FromStr>(kind: &str, cursor: Option<&str>) -> Result<Option<T>, ServiceError> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let [place] = decode(kind, cursor)?;
    part(&place).map(Some)
}

/// Reads a point in time, in unix microseconds, from a part of a cursor.
pub fn time(text: &str) -> Result<jiff::Timestamp, ServiceError> {
    jiff::Timestamp::from_microsecond(part(text)?).map_err(|_| foreign())
}

fn foreign() -> ServiceError {
    ServiceError::Invalid(
        "the cursor was not made by this list; take `next-cursor` from the page before, unchanged"
            .to_owned(),
    )
}

/// How many items were asked for.
pub fn limit(asked: Option<Limit>) -> usize {
    asked.unwrap_or_default().get() as usize
}

/// Makes a page of rows that were asked for with one more than `limit`; `place` tells where a row stands.
pub fn page<R, T>(
    mut rows: Vec<R>,
    limit: usize,
    place: impl FnOnce(&R) -> String,
    item: impl FnMut(R) -> T,
) -> Page<T> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = if more { rows.last().map(place) } else { None };
    Page {
        items: rows.into_iter().map(item).collect(),
        next_cursor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_foreign_ones_do_not() {
        let cursor = encode("audit", &[&17, &"b"]);
        assert_eq!(decode::<2>("audit", &cursor).unwrap(), ["17", "b"]);
        for (kind, cursor) in [
            ("machines", cursor.as_str()),
            ("audit", ""),
            ("audit", "%%%"),
            ("audit", &encode("audit", &[&17])),
            ("audit", &encode("audit", &[&17, &2, &3])),
            ("audit", &"A".repeat(10_000)),
        ] {
            assert!(decode::<2>(kind, cursor).is_err(), "{cursor}");
        }
        assert!(part::<i64>("x").is_err());
        assert!(time("9223372036854775807").is_err());
    }

    #[test]
    fn a_page_has_a_cursor_only_if_there_is_more() {
        let page_of = |n: i32| page((0..n).collect(), 3, ToString::to_string, |i| i);
        assert_eq!(page_of(3).next_cursor, None);
        assert_eq!(page_of(4).next_cursor.as_deref(), Some("2"));
        assert_eq!(page_of(4).items, [0, 1, 2]);
    }
}
