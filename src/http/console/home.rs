//! The landing page: how the fleet stands, and which patch is where.

use super::bars::{Part, bar};
use super::error::PageError;
use super::forms::address;
use super::page::{ago, number, page};
use super::patch_parts::{Counts, to_machines};
use super::session::Visitor;
use super::{BASE, forms};
use crate::domain::{Fate, MachineState, PatchVersion, States, TierName};
use crate::service::census::{self, Census};
use crate::service::rollouts::show;
use crate::service::{Core, coverage, health, patches, sync};
use crate::wire::admin::{
    BlockKind, CoverageCounts, Limit, PageQuery, Patch, RolloutEntry, RolloutQuery, SyncStatus,
    WireScope,
};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Html;
use axum::routing::get;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Patches on one page.
const ROWS: u32 = 25;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/console", get(home))
}

/// A tier, with the machines that were counted in it.
#[derive(Debug)]
struct Column {
    id: i32,
    name: TierName,
    machines: u64,
}

fn columns(core: &Core, census: &Census) -> Vec<Column> {
    let snapshot = core.snapshots.get_full();
    let machines = |id: i32| {
        let rows = census.rows.iter().filter(|row| row.tier_id == id);
        rows.map(|row| row.machines).sum()
    };
    snapshot
        .catalog
        .tiers()
        .iter()
        .map(|tier| Column {
            id: tier.id,
            name: tier.name.clone(),
            machines: machines(tier.id),
        })
        .collect()
}

/// Machines that speak of a patch, by patch and tier.
fn speaking(census: &Census) -> HashMap<(PatchVersion, i32), Counts> {
    let mut found: HashMap<(PatchVersion, i32), Counts> = HashMap::new();
    for row in &census.rows {
        let offered = row.offered.filter(|offered| Some(*offered) != row.patch);
        for version in row.patch.into_iter().chain(offered) {
            let counts = found.entry((version, row.tier_id)).or_default();
            counts.add(version, row);
        }
    }
    found
}

/// The machines of each tier by what they report.
pub(super) fn by_state(census: &Census) -> HashMap<i32, [Part; 4]> {
    let mut found: HashMap<i32, [u64; 4]> = HashMap::new();
    for row in &census.rows {
        let counts = found.entry(row.tier_id).or_default();
        let heard = row.machines.saturating_sub(row.silent);
        counts[3] += row.silent;
        let place = match row.state {
            MachineState::Applied | MachineState::NothingToApply => 0,
            state if state.is_failure() => 1,
            _ => 2,
        };
        counts[place] += heard;
    }
    let parts = |[good, bad, idle, lost]: [u64; 4]| {
        [
            Part {
                class: "good",
                name: "up to date or nothing to apply",
                count: good,
            },
            Part {
                class: "bad",
                name: "failed",
                count: bad,
            },
            Part {
                class: "idle",
                name: "in another state",
                count: idle,
            },
            Part {
                class: "lost",
                name: "silent",
                count: lost,
            },
        ]
    };
    found
        .into_iter()
        .map(|(tier, counts)| (tier, parts(counts)))
        .collect()
}

#[derive(Debug, Deserialize)]
struct HomeQuery {
    cursor: Option<String>,
}

async fn home(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(query): Query<HomeQuery>,
) -> Result<Html<String>, PageError> {
    let wanted = PageQuery {
        cursor: query.cursor,
        limit: Some(Limit::try_from(ROWS).unwrap_or_default()),
    };
    let every = RolloutQuery {
        all: true,
        ..RolloutQuery::default()
    };
    // None of these waits for another.
    let (found, rollouts, census, sync, (well, _)) = tokio::try_join!(
        patches::list(&core, &wanted),
        show::list(&core, &every),
        census::current(&core),
        sync::status(&core),
        async { Ok(health::status(&core).await) },
    )?;
    let columns = columns(&core, &census);
    let covered = coverage::total(&core, &census);
    let content = html! {
        h1 { "Patches by tier" }
        (cards(&covered, &rollouts, &sync, well))
        (matrix(&core, &found.items, &columns, &rollouts, &census))
        (super::tables::more("", &[], found.next_cursor.as_deref()))
    };
    Ok(page(&visitor, "Patches by tier", "", content))
}

fn cards(
    total: &CoverageCounts,
    rollouts: &[RolloutEntry],
    sync: &SyncStatus,
    well: bool,
) -> Markup {
    let count = |state: &str| {
        rollouts
            .iter()
            .filter(|rollout| rollout.state == state)
            .count()
    };
    let (halted, waiting) = (count("halted"), count("awaiting-approval"));
    let now = Timestamp::now();
    let failed = sync.last.as_ref().is_some_and(|run| run.error.is_some());
    let failures = States::those(MachineState::is_failure).to_string();
    let alarm = (halted > 0).then(|| format!("{halted} halted"));
    html! {
        ul.cards data-alarm=[alarm] {
            li {
                span.figure { a href={ (BASE) "/machines" } { (format!("{:.1} %", total.ratio * 100.0)) } }
                "covered, of " (number(total.machines)) " machines"
            }
            li.wait[total.behind > 0] {
                span.figure { (number(total.behind)) }
                "behind"
            }
            li.bad[total.failed > 0] {
                span.figure { a href=(address("/machines", &[("state", Some(failures))])) { (number(total.failed)) } }
                "failed"
            }
            li.bad[total.silent > 0] {
                span.figure { a href={ (BASE) "/machines?seen=silent" } { (number(total.silent)) } }
                "silent"
            }
            li.bad[halted > 0] {
                span.figure { a href={ (BASE) "/rollouts" } { (halted) } }
                "rollouts halted"
                @if waiting > 0 { ", " (waiting) " to approve" }
            }
            li.bad[failed] {
                span.figure {
                    a href={ (BASE) "/intake" } {
                        @match sync.succeeded_at {
                            Some(at) => (ago(at, now)),
                            None => "never",
                        }
                    }
                }
                @if sync.enabled { "last sync" } @else { "last sync; switched off" }
                @if sync.running.is_some() { ", one runs" }
            }
            li class=(if well { "good" } else { "bad" }) {
                span.figure { @if well { "well" } @else { "not well" } }
                "server, database, storage"
            }
        }
    }
}

fn matrix(
    core: &Core,
    rows: &[Patch],
    columns: &[Column],
    rollouts: &[RolloutEntry],
    census: &Census,
) -> Markup {
    if rows.is_empty() {
        return html! {
            p { "There are no patches yet." }
            (forms::command("patch upload livepatch-*.tar.bz2"))
        };
    }
    let speaking = speaking(census);
    let cves = cves(core, rows);
    let states = by_state(census);
    html! {
        ul.legend aria-hidden="true" {
            @for (class, name) in [("good", "applied"), ("bad", "failed"), ("wait", "offered"), ("idle", "other"), ("lost", "silent")] {
                li { svg viewBox="0 0 10 10" { rect class=(class) width="10" height="10" {} } (name) }
            }
        }
        div.scroll tabindex="0" role="region" aria-label="Patches by tier" {
            table.matrix {
                caption.unseen { "Patches, newest first, and how far each has come in every tier" }
                thead {
                    tr {
                        th scope="col" { "Patch" }
                        @for tier in columns {
                            th scope="col" {
                                (tier.name) " "
                                a href=(address("/machines", &[("tier", Some(tier.name.to_string()))])) {
                                    (number(tier.machines)) " machines"
                                }
                                @if let Some(parts) = states.get(&tier.id) {
                                    (bar(parts))
                                }
                            }
                        }
                    }
                }
                tbody {
                    @for patch in rows {
                        tr {
                            th scope="row" {
                                a href={ (BASE) "/patches/" (patch.version) } { (patch.version) }
                                                                small {
                                    a href=(notice_address(&patch.notice)) rel="noreferrer" { (patch.notice) }
                                    " · " (counted_things(cves.get(&patch.version).copied().unwrap_or(0), "CVE"))
                                    " · " (counted_things(patch.kernels, "kernel"))
                                    @if patch.damaged > 0 { " · " (patch.damaged) " damaged" }
                                }
                            }
                            @for (position, tier) in columns.iter().enumerate() {
                                td {
                                    (cell(patch, tier, columns, position, rollouts))
                                    @if let Some(counts) = speaking.get(&(patch.version, tier.id)) {
                                        (counted(patch.version, &tier.name, *counts))
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where a security notice can be read.
pub(super) fn notice_address(notice: &str) -> String {
    format!("https://ubuntu.com/security/notices/{notice}")
}

/// How many there are of a thing, in words.
pub(super) fn counted_things(count: u64, thing: &str) -> String {
    let many = if count == 1 { "" } else { "s" };
    format!("{} {thing}{many}", number(count))
}

/// How many vulnerabilities each of these patches mends.
fn cves(core: &Core, rows: &[Patch]) -> HashMap<PatchVersion, u64> {
    let snapshot = core.snapshots.get_full();
    let shown: HashSet<PatchVersion> = rows.iter().map(|patch| patch.version).collect();
    let mut found: HashMap<PatchVersion, HashSet<&str>> = HashMap::new();
    let payloads = snapshot.catalog.payloads().iter();
    for payload in payloads.filter(|payload| shown.contains(&payload.version)) {
        let names = payload.fixes.iter().map(|fix| fix.name.as_str());
        let known = found.entry(payload.version).or_default();
        known.extend(names.filter(|name| name.starts_with("CVE-")));
    }
    let count = |(version, names): (PatchVersion, HashSet<&str>)| (version, names.len() as u64);
    found.into_iter().map(count).collect()
}

fn counted(version: PatchVersion, tier: &TierName, counts: Counts) -> Markup {
    let to = |fate| to_machines(tier, version, fate);
    html! {
        span.cell {
            a href=(to(Fate::Applied)) { (number(counts.applied)) " applied" }
            @if counts.failed > 0 { ", " a href=(to(Fate::Failed)) { (number(counts.failed)) " failed" } }
            @if counts.waiting > 0 { ", " a href=(to(Fate::Waiting)) { (number(counts.waiting)) " waiting" } }
        }
        (bar(&counts.parts()))
    }
}

/// What stands in the way of a patch as a whole.
pub(super) fn stopped(patch: &Patch) -> Option<BlockKind> {
    let mut kinds = patch
        .blocks
        .iter()
        .filter(|block| block.scope == WireScope::default())
        .map(|block| block.kind);
    let first = kinds.next()?;
    Some(
        if first == BlockKind::Block || kinds.any(|kind| kind == BlockKind::Block) {
            BlockKind::Block
        } else {
            BlockKind::Hold
        },
    )
}

/// How a patch stands in a tier, as a word with its meaning in colour too.
fn cell(
    patch: &Patch,
    tier: &Column,
    columns: &[Column],
    position: usize,
    rollouts: &[RolloutEntry],
) -> Markup {
    let reached = |name: &TierName| columns.iter().position(|tier| tier.name == *name);
    let whole = patch.reach.as_ref().and_then(reached);
    let partly = patch
        .promotions
        .iter()
        .filter_map(|promotion| reached(&promotion.tier))
        .max();
    if whole.is_none_or(|reach| reach < position) {
        return if partly.is_some_and(|reach| reach >= position) {
            html! { span.tag.idle { "some kernels" } }
        } else {
            html! { span.quiet aria-label="not here" { "–" } }
        };
    }
    let stop = stopped(patch);
    if stop == Some(BlockKind::Block) {
        return html! { span.tag.bad { "blocked" } };
    }
    let rollout = rollouts
        .iter()
        .find(|rollout| rollout.version == patch.version && rollout.tier == tier.name);
    match rollout {
        Some(rollout) if rollout.state != "done" => rollout_tag(rollout),
        _ if stop.is_some() => html! { span.tag.wait { "held" } },
        _ => html! { span.tag.good { "available" } },
    }
}

/// The state of a rollout, leading to it.
pub(super) fn rollout_tag(rollout: &RolloutEntry) -> Markup {
    let (class, text) = match rollout.state.as_str() {
        "running" => (
            "wait",
            format!(
                "phase {}/{}, {}",
                rollout.phase, rollout.phases, rollout.share
            ),
        ),
        "awaiting-approval" => ("wait", "to approve".to_owned()),
        "halted" => ("bad", format!("halted at {}", rollout.share)),
        "done" => ("good", "done".to_owned()),
        other => ("idle", other.to_owned()),
    };
    html! { a class={ "tag " (class) } href={ (BASE) "/rollouts/" (rollout.id) } { (text) } }
}
