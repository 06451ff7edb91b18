//! What forms share: what was done, reasons, the command that does the same, addresses with queries.

use super::BASE;
use super::session::Visitor;
use axum::response::Redirect;
use maud::{Markup, html};
use std::fmt::Write;

/// Sentences for what was just done, by the word in the address. Nothing else is said: the address could be anybody's.
const SAID: &[(&str, &str)] = &[
    ("promoted", "The patch is promoted."),
    ("held", "The patch is held: nobody is offered it anew."),
    (
        "blocked",
        "The patch is blocked: nobody is offered it, and who runs it may fall back.",
    ),
    ("resumed", "It goes on."),
    ("unblocked", "The patch is no longer blocked."),
    ("approved", "The rollout is approved."),
    (
        "paused",
        "The rollout is paused: nobody is let in until it is resumed.",
    ),
    ("aborted", "The rollout is given up, and its patch held."),
    ("moved", "The machines are moved."),
    ("revoked", "The token is revoked."),
    ("forgotten", "The machine is forgotten."),
    ("ended", "The session has ended."),
    ("added", "The administrator is added."),
    ("changed", "The role is changed."),
    ("removed", "The administrator is removed."),
    ("triggered", "A sync run is asked for."),
    ("confirmed", "What upstream took away is confirmed."),
    ("released", "The payload is released from quarantine."),
    ("dropped", "The payload is dropped."),
    ("begun", "The job has begun."),
    ("unchanged", "Nothing had to be changed."),
    ("machine-moved", "The machine is moved."),
    (
        "machine-revoked",
        "The machine's tokens are refused from now on.",
    ),
    (
        "already-there",
        "The same content was here already; the file is out of quarantine.",
    ),
];

/// The sentence of a word.
pub(super) fn said(word: &str) -> Option<String> {
    SAID.iter()
        .find(|(known, _)| *known == word)
        .map(|(_, sentence)| (*sentence).to_owned())
}

/// Back to a page below the base, which then says what was done.
pub(super) fn back(path: &str, word: &str) -> Redirect {
    let joint = if path.contains('?') { '&' } else { '?' };
    Redirect::to(&format!("{BASE}{path}{joint}done={word}"))
}

/// A text as part of a query.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// An address below the base with a query of what is given.
pub(super) fn address(path: &str, query: &[(&str, Option<String>)]) -> String {
    let mut text = format!("{BASE}{path}");
    let mut joint = '?';
    for (name, value) in query {
        if let Some(value) = value {
            let _ = write!(text, "{joint}{name}={}", encode(value));
            joint = '&';
        }
    }
    text
}

/// The field for a reason, which goes to the audit log.
pub(super) fn reason() -> Markup {
    html! {
        label for="reason" { "Reason, for the audit log" }
        input #reason name="reason" maxlength="500" autocomplete="off";
    }
}

/// A reason that was given, if any.
pub(super) fn given(reason: Option<String>) -> Option<String> {
    reason
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// The command that does the same.
pub(super) fn command(text: &str) -> Markup {
    html! {
        p.command { "The same by command: " code { "livepatch-admin " (text) } }
    }
}

/// A word of a command, quoted where a shell needs it.
pub(super) fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/=,:@%+*".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A form with one button, for an act that needs nothing more.
pub(super) fn button(
    visitor: &Visitor,
    action: &str,
    fields: &[(&str, &str)],
    label: &str,
) -> Markup {
    html! {
        form.inline method="post" action={ (BASE) (action) } {
            (visitor.token())
            @for (name, value) in fields {
                input type="hidden" name=(name) value=(value);
            }
            button type="submit" { (label) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_any_text() {
        assert_eq!(
            address(
                "/machines",
                &[
                    ("selector", Some("a=b,!c".to_owned())),
                    ("x", None),
                    ("y", Some("ü".to_owned()))
                ]
            ),
            "/console/machines?selector=a%3Db%2C%21c&y=%C3%BC"
        );
    }

    #[test]
    fn commands_can_be_copied() {
        assert_eq!(word("107.1"), "107.1");
        assert_eq!(word("rack=r1,!old"), "'rack=r1,!old'");
        assert_eq!(word("it's"), "'it'\\''s'");
        assert_eq!(word(""), "''");
    }

    #[test]
    fn only_known_sentences_are_said() {
        assert!(said("promoted").is_some());
        assert_eq!(said("<script>"), None);
    }
}
