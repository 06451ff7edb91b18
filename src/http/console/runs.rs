//! Runs of sync: the list, one with all that came of it, and how far the one at work is.

use super::BASE;
use super::error::{PageError, named};
use super::forms::{back, command};
use super::intake::first;
use super::page::{bytes, number, or_none, page, time};
use super::pending::{in_words, names};
use super::session::{Posted, Visitor};
use super::tables::{facts, more, table};
use crate::domain::Role;
use crate::service::{Core, sync};
use crate::wire::admin::{
    FilterChange, FilterSide, SyncItem, SyncItemResult, SyncOutcome, SyncPhase, SyncReport,
    SyncRun, SyncState,
};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::{get, post};
use maud::{Markup, html};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Runs on one page.
const ROWS: u32 = 50;
/// Items of a run that its page names.
const ITEMS: usize = 200;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/intake/sync", post(trigger))
        .route("/console/intake/runs", get(all))
        .route("/console/intake/runs/{id}", get(show))
}

async fn trigger(
    State(core): State<Arc<Core>>,
    Posted { visitor, .. }: Posted<BTreeMap<String, String>>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    sync::trigger(&core, &visitor.caller.actor()).await?;
    Ok(back("/intake", "triggered"))
}

/// A place in a list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct From {
    pub(super) cursor: Option<String>,
}

async fn all(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(from): Query<From>,
) -> Result<Html<String>, PageError> {
    let found = sync::reports(&core, &first(ROWS, from.cursor)).await?;
    let shown: Vec<&SyncRun> = found.items.iter().collect();
    let content = html! {
        h1 { "Runs of sync" }
        (list(&shown))
        (more("/intake/runs", &[], found.next_cursor.as_deref()))
        (command("sync reports"))
    };
    Ok(page(&visitor, "Runs of sync", "/intake", content))
}

/// A table of runs.
pub(super) fn list(runs: &[&SyncRun]) -> Markup {
    let rows: Vec<Vec<Markup>> = runs
        .iter()
        .map(|run| {
            vec![
                html! { a href={ (BASE) "/intake/runs/" (run.id) } { "Run " (run.id) } },
                html! { (run.cause) },
                state_tag(run.state),
                html! { (number(run.added)) },
                html! {
                    @if run.quarantined > 0 {
                        a href={ (BASE) "/intake/quarantine" } { (number(run.quarantined)) }
                    } @else { "0" }
                },
                html! { (bytes(run.progress.bytes)) },
                html! { (run.actor) },
                time(run.started_at),
                time(run.finished_at),
                or_none(run.code.as_deref()),
            ]
        })
        .collect();
    let head = [
        "Run",
        "Cause",
        "State",
        "Added",
        "Quarantined",
        "Fetched",
        "By",
        "Started",
        "Ended",
        "Why",
    ];
    table(
        "Runs of sync, newest first",
        &head,
        &rows,
        "Nothing was fetched yet.",
    )
}

fn state_tag(state: SyncState) -> Markup {
    let (class, word) = match state {
        SyncState::Queued => ("idle", "queued"),
        SyncState::Running => ("wait", "running"),
        SyncState::Done => ("good", "done"),
        SyncState::Failed => ("bad", "failed"),
        SyncState::Waiting => ("wait", "waits for a person"),
    };
    html! { span class={ "tag " (class) } { (word) } }
}

/// How far a run is.
pub(super) fn progress(run: &SyncRun) -> Markup {
    let progress = &run.progress;
    let words = match progress.phase {
        SyncPhase::Queued => "waits for the leader to take it up".to_owned(),
        SyncPhase::Listing => "asks what upstream has".to_owned(),
        SyncPhase::Fetching => fetching(run),
        SyncPhase::Publishing => "makes visible what it fetched".to_owned(),
        SyncPhase::Ended => "has ended".to_owned(),
    };
    // Bytes tell more than payloads where it is known how many there are.
    let (done, total) = match (progress.total_bytes, progress.total) {
        (Some(total), _) if total > 0 => (progress.bytes, Some(total)),
        (_, Some(total)) if total > 0 => (progress.done, Some(total)),
        _ => (0, None),
    };
    html! {
        p { a href={ (BASE) "/intake/runs/" (run.id) } { "Run " (run.id) } " " (words) "." }
        progress aria-label={ "Run " (run.id) } value=[total.map(|total| done.min(total))] max=[total] { (words) }
    }
}

fn fetching(run: &SyncRun) -> String {
    let progress = &run.progress;
    let payloads = match progress.total {
        Some(total) => format!("{} of {} payloads", number(progress.done), number(total)),
        None => format!("{} payloads", number(progress.done)),
    };
    match progress.total_bytes {
        Some(total) => format!(
            "has fetched {payloads}, {} of {}",
            bytes(progress.bytes),
            bytes(total)
        ),
        None => format!("has fetched {payloads}, {}", bytes(progress.bytes)),
    }
}

async fn show(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let id = named("run of sync", &id)?;
    let report = sync::report(&core, id).await?;
    let content = html! {
        h1 { "Run " (id) " of sync" }
        (run(&report))
        h2 { "What came of it" }
        (outcome(&report.outcome))
        h2 { "Kept out by filters" }
        (skipped(&report.outcome))
        @if let Some(change) = &report.outcome.filter_change {
            h2 { "The filters are others than at the run before" }
            (changed(change))
        }
        @if let Some(pending) = &report.outcome.pending {
            h2 { "What it waited for" }
            (in_words(pending))
        }
        h2 { "Payloads worth a look" }
        (items(&report))
        (command(&format!("sync report {id}")))
        p { a href={ (BASE) "/intake/runs" } { "All runs" } }
    };
    Ok(page(
        &visitor,
        &format!("Run {id} of sync"),
        "/intake",
        content,
    ))
}

fn run(report: &SyncReport) -> Markup {
    let run = &report.run;
    let at_work = matches!(run.state, SyncState::Queued | SyncState::Running);
    html! {
        @if at_work { (progress(run)) }
        @if let Some(error) = &run.error {
            p class=(if run.state == SyncState::Waiting { "notice" } else { "problem" }) { (error) }
        }
        (facts(&[
            ("State", state_tag(run.state)),
            ("From", html! { (run.upstream) }),
            ("Cause", html! { (run.cause) }),
            ("Asked for by", html! { (run.actor) }),
            ("Asked for", time(Some(run.queued_at))),
            ("Started", time(run.started_at)),
            ("Ended", time(run.finished_at)),
            ("Took", html! { (format!("{:.1} s", report.seconds)) }),
            ("Fetched", html! { (bytes(run.progress.bytes)) }),
        ]))
    }
}

fn outcome(outcome: &SyncOutcome) -> Markup {
    let of = |count: u64| html! { (number(count)) };
    let yes = |flag: bool| html! { @if flag { "yes" } @else { "no" } };
    let patches = html! {
        @if outcome.new_patches.is_empty() { "none" }
        @for (at, version) in outcome.new_patches.iter().enumerate() {
            @if at > 0 { ", " }
            a href={ (BASE) "/patches/" (version) } { (version) }
        }
    };
    facts(&[
        ("Upstream has", of(outcome.offered)),
        ("Here before", of(outcome.there)),
        ("Fetched by an earlier run", of(outcome.resumed)),
        ("Fetched", of(outcome.fetched)),
        ("Added", of(outcome.added)),
        ("Mended", of(outcome.healed)),
        ("Quarantined", of(outcome.quarantined)),
        ("In quarantine from before", of(outcome.quarantined_before)),
        ("Withdrawn, now held", of(outcome.withdrawn)),
        ("There again, not held any more", of(outcome.returned)),
        ("Blocks and holds taken over", of(outcome.blocks_placed)),
        ("Blocks and holds lifted", of(outcome.blocks_lifted)),
        ("Table of kernels replaced", yes(outcome.kernels_changed)),
        ("Tiers or promotions changed", yes(outcome.tiers_changed)),
        ("New patches", patches),
    ])
}

fn skipped(outcome: &SyncOutcome) -> Markup {
    let rows: Vec<Vec<Markup>> = outcome
        .skipped
        .iter()
        .map(|skipped| {
            vec![
                html! { code { (skipped.filter) } },
                html! { (number(skipped.payloads)) },
                html! { (skipped.names.iter().take(3).cloned().collect::<Vec<_>>().join(", ")) },
            ]
        })
        .collect();
    table(
        "Payloads kept out, by filter",
        &["Filter", "Payloads", "Such as"],
        &rows,
        "No filter kept anything out.",
    )
}

fn changed(change: &FilterChange) -> Markup {
    let side = |title: &str, side: &FilterSide| {
        html! {
            p { (title) ": " (number(side.payloads)) " payloads, " (bytes(side.bytes)) }
            (names(&side.names, side.payloads))
        }
    };
    html! {
        (side("They let in besides", &change.adds))
        (side("They do not let in any more (kept until the storage is pruned)", &change.drops))
    }
}

fn result_tag(result: SyncItemResult) -> Markup {
    let (class, word) = match result {
        SyncItemResult::Added => ("good", "added"),
        SyncItemResult::Healed => ("good", "mended"),
        SyncItemResult::Quarantined => ("bad", "quarantined"),
        SyncItemResult::Failed => ("bad", "failed"),
        SyncItemResult::Withdrawn => ("wait", "withdrawn"),
        SyncItemResult::Returned => ("good", "there again"),
        SyncItemResult::Ignored => ("idle", "ignored"),
    };
    html! { span class={ "tag " (class) } { (word) } }
}

fn items(report: &SyncReport) -> Markup {
    let row = |item: &SyncItem| {
        vec![
            html! { code { (item.filename) } },
            result_tag(item.result),
            html! { (bytes(item.bytes)) },
            or_none(Some(&item.reason)),
        ]
    };
    let rows: Vec<Vec<Markup>> = report.items.iter().take(ITEMS).map(row).collect();
    let left_out = report.items_left_out + (report.items.len() - rows.len()) as u64;
    html! {
        (table("Payloads of this run", &["File", "Result", "Fetched", "Why"], &rows, "None is worth naming."))
        @if left_out > 0 { p.quiet { (number(left_out)) " more are not named here." } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_work(total: Option<u64>, total_bytes: Option<u64>) -> String {
        let run: SyncRun = serde_json::from_value(serde_json::json!({
            "id": 7, "upstream": "u", "cause": "trigger", "actor": "a", "state": "running",
            "queued-at": "2026-11-28T05:00:00Z",
            "progress": { "phase": "fetching", "done": 3, "total": total, "bytes": 1024, "total-bytes": total_bytes },
        }))
        .unwrap();
        progress(&run).into_string()
    }

    #[test]
    fn progress_counts_what_is_known() {
        let text = at_work(Some(10), Some(4096));
        assert!(
            text.contains("has fetched 3 of 10 payloads, 1.0 KiB of 4.0 KiB"),
            "{text}"
        );
        assert!(text.contains(r#"value="1024" max="4096""#), "{text}");
        let text = at_work(Some(10), None);
        assert!(text.contains(r#"value="3" max="10""#), "{text}");
        let text = at_work(None, None);
        assert!(!text.contains("value="), "{text}");
    }
}
