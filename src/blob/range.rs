//! The `Range` header (RFC 9110, section 14). Pure.
//!
//! Bytes only. What is malformed, in another unit, or looks like an attempt to make the server work hard (many ranges,
//! overlapping ones, more bytes than the whole) is answered with the whole representation, as the RFC permits.

use std::ops::Range;

/// Ranges in one request; more are not honoured.
const MOST: usize = 16;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything.
    Whole,
    /// These bytes, in the order asked, none empty, none overlapping.
    Parts(Vec<Range<u64>>),
    /// Nothing that exists: 416.
    Unsatisfiable,
}

/// Reads a `Range` header's value against a representation of `size` bytes.
pub(super) fn parse(value: &str, size: u64) -> Wanted {
    let Some((unit, set)) = value.split_once('=') else {
        return Wanted::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let mut parts = Vec::new();
    let mut asked = 0;
    for spec in set.split(',').map(|s| s.trim_matches([' ', '\t'])) {
        // A list may hold empty elements (section 5.6.1).
        if spec.is_empty() {
            continue;
        }
        asked += 1;
        match one(spec, size) {
            _ if asked > MOST => return Wanted::Whole,
            None => return Wanted::Whole,
            Some(part) if part.is_empty() => {}
            Some(part) => parts.push(part),
        }
    }
    if asked == 0 || size == 0 {
        return Wanted::Whole;
    }
    if parts.is_empty() {
        return Wanted::Unsatisfiable;
    }
    let mut sorted: Vec<&Range<u64>> = parts.iter().collect();
    sorted.sort_unstable_by_key(|r| r.start);
    if sorted.windows(2).any(|w| w[1].start < w[0].end) {
        return Wanted::Whole;
    }
    Wanted::Parts(parts)
}

/// One range: empty if it lies outside, `None` if it is malformed.
fn one(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(size.saturating_sub(suffix)..size);
    }
    let first = number(first)?;
    let end = if last.is_empty() {
        size
    } else {
        let last = number(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(size)
    };
    Some(first.min(size)..end)
}

/// Digits only; what does not fit is larger than any file.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(of: &[(u64, u64)]) -> Wanted {
        Wanted::Parts(of.iter().map(|(from, to)| *from..*to).collect())
    }

    #[test]
    fn each_form_is_read() {
        for (value, expected) in [
            ("bytes=0-0", parts(&[(0, 1)])),
            ("bytes=0-", parts(&[(0, 1000)])),
            ("bytes=999-", parts(&[(999, 1000)])),
            ("bytes=10-5000", parts(&[(10, 1000)])),
            ("bytes=-1", parts(&[(999, 1000)])),
            ("bytes=-5000", parts(&[(0, 1000)])),
            ("Bytes = 5-6", parts(&[(5, 7)])),
            ("bytes=0-1, 5-6,,-1", parts(&[(0, 2), (5, 7), (999, 1000)])),
            ("bytes=500-600,0-10", parts(&[(500, 601), (0, 11)])),
            ("bytes=0-1,2000-", parts(&[(0, 2)])),
            ("bytes=0-99999999999999999999999", parts(&[(0, 1000)])),
            ("bytes=1000-", Wanted::Unsatisfiable),
            ("bytes=1000-2000,5000-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
        ] {
            assert_eq!(parse(value, 1000), expected, "{value}");
        }
    }

    #[test]
    fn what_is_malformed_or_abusive_gets_the_whole() {
        let many: Vec<String> = (0..17).map(|i| format!("{0}-{0}", i * 2)).collect();
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=1",
            "bytes=5-4",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=-",
            "bytes=0-1;2-3",
            "bytes=0-10,5-20",
            "bytes=0-,0-",
            "bytes=-10,995-",
            &format!("bytes={}", many.join(",")),
        ] {
            assert_eq!(parse(value, 1000), Wanted::Whole, "{value}");
        }
        let sixteen = format!("bytes={}", many[..16].join(","));
        assert!(matches!(parse(&sixteen, 1000), Wanted::Parts(p) if p.len() == 16));
        for value in ["bytes=0-", "bytes=-5", "bytes=0-0"] {
            assert_eq!(parse(value, 0), Wanted::Whole, "of nothing: {value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_gives_sane_parts(value in "(bytes=)?[-0-9, =a]{0,40}", size in 0_u64..10_000) {
            if let Wanted::Parts(parts) = parse(&value, size) {
                prop_assert!(!parts.is_empty() && parts.len() <= MOST);
                prop_assert!(parts.iter().all(|p| p.start < p.end && p.end <= size));
                prop_assert!(parts.iter().map(|p| p.end - p.start).sum::<u64>() <= size);
            }
        }
    }
}
