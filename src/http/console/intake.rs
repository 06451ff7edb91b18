//! Intake at a glance: how sync stands and what waits, what is in quarantine, jobs, what the storage holds, and what was carried.

use super::error::PageError;
use super::forms::{button, command};
use super::page::{ago, bytes, may_act, number, or_none, page, time};
use super::session::Visitor;
use super::tables::{facts, table};
use super::{BASE, jobs, pending, quarantine, runs};
use crate::rollout::{Catalog, Standing};
use crate::service::{Core, audit, jobs as work, quarantine as held, sync};
use crate::wire::admin::{
    AuditEntry, AuditQuery, Limit, PageQuery, SyncFilter, SyncRun, SyncState, SyncStatus,
};
use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use jiff::Timestamp;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lines of each list.
const LINES: usize = 8;
/// Runs among which imports are looked for.
const RUNS: u32 = 100;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/intake", get(intake))
        .merge(runs::routes())
        .merge(pending::routes())
        .merge(quarantine::routes())
        .merge(jobs::routes())
}

/// The first lines of a list, by page.
pub(super) fn first(lines: u32, cursor: Option<String>) -> PageQuery {
    PageQuery {
        cursor: cursor.filter(|cursor| !cursor.is_empty()),
        limit: Limit::try_from(lines).ok(),
    }
}

async fn intake(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
) -> Result<Html<String>, PageError> {
    let lines = LINES as u32;
    let status = sync::status(&core).await?;
    let recent = sync::reports(&core, &first(RUNS, None)).await?;
    let held = held::list(&core, &first(lines, None)).await?;
    let work = work::list(&core, &first(lines, None)).await?;
    let carried = AuditQuery {
        action: Some("archive".to_owned()),
        limit: Limit::try_from(lines).ok(),
        ..AuditQuery::default()
    };
    let carried = audit::list(&core, &carried).await?;
    let snapshot = core.snapshots.get_full();
    let acts = may_act(&visitor);
    let shown: Vec<&SyncRun> = recent.items.iter().take(LINES).collect();
    let imports: Vec<&SyncRun> = recent
        .items
        .iter()
        .filter(|run| run.cause == "import")
        .take(LINES)
        .collect();
    let content = html! {
        h1 { "Intake" }
        @if let Some(waiting) = &status.pending {
            (pending::waits(waiting, acts))
        }
        h2 { "Sync" }
        (state(&status))
        @if acts && status.enabled {
            (button(&visitor, "/intake/sync", &[], "Sync now"))
            p.quiet { "Asks for a run; the leader takes it up within a second. If one is queued or at work, that one is meant." }
            (command("sync trigger"))
        }
        h2 { "Runs of sync" }
        (runs::list(&shown))
        p { a href={ (BASE) "/intake/runs" } { "All runs" } }
        h2 { "Quarantine" }
        (quarantine::list(&held.items))
        @if held.next_cursor.is_some() {
            p { a href={ (BASE) "/intake/quarantine" } { "All that is in quarantine" } }
        }
        h2 { "Jobs on the storage" }
        @if acts { (jobs::starts()) }
        (jobs::list(&work.items))
        @if work.next_cursor.is_some() {
            p { a href={ (BASE) "/intake/jobs" } { "All jobs" } }
        }
        h2 { "Storage" }
        (storage(&snapshot.catalog))
        h2 { "Bring patches by hand" }
        p { "Files keep Canonical's names. What fails the checks is in quarantine afterwards." }
        (command("patch upload livepatch-*.tar.bz2"))
        h2 { "Sites without network" }
        (carriage(&carried.items, &imports))
    };
    Ok(page(&visitor, "Intake", "/intake", content))
}

fn state(status: &SyncStatus) -> Markup {
    let now = Timestamp::now();
    let leader = html! {
        @match &status.leader {
            Some(leader) => {
                (leader.holder) span.quiet { ", term " (leader.epoch) ", there " (ago(leader.renewed_at, now)) }
            },
            None => (or_none(None)),
        }
    };
    let succeeded = html! {
        (time(status.succeeded_at))
        @if let Some(at) = status.succeeded_at { ", " (ago(at, now)) }
    };
    let next = html! {
        @match status.next_run {
            Some(at) => { (time(Some(at))) ", " (ago(at, now)) },
            None => (or_none(None)),
        }
    };
    let tiers = if status.sync_tiers {
        "upstream's"
    } else {
        "set here"
    };
    let mut known = vec![
        (
            "Switched",
            html! {
                @if status.enabled { span.tag.good { "on" } } @else { span.tag.idle { "off" } }
            },
        ),
        ("Comes by", html! { (status.driver) }),
        ("From", or_none(Some(&status.upstream))),
        ("Last came to its end", succeeded),
        ("Next run", next),
        ("Leader", leader),
        ("Tiers and promotions", html! { (tiers) }),
        ("Takes in", filter(&status.filter)),
    ];
    if let Some(index) = &status.index {
        known.push((
            "Index believed last",
            html! {
                "version " (index.version) " of tier " (index.tier) ", signed " (time(Some(index.issued_at)))
            },
        ));
    }
    html! {
        @if let Some(run) = &status.running {
            (runs::progress(run))
        }
        @if let Some(error) = failure(status) {
            p.problem data-alarm="the last run of sync did not come to its end" { "The last run did not come to its end: " (error) }
        }
        (facts(&known))
    }
}

/// Why the last run gave up, if it did. One that waits for a person is told of by what waits.
fn failure(status: &SyncStatus) -> Option<&str> {
    let last = status.last.as_ref()?;
    let error = last.error.as_deref()?;
    (last.state == SyncState::Failed).then_some(error)
}

/// The filters of intake in words.
fn filter(filter: &SyncFilter) -> Markup {
    let mut words = Vec::new();
    for (name, list) in [
        ("architectures", &filter.architectures),
        ("flavours", &filter.flavors),
        ("kernels that begin with", &filter.kernel_prefixes),
    ] {
        if !list.is_empty() {
            words.push(format!("{name} {}", list.join(", ")));
        }
    }
    if !filter.minimum_kernel_version.is_empty() {
        words.push(format!("kernels from {} on", filter.minimum_kernel_version));
    }
    if let Some(kernels) = filter.our_kernels {
        words.push(format!(
            "{} kernels that machines have reported",
            number(kernels)
        ));
    }
    html! {
        @if words.is_empty() { "everything" } @else { (words.join("; ")) }
    }
}

/// Payloads and their bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) payloads: u64,
    pub(super) bytes: u64,
    pub(super) damaged: u64,
}

impl Held {
    fn add(&mut self, size: u64, damaged: bool) {
        self.payloads += 1;
        self.bytes += size;
        self.damaged += u64::from(damaged);
    }
}

/// What the storage holds in all.
pub(super) fn held_in_all(catalog: &Catalog) -> Held {
    let mut all = Held::default();
    for payload in catalog.payloads() {
        all.add(payload.size, payload.standing == Standing::Damaged);
    }
    all
}

fn storage(catalog: &Catalog) -> Markup {
    let mut patches = BTreeMap::<_, Held>::new();
    for payload in catalog.payloads() {
        let patch = patches.entry(payload.version).or_default();
        patch.add(payload.size, payload.standing == Standing::Damaged);
    }
    let all = held_in_all(catalog);
    let rows: Vec<Vec<Markup>> = patches
        .iter()
        .rev()
        .take(LINES)
        .map(|(version, held)| {
            vec![
                html! { a href={ (BASE) "/patches/" (version) } { (version) } },
                html! { (number(held.payloads)) },
                html! { (bytes(held.bytes)) },
                damaged(held.damaged),
            ]
        })
        .collect();
    html! {
        (facts(&[
            ("Patches", html! { a href=(BASE) { (number(patches.len() as u64)) } }),
            ("Payloads", html! { a href=(BASE) { (number(all.payloads)) } }),
            ("Size", html! { (bytes(all.bytes)) }),
            ("Damaged", damaged(all.damaged)),
        ]))
        (table("What the newest patches hold", &["Patch", "Payloads", "Size", "Damaged"], &rows, "There are no payloads yet."))
    }
}

fn damaged(payloads: u64) -> Markup {
    html! {
        @if payloads == 0 { "none" } @else { span.tag.bad { (number(payloads)) " damaged" } }
    }
}

/// What was carried out and in, and the commands that do.
fn carriage(carried: &[AuditEntry], imports: &[&SyncRun]) -> Markup {
    let rows: Vec<Vec<Markup>> = carried
        .iter()
        .map(|entry| {
            vec![
                time(Some(entry.at)),
                html! { (carried_how(&entry.action)) },
                html! { (entry.target) },
                html! { (entry.actor) },
                html! { (said_of(&entry.details)) },
            ]
        })
        .collect();
    html! {
        (table("Archives, newest first", &["When", "What", "Version", "Who", "Details"], &rows, "No archive was made here."))
        @if !imports.is_empty() {
            h3 { "Imports among the last runs" }
            (runs::list(imports))
        }
        p.command { "Carry out: " code { "livepatch-server export -o /media/stick/ --volume-size 4000MiB" } }
        p.command { "Look at what was carried in: " code { "livepatch-server import --dry-run /media/stick/" } }
        p.command { "Take it in: " code { "livepatch-server import /media/stick/" } }
    }
}

fn carried_how(action: &str) -> &str {
    match action {
        "archive.export" => "carried out",
        "archive.accept-old" => "taken in though old",
        other => other,
    }
}

/// The few things of an entry that are worth a look here; the audit log has all.
fn said_of(details: &str) -> String {
    let Ok(details) = serde_json::from_str::<serde_json::Value>(details) else {
        return String::new();
    };
    let mut words = Vec::new();
    if let Some(tier) = details.get("tier").and_then(|v| v.as_str()) {
        words.push(format!("tier {tier}"));
    }
    if let Some(since) = details.get("since").and_then(serde_json::Value::as_u64) {
        words.push(format!("since {since}"));
    }
    if let Some(payloads) = details.get("payloads").and_then(serde_json::Value::as_u64) {
        words.push(format!("{} payloads", number(payloads)));
    }
    if let Some(size) = details.get("bytes").and_then(serde_json::Value::as_u64) {
        words.push(bytes(size));
    }
    if let Some(reason) = details.get("reason").and_then(|v| v.as_str()) {
        words.push(reason.to_owned());
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_is_told_in_few_words() {
        let details = r#"{"tier":"stable","since":7,"payloads":1200,"bytes":2048,"volumes":1}"#;
        assert_eq!(
            said_of(details),
            "tier stable, since 7, 1\u{202f}200 payloads, 2.0 KiB"
        );
        assert_eq!(said_of(r#"{"since":null,"reason":"late"}"#), "late");
        assert_eq!(said_of("not JSON"), "");
    }

    #[test]
    fn filters_are_told_in_words() {
        let all = SyncFilter::default();
        assert_eq!(filter(&all).into_string(), "everything");
        let some = SyncFilter {
            flavors: vec!["aws".to_owned(), "<b>".to_owned()],
            minimum_kernel_version: "5.15".to_owned(),
            ..all
        };
        assert_eq!(
            filter(&some).into_string(),
            "flavours aws, &lt;b&gt;; kernels from 5.15 on"
        );
    }
}
