//! The frame of a page: head, navigation, what was just done; and the headers that keep a page to itself.

use super::BASE;
use super::assets::{SCRIPT, STYLE};
use super::session::Visitor;
use crate::domain::Role;
use crate::http::error::AsIs;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::response::{Html, IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use maud::{DOCTYPE, Markup, html};

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Puts the headers on that every page has.
pub(super) async fn protect(response: Response) -> Response {
    let mut response = readable(response);
    // What is said to people is not for programs.
    response.extensions_mut().insert(AsIs);
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        // Pages show what only this administrator may see.
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A refusal of the framework, which is a line of text, as a page.
fn readable(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(CONTENT_TYPE);
    let is_page = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let is_error = status.is_client_error() || status.is_server_error();
    if is_page || !is_error {
        return response;
    }
    let content = html! {
        h1 { (status.canonical_reason().unwrap_or("Error")) }
        p.problem role="alert" { "The address or form cannot be read. Go back, or begin again." }
        p { a href=(BASE) { "To the patches" } }
    };
    (status, bare("Error", content)).into_response()
}

/// The places of the console, in the order of the navigation: path below the base, name.
const PLACES: [(&str, &str); 6] = [
    ("", "Patches"),
    ("/rollouts", "Rollouts"),
    ("/machines", "Machines"),
    ("/intake", "Intake"),
    ("/access", "Access"),
    ("/audit", "Audit log"),
];

/// A page for somebody who is signed in. `place` is the path of its place in the navigation.
pub(super) fn page(visitor: &Visitor, title: &str, place: &str, content: Markup) -> Html<String> {
    let body = html! {
        a.skip href="#main" { "To the content" }
        header {
            a.brand href=(BASE) { "Livepatch" span.quiet { " on-prem" } }
            nav aria-label="Console" {
                ul {
                    @for (path, name) in PLACES {
                        li {
                            a href={ (BASE) (path) } aria-current=[(path == place).then_some("page")] { (name) }
                        }
                    }
                }
            }
            form.who method="post" action={ (BASE) "/logout" } {
                (visitor.token())
                span { (visitor.caller.name) " " span.quiet { "(" (visitor.caller.role) ")" } }
                button.plain type="submit" { "Sign out" }
            }
        }
        main #main tabindex="-1" {
            @if let Some(said) = &visitor.said {
                p.said role="status" { (said) }
            }
            (content)
        }
        footer {
            p {
                "livepatch-onprem " (env!("CARGO_PKG_VERSION"))
                " · " a href="/v1/openapi.json" { "API" }
                " · as of " (time(Some(Timestamp::now())))
                span #live .quiet role="status" aria-live="polite" {}
            }
        }
    };
    frame(title, body, true)
}

/// A page without navigation, e.g. to sign in.
pub(super) fn bare(title: &str, content: Markup) -> Html<String> {
    frame(title, html! { main #main .bare { (content) } }, false)
}

fn frame(title: &str, body: Markup, live: bool) -> Html<String> {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Livepatch on-prem" }
                link rel="stylesheet" href=(STYLE.path());
                link rel="icon" href={ (BASE) "/assets/icon.svg" } type="image/svg+xml";
                @if live {
                    script src=(SCRIPT.path()) defer {}
                }
            }
            body { (body) }
        }
    };
    Html(markup.into_string())
}

/// A point in time: exact, and how long ago for a quick look.
pub(super) fn time(at: Option<Timestamp>) -> Markup {
    let Some(at) = at else {
        return html! { span.quiet { "never" } };
    };
    let exact = at.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    html! { time datetime=(stamp) title=(ago(at, Timestamp::now())) { (exact) } }
}

/// How long ago something was, or how far ahead it is.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    let span = now.duration_since(at);
    let words = |span: SignedDuration| {
        let seconds = span.as_secs().unsigned_abs();
        match seconds {
            0..60 => format!("{seconds} s"),
            60..3600 => format!("{} min", seconds / 60),
            3600..172_800 => format!("{} h", seconds / 3600),
            _ => format!("{} days", seconds / 86_400),
        }
    };
    if span.is_negative() {
        format!("in {}", words(span))
    } else {
        format!("{} ago", words(span))
    }
}

/// A number with its thousands apart.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// Bytes in a unit that reads well.
pub(super) fn bytes(value: u64) -> String {
    let mut amount = value as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" {
                format!("{value} B")
            } else {
                format!("{amount:.1} {unit}")
            };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// Whether somebody may act on patches, tiers, machines and tokens.
pub(super) fn may_act(visitor: &Visitor) -> bool {
    visitor.caller.role >= Role::Operator
}

/// A text that may be empty or missing.
pub(super) fn or_none(text: Option<&str>) -> Markup {
    html! {
        @if let Some(text) = text.filter(|text| !text.is_empty()) { (text) } @else { span.quiet { "–" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_read_well() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 40), "5.0 TiB");
    }

    #[test]
    fn times_are_told_from_now() {
        let now: Timestamp = "2026-11-28T05:00:00Z".parse().unwrap();
        let at = |text: &str| ago(text.parse().unwrap(), now);
        assert_eq!(at("2026-11-28T04:59:30Z"), "30 s ago");
        assert_eq!(at("2026-11-28T03:00:00Z"), "2 h ago");
        assert_eq!(at("2026-11-20T05:00:00Z"), "8 days ago");
        assert_eq!(at("2026-11-28T05:10:00Z"), "in 10 min");
    }
}
