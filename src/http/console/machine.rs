//! One machine: what it is, what it is offered and why, what it reported, and the ways to act on it.

use super::BASE;
use super::error::PageError;
use super::forms::{address, command};
use super::machines::{Faults, state_tag, tiers};
use super::page::{bytes, may_act, or_none, page, time};
use super::session::Visitor;
use super::tables::{facts, more};
use crate::domain::{MachineId, Selector};
use crate::service::{Core, ServiceError, explain, fleet};
use crate::wire::admin::{
    ExplainReason, Explanation, HistoryEntry, HistoryKind, HistoryQuery, Limit, Machine, Page,
};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

/// Lines of history on one page.
const LINES: u32 = 50;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/console/machines/{id}", get(show))
}

/// The machine that a path names.
pub(super) fn named(text: &str) -> Result<MachineId, PageError> {
    text.parse()
        .map_err(|why| PageError::from(ServiceError::from(why)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    cursor: String,
}

async fn show(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    let id = named(&id)?;
    let machine = fleet::show(&core, id).await?;
    let why = match explain::explain(&core, id).await {
        Ok(why) => Ok(why),
        Err(ServiceError::Conflict(why)) => Err(why),
        Err(error) => return Err(error.into()),
    };
    let wanted = HistoryQuery {
        cursor: super::machines::given(&asked.cursor).map(str::to_owned),
        limit: Limit::try_from(LINES).ok(),
        ..HistoryQuery::default()
    };
    let history = fleet::history(&core, id, &wanted).await?;
    let place = format!("/machines/{id}");
    let content = html! {
        h1 { "Machine " code { (id) } }
        (known(&machine))
        h2 { "What it is offered, and why" }
        @match &why {
            Ok(why) => (reasons(why)),
            Err(why) => p.notice { (why) },
        }
        h2 { "Labels" }
        (labels(&machine))
        @if may_act(&visitor) {
            h2 { "Acts" }
            (acts(&core, &machine, &place))
        }
        h2 { "What it reported, newest first" }
        (timeline(&history))
        @if wanted.cursor.is_some() {
            p { a href={ (BASE) (place) } { "To the newest" } }
        }
        (more(&place, &[], history.next_cursor.as_deref()))
    };
    let title = format!("Machine {id}");
    Ok(page(&visitor, &title, "/machines", content))
}

/// A list of machines that share something.
fn alike(name: &str, value: &str) -> Markup {
    html! { a href=(address("/machines", &[(name, Some(value.to_owned()))])) { (value) } }
}

fn text(value: Option<impl ToString>) -> Markup {
    or_none(value.map(|value| value.to_string()).as_deref())
}

fn known(machine: &Machine) -> Markup {
    let kernel = match &machine.kernel {
        Some(kernel) => alike("kernel", kernel),
        None => or_none(None),
    };
    let tier = html! {
        (alike("tier", machine.tier.as_str()))
        @if machine.moved { " (moved there by an administrator)" }
    };
    let offered = html! {
        (text(machine.offered))
        @if machine.offered_at.is_some() { ", " (time(machine.offered_at)) }
    };
    html! {
        @if let Some(revoked) = machine.revoked_before {
            p.notice { "Its tokens from before " (time(Some(revoked))) " are refused." }
        }
        (facts(&[
            ("State", state_tag(machine.state)),
            ("Tier", tier),
            ("Last seen", time(machine.last_check)),
            ("Applied", text(machine.applied)),
            ("Offered last", offered),
            ("Last answer", or_none(machine.outcome.as_deref())),
            ("Kernel", kernel),
            ("Architecture", text(machine.architecture)),
            ("Kernel built", text(machine.build_date)),
            ("Kernel supported", html! { (machine.supported) }),
            ("Started", time(machine.boot_time)),
            ("Client", or_none(machine.client_version.as_deref())),
            ("Processor", or_none(machine.cpu_model.as_deref())),
            ("Enabled", time(Some(machine.registered_at))),
            ("Auth token", or_none(machine.auth_token.as_deref())),
        ]))
    }
}

fn reasons(why: &Explanation) -> Markup {
    let class = match why.outcome.as_str() {
        "offer" | "up-to-date" | "keeps-higher" | "nothing-to-apply" => "good",
        "kernel-upgrade-required" => "wait",
        _ => "idle",
    };
    html! {
        @if let Some(refused) = &why.refused {
            p.problem { "It would not be answered at all: " (refused) }
        }
        p {
            "If it asked now: " span class={ "tag " (class) } { (why.outcome) }
            @if let Some(offered) = &why.offered {
                " patch " a href={ (BASE) "/patches/" (offered.version) } { (offered.version) }
                ", " code { (offered.filename) } " (" (bytes(offered.size)) ")"
            }
            @if let Some(day) = why.upgrade_required_date {
                ". Its kernel must be upgraded from " (day) " on"
            }
            "."
        }
        @if why.reasons.is_empty() {
            p.quiet { "No reasons are given." }
        } @else {
            ol {
                @for reason in &why.reasons {
                    li {
                        (spoken(reason)) " " code.quiet { (reason.code) }
                    }
                }
            }
        }
        (command(&format!("explain {}", why.machine_id)))
    }
}

/// The words of a reason; the version they begin with leads to its patch.
fn spoken(reason: &ExplainReason) -> Markup {
    let version = reason.version.map(|version| version.to_string());
    let rest = version
        .as_deref()
        .and_then(|version| reason.text.strip_prefix(version));
    html! {
        @match (version.as_deref(), rest) {
            (Some(version), Some(rest)) => { a href={ (BASE) "/patches/" (version) } { (version) } (rest) },
            (Some(version), None) => { (reason.text) " (patch " a href={ (BASE) "/patches/" (version) } { (version) } ")" },
            (None, _) => (reason.text),
        }
    }
}

fn labels(machine: &Machine) -> Markup {
    let id = machine.machine_id;
    // A label as a selector, where it can be one.
    let selector = |key: &str, value: &str| {
        let text = format!("{key}={value}");
        text.parse::<Selector>().ok().map(|s| s.to_string())
    };
    html! {
        @if machine.labels.is_empty() {
            p.quiet { "It has no labels." }
        } @else {
            ul {
                @for (key, value) in &machine.labels {
                    li {
                        @match selector(key, value) {
                            Some(text) => (alike("selector", &text)),
                            None => code { (key) "=" (value) },
                        }
                    }
                }
            }
        }
        p.command { "Set and take away: " code { "livepatch-admin machine label " (id) " rack=r1 retired-" } }
    }
}

fn acts(core: &Core, machine: &Machine, place: &str) -> Markup {
    let others: Vec<String> = tiers(core)
        .into_iter()
        .filter(|tier| *tier != machine.tier.as_str())
        .collect();
    html! {
        form.row method="get" action={ (BASE) (place) "/move" } {
            (Faults::default().select("tier", "move-tier", "Tier from now on", "", "choose", &others))
            div { button.plain type="submit" { "Look at the move" } }
        }
        div.acts {
            a.button.plain href={ (BASE) (place) "/revoke" } { "Revoke its tokens" }
            a.button.plain href={ (BASE) (place) "/forget" } { "Forget it" }
        }
    }
}

fn timeline(history: &Page<HistoryEntry>) -> Markup {
    html! {
        @if history.items.is_empty() {
            p.quiet { "Nothing is kept of what it reported." }
        } @else {
            ol.timeline {
                @for entry in &history.items {
                    li { (line(entry)) }
                }
            }
        }
    }
}

fn line(entry: &HistoryEntry) -> Markup {
    html! {
        (time(Some(entry.at))) " "
        @match entry.kind {
            HistoryKind::Report => {
                "checked in " (state_tag(entry.state))
                @if let Some(applied) = entry.applied { " with " (applied) }
                ": "
                @match (entry.offered, entry.outcome.as_deref()) {
                    (Some(offered), Some("offer")) => { "was offered " strong { (offered) } },
                    (_, Some(outcome)) => { "was answered " strong { (outcome) } },
                    (Some(offered), None) => { "had been offered " (offered) },
                    (None, None) => { "was answered nothing that is kept" },
                }
            },
            HistoryKind::Ping => {
                "said " strong { (entry.ping_type.as_deref().unwrap_or("ping")) }
                @if let Some(version) = entry.applied { " of " (version) }
                ", " (state_tag(entry.state))
                @if let Some(message) = &entry.message { ": " (message) }
            },
        }
        br;
        small {
            (entry.kernel.as_deref().unwrap_or("kernel not known"))
            @if let Some(architecture) = entry.architecture { ", " (architecture) }
            @if let Some(tier) = &entry.tier { ", tier " (tier) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MachineState;

    fn entry() -> HistoryEntry {
        HistoryEntry {
            at: "2026-11-28T05:00:00Z".parse().unwrap(),
            kind: HistoryKind::Report,
            kernel: Some("<i>5.15".to_owned()),
            architecture: None,
            state: MachineState::Applied,
            applied: Some("106.1".parse().unwrap()),
            tier: None,
            offered: Some("107.1".parse().unwrap()),
            outcome: Some("offer".to_owned()),
            ping_type: None,
            message: None,
        }
    }

    #[test]
    fn a_check_in_says_what_was_offered() {
        let text = line(&entry()).into_string();
        assert!(
            text.contains("was offered <strong>107.1</strong>"),
            "{text}"
        );
        assert!(text.contains("&lt;i&gt;5.15"), "{text}");
        let quiet = HistoryEntry {
            outcome: Some("up-to-date".to_owned()),
            ..entry()
        };
        let text = line(&quiet).into_string();
        assert!(
            text.contains("was answered <strong>up-to-date</strong>"),
            "{text}"
        );
    }

    #[test]
    fn a_reason_leads_to_its_patch_and_says_its_version_once() {
        let reason = |text: &str| ExplainReason {
            code: "held".to_owned(),
            text: text.to_owned(),
            version: Some("107.1".parse().unwrap()),
        };
        let text = spoken(&reason("107.1 is not offered: <b>")).into_string();
        assert_eq!(
            text,
            r#"<a href="/console/patches/107.1">107.1</a> is not offered: &lt;b&gt;"#
        );
        let text = spoken(&reason("it has it")).into_string();
        assert_eq!(
            text,
            r#"it has it (patch <a href="/console/patches/107.1">107.1</a>)"#
        );
    }

    #[test]
    fn a_ping_says_what_the_machine_said() {
        let ping = HistoryEntry {
            kind: HistoryKind::Ping,
            ping_type: Some("ping_after".to_owned()),
            message: Some("<script>".to_owned()),
            ..entry()
        };
        let text = line(&ping).into_string();
        assert!(
            text.contains("ping_after") && text.contains("&lt;script&gt;"),
            "{text}"
        );
    }
}
