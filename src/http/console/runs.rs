//! Runs of sync: the list, one with all that came of it, how far the one at work is, and what waits for a person.

use super::BASE;
use super::error::PageError;
use super::forms::{back, command};
use super::intake::first;
use super::page::{bytes, number, or_none, page, time};
use super::session::{Posted, Visitor};
use super::tables::{facts, more, table};
use crate::domain::{ParseError, Role, Sha256, TierName};
use crate::service::{Core, ServiceError, sync};
use crate::wire::admin::{
    FilterChange, FilterSide, SyncConfirm, SyncItem, SyncItemResult, SyncOutcome, SyncPending,
    SyncPhase, SyncReport, SyncRun, SyncState, TiersPreview,
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
/// The field that says where a tier's machines go begins so.
const MOVE: &str = "move-";

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/intake/sync", post(trigger))
        .route("/console/intake/confirm", get(look).post(confirm))
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

/// That something waits for a person, and the way to decide.
pub(super) fn waits(pending: &SyncPending, may_act: bool) -> Markup {
    html! {
        div.notice data-alarm="a decision on sync waits" {
            p {
                strong { "Sync waits for a decision. " }
                @if let Some(shrink) = &pending.shrink {
                    "Upstream does not have " (number(shrink.gone)) " of " (number(shrink.before)) " payloads any more. "
                }
                @if let Some(tiers) = &pending.tiers {
                    "Tiers and promotions would become upstream's: " (number(tiers.removed.len() as u64)) " tiers and "
                    (number(tiers.promotions_removed)) " promotions go. "
                }
                @if pending.confirmed { "It was confirmed; the next run goes on." }
            }
            @if may_act && !pending.confirmed {
                p { a.button href={ (BASE) "/intake/confirm" } { "Look at it and decide" } }
            }
        }
    }
}

/// What waits, in words with numbers.
fn in_words(pending: &SyncPending) -> Markup {
    html! {
        @if let Some(shrink) = &pending.shrink {
            p {
                "Upstream does not have " (number(shrink.gone)) " of " (number(shrink.before)) " payloads any more, or has them "
                "with another content. That is more than the " (shrink.limit) " % that patch-sync.max-shrink allows. "
                "Once confirmed they are held here: nobody is offered them anew, and none is deleted."
            }
            (names(&shrink.names, shrink.gone))
        }
        @if let Some(tiers) = &pending.tiers {
            (tiers_in_words(tiers))
        }
    }
}

fn tiers_in_words(tiers: &TiersPreview) -> Markup {
    let list = |names: &[TierName]| {
        let names: Vec<&str> = names.iter().map(TierName::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let rows: Vec<Vec<Markup>> = tiers
        .removed
        .iter()
        .map(|gone| {
            vec![
                html! { (gone.name) },
                html! { a href={ (BASE) "/machines?tier=" (gone.name) } { (number(gone.machines)) } },
                html! { (number(gone.auth_tokens)) },
                html! { (number(gone.sync_tokens)) },
            ]
        })
        .collect();
    let promotions: Vec<String> = tiers
        .promotions
        .iter()
        .map(|gone| format!("{} in {}", gone.version, gone.tier))
        .collect();
    html! {
        p { "Tiers and promotions become upstream's." }
        (facts(&[
            ("Tiers afterwards, first to last", html! { (list(&tiers.tiers)) }),
            ("New tiers", html! { (list(&tiers.added)) }),
            ("Promotions that come", html! { (number(tiers.promotions_added)) }),
            ("Promotions that go", html! { (number(tiers.promotions_removed)) }),
        ]))
        (table("Tiers that go", &["Tier that goes", "Machines", "Auth tokens", "Sync tokens"], &rows, "No tier goes."))
        (names(&promotions, tiers.promotions_removed))
    }
}

/// Some names, and how many more there are.
fn names(names: &[String], all: u64) -> Markup {
    let left_out = all.saturating_sub(names.len() as u64);
    html! {
        @if !names.is_empty() {
            ul {
                @for name in names { li { code { (name) } } }
                @if left_out > 0 { li.quiet { "and " (number(left_out)) " more" } }
            }
        }
    }
}

async fn look(State(core): State<Arc<Core>>, visitor: Visitor) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let status = sync::status(&core).await?;
    let content = html! {
        h1 { "What sync waits for" }
        @match status.pending.as_ref().map(|pending| (pending, pending.digest)) {
            None => p { "Nothing waits to be confirmed." },
            Some((pending, digest)) => {
                p { "From " (status.upstream) "." }
                (in_words(pending))
                @if pending.confirmed {
                    p.notice { "This was confirmed; the next run goes on." }
                } @else if let Some(digest) = digest {
                    (agree(&visitor, pending, digest))
                }
            },
        }
        p { a href={ (BASE) "/intake" } { "Back to intake, nothing is changed" } }
    };
    Ok(page(&visitor, "What sync waits for", "/intake", content))
}

/// The form that confirms, with a place for those whose tier goes.
fn agree(visitor: &Visitor, pending: &SyncPending, digest: Sha256) -> Markup {
    let tiers = pending.tiers.as_ref();
    let used: Vec<&TierName> = tiers
        .into_iter()
        .flat_map(|tiers| tiers.removed.iter().filter(|gone| gone.is_used()))
        .map(|gone| &gone.name)
        .collect();
    let stay = tiers.map_or(&[][..], |tiers| &tiers.tiers);
    let moves: Vec<String> = used
        .iter()
        .map(|name| format!("--move {name}=TIER"))
        .collect();
    let words = ["sync confirm".to_owned()].into_iter().chain(moves);
    let words: Vec<String> = words.collect();
    html! {
        h2 { "Confirm" }
        p { "This confirms exactly what is shown here, and asks for a run. If upstream has changed when that run looks, it waits again." }
        form.stacked method="post" action={ (BASE) "/intake/confirm" } {
            (visitor.token())
            input type="hidden" name="digest" value=(digest);
            @for (at, gone) in used.iter().enumerate() {
                label for={ "move-" (at) } { "Machines and tokens of " (gone) " go to" }
                select id={ "move-" (at) } name={ (MOVE) (gone) } required {
                    option value="" { "choose" }
                    @for tier in stay { option value=(tier) { (tier) } }
                }
            }
            button.bad type="submit" { "Confirm" }
        }
        (command(&words.join(" ")))
    }
}

/// Reads the form of [`agree`], whose fields depend on which tiers go.
fn confirmation(form: &BTreeMap<String, String>) -> Result<SyncConfirm, ParseError> {
    let digest = form.get("digest").map(String::as_str).unwrap_or_default();
    let moves = form.iter().filter_map(|(field, to)| {
        let from = field.strip_prefix(MOVE)?;
        (!to.is_empty()).then_some((from, to))
    });
    let moves: Result<BTreeMap<TierName, TierName>, ParseError> = moves
        .map(|(from, to)| Ok((from.parse()?, to.parse()?)))
        .collect();
    Ok(SyncConfirm {
        digest: digest.parse()?,
        r#move: moves?,
    })
}

async fn confirm(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<BTreeMap<String, String>>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let request = confirmation(&form).map_err(ServiceError::from)?;
    sync::confirm(&core, &visitor.caller.actor(), &request).await?;
    Ok(back("/intake", "confirmed"))
}

/// A number that a path names.
pub(super) fn numbered(what: &'static str, text: &str) -> Result<i64, PageError> {
    text.parse()
        .map_err(|_| PageError::from(ServiceError::not_found(what, Cut(text))))
}

/// The beginning of a text that may be long.
struct Cut<'t>(&'t str);

impl std::fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().take(40).try_for_each(|c| write!(f, "{c}"))
    }
}

async fn show(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let id = numbered("run of sync", &id)?;
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

    fn form(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        let fields = fields.iter();
        fields
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_confirmation_names_where_tiers_go() {
        let digest = Sha256::of(b"x").to_string();
        let given = form(&[
            ("proof", "p"),
            ("digest", &digest),
            ("move-beta", "candidate"),
            ("move-old", ""),
        ]);
        let request = confirmation(&given).unwrap();
        assert_eq!(request.digest, Sha256::of(b"x"));
        let moves: Vec<_> = request.r#move.iter().collect();
        assert_eq!(moves.len(), 1);
        assert_eq!(
            (moves[0].0.as_str(), moves[0].1.as_str()),
            ("beta", "candidate")
        );
        assert!(confirmation(&form(&[])).is_err());
        assert!(confirmation(&form(&[("digest", &digest), ("move-A", "b")])).is_err());
    }

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
