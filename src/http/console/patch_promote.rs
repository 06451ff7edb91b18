//! Promoting a patch: what it would mean for whom, then the act itself.

use super::BASE;
use super::error::{PageError, named};
use super::forecasts::{by_tier, gaps};
use super::forms::{back, given};
use super::page::{bytes, number, page};
use super::patch_acts::{Asked, Deed, narrow, options};
use super::patch_parts::scope_query;
use super::patches::{path, scope_text};
use super::session::{Posted, Visitor};
use super::tables::{facts, table};
use crate::domain::{Role, Scope};
use crate::service::rollouts::show;
use crate::service::sync::locked_tiers;
use crate::service::{Core, ServiceError, promotions};
use crate::wire::admin::{ForecastQuery, PromoteOutcome, PromoteRequest};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use maud::{Markup, html};
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route(
        "/console/patches/{version}/promote",
        get(preview).post(promote),
    )
}

async fn preview(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(version): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let version = named("patch", &version)?;
    let tier = asked.tier()?;
    let (from, action) = (path(version), format!("{}/promote", path(version)));
    let title = format!("Promote {version} to {tier}?");
    let scope = match asked.scope() {
        Ok(scope) => scope,
        Err(wrong) => {
            let content = html! {
                h1 { (title) }
                (narrow(&action, &asked, Some(&wrong.to_string())))
            };
            return Ok(page(&visitor, &title, "", content));
        }
    };
    let request = PromoteRequest {
        tier: tier.clone(),
        scope: scope.clone().into(),
        reason: None,
        dry_run: true,
        selector: None,
    };
    let outcome = promotions::promote(&core, &visitor.caller.actor(), version, &request).await?;
    let as_if = ForecastQuery {
        tier: Some(tier.clone()),
        selector: None,
    };
    let forecast = match show::of_patch(&core, version, &as_if).await {
        Ok(forecast) => Some(forecast),
        // A patch without payloads comes to nobody.
        Err(ServiceError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let locked = locked_tiers(&core).err().map(|why| why.to_string());
    let mut fields = vec![("tier", Some(tier.to_string()))];
    fields.extend(scope_query(&request.scope));
    let command = format!("patch promote {version} {tier}{}", options(&request.scope));
    let deed = Deed {
        action: &action,
        fields: &fields,
        label: &format!("Promote to {tier}"),
        grave: false,
        from: &from,
        command: &command,
    };
    let content = html! {
        h1 { (title) }
        (narrow(&action, &asked, None))
        (promotion(&outcome, &scope))
        h2 { "Kernels without a payload" }
        (gaps("Kernels that machines in the tiers run and for which the patch has no payload", &outcome.kernels_without_payload))
        @if let Some(forecast) = forecast {
            h2 { "If all goes well" }
            @if !scope.is_all() { p.quiet { "For the whole patch." } }
            (by_tier(&forecast))
        }
        @if let Some(why) = locked {
            p.problem { (why) }
            p { a href={ (BASE) (from) } { "Back to the patch" } }
        } @else if outcome.patches.is_empty() {
            p.notice { "It has reached " (tier) " already: nothing would change." }
            p { a href={ (BASE) (from) } { "Back to the patch" } }
        } @else {
            (deed.form(&visitor))
        }
    };
    Ok(page(&visitor, &title, "", content))
}

fn promotion(outcome: &PromoteOutcome, scope: &Scope) -> Markup {
    let rows: Vec<Vec<Markup>> = outcome
        .patches
        .iter()
        .map(|patch| {
            vec![
                html! { (patch.version) },
                html! { @match &patch.from { Some(from) => (from), None => span.quiet { "no tier" } } },
                html! { (patch.to) },
                html! { (scope_text(&patch.scope)) },
            ]
        })
        .collect();
    html! {
        (facts(&[
            ("For", html! { (scope) }),
            ("Payloads that become available", html! { (number(outcome.payloads)) }),
            ("Machines that are offered another patch", html! { (number(outcome.machines)) }),
            ("They download", html! { (bytes(outcome.bytes)) }),
        ]))
        (table("Patches that go further", &["Patch", "From", "To", "For"], &rows, "No patch goes further."))
    }
}

async fn promote(
    State(core): State<Arc<Core>>,
    Path(version): Path<String>,
    Posted { visitor, form }: Posted<Asked>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let version = named("patch", &version)?;
    let request = PromoteRequest {
        tier: form.tier()?,
        scope: form.scope()?.into(),
        reason: given(form.reason),
        dry_run: false,
        selector: None,
    };
    let actor = visitor.caller.actor();
    let outcome = promotions::promote(&core, &actor, version, &request).await?;
    let word = if outcome.patches.is_empty() {
        "unchanged"
    } else {
        "promoted"
    };
    Ok(back(&path(version), word))
}
