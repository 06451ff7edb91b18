//! The audit log: who did what, with filters, and whether its chain holds.

use super::error::PageError;
use super::forms::{address, command, word};
use super::page::{number, or_none, page, time};
use super::session::{Nothing, Posted, Visitor};
use super::tables::{facts, more, table};
use crate::service::{Core, audit};
use crate::wire::admin::{AuditEntry, AuditQuery};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::{get, post};
use maud::{Markup, html};
use serde::Deserialize;
use std::fmt::Write;
use std::sync::Arc;

const PLACE: &str = "/audit";

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/audit", get(list))
        .route("/console/audit/verify", post(verify))
}

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    actor: Option<String>,
    action: Option<String>,
    target: Option<String>,
    cursor: Option<String>,
}

/// A field that is left empty asks for nothing.
fn asked(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

async fn list(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(wanted): Query<Wanted>,
) -> Result<Html<String>, PageError> {
    let query = AuditQuery {
        actor: asked(wanted.actor),
        action: asked(wanted.action),
        target: asked(wanted.target),
        cursor: asked(wanted.cursor),
        ..AuditQuery::default()
    };
    let found = audit::list(&core, &query).await?;
    let kept = [
        ("actor", query.actor.clone()),
        ("action", query.action.clone()),
        ("target", query.target.clone()),
    ];
    let mut same = "audit list".to_owned();
    for (name, value) in kept
        .iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    {
        let _ = write!(same, " --{name} {}", word(value));
    }
    let rows: Vec<Vec<Markup>> = found.items.iter().map(row).collect();
    let content = html! {
        h1 { "Audit log" }
        p { "Every change, in the transaction that made it; each entry carries the hash of the one before." }
        form.row method="get" action=(address(PLACE, &[])) {
            @for (name, label, value) in [
                ("actor", "Who", &query.actor),
                ("action", "What, e.g. patch or patch.promote", &query.action),
                ("target", "On what", &query.target),
            ] {
                div {
                    label for={ "filter-" (name) } { (label) }
                    input id={ "filter-" (name) } name=(name) value=(value.as_deref().unwrap_or_default());
                }
            }
            button type="submit" { "Show" }
        }
        (table("Entries of the audit log, newest first", &["#", "When", "Who", "From", "What", "On what", "Details"], &rows, "There are no such entries."))
        (more(PLACE, &kept, found.next_cursor.as_deref()))
        form method="post" action=(address("/audit/verify", &[])) {
            (visitor.token())
            div.acts { button.plain type="submit" { "Verify the chain" } }
        }
        (command(&same))
    };
    Ok(page(&visitor, "Audit log", PLACE, content))
}

fn row(entry: &AuditEntry) -> Vec<Markup> {
    let by = |name: &'static str, value: &str| address(PLACE, &[(name, Some(value.to_owned()))]);
    vec![
        html! { (entry.seq) },
        time(Some(entry.at)),
        html! { a href=(by("actor", &entry.actor)) { (entry.actor) } },
        or_none(Some(&entry.source)),
        html! { a href=(by("action", &entry.action)) { (entry.action) } },
        html! {
            @if entry.target.is_empty() { (or_none(None)) } @else {
                a href=(by("target", &entry.target)) { (entry.target) }
            }
        },
        html! { @if entry.details == "{}" { (or_none(None)) } @else { code { (entry.details) } } },
    ]
}

async fn verify(
    State(core): State<Arc<Core>>,
    Posted { visitor, .. }: Posted<Nothing>,
) -> Result<Html<String>, PageError> {
    let verdict = audit::verify(&core).await?;
    let content = html! {
        h1 { "The chain of the audit log" }
        @if verdict.ok {
            p.said role="status" { "It holds: every entry follows from the one before." }
        } @else {
            p.problem role="alert" {
                "It is broken"
                @if let Some(at) = verdict.broken_at { " at entry " (at) }
                @if let Some(why) = &verdict.why { ": " (why) }
            }
        }
        (facts(&[
            ("Entries", html! { (number(verdict.entries)) }),
            ("Hash of the newest", html! { code { (verdict.head) } }),
        ]))
        p { "Note the hash elsewhere: whoever can write to the database cannot change what it stands for." }
        (command("audit verify"))
        p { a href=(address(PLACE, &[])) { "To the audit log" } }
    };
    Ok(page(&visitor, "Chain of the audit log", PLACE, content))
}
