//! Quarantine: what was refused at the door, why, and what can be done with it.

use super::BASE;
use super::error::{PageError, named};
use super::forms::{back, button, command};
use super::intake::first;
use super::page::{bytes, may_act, page, time};
use super::runs::From;
use super::session::{Nothing, Posted, Visitor};
use super::tables::{facts, more, table};
use crate::domain::Role;
use crate::service::{Core, quarantine};
use crate::wire::admin::{IngestResult, QuarantineEntry};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use maud::{Markup, html};
use std::sync::Arc;

/// Files on one page.
const ROWS: u32 = 50;
/// What a path names.
const WHAT: &str = "quarantined file";

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/intake/quarantine", get(all))
        .route("/console/intake/quarantine/{id}", get(show))
        .route("/console/intake/quarantine/{id}/release", post(release))
        .route("/console/intake/quarantine/{id}/drop", post(drop_file))
}

async fn all(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(from): Query<From>,
) -> Result<Html<String>, PageError> {
    let found = quarantine::list(&core, &first(ROWS, from.cursor)).await?;
    let content = html! {
        h1 { "Quarantine" }
        p { "Files that failed the checks at the door. No machine is offered any of them." }
        (list(&found.items))
        (more("/intake/quarantine", &[], found.next_cursor.as_deref()))
        (command("storage quarantine list"))
    };
    Ok(page(&visitor, "Quarantine", "/intake", content))
}

/// A table of files, each leading to what can be done with it.
pub(super) fn list(files: &[QuarantineEntry]) -> Markup {
    let rows: Vec<Vec<Markup>> = files
        .iter()
        .map(|file| {
            vec![
                html! { a href={ (BASE) "/intake/quarantine/" (file.id) } { (file.filename) } },
                html! { span.tag.bad { (file.code) } },
                html! { (file.reason) },
                html! { (file.source) },
                html! { (file.actor) },
                html! { (bytes(file.size)) },
                time(Some(file.at)),
            ]
        })
        .collect();
    let head = [
        "File",
        "Rule",
        "Why",
        "Came by",
        "Brought by",
        "Size",
        "When",
    ];
    table(
        "Files in quarantine, newest first",
        &head,
        &rows,
        "Nothing is in quarantine.",
    )
}

async fn show(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let file = quarantine::show(&core, named(WHAT, &id)?).await?;
    let content = html! {
        h1 { "Quarantined file " (file.id) }
        p.problem { (file.reason) }
        (facts(&[
            ("File", html! { code { (file.filename) } }),
            ("Rule that was broken", html! { code { (file.code) } }),
            ("SHA-256", html! { code { (file.sha256) } }),
            ("Size", html! { (bytes(file.size)) }),
            ("Came by", html! { (file.source) }),
            ("Brought by", html! { (file.actor) }),
            ("When", time(Some(file.at))),
        ]))
        @if may_act(&visitor) { (acts(&visitor, &file)) }
        p { a href={ (BASE) "/intake/quarantine" } { "All that is in quarantine" } }
    };
    let title = format!("Quarantined file {}", file.id);
    Ok(page(&visitor, &title, "/intake", content))
}

fn acts(visitor: &Visitor, file: &QuarantineEntry) -> Markup {
    let place = format!("/intake/quarantine/{}", file.id);
    html! {
        h2 { "Try it again" }
        p {
            "All checks run again under the rules of now, for instance after a certificate was added. If it passes, it is taken in "
            "as any payload is, and machines may be offered it where its patch was promoted. If it still fails, it stays here."
        }
        (button(visitor, &format!("{place}/release"), &[], "Release it if it passes"))
        (command(&format!("storage quarantine release {}", file.id)))
        h2 { "Drop it" }
        p {
            "The file is deleted, " (bytes(file.size)) ". What was wrong with it stays in the audit log. If it comes again by sync or upload, "
            "it is looked at anew."
        }
        form.inline method="post" action={ (BASE) (place) "/drop" } {
            (visitor.token())
            button.bad type="submit" { "Drop it for good" }
        }
        (command(&format!("storage quarantine drop {}", file.id)))
    }
}

async fn release(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted<Nothing>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(WHAT, &id)?;
    let outcome = quarantine::release(&core, &visitor.caller.actor(), id).await?;
    let done = match outcome.result {
        IngestResult::AlreadyThere => "already-there",
        IngestResult::Stored | IngestResult::Quarantined => "released",
    };
    Ok(back("/intake/quarantine", done))
}

async fn drop_file(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted<Nothing>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(WHAT, &id)?;
    quarantine::drop_file(&core, &visitor.caller.actor(), id).await?;
    Ok(back("/intake/quarantine", "dropped"))
}
