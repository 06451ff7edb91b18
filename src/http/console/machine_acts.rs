//! Acts on machines, each with a page that says what it means: moves of one or of many, revoking tokens, forgetting.

use super::BASE;
use super::error::PageError;
use super::forms::{address, back, command, encode, given, reason, word};
use super::machine::named;
use super::machines::{Faults, tiers};
use super::page::{number, page};
use super::session::{Nothing, Posted, Visitor};
use super::tables::{facts, table};
use crate::domain::{Architecture, MachineId, PatchVersion, Role, Selector, TierName};
use crate::rollout::{Catalog, Standing};
use crate::service::{Core, ServiceError, fleet, moves};
use crate::wire::admin::{Machine, MachineMove, MachineRevoke, MoveOutcome, SelectedMove};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/machines/move", get(look_many).post(move_many))
        .route("/console/machines/{id}/move", get(look_one).post(move_one))
        .route(
            "/console/machines/{id}/revoke",
            get(look_revoke).post(revoke),
        )
        .route(
            "/console/machines/{id}/forget",
            get(look_forget).post(forget),
        )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Many {
    selector: String,
    tier: String,
}

async fn look_many(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Query(many): Query<Many>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let mut faults = Faults::default();
    let selector: Option<Selector> = faults.read("selector", &many.selector);
    let tier = faults.tier(&core, "tier", &many.tier);
    if faults.is_empty() && selector.is_none() {
        faults.add(
            "selector",
            "say which machines, with at least one term such as rack=r1",
        );
    } else if faults.is_empty() && tier.is_none() {
        faults.add("tier", "say where they go");
    }
    let mut outcome = None;
    if let (true, Some(selector), Some(tier)) = (faults.is_empty(), selector, tier) {
        let request = SelectedMove {
            selector,
            tier,
            reason: None,
            dry_run: true,
        };
        match moves::move_selected(&core, &visitor.caller.actor(), request).await {
            Ok(found) => outcome = Some(found),
            Err(ServiceError::Invalid(why)) => faults.add("selector", why),
            Err(why @ ServiceError::NotFound { .. }) => faults.add("tier", why),
            Err(why) => return Err(why.into()),
        }
    }
    let content = html! {
        h1 { "Move machines to a tier" }
        form.row method="get" action={ (BASE) "/machines/move" } {
            (faults.input("selector", "look-selector", "Selector", &many.selector, "rack=r1,flavour=aws"))
            (faults.select("tier", "look-tier", "Tier from now on", many.tier.trim(), "choose", &tiers(&core)))
            div { button.plain type="submit" { "Look" } }
        }
        @if let Some(outcome) = &outcome {
            (would(&visitor, outcome))
        }
    };
    Ok(page(&visitor, "Move machines", "/machines", content))
}

/// What a move would do, and the form that does it.
fn would(visitor: &Visitor, outcome: &MoveOutcome) -> Markup {
    let selector = outcome.selector.to_string();
    let those = |tier: Option<&TierName>| {
        let query = [
            ("selector", Some(selector.clone())),
            ("tier", tier.map(ToString::to_string)),
        ];
        address("/machines", &query)
    };
    let rows: Vec<Vec<Markup>> = outcome
        .from
        .iter()
        .map(|from| {
            vec![
                html! { (from.tier) },
                html! { a href=(those(Some(&from.tier))) { (number(from.machines)) } },
            ]
        })
        .collect();
    html! {
        h2 { "What would happen" }
        (facts(&[
            ("Selected", html! { a href=(those(None)) { (number(outcome.machines)) " machines" } }),
            ("Would be moved", html! { (number(outcome.moved)) " to " (outcome.tier) }),
            ("Offered something else, as far as tiers decide", html! { (number(outcome.offered_else)) }),
        ]))
        (table("Machines that would be moved, by their tier now", &["From tier", "Machines"], &rows, "None is in another tier."))
        @if outcome.moved == 0 {
            p.notice { "Nothing would change." }
        } @else {
            p { "They stay there whatever their auth tokens say. Machines that are enabled or labelled later are not moved." }
            form.stacked method="post" action={ (BASE) "/machines/move" } {
                (visitor.token())
                input type="hidden" name="selector" value=(selector);
                input type="hidden" name="tier" value=(outcome.tier);
                (reason())
                button type="submit" { "Move " (number(outcome.moved)) " machines to " (outcome.tier) }
            }
            (command(&format!("machine move -l {} {}", word(&selector), outcome.tier)))
        }
    }
}

#[derive(Debug, Deserialize)]
struct MoveMany {
    selector: Selector,
    tier: TierName,
    reason: Option<String>,
}

async fn move_many(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<MoveMany>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let place = format!("/machines?selector={}", encode(&form.selector.to_string()));
    let request = SelectedMove {
        selector: form.selector,
        tier: form.tier,
        reason: given(form.reason),
        dry_run: false,
    };
    let outcome = moves::move_selected(&core, &visitor.caller.actor(), request).await?;
    let done = if outcome.moved == 0 {
        "unchanged"
    } else {
        "moved"
    };
    Ok(back(&place, done))
}

/// The highest patch that tiers let this machine have in a tier.
fn open(
    catalog: &Catalog,
    kernel: &str,
    arch: Architecture,
    tier: &TierName,
) -> Option<PatchVersion> {
    let index = catalog.tier_named(tier)?;
    let mut payloads = catalog.for_kernel(kernel, arch).iter();
    payloads
        .find(|p| p.standing == Standing::Free && p.reach.is_some_and(|reach| reach >= index))
        .map(|payload| payload.version)
}

fn best(core: &Core, machine: &Machine, tier: &TierName) -> Markup {
    let snapshot = core.snapshots.get_full();
    let known = machine.kernel.as_deref().zip(machine.architecture);
    let version = known.and_then(|(kernel, arch)| open(&snapshot.catalog, kernel, arch, tier));
    html! {
        @match version {
            Some(version) => a href={ (BASE) "/patches/" (version) } { (version) },
            None => "none",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct To {
    tier: String,
}

/// The way back to a machine.
fn back_to(id: MachineId) -> Markup {
    html! { p { a href={ (BASE) "/machines/" (id) } { "Back to the machine, nothing is changed" } } }
}

async fn look_one(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(to): Query<To>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(&id)?;
    let machine = fleet::show(&core, id).await?;
    let mut faults = Faults::default();
    let tier = faults.tier(&core, "tier", &to.tier);
    if faults.is_empty() && tier.is_none() {
        faults.add("tier", "say where it goes");
    }
    let place = format!("{BASE}/machines/{id}/move");
    let content = html! {
        h1 { "Move machine " code { (id) } }
        @if let Some(tier) = &tier {
            (facts(&[
                ("Tier now", html! { (machine.tier) @if machine.moved { " (moved there by an administrator)" } }),
                ("Tier afterwards", html! { (tier) }),
                ("Highest patch for its kernel now", best(&core, &machine, &machine.tier)),
                ("Highest patch for its kernel afterwards", best(&core, &machine, tier)),
                ("It runs", html! { @match machine.applied { Some(version) => (version), None => "none" } }),
            ]))
            p {
                "The machine stays in " (tier) " whatever its auth token says. What it is offered changes with its next check-in; "
                "a rollout in " (tier) " may still let it wait. A patch that is in its kernel stays there."
            }
            form.stacked method="post" action=(place) {
                (visitor.token())
                input type="hidden" name="tier" value=(tier);
                (reason())
                button type="submit" { "Move it to " (tier) }
            }
            (command(&format!("machine move {id} {tier}")))
        } @else {
            form.row method="get" action=(place) {
                (faults.select("tier", "look-tier", "Tier from now on", to.tier.trim(), "choose", &tiers(&core)))
                div { button.plain type="submit" { "Look" } }
            }
        }
        (back_to(id))
    };
    Ok(page(&visitor, "Move a machine", "/machines", content))
}

#[derive(Debug, Deserialize)]
struct MoveOne {
    tier: TierName,
    reason: Option<String>,
}

async fn move_one(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted<MoveOne>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(&id)?;
    let request = MachineMove {
        tier: form.tier,
        reason: given(form.reason),
    };
    fleet::move_to(&core, &visitor.caller.actor(), id, &request).await?;
    Ok(back(&format!("/machines/{id}"), "machine-moved"))
}

async fn look_revoke(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(&id)?;
    let machine = fleet::show(&core, id).await?;
    let content = html! {
        h1 { "Revoke the tokens of machine " code { (id) } }
        p {
            "Every token that this machine was given so far is refused from now on: its check-ins are not answered, "
            "and it gets no further patches. What is in its kernel stays there, and what is known of it stays here."
        }
        p {
            "It comes back only if it is enabled again with an auth token. The auth token that enabled it "
            @if let Some(token) = &machine.auth_token { "(" (token) ") " }
            "is not touched; revoke that as well if it has come into wrong hands."
        }
        @if let Some(before) = machine.revoked_before {
            p.notice { "Its tokens from before " (super::page::time(Some(before))) " are refused already." }
        }
        form.stacked method="post" action={ (BASE) "/machines/" (id) "/revoke" } {
            (visitor.token())
            (reason())
            button.bad type="submit" { "Revoke its tokens" }
        }
        (command(&format!("machine revoke {id}")))
        (back_to(id))
    };
    Ok(page(
        &visitor,
        "Revoke a machine's tokens",
        "/machines",
        content,
    ))
}

#[derive(Debug, Deserialize)]
struct Reason {
    reason: Option<String>,
}

async fn revoke(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Posted { visitor, form }: Posted<Reason>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(&id)?;
    let request = MachineRevoke {
        reason: given(form.reason),
    };
    fleet::revoke(&core, &visitor.caller.actor(), id, &request).await?;
    Ok(back(&format!("/machines/{id}"), "machine-revoked"))
}

async fn look_forget(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(&id)?;
    let machine = fleet::show(&core, id).await?;
    let content = html! {
        h1 { "Forget machine " code { (id) } }
        p.problem {
            "This deletes what is known of it: its state, its history of check-ins and pings, its " (machine.labels.len())
            " labels, and the tier it was moved to. It cannot be undone."
        }
        p { "That its tokens are revoked stays, and so does the audit log. The machine itself is not touched." }
        @if machine.revoked_before.is_none() {
            p.notice {
                "Its token is still good: with its next check-in it comes back, in the tier of its auth token. "
                "To keep it away, " a href={ (BASE) "/machines/" (id) "/revoke" } { "revoke its tokens" } " first."
            }
        }
        (facts(&[
            ("Tier", html! { (machine.tier) }),
            ("Kernel", super::page::or_none(machine.kernel.as_deref())),
            ("Last seen", super::page::time(machine.last_check)),
        ]))
        form.stacked method="post" action={ (BASE) "/machines/" (id) "/forget" } {
            (visitor.token())
            button.bad type="submit" { "Forget it for good" }
        }
        (command(&format!("machine forget {id}")))
        (back_to(id))
    };
    Ok(page(&visitor, "Forget a machine", "/machines", content))
}

async fn forget(
    State(core): State<Arc<Core>>,
    Path(id): Path<String>,
    Posted { visitor, .. }: Posted<Nothing>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let id = named(&id)?;
    fleet::forget(&core, &visitor.caller.actor(), id).await?;
    Ok(back("/machines", "forgotten"))
}
