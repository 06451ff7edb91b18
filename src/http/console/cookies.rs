//! Cookies: read, and made so that scripts and other sites' forms do not get at them.

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

/// The value of the first cookie of this name.
pub(super) fn find<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter();
    let pairs = all
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let mut found = pairs.filter_map(|pair| pair.trim().split_once('='));
    found.find(|(other, _)| *other == name).map(|found| found.1)
}

/// A cookie for pages below `path`, kept for so many seconds or until the browser ends; over TLS it is sent only over TLS.
pub(super) fn made(
    name: &str,
    value: &str,
    path: &str,
    seconds: Option<u32>,
    scheme: &str,
) -> HeaderValue {
    let secure = if scheme == "https" { "; Secure" } else { "" };
    let age = seconds.map_or_else(String::new, |seconds| format!("; Max-Age={seconds}"));
    let text = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Lax{age}{secure}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
