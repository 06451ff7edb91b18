//! Preconditions of a download (RFC 9110, section 13), against a strong entity tag and no date. Pure.

use super::range::{self, Wanted};
use http::{HeaderMap, Method, header};

/// What a request comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Send it, or these parts of it.
    Send(Wanted),
    /// 304.
    NotModified,
    /// 412.
    Failed,
}

/// Decides in the order of section 13.2.2. `tag` is the entity tag with its quotes.
pub(super) fn decide(method: &Method, headers: &HeaderMap, tag: &str, size: u64) -> Verdict {
    if headers.contains_key(header::IF_MATCH) && !listed(headers, header::IF_MATCH, tag, false) {
        return Verdict::Failed;
    }
    if listed(headers, header::IF_NONE_MATCH, tag, true) {
        return Verdict::NotModified;
    }
    let mut ranges = headers.get_all(header::RANGE).iter();
    let wanted = match (ranges.next(), ranges.next()) {
        (Some(value), None) if method == Method::GET && if_range(headers, tag) => value
            .to_str()
            .map_or(Wanted::Whole, |value| range::parse(value, size)),
        _ => Wanted::Whole,
    };
    Verdict::Send(wanted)
}

/// Whether the header's list names `tag` or is `*`. Tags hold no commas here, so that splitting at commas suffices: a
/// foreign tag that holds one falls into pieces that match nothing.
fn listed(headers: &HeaderMap, name: header::HeaderName, tag: &str, weakly: bool) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|given| {
            given == "*" || given == tag || (weakly && given.strip_prefix("W/") == Some(tag))
        })
}

/// A range holds only if the client's copy is of the same bytes; a date proves nothing here.
fn if_range(headers: &HeaderMap, tag: &str) -> bool {
    let mut given = headers.get_all(header::IF_RANGE).iter();
    match (given.next(), given.next()) {
        (None, _) => true,
        (Some(value), None) => value.as_bytes() == tag.as_bytes(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: &Method, given: &[(header::HeaderName, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(name, value.parse().unwrap());
        }
        decide(method, &headers, "\"abc\"", 100)
    }

    #[test]
    fn conditions_are_weighed_in_their_order() {
        use header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
        let whole = Verdict::Send(Wanted::Whole);
        let part = Verdict::Send(Wanted::Parts(std::iter::once(0..5).collect()));
        let get = |given: &[_]| verdict(&Method::GET, given);
        assert_eq!(get(&[]), whole);
        assert_eq!(get(&[(IF_NONE_MATCH, "\"abc\"")]), Verdict::NotModified);
        assert_eq!(
            get(&[(IF_NONE_MATCH, "\"x\", W/\"abc\"")]),
            Verdict::NotModified
        );
        assert_eq!(get(&[(IF_NONE_MATCH, "*")]), Verdict::NotModified);
        assert_eq!(get(&[(IF_NONE_MATCH, "abc")]), whole);
        assert_eq!(get(&[(IF_MATCH, "\"abc\"")]), whole);
        assert_eq!(get(&[(IF_MATCH, "*")]), whole);
        assert_eq!(get(&[(IF_MATCH, "W/\"abc\"")]), Verdict::Failed);
        assert_eq!(
            get(&[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "*")]),
            Verdict::Failed
        );
        assert_eq!(get(&[(RANGE, "bytes=0-4")]), part);
        assert_eq!(
            get(&[(RANGE, "bytes=0-4"), (IF_NONE_MATCH, "\"abc\"")]),
            Verdict::NotModified
        );
        assert_eq!(get(&[(RANGE, "bytes=0-4"), (IF_RANGE, "\"abc\"")]), part);
        assert_eq!(get(&[(RANGE, "bytes=0-4"), (IF_RANGE, "\"old\"")]), whole);
        assert_eq!(get(&[(RANGE, "bytes=0-4"), (IF_RANGE, "W/\"abc\"")]), whole);
        assert_eq!(
            get(&[
                (RANGE, "bytes=0-4"),
                (IF_RANGE, "Tue, 15 Nov 1994 12:45:26 GMT")
            ]),
            whole
        );
        assert_eq!(get(&[(RANGE, "bytes=0-4"), (RANGE, "bytes=5-6")]), whole);
        assert_eq!(
            get(&[(RANGE, "bytes=100-")]),
            Verdict::Send(Wanted::Unsatisfiable)
        );
        assert_eq!(verdict(&Method::HEAD, &[(RANGE, "bytes=0-4")]), whole);
    }
}
