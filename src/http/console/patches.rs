//! The page of a patch: where it is, what stands in its way, its machines by tier, its payloads, and what it mends.

use super::bars::{bar, curve};
use super::error::{PageError, named};
use super::forms::{self, address};
use super::home::{rollout_tag, stopped};
use super::page::{may_act, number, or_none, page, time};
use super::patch_parts::{InTier, by_kernel, payloads, scope_query, to_machines};
use super::session::Visitor;
use super::tables::{facts, table};
use super::{BASE, patch_acts, patch_promote};
use crate::domain::{Fate, PatchVersion, Scope, TierName};
use crate::rollout::Catalog;
use crate::service::rollouts::show;
use crate::service::{Core, census, patches};
use crate::wire::admin::{
    Block, BlockKind, Patch, PatchDetail, RolloutEntry, RolloutQuery, WireScope,
};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most fixes that are named.
const FIXES: usize = 400;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/patches", get(|| async { Redirect::to(BASE) }))
        .route("/console/patches/{version}", get(show_patch))
        .merge(patch_acts::routes())
        .merge(patch_promote::routes())
}

/// The path of a patch below the base.
pub(super) fn path(version: PatchVersion) -> String {
    format!("/patches/{version}")
}

/// A link to the page of a patch.
pub(super) fn link(version: PatchVersion) -> Markup {
    html! { a href={ (BASE) (path(version)) } { (version) } }
}

/// For which kernels something stands.
pub(super) fn scope_text(scope: &WireScope) -> String {
    // What was read or stored is well formed.
    let scope = Scope {
        kernel: scope.kernel.clone(),
        flavour: scope.flavour.clone(),
        architecture: scope.architecture,
    };
    scope.to_string()
}

#[derive(Debug, Default, Deserialize)]
struct PatchQuery {
    /// The tier whose health is shown.
    tier: Option<String>,
    /// Payloads after this file.
    cursor: Option<String>,
}

async fn show_patch(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path(version): Path<String>,
    Query(query): Query<PatchQuery>,
) -> Result<Html<String>, PageError> {
    let version = named("patch", &version)?;
    let detail = patches::show(&core, version).await?;
    let of_it = RolloutQuery {
        version: Some(version),
        all: true,
        ..RolloutQuery::default()
    };
    let rollouts = show::list(&core, &of_it).await?;
    let catalog = Arc::clone(&core.snapshots.get_full().catalog);
    let counted = census::current(&core).await?;
    let tiers = InTier::of(&catalog, &counted, version, &Scope::default());
    let first = tiers
        .iter()
        .find(|tier| tier.counts.known() > 0)
        .or(tiers.first())
        .map(|tier| &tier.name);
    let chosen = query
        .tier
        .as_deref()
        .and_then(|text| tiers.iter().find(|tier| tier.name.as_str() == text))
        .map(|tier| &tier.name)
        .or(first);
    let content = html! {
        h1 { "Patch " (version) }
        (stands(&detail.patch, &rollouts))
        (head(&detail, &catalog))
        @if may_act(&visitor) { (acts(&detail.patch, &catalog)) }
        h2 { "Machines by tier" }
        (machines(version, &tiers, counted.as_of))
        @if let Some(tier) = chosen { (by_kernel(&core, version, tier, &tiers).await?) }
        (adoption_figures(&core, version).await?)
        h2 { "Where it is" }
        (promotions(&detail.patch))
        h2 { "Rollouts" }
        (rollouts_of(&rollouts))
        h2 { "Blocks and holds" }
        (blocks(&visitor, &detail.patch))
        h2 #payloads { "Payloads" }
        (payloads(&detail, &catalog, query.cursor.as_deref()))
        (forms::command(&format!("patch show {version}")))
    };
    Ok(page(&visitor, &format!("Patch {version}"), "", content))
}

/// What somebody should know first.
fn stands(patch: &Patch, rollouts: &[RolloutEntry]) -> Markup {
    let halted: Vec<&RolloutEntry> = rollouts
        .iter()
        .filter(|rollout| rollout.state == "halted")
        .collect();
    let alarm = (!halted.is_empty()).then(|| format!("{} is halted", patch.version));
    html! {
        @if !halted.is_empty() {
            div.problem data-alarm=[alarm] {
                @for rollout in halted {
                    p {
                        strong { "Halted in " (rollout.tier) ": " }
                        (rollout.reason.strip_prefix("halted: ").unwrap_or(&rollout.reason)) ". "
                        a href={ (BASE) "/rollouts/" (rollout.id) } { "To the rollout" }
                    }
                }
            }
        }
        @match stopped(patch) {
            Some(BlockKind::Block) => { p.problem { strong { "Blocked." } " Nobody is offered it, and machines that run it may go back to a lower version." } }
            Some(BlockKind::Hold) => { p.notice { strong { "Held." } " Nobody is offered it anew; machines that run it keep it." } }
            None => {}
        }
        @if patch.damaged > 0 {
            p.problem {
                strong { "Damaged payloads: " (number(patch.damaged)) ". " }
                "What is damaged is not offered until it is there again; see the payloads below."
            }
        }
    }
}

/// What a patch mends, by name.
fn fixes(catalog: &Catalog, version: PatchVersion) -> BTreeMap<&str, &str> {
    let of_it = catalog
        .payloads()
        .iter()
        .filter(|payload| payload.version == version);
    of_it
        .flat_map(|payload| payload.fixes.iter())
        .map(|fix| (fix.name.as_str(), fix.description.as_str()))
        .collect()
}

fn head(detail: &PatchDetail, catalog: &Catalog) -> Markup {
    let patch = &detail.patch;
    let fixes = fixes(catalog, patch.version);
    let cves = fixes.keys().filter(|name| name.starts_with("CVE-")).count();
    let size: u64 = detail.payloads.iter().map(|payload| payload.size).sum();
    let notice = super::home::notice_address(&patch.notice);
    html! {
        (facts(&[
            ("Notice", html! { a href=(notice) rel="noreferrer" { (patch.notice) } }),
            ("CVEs that it mends", html! { (number(cves as u64)) }),
            ("Reached by the whole patch", html! {
                @match &patch.reach { Some(tier) => (tier), None => span.quiet { "no tier yet" } }
            }),
            ("Kernels", html! { (number(patch.kernels)) }),
            ("Payloads", html! {
                a href="#payloads" { (number(patch.payloads)) } ", " (super::page::bytes(size))
                @if patch.damaged > 0 { ", " span.tag.bad { (number(patch.damaged)) " damaged" } }
            }),
            ("First seen", time(Some(patch.first_seen))),
        ]))
        @if !fixes.is_empty() {
            details {
                summary { "What it mends: " (number(fixes.len() as u64)) }
                ul {
                    @for (name, description) in fixes.iter().take(FIXES) {
                        li { (name) @if !description.is_empty() { span.quiet { " " (short(description)) } } }
                    }
                }
                @if fixes.len() > FIXES { p.quiet { "And " (fixes.len() - FIXES) " more." } }
            }
        }
    }
}

/// So much of a description as fits on a line.
fn short(text: &str) -> &str {
    text.char_indices()
        .nth(120)
        .map_or(text, |(end, _)| &text[..end])
}

/// Tiers after the last one that the whole patch has reached.
fn later<'c>(patch: &Patch, catalog: &'c Catalog) -> Vec<&'c TierName> {
    let tiers = catalog.tiers().iter().map(|tier| &tier.name);
    match &patch.reach {
        Some(reach) => tiers.skip_while(|name| *name != reach).skip(1).collect(),
        None => tiers.collect(),
    }
}

fn acts(patch: &Patch, catalog: &Catalog) -> Markup {
    let path = path(patch.version);
    let stop = stopped(patch);
    let whole = |kind: BlockKind| {
        let mut blocks = patch.blocks.iter();
        blocks.any(|block| block.kind == kind && block.scope.is_all())
    };
    html! {
        div.acts role="group" aria-label={ "Acts on " (patch.version) } {
            @for tier in later(patch, catalog) {
                a.button href=(address(&format!("{path}/promote"), &[("tier", Some(tier.to_string()))])) { "Promote to " (tier) "…" }
            }
            @if stop.is_none() { a.button.plain href={ (BASE) (path) "/hold" } { "Hold…" } }
            @if whole(BlockKind::Hold) { a.button.plain href={ (BASE) (path) "/resume" } { "Lift the hold…" } }
            @if whole(BlockKind::Block) {
                a.button.plain href={ (BASE) (path) "/unblock" } { "Lift the block…" }
            } @else {
                a.button.bad href={ (BASE) (path) "/block" } { "Block…" }
            }
        }
    }
}

fn machines(version: PatchVersion, tiers: &[InTier], as_of: Timestamp) -> Markup {
    let rows: Vec<Vec<Markup>> = tiers
        .iter()
        .map(|tier| {
            let (name, counts) = (&tier.name, tier.counts);
            let to = |fate| to_machines(name, version, fate);
            vec![
                html! { (name) },
                html! { a href=(to(Fate::Applied)) { (number(counts.applied)) } },
                html! {
                    @if counts.failed > 0 { a href=(to(Fate::Failed)) { (number(counts.failed)) } } @else { "0" }
                },
                html! { a href=(to(Fate::Waiting)) { (number(counts.waiting)) } },
                bar(&counts.parts()),
            ]
        })
        .collect();
    html! {
        (table(
            "Machines by tier",
            &["Tier", "Applied", "Failed", "Offered, not yet applied", "Together"],
            &rows,
            "There are no tiers.",
        ))
        p.quiet { "Counted at " (time(Some(as_of))) "." }
    }
}

/// How the patch spread in each tier, over time.
async fn adoption_figures(core: &Core, version: PatchVersion) -> Result<Markup, PageError> {
    let tiers = crate::service::adoption::of(core, version).await?;
    Ok(curves(version, &tiers))
}

fn curves(version: PatchVersion, tiers: &[(TierName, Vec<(Timestamp, u64)>)]) -> Markup {
    // A tier where nobody ever ran it has no curve.
    let mut seen = tiers
        .iter()
        .filter(|(_, points)| points.iter().any(|(_, machines)| *machines > 0))
        .peekable();
    html! {
        @if seen.peek().is_some() {
            h2 { "Adoption over time" }
            @for (tier, points) in seen {
                h3 { (tier) }
                (curve(points, &format!("Machines of {tier} that run {version}")))
            }
        }
    }
}

fn promotions(patch: &Patch) -> Markup {
    let rows: Vec<Vec<Markup>> = patch
        .promotions
        .iter()
        .rev()
        .map(|promotion| {
            vec![
                html! { (promotion.tier) },
                html! { (scope_text(&promotion.scope)) },
                time(Some(promotion.at)),
                html! { (promotion.actor) },
                or_none(Some(&promotion.reason)),
            ]
        })
        .collect();
    table(
        "Promotions, newest first",
        &["Tier", "For", "When", "Who", "Why"],
        &rows,
        "It has not reached a tier.",
    )
}

fn rollouts_of(rollouts: &[RolloutEntry]) -> Markup {
    let rows: Vec<Vec<Markup>> = rollouts
        .iter()
        .map(|rollout| {
            vec![
                html! { a href={ (BASE) "/rollouts/" (rollout.id) } { (rollout.id) } },
                html! { (rollout.tier) },
                html! { (scope_text(&rollout.scope)) },
                rollout_tag(rollout),
                html! { (rollout.share) },
                time(Some(rollout.begun_at)),
                or_none(Some(&rollout.reason)),
            ]
        })
        .collect();
    table(
        "Rollouts of this patch, newest first",
        &[
            "Rollout", "Tier", "For", "State", "Let in", "Begun", "Reason",
        ],
        &rows,
        "There was none: tiers without a policy offer a patch to all their machines at once.",
    )
}

fn blocks(visitor: &Visitor, patch: &Patch) -> Markup {
    let path = path(patch.version);
    let row = |block: &Block| {
        let (tag, verb) = match block.kind {
            BlockKind::Block => (html! { span.tag.bad { "blocked" } }, "unblock"),
            BlockKind::Hold => (html! { span.tag.wait { "held" } }, "resume"),
        };
        let scope = scope_text(&block.scope);
        let lift = address(&format!("{path}/{verb}"), &scope_query(&block.scope));
        vec![
            tag,
            html! { (scope) },
            time(Some(block.at)),
            html! { (block.actor) },
            or_none(Some(&block.reason)),
            html! { @if may_act(visitor) { a href=(lift) { "Lift" span.unseen { " for " (scope) } "…" } } },
        ]
    };
    let rows: Vec<Vec<Markup>> = patch.blocks.iter().map(row).collect();
    table(
        "Blocks and holds that stand",
        &["What", "For", "Since", "Who", "Why", "Act"],
        &rows,
        "None stand.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(reach: Option<&str>) -> Patch {
        Patch {
            version: "107.1".parse().unwrap(),
            notice: "LSN-0107-1".to_owned(),
            payloads: 2,
            kernels: 2,
            damaged: 0,
            reach: reach.map(|name| name.parse().unwrap()),
            promotions: Vec::new(),
            blocks: Vec::new(),
            first_seen: "2026-11-28T05:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_patch_is_promoted_to_later_tiers_only() {
        let tiers = ["edge", "beta", "stable"];
        let tiers = tiers
            .iter()
            .enumerate()
            .map(|(id, name)| crate::rollout::Tier {
                id: id as i32,
                name: name.parse().unwrap(),
            });
        let catalog = Catalog::build(crate::rollout::CatalogRows {
            tiers: tiers.collect(),
            ..Default::default()
        });
        let names = |reach| -> Vec<String> {
            let patch = patch(reach);
            let tiers = later(&patch, &catalog);
            tiers.into_iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(None), ["edge", "beta", "stable"]);
        assert_eq!(names(Some("edge")), ["beta", "stable"]);
        assert!(names(Some("stable")).is_empty());
        let acts = acts(&patch(Some("beta")), &catalog).into_string();
        assert!(acts.contains("/console/patches/107.1/promote?tier=stable"));
        assert!(!acts.contains("tier=beta") && !acts.contains("/unblock"));
    }

    #[test]
    fn what_people_wrote_is_text() {
        let mut patch = patch(None);
        patch.promotions.push(crate::wire::admin::Promotion {
            tier: "edge".parse().unwrap(),
            scope: WireScope::default(),
            at: patch.first_seen,
            actor: "eve".to_owned(),
            reason: "<script>alert(1)</script>".to_owned(),
        });
        let shown = promotions(&patch).into_string();
        assert!(shown.contains("&lt;script&gt;") && !shown.contains("<script>"));
    }

    #[test]
    fn long_descriptions_are_cut_between_letters() {
        assert_eq!(short("a use after free"), "a use after free");
        assert_eq!(short(&"ü".repeat(500)), "ü".repeat(120));
    }

    #[test]
    fn only_tiers_that_had_it_have_a_curve() {
        let at: Timestamp = "2026-11-28T05:00:00Z".parse().unwrap();
        let tiers = [
            ("edge".parse().unwrap(), vec![(at, 3)]),
            ("beta".parse().unwrap(), vec![(at, 0)]),
        ];
        let version = "107.1".parse().unwrap();
        let shown = curves(version, &tiers).into_string();
        assert!(shown.contains("Machines of edge that run 107.1") && !shown.contains("beta"));
        assert!(curves(version, &tiers[1..]).into_string().is_empty());
    }
}
