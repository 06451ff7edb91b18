//! Rollouts: those that are under way or stand still, those that ended, and the page of one.

use super::bars::{Part, bar};
use super::error::{PageError, named};
use super::forecasts::{ahead, zoned};
use super::forms::{self, address, encode};
use super::page::{may_act, number, or_none, page, time};
use super::patch_parts::to_machines;
use super::patches::{link, scope_text};
use super::rollout_reach::{embedded, is_stopped};
use super::session::Visitor;
use super::tables::{facts, more, table};
use super::{BASE, rollout_acts, rollout_reach};
use crate::domain::policy::Share;
use crate::domain::{Fate, TierName};
use crate::service::rollouts::show;
use crate::service::{Core, ServiceError};
use crate::wire::admin::{
    RolloutDetail, RolloutEntry, RolloutEvent, RolloutGate, RolloutHealth, RolloutKernel,
    RolloutQuery,
};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

/// Rollouts on one page.
const ROWS: usize = 60;
/// The most kernels that are shown.
const KERNELS: usize = 60;
/// The most entries of a timeline.
const EVENTS: usize = 80;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/rollouts", get(list))
        .route("/console/rollouts/{id}", get(detail))
        .merge(rollout_reach::routes())
        .merge(rollout_acts::routes())
}

/// The path of a rollout below the base.
pub(super) fn path(id: i64) -> String {
    format!("/rollouts/{id}")
}

/// The state of a rollout, as a word with its meaning in colour too.
pub(super) fn state(rollout: &RolloutEntry) -> Markup {
    let (class, text) = match rollout.state.as_str() {
        "running" => ("wait", "running"),
        "awaiting-approval" => ("wait", "to approve"),
        "halted" => ("bad", "halted"),
        "paused" => ("idle", "paused"),
        "done" => ("good", "done"),
        "aborted" => ("idle", "aborted"),
        other => ("idle", other),
    };
    html! { span class={ "tag " (class) } { (text) } }
}

fn has_ended(rollout: &RolloutEntry) -> bool {
    matches!(rollout.state.as_str(), "done" | "aborted")
}

#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    all: Option<String>,
    version: Option<String>,
    tier: Option<String>,
    cursor: Option<String>,
}

/// Reads a part of an address; one that is empty is not given.
fn parsed<T: FromStr<Err: Display>>(text: Option<&str>) -> Result<Option<T>, ServiceError> {
    text.filter(|text| !text.is_empty())
        .map(|text| {
            text.parse()
                .map_err(|why: T::Err| ServiceError::Invalid(why.to_string()))
        })
        .transpose()
}

async fn list(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(query): Query<ListQuery>,
) -> Result<Html<String>, PageError> {
    let all = query.all.as_deref() == Some("yes");
    let asked = RolloutQuery {
        version: parsed(query.version.as_deref())?,
        tier: parsed(query.tier.as_deref())?,
        all,
    };
    let mut found = show::list(&core, &asked).await?;
    // Those that ended last; each part stays in its order, newest first.
    found.sort_by_key(has_ended);
    let after: Option<i64> = parsed(query.cursor.as_deref())?;
    let from = after
        .and_then(|id| found.iter().position(|rollout| rollout.id == id))
        .map_or(0, |place| place + 1);
    let shown = &found[from..found.len().min(from + ROWS)];
    let next = (from + shown.len() < found.len())
        .then(|| shown.last())
        .flatten();
    let rows: Vec<Vec<Markup>> = shown.iter().map(row).collect();
    let halted = found
        .iter()
        .filter(|rollout| rollout.state == "halted")
        .count();
    let alarm = (halted > 0).then(|| format!("{halted} halted"));
    let filter = [
        ("version", asked.version.map(|version| version.to_string())),
        ("tier", asked.tier.as_ref().map(ToString::to_string)),
    ];
    let other = [
        filter[0].clone(),
        filter[1].clone(),
        ("all", (!all).then(|| "yes".to_owned())),
    ];
    let same = [
        filter[0].clone(),
        filter[1].clone(),
        ("all", all.then(|| "yes".to_owned())),
    ];
    let content = html! {
        h1 { "Rollouts" }
        @if halted > 0 {
            p.problem data-alarm=[alarm] { strong { (halted) " halted." } " Nobody is offered their patches anew until a person decides." }
        }
        @if asked.version.is_some() || asked.tier.is_some() {
            p {
                "Only"
                @if let Some(version) = asked.version { " of " (link(version)) }
                @if let Some(tier) = &asked.tier { " in " (tier) }
                ". " a href={ (BASE) "/rollouts" } { "Show all" }
            }
        }
        p { a href=(address("/rollouts", &other)) { @if all { "Only those that have not ended" } @else { "Also those that ended" } } }
        (table(
            "Rollouts, those that have not ended first, newest first",
            &["Rollout", "Patch", "Tier", "For", "State", "Phase", "Let in", "Open now", "Asked for, approved", "Since"],
            &rows,
            "No rollout is under way. One begins when a patch reaches a tier that has a policy.",
        ))
        (more("/rollouts", &same, next.map(|rollout| rollout.id.to_string()).as_deref()))
        (forms::command(if all { "rollout list --all" } else { "rollout list" }))
    };
    Ok(page(&visitor, "Rollouts", "/rollouts", content))
}

fn phase(rollout: &RolloutEntry) -> Markup {
    html! {
        @if rollout.phases == 0 { span.quiet { "–" } }
        @else { (rollout.phase.min(rollout.phases)) " of " (rollout.phases) }
    }
}

/// Whether machines may be let in now, by the schedule of the policy.
fn opening(rollout: &RolloutEntry) -> Markup {
    let shut = match rollout.opening.as_str() {
        "open" => return html! { "open" },
        "frozen" => "frozen",
        "outside-window" => "outside its window",
        _ => return html! { span.quiet { "–" } },
    };
    html! {
        (shut)
        @if rollout.opens_at.is_some() { " until " (zoned(&rollout.zone, rollout.opens_at)) }
    }
}

fn row(rollout: &RolloutEntry) -> Vec<Markup> {
    vec![
        html! { a href={ (BASE) (path(rollout.id)) } { (rollout.id) } },
        link(rollout.version),
        html! { (rollout.tier) },
        html! { (scope_text(&rollout.scope)) },
        state(rollout),
        phase(rollout),
        html! { (rollout.share) },
        opening(rollout),
        html! {
            (rollout.requested_by)
            @if let Some(approved) = &rollout.approved_by { ", " (approved) }
        },
        time(Some(rollout.ended_at.unwrap_or(rollout.phase_at))),
    ]
}

async fn detail(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    let found = show::detail(&core, named("rollout", &id)?).await?;
    let rollout = &found.rollout;
    let title = format!(
        "Rollout {}: {} in {}",
        rollout.id, rollout.version, rollout.tier
    );
    let content = html! {
        h1 { (title) }
        (stands(rollout))
        (about(&found))
        @if may_act(&visitor) { (rollout_acts::links(rollout)) }
        h2 { "What machines report" }
        (reports(&found))
        @if let Some(gate) = &found.gate {
            h2 { "Gate" }
            (limits(gate))
        }
        h2 { "By kernel" }
        (by_kernel(&rollout.tier, &found))
        @if let Some(forecast) = &found.forecast {
            h2 { "If all goes well" }
            (ahead("Phases still to open", forecast, &rollout.zone))
        }
        h2 { "Timeline" }
        (timeline(&found.events))
        @if is_stopped(rollout) {
            h2 { "Whom it has reached" }
            (embedded(&core, rollout).await?)
        }
        (forms::command(&format!("rollout show {}", rollout.id)))
    };
    Ok(page(&visitor, &title, "/rollouts", content))
}

/// How it stands and why, in words.
fn stands(rollout: &RolloutEntry) -> Markup {
    let version = rollout.version;
    // The engine begins the reason of a halt with the word that stands here in bold.
    let why = rollout.reason.strip_prefix("halted: ");
    let why = why.unwrap_or(&rollout.reason).trim_end_matches('.');
    let lead = |word: &str| {
        html! { strong { (word) } @if !why.is_empty() { ": " (why) } ". " }
    };
    html! {
        @match rollout.state.as_str() {
            "halted" => {
                p.problem data-alarm={ "rollout " (rollout.id) " is halted" } {
                    (lead("Halted")) "Nobody is offered " (version) " anew, in any tier, until a person decides."
                }
            }
            "awaiting-approval" => {
                p.notice { (lead("Awaits approval")) "It was asked for by " (rollout.requested_by) "; somebody else must approve it." }
            }
            "paused" => { p.notice { (lead("Paused")) "Nobody is let in until it is resumed." } }
            "aborted" => { p.notice { (lead("Given up")) } }
            "done" => { p { (lead("Done")) "Every machine is let in." } }
            "running" => {
                p {
                    (lead("Running"))
                    @match rollout.opening.as_str() {
                        "open" => "Machines are let in now.",
                        "frozen" => "A freeze lets nobody in.",
                        "outside-window" => "Outside its window nobody is let in.",
                        _ => {},
                    }
                    @if rollout.opens_at.is_some() { " It opens " (zoned(&rollout.zone, rollout.opens_at)) "." }
                }
            }
            other => { p { (lead(other)) } }
        }
    }
}

fn about(found: &RolloutDetail) -> Markup {
    let rollout = &found.rollout;
    let zone = &rollout.zone;
    facts(&[
        ("Patch", link(rollout.version)),
        (
            "Tier",
            html! {
                a href=(address("/machines", &[("tier", Some(rollout.tier.to_string()))])) { (rollout.tier) }
            },
        ),
        ("For", html! { (scope_text(&rollout.scope)) }),
        ("State", state(rollout)),
        ("Phase", phase(rollout)),
        ("Let in", html! { (rollout.share) " of the machines" }),
        ("Open now", opening(rollout)),
        ("Begun", zoned(zone, Some(rollout.begun_at))),
        ("Phase since", zoned(zone, Some(rollout.phase_at))),
        (
            "Ended",
            html! { @if rollout.ended_at.is_some() { (zoned(zone, rollout.ended_at)) } @else { span.quiet { "–" } } },
        ),
        ("Asked for by", html! { (rollout.requested_by) }),
        ("Approved by", or_none(rollout.approved_by.as_deref())),
    ])
}

fn parts(health: &RolloutHealth) -> [Part; 4] {
    let part = |class, name, count| Part { class, name, count };
    [
        part("good", "applied", health.applied),
        part("bad", "failed", health.failed),
        part("lost", "silent", health.silent),
        part("wait", "not known yet", health.pending),
    ]
}

fn reports(found: &RolloutDetail) -> Markup {
    let (rollout, health) = (&found.rollout, &found.health);
    let to = |fate| to_machines(&rollout.tier, rollout.version, fate);
    html! {
        ul.cards {
            li { span.figure { (number(health.offered)) } "offered it, of " (number(health.machines)) " machines" }
            li.good[health.applied > 0] {
                span.figure { a href=(to(Fate::Applied)) { (number(health.applied)) } } "applied"
            }
            li.bad[health.failed > 0] {
                span.figure { a href=(to(Fate::Failed)) { (number(health.failed)) } } "failed"
            }
            li.bad[health.silent > 0] { span.figure { (number(health.silent)) } "silent" }
            li { span.figure { (number(health.pending)) } "not known yet" }
        }
        (bar(&parts(health)))
        p.quiet { "Only machines that were known before it began. Counted at " (time(Some(found.as_of))) "." }
    }
}

fn limits(gate: &RolloutGate) -> Markup {
    let enough = gate.reported >= u64::from(gate.machines);
    let shares = (gate.failing.parse::<Share>())
        .ok()
        .zip(gate.failure_rate.parse::<Share>().ok());
    let over = shares.is_some_and(|(failing, most)| failing > most);
    let rows = [
        vec![
            html! { "Machines that reported" },
            html! { (number(gate.reported)) },
            html! { "at least " (number(u64::from(gate.machines))) },
            html! { @if enough { span.tag.good { "enough" } } @else { span.tag.wait { "not yet" } } },
        ],
        vec![
            html! { "Share that failed or went silent" },
            html! { (gate.failing) },
            html! { "at most " (gate.failure_rate) },
            html! { @if over { span.tag.bad { "over" } } @else { span.tag.good { "within" } } },
        ],
    ];
    table(
        "What stands against the gate",
        &["What", "Now", "Limit", "Verdict"],
        &rows,
        "",
    )
}

fn by_kernel(tier: &TierName, found: &RolloutDetail) -> Markup {
    let kernel_row = |kernel: &RolloutKernel| {
        let health = &kernel.health;
        let query = [
            ("tier", Some(tier.to_string())),
            ("version", Some(found.rollout.version.to_string())),
            ("kernel", Some(kernel.kernel.clone())),
        ];
        vec![
            html! { code { (kernel.kernel) } },
            html! { @match kernel.architecture { Some(arch) => (arch), None => span.quiet { "–" } } },
            html! { a href=(address("/machines", &query)) { (number(health.offered)) } },
            html! { (number(health.applied)) },
            html! { @if health.failed > 0 { span.tag.bad { (number(health.failed)) " failed" } } @else { "0" } },
            html! { @if health.silent > 0 { span.tag.lost { (number(health.silent)) " silent" } } @else { "0" } },
            html! { (number(health.pending)) },
            bar(&parts(health)),
        ]
    };
    let rows: Vec<Vec<Markup>> = found.kernels.iter().take(KERNELS).map(kernel_row).collect();
    let left = found.kernels.len().saturating_sub(KERNELS);
    html! {
        (table(
            "What machines report, by kernel",
            &["Kernel", "Architecture", "Offered", "Applied", "Failed", "Silent", "Not known yet", "Together"],
            &rows,
            "No machine was offered it yet.",
        ))
        @if left > 0 { p.quiet { "And " (left) " more kernels with fewer machines." } }
    }
}

fn timeline(events: &[RolloutEvent]) -> Markup {
    html! {
        ol.timeline reversed {
            @for event in events.iter().take(EVENTS) {
                li {
                    strong { (event.kind) } " " small { (time(Some(event.at))) " · " (event.actor) }
                    @if !event.text.is_empty() { p { (event.text) } }
                }
            }
        }
        @if events.is_empty() { p.quiet { "Nothing happened yet." } }
        @if events.len() > EVENTS {
            p.quiet { "Older entries are in the " a href={ (BASE) "/audit?action=" (encode("rollout")) } { "audit log" } "." }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A rollout of 107.1 in stable.
    pub(crate) fn entry(state: &str) -> RolloutEntry {
        let at = "2026-11-28T05:00:00Z".parse().unwrap();
        RolloutEntry {
            id: 7,
            version: "107.1".parse().unwrap(),
            tier: "stable".parse().unwrap(),
            scope: crate::wire::admin::WireScope::default(),
            state: state.to_owned(),
            phase: 2,
            phases: 3,
            share: "50%".to_owned(),
            opening: "closed".to_owned(),
            opens_at: None,
            zone: "UTC".to_owned(),
            begun_at: at,
            phase_at: at,
            ended_at: None,
            requested_by: "ann".to_owned(),
            approved_by: None,
            reason: "halted: 3 of 50 <b>failed</b>".to_owned(),
        }
    }

    #[test]
    fn a_halt_is_announced_with_its_reason() {
        let shown = stands(&entry("halted")).into_string();
        assert!(shown.contains("data-alarm=\"rollout 7 is halted\""));
        assert!(shown.contains("</strong>: 3 of 50 &lt;b&gt;failed&lt;/b&gt;. Nobody"));
        assert!(
            !stands(&entry("running"))
                .into_string()
                .contains("data-alarm")
        );
    }

    #[test]
    fn a_gate_says_what_is_over_its_limit() {
        let gate = |reported, failing: &str| {
            limits(&RolloutGate {
                machines: 50,
                reported,
                failure_rate: "0.5%".to_owned(),
                failing: failing.to_owned(),
            })
            .into_string()
        };
        let (within, over) = (gate(60, "0.5%"), gate(10, "6%"));
        assert!(within.contains("within") && within.contains("enough"));
        assert!(over.contains(">over<") && over.contains("not yet"));
    }

    #[test]
    fn those_that_ended_come_last() {
        let mut all = [
            entry("done"),
            entry("running"),
            entry("aborted"),
            entry("halted"),
        ];
        all.sort_by_key(has_ended);
        let states: Vec<&str> = all.iter().map(|rollout| rollout.state.as_str()).collect();
        assert_eq!(states, ["running", "halted", "done", "aborted"]);
    }
}
