//! Jobs on the storage: taking in what lies there, comparing it with its hashes, removing what nobody needs.

use super::BASE;
use super::error::{PageError, named};
use super::forms::{back, command};
use super::intake::{first, held_in_all};
use super::page::{bytes, number, or_none, page, time};
use super::runs::From;
use super::session::{Posted, Visitor};
use super::tables::{facts, more, table};
use crate::domain::Role;
use crate::service::jobs::{self, Work};
use crate::service::{Core, ServiceError};
use crate::wire::admin::{Job, JobItemResult, JobState, PruneRequest, RefreshRequest};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

/// Jobs on one page.
const ROWS: u32 = 25;
/// Items of a job that its page names.
const ITEMS: usize = 200;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/intake/jobs", get(all))
        .route("/console/intake/jobs/{id}", get(show))
        .route("/console/intake/jobs/start/{kind}", get(look).post(start))
}

/// What can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Refresh,
    Verify,
    Prune,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Refresh, Self::Verify, Self::Prune];

    const fn word(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Verify => "verify",
            Self::Prune => "prune",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Refresh => "Take in what lies in the storage",
            Self::Verify => "Compare the storage with its hashes",
            Self::Prune => "Remove what no filter admits",
        }
    }

    fn read(text: &str) -> Result<Self, PageError> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.ok_or_else(|| {
            let name: String = text.chars().take(40).collect();
            ServiceError::not_found("job of the kind", name).into()
        })
    }

    /// Whether it can say what it would do without doing it.
    fn can_look(self) -> bool {
        self != Self::Verify
    }
}

async fn all(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(from): Query<From>,
) -> Result<Html<String>, PageError> {
    let found = jobs::list(&core, &first(ROWS, from.cursor)).await?;
    let content = html! {
        h1 { "Jobs on the storage" }
        (list(&found.items))
        (more("/intake/jobs", &[], found.next_cursor.as_deref()))
        (command("job list"))
    };
    Ok(page(&visitor, "Jobs on the storage", "/intake", content))
}

/// A table of jobs.
pub(super) fn list(jobs: &[Job]) -> Markup {
    let rows: Vec<Vec<Markup>> = jobs
        .iter()
        .map(|job| {
            vec![
                html! { a href={ (BASE) "/intake/jobs/" (job.id) } { "Job " (job.id) } },
                html! { (job.kind) },
                state_tag(job.state),
                html! { (done(job)) },
                counts(job),
                html! { (job.actor) },
                time(Some(job.started_at)),
                time(job.finished_at),
            ]
        })
        .collect();
    let head = [
        "Job", "Kind", "State", "Done", "Results", "By", "Started", "Ended",
    ];
    table(
        "Jobs, newest first",
        &head,
        &rows,
        "No job was started yet.",
    )
}

/// The ways to start one.
pub(super) fn starts() -> Markup {
    html! {
        div.acts {
            @for kind in Kind::ALL {
                a.button.plain href={ (BASE) "/intake/jobs/start/" (kind.word()) } { (kind.title()) }
            }
        }
    }
}

fn state_tag(state: JobState) -> Markup {
    let (class, word) = match state {
        JobState::Running => ("wait", "running"),
        JobState::Done => ("good", "done"),
        JobState::Failed => ("bad", "failed"),
    };
    html! { span class={ "tag " (class) } { (word) } }
}

fn done(job: &Job) -> String {
    let progress = &job.progress;
    match progress.total {
        Some(total) => format!("{} of {}", number(progress.done), number(total)),
        None => number(progress.done),
    }
}

const fn result_word(result: JobItemResult) -> &'static str {
    match result {
        JobItemResult::Stored => "stored",
        JobItemResult::AlreadyThere => "already there",
        JobItemResult::Quarantined => "quarantined",
        JobItemResult::Ignored => "ignored",
        JobItemResult::Verified => "verified",
        JobItemResult::Damaged => "damaged",
        JobItemResult::Missing => "missing",
        JobItemResult::Repaired => "repaired",
        JobItemResult::Pruned => "pruned",
        JobItemResult::Kept => "kept",
        JobItemResult::Failed => "failed",
    }
}

fn counts(job: &Job) -> Markup {
    html! {
        @if job.progress.counts.is_empty() { (or_none(None)) }
        @for (at, (result, count)) in job.progress.counts.iter().enumerate() {
            @if at > 0 { ", " }
            (number(*count)) " " (result_word(*result))
        }
    }
}

async fn show(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let job = jobs::show(&core, named("job", &id)?).await?;
    let content = html! {
        h1 { "Job " (job.id) }
        @if job.state == JobState::Running {
            (progress(&job))
        }
        @if let Some(error) = &job.error {
            p.problem { (error) }
        }
        (facts(&[
            ("Kind", html! { (job.kind) }),
            ("State", state_tag(job.state)),
            ("Done", html! { (done(&job)) }),
            ("Read", html! { (bytes(job.progress.bytes)) }),
            ("Results", counts(&job)),
            ("Asked for by", html! { (job.actor) }),
            ("Started", time(Some(job.started_at))),
            ("Ended", time(job.finished_at)),
        ]))
        h2 { "Items worth a look" }
        (items(&job))
        (command(&format!("job show {}", job.id)))
        p { a href={ (BASE) "/intake/jobs" } { "All jobs" } }
    };
    Ok(page(
        &visitor,
        &format!("Job {}", job.id),
        "/intake",
        content,
    ))
}

fn progress(job: &Job) -> Markup {
    let total = job.progress.total.filter(|total| *total > 0);
    let words = done(job);
    html! {
        p { "At work: " (words) "." }
        progress aria-label={ "Job " (job.id) } value=[total.map(|total| job.progress.done.min(total))] max=[total] { (words) }
    }
}

fn items(job: &Job) -> Markup {
    let rows: Vec<Vec<Markup>> = job
        .results
        .iter()
        .take(ITEMS)
        .map(|item| {
            let class = if item.result.is_bad() { "bad" } else { "idle" };
            vec![
                html! { code { (item.item) } },
                html! { span class={ "tag " (class) } { (result_word(item.result)) } },
                html! {
                    @match item.quarantine_id {
                        Some(id) => a href={ (BASE) "/intake/quarantine/" (id) } { "file " (id) },
                        None => (or_none(None)),
                    }
                },
                or_none(item.reason.as_deref()),
            ]
        })
        .collect();
    let left_out = job.results_left_out + (job.results.len() - rows.len()) as u64;
    html! {
        (table("Items of this job", &["Item", "Result", "Quarantine", "Why"], &rows, "None is worth naming."))
        @if left_out > 0 { p.quiet { (number(left_out)) " more are not named here." } }
    }
}

async fn look(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(kind): Path<String>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let kind = Kind::read(&kind)?;
    let content = html! {
        h1 { (kind.title()) }
        (means(&core, kind))
        p { "One job runs at a time. If the server stops meanwhile, what is done stays done, and the job can be started again." }
        @if kind.can_look() {
            h2 { "Look first" }
            p { "A dry run changes nothing; the job's page then says what would be done." }
            form.stacked method="post" action={ (BASE) "/intake/jobs/start/" (kind.word()) } {
                (visitor.token())
                input type="hidden" name="look" value="yes";
                button.plain type="submit" { "Start a dry run" }
            }
            (command(&format!("storage {} --dry-run", kind.word())))
        }
        h2 { "Do it" }
        form.stacked method="post" action={ (BASE) "/intake/jobs/start/" (kind.word()) } {
            (visitor.token())
            @if kind == Kind::Refresh {
                div {
                    input #remove type="checkbox" name="remove" value="yes";
                    " "
                    label for="remove" { "Remove a found file once its content is stored or quarantined" }
                }
            }
            button.bad[kind == Kind::Prune] type="submit" { (kind.title()) }
        }
        (command(&format!("storage {}", kind.word())))
        p { a href={ (BASE) "/intake" } { "Back to intake, nothing is changed" } }
    };
    Ok(page(&visitor, kind.title(), "/intake", content))
}

/// What a job means, in words with numbers where there are any.
fn means(core: &Core, kind: Kind) -> Markup {
    let snapshot = core.snapshots.get_full();
    let all = held_in_all(&snapshot.catalog);
    html! {
        @match kind {
            Kind::Refresh => p {
                "Looks for tarballs that were put into the storage by hand, outside the server's own folders. Each that is new is "
                "examined as any upload is: it is stored, or it is in quarantine afterwards. " (number(all.payloads))
                " payloads are known now."
            },
            Kind::Verify => p {
                "Reads all " (number(all.payloads)) " payloads, " (bytes(all.bytes)) ", and compares each with its hash. What is damaged "
                "or missing is not offered any more; what is whole again is. " (number(all.damaged)) " are known to be damaged now."
            },
            Kind::Prune => p.notice {
                "Deletes the payloads that the filters of sync do not admit, out of " (number(all.payloads)) " with " (bytes(all.bytes))
                ". Kept is whatever is for a kernel that any machine has ever reported. What is deleted has to be fetched or uploaded again."
            },
        }
    }
}

#[derive(Debug, Deserialize)]
struct Start {
    /// Only say what would be done.
    look: Option<String>,
    /// With refresh: remove what was found.
    remove: Option<String>,
}

fn work(kind: Kind, form: &Start) -> Work {
    let dry_run = form.look.is_some();
    match kind {
        Kind::Refresh => Work::Refresh(RefreshRequest {
            remove_originals: form.remove.is_some(),
            dry_run,
        }),
        Kind::Verify => Work::Verify,
        Kind::Prune => Work::Prune(PruneRequest { dry_run }),
    }
}

async fn start(
    State(core): State<Arc<Core>>,
    Path(kind): Path<String>,
    Posted { visitor, form }: Posted<Start>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let work = work(Kind::read(&kind)?, &form);
    let job = jobs::start(&core, &visitor.caller.actor(), work).await?;
    Ok(back(&format!("/intake/jobs/{}", job.id), "begun"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_one() {
        let form = |look: bool, remove: bool| Start {
            look: look.then(|| "yes".to_owned()),
            remove: remove.then(|| "yes".to_owned()),
        };
        assert!(matches!(
            work(Kind::Prune, &form(true, false)),
            Work::Prune(PruneRequest { dry_run: true })
        ));
        assert!(matches!(
            work(Kind::Prune, &form(false, false)),
            Work::Prune(PruneRequest { dry_run: false })
        ));
        assert!(matches!(
            work(Kind::Refresh, &form(false, true)),
            Work::Refresh(RefreshRequest {
                remove_originals: true,
                dry_run: false
            })
        ));
        assert!(matches!(
            work(Kind::Verify, &form(false, false)),
            Work::Verify
        ));
    }

    #[test]
    fn kinds_are_known_by_their_words() {
        for kind in Kind::ALL {
            assert_eq!(Kind::read(kind.word()).unwrap(), kind);
        }
        assert!(Kind::read("format").is_err());
    }
}
