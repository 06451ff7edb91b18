//! Takes secrets out of a request before it is kept. Pure. When in doubt it masks: a fixture with a hole in it is still
//! of use, a token in a report is not.
//!
//! What counts as a secret: values of headers and fields whose name says so; path segments where a protocol puts a
//! token; and anything that looks like a token of ours, a UUID, a macaroon or another long run of random characters.
//! A machine's id (32 hexadecimal digits) is not a secret, except where a token stands in its place.

use serde_json::{Map, Value, json};

/// What a secret is replaced by.
pub const MASK: &str = "[masked]";

/// The most bytes of a body that is kept.
const MAX_BODY: usize = 32 << 10;
/// The most headers that are kept.
const MAX_HEADERS: usize = 64;
/// The most characters of a path, or of a header's value.
const MAX_TEXT: usize = 2048;
/// A run of token characters this long is a secret whatever it is called.
const LONG_RUN: usize = 64;

/// Whether a name says that its value is a secret.
fn secret_name(name: &str) -> bool {
    let plain: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    [
        "token",
        "secret",
        "password",
        "passwd",
        "macaroon",
        "authorization",
        "cookie",
        "apikey",
        "credential",
        "privatekey",
        "session",
        "signature",
    ]
    .iter()
    .any(|word| plain.contains(word))
}

/// Whether a character may stand in a token.
fn in_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '=' | '~')
}

/// `lpa_...` and its like.
fn ours(run: &str) -> bool {
    let bytes = run.as_bytes();
    bytes.len() > 12
        && bytes.starts_with(b"lp")
        && bytes[2].is_ascii_lowercase()
        && bytes[3] == b'_'
}

/// 8-4-4-4-12 hexadecimal digits: the form of Canonical's auth tokens.
fn uuid_like(run: &str) -> bool {
    run.len() == 36 && uuid::Uuid::try_parse(run).is_ok()
}

/// A SHA-256 in hexadecimal digits, which names a file and opens nothing.
fn digest(run: &str) -> bool {
    run.len() == 64 && run.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a run of token characters looks like a secret by itself.
fn looks_secret(run: &str) -> bool {
    let long = run.len() >= LONG_RUN && !digest(run);
    long || run
        .split(['/', '='])
        .any(|part| ours(part) || uuid_like(part))
}

/// Words after which a secret stands in plain text.
fn announces(run: &str) -> bool {
    ["bearer", "basic", "macaroon", "token", "password"]
        .iter()
        .any(|word| run.eq_ignore_ascii_case(word))
}

/// Masks what looks like a secret inside a text.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut announced = false;
    while !rest.is_empty() {
        let run = rest.find(|c| !in_token(c)).unwrap_or(rest.len());
        let (head, tail) = rest.split_at(run);
        let secret = looks_secret(head) || (announced && head.len() >= 8);
        out.push_str(if secret { MASK } else { head });
        let other = tail.find(in_token).unwrap_or(tail.len());
        let (between, next) = tail.split_at(other);
        out.push_str(between);
        announced = announces(head) && between.trim().is_empty();
        rest = next;
    }
    out
}

fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Masks a path with its query. A token stands in the path of the old protocol (`/api/machine/{token}`).
pub fn path(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut before = "";
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| {
            let token_follows = matches!(before, "machine" | "machine-tokens" | "auth-tokens");
            before = segment;
            if token_follows && !segment.is_empty() {
                MASK.to_owned()
            } else {
                text(segment)
            }
        })
        .collect();
    // Once more over all of it: a token may hold slashes.
    let mut masked = text(&segments.join("/"));
    if let Some(query) = query {
        let pairs: Vec<String> = query
            .split('&')
            .map(|pair| match pair.split_once('=') {
                // A name that hides behind percent signs has something to hide.
                Some((name, _)) if secret_name(name) || name.contains('%') => {
                    format!("{}={MASK}", text(name))
                }
                _ => text(pair),
            })
            .collect();
        masked = format!("{masked}?{}", pairs.join("&"));
    }
    cut(&masked, MAX_TEXT).to_owned()
}

/// Masks one header's value; of credentials the scheme stays.
fn header(name: &str, value: &str) -> String {
    if !secret_name(name) {
        return cut(&text(value), MAX_TEXT).to_owned();
    }
    let schemes = ["basic", "bearer", "digest", "macaroon", "negotiate"];
    match value.split_once(' ') {
        Some((scheme, _))
            if schemes
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            format!("{scheme} {MASK}")
        }
        _ => MASK.to_owned(),
    }
}

fn value(name: &str, given: Value) -> Value {
    match given {
        Value::Array(items) => {
            let items = items.into_iter().map(|item| value(name, item));
            Value::Array(items.collect())
        }
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, inner)| {
                // Below a name that says secret, all is secret.
                let name = if secret_name(name) {
                    name
                } else {
                    key.as_str()
                };
                let masked = value(name, inner);
                (text(&key), masked)
            });
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::String(_) | Value::Number(_) if secret_name(name) => Value::String(MASK.to_owned()),
        // A document inside a string, perhaps.
        Value::String(plain) => Value::String(loose(&plain)),
        Value::Null | Value::Bool(_) | Value::Number(_) => given,
    }
}

/// Masks text that may hold names and values, such as YAML or a form: what follows a name that says secret, up to the
/// end of the line or pair.
fn loose(body: &str) -> String {
    const ENDS: [char; 6] = ['\n', '&', ',', ';', '}', '{'];
    let mut out = String::with_capacity(body.len());
    for piece in body.split_inclusive(ENDS) {
        let mut separators = piece.match_indices([':', '=']).map(|(at, _)| at);
        match separators.find(|at| secret_name(&piece[..*at])) {
            Some(at) => {
                out.push_str(&text(&piece[..at]));
                out.push_str(&piece[at..=at]);
                out.push(' ');
                out.push_str(MASK);
                out.extend(piece.chars().next_back().filter(|c| ENDS.contains(c)));
            }
            None => out.push_str(&text(piece)),
        }
    }
    out
}

/// A body as it is kept: JSON where it is JSON, text where it is text, else only its length.
pub fn body(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    let shortened = |text: &str| {
        let kept = cut(text, MAX_BODY);
        json!({ "text": kept, "bytes": bytes.len(), "cut": kept.len() < text.len() })
    };
    if let Ok(parsed) = serde_json::from_slice::<Value>(bytes) {
        let masked = value("", parsed);
        if bytes.len() <= MAX_BODY {
            return masked;
        }
        return shortened(&masked.to_string());
    }
    match std::str::from_utf8(bytes) {
        // PostgreSQL stores no NUL.
        Ok(text) => shortened(&loose(&text.replace('\0', "\u{fffd}"))),
        Err(_) => json!({ "bytes": bytes.len() }),
    }
}

/// Masks headers; each as a pair, in order.
pub fn headers<'h>(headers: impl Iterator<Item = (&'h str, &'h [u8])>) -> Vec<[String; 2]> {
    headers
        .take(MAX_HEADERS)
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value);
            [name.to_owned(), header(name, &value)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    const UUID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

    fn token() -> String {
        crate::domain::token::random_token("lpm_", [0xfb; 32])
    }

    #[test]
    fn what_is_not_secret_stays() {
        for plain in [
            "5.15.0-107.117-generic",
            "Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz",
            MACHINE,
            "livepatch-5.15.0-107.117-generic-107.1-amd64.tar.bz2",
            "2024-02-07T10:11:12.123456789Z",
            "the token is not known",
            "",
            "ü: größer, 12:30",
            &"ab".repeat(32),
        ] {
            assert_eq!(text(plain), plain);
            assert_eq!(loose(plain), plain);
        }
        let updates = format!("/v1/client/{MACHINE}/updates");
        assert_eq!(path(&updates), updates);
    }

    #[test]
    fn tokens_are_masked_wherever_they_stand() {
        let (token, long) = (token(), "QUJD+/".repeat(40));
        for secret in [token.as_str(), UUID, long.as_str()] {
            let places = [
                text(&format!("see {secret}, please")),
                text(&format!("x/{secret}")),
                path(&format!("/v1/patches/f?a={secret}")),
                path(&format!("/v1/x/{secret}/y")),
                header("x-odd", secret),
                header("authorization", &format!("Bearer {secret}")),
                body(format!(r#"{{"kernel":["{secret}"]}}"#).as_bytes()).to_string(),
                body(format!("- {secret}").as_bytes()).to_string(),
                body(format!(r#"{{"{secret}":1}}"#).as_bytes()).to_string(),
            ];
            for place in places {
                assert!(!place.contains(secret) && place.contains(MASK), "{place}");
            }
        }
    }

    #[test]
    fn whatever_is_called_a_secret_is_masked() {
        // No pattern would know this one.
        let secret = "hunter2";
        let places = [
            path("/api/machine/hunter2"),
            path("/api/machine/hunter2/x?y=1"),
            path("/v1/x?auth-token=hunter2&b=2"),
            path("/v1/x?auth%2Dtoken=hunter2"),
            header("Cookie", "a=hunter2"),
            header("Authorization", "hunter2"),
            header("Authorization", "hunter2 hunter2"),
            header("x-machine-token", "hunter2"),
            body(br#"{"auth-token":"hunter2"}"#).to_string(),
            body(br#"{"Machine_Token":{"x":["hunter2"]}}"#).to_string(),
            body(br#"{"a":[{"RESOURCETOKEN":"hunter2"}]}"#).to_string(),
            body(br#"{"a":"{\"auth-token\": \"hunter2\"}"}"#).to_string(),
            body(b"kernel: x\nmachine-token: hunter2\n").to_string(),
            body(b"a=1&password=hunter2&b=2").to_string(),
            body(br#"{"auth-token":"hunter2","broken"#).to_string(),
        ];
        for place in places {
            assert!(!place.contains(secret) && place.contains(MASK), "{place}");
        }
        assert_eq!(header("Authorization", "bearer x"), "bearer [masked]");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let large = format!(r#"{{"a":"{}"}}"#, "é ".repeat(100_000));
        assert!(body(large.as_bytes()).to_string().len() < 2 * MAX_BODY);
        let large = "x: é\n".repeat(100_000);
        assert!(body(large.as_bytes()).to_string().len() < 2 * MAX_BODY);
        assert_eq!(body(&vec![0xff; 100_000]), json!({ "bytes": 100_000 }));
        assert!(body(b"a\0b").to_string().contains('\u{fffd}'));
        assert!(path(&"/é".repeat(100_000)).len() <= MAX_TEXT);
        let many = std::iter::repeat_n(("a", &b"b"[..]), 1_000);
        assert_eq!(headers(many).len(), MAX_HEADERS);
    }
}
