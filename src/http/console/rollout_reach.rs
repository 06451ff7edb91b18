//! Whom a patch has reached once its rollout was stopped: who has it, who has been heard of since, who is silent.
//!
//! That reads every machine. Where they are many it stands on a page of its own, and the page of the rollout shows what is counted anyway.

use super::BASE;
use super::error::{PageError, named};
use super::forms;
use super::page::{number, page, time};
use super::patch_parts::InTier;
use super::patches::link;
use super::rollouts::path;
use super::session::Visitor;
use super::tables::{more, table};
use crate::domain::Scope;
use crate::service::rollouts::show;
use crate::service::{Core, ServiceError, census, reach};
use crate::wire::admin::{Limit, Reach, ReachQuery, ReachStanding, ReachedMachine, RolloutEntry};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Html;
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

/// Machines on one page.
const ROWS: u32 = 50;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/console/rollouts/{id}/reach", get(whole))
}

/// Whether nobody is let in any more, for good or until a person decides.
pub(super) fn is_stopped(rollout: &RolloutEntry) -> bool {
    matches!(rollout.state.as_str(), "halted" | "aborted")
}

/// The first page of whom it reached or, of many machines, numbers and the way there.
pub(super) async fn embedded(core: &Core, rollout: &RolloutEntry) -> Result<Markup, PageError> {
    let counted = census::current(core).await?;
    let machines: u64 = counted.rows.iter().map(|row| row.machines).sum();
    if machines <= census::DEAR {
        let found = asked(core, rollout, None).await?;
        return Ok(shown(rollout, &found));
    }
    let catalog = Arc::clone(&core.snapshots.get_full().catalog);
    let tiers = InTier::of(&catalog, &counted, rollout.version, &Scope::default());
    let sum = |of| number(InTier::sum(&tiers, of));
    Ok(html! {
        p {
            (sum(|counts| counts.running)) " machines run " (rollout.version) ", on " (sum(|counts| counts.failed)) " it failed, and "
            (sum(|counts| counts.waiting)) " were offered it and have not applied it. Counted at " (time(Some(counted.as_of))) "."
        }
        p { a.button.plain href={ (BASE) (path(rollout.id)) "/reach" } { "Which machines, and who has been heard of since" } }
        (as_csv(rollout))
    })
}

fn as_csv(rollout: &RolloutEntry) -> Markup {
    let version = rollout.version;
    forms::command(&format!(
        "rollout reach {version} --all --csv > {version}.csv"
    ))
}

async fn asked(
    core: &Core,
    rollout: &RolloutEntry,
    cursor: Option<String>,
) -> Result<Reach, ServiceError> {
    let query = ReachQuery {
        selector: None,
        cursor,
        limit: Some(Limit::try_from(ROWS).unwrap_or_default()),
    };
    reach::of_patch(core, rollout.version, &query).await
}

#[derive(Debug, Deserialize)]
struct WholeQuery {
    cursor: Option<String>,
}

async fn whole(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(query): Query<WholeQuery>,
) -> Result<Html<String>, PageError> {
    let id = named("rollout", &id)?;
    let rollout = show::one(&core, id).await?;
    let found = asked(
        &core,
        &rollout,
        query.cursor.filter(|text| !text.is_empty()),
    )
    .await?;
    let title = format!("Whom {} has reached", rollout.version);
    let content = html! {
        h1 { (title) }
        p { a href={ (BASE) (path(id)) } { "Rollout " (id) } " of " (link(rollout.version)) " in " (rollout.tier) }
        (shown(&rollout, &found))
    };
    Ok(page(&visitor, &title, "/rollouts", content))
}

fn standing(standing: ReachStanding) -> Markup {
    html! {
        @match standing {
            ReachStanding::Has => span.tag.wait { "runs it" },
            ReachStanding::Failed => span.tag.bad { "failed" },
            ReachStanding::Left => span.tag.idle { "was offered it" },
        }
    }
}

fn shown(rollout: &RolloutEntry, found: &Reach) -> Markup {
    let totals: Vec<Vec<Markup>> = found
        .totals
        .iter()
        .map(|total| {
            vec![
                standing(total.standing),
                html! { (number(total.machines)) },
                html! { @match total.polled_since { Some(polled) => (number(polled)), None => span.quiet { "–" } } },
                html! { (number(total.silent)) },
            ]
        })
        .collect();
    let rows: Vec<Vec<Markup>> = found.items.iter().map(machine).collect();
    let list = format!("{}/reach", path(rollout.id));
    html! {
        p {
            "In all tiers. "
            @if let Some(at) = found.stopped_at { "It is stopped since " (time(Some(at))) "." }
            @else { "It is not stopped any more." }
        }
        (table(
            "Machines by what became of the patch there",
            &["What became of it", "Machines", "Have checked in since", "Silent"],
            &totals,
            "",
        ))
        h3 { "Machines" }
        (table(
            "Machines that it has reached, by id",
            &["Machine", "Tier", "Kernel", "What became of it", "State", "Runs", "Offered", "Last check-in", "Since the stop"],
            &rows,
            "It has reached nobody.",
        ))
        (more(&list, &[], found.next_cursor.as_deref()))
        (as_csv(rollout))
    }
}

fn machine(machine: &ReachedMachine) -> Vec<Markup> {
    vec![
        html! { a href={ (BASE) "/machines/" (machine.machine_id) } { code { (machine.machine_id) } } },
        html! { (machine.tier) },
        html! { @match &machine.kernel { Some(kernel) => code { (kernel) }, None => span.quiet { "–" } } },
        standing(machine.standing),
        html! { (machine.state) },
        html! { @match machine.runs { Some(runs) => (runs), None => span.quiet { "–" } } },
        html! { @if machine.offered_at.is_some() { (time(machine.offered_at)) } @else { span.quiet { "–" } } },
        time(machine.last_check),
        html! {
            @match (machine.silent, machine.polled_since) {
                (true, _) => span.tag.lost { "silent" },
                (_, Some(true)) => "has checked in",
                (_, Some(false)) => "not yet",
                (_, None) => span.quiet { "–" },
            }
        },
    ]
}
