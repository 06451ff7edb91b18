//! Acts on a patch: block, unblock, hold and resume, each with what it would do before it is done; and what all such acts share.

use super::error::{PageError, named};
use super::forecasts::by_tier;
use super::forms::{self, back, given};
use super::page::{number, page};
use super::patch_parts::{InTier, scope_query, to_machines, to_running};
use super::patches::{path, scope_text};
use super::session::{Posted, Visitor};
use super::tables::table;
use super::{BASE, rollouts};
use crate::domain::{Architecture, Fate, PatchVersion, Role, Scope, TierName};
use crate::service::patches::{self, Act};
use crate::service::rollouts::show;
use crate::service::{Core, ServiceError, census};
use crate::wire::admin::{
    Block, BlockKind, BlockRequest, ForecastQuery, RolloutEntry, RolloutQuery, WireScope,
};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route(
        "/console/patches/{version}/{act}",
        get(preview_stop).post(stop),
    )
}

/// What is asked for, in an address or a form.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    tier: Option<String>,
    kernel: Option<String>,
    flavour: Option<String>,
    architecture: Option<String>,
    pub(super) reason: Option<String>,
}

impl Asked {
    pub(super) fn scope(&self) -> Result<Scope, ServiceError> {
        let scope = Scope::parse(
            self.kernel.as_deref().map(str::trim),
            self.flavour.as_deref().map(str::trim),
            self.architecture.as_deref(),
        );
        Ok(scope?)
    }

    pub(super) fn tier(&self) -> Result<TierName, ServiceError> {
        let text = self.tier.as_deref().unwrap_or_default();
        text.parse()
            .map_err(|_| ServiceError::not_found("tier", text))
    }
}

/// An act from a path. What is none is not found.
fn read_act(text: &str) -> Result<Act, PageError> {
    Ok(match text {
        "block" => Act::Block,
        "unblock" => Act::Unblock,
        "hold" => Act::Hold,
        "resume" => Act::Resume,
        _ => return Err(ServiceError::not_found("page", text).into()),
    })
}

/// A form that does what its page describes.
pub(super) struct Deed<'a> {
    /// Where it is sent, below the base.
    pub(super) action: &'a str,
    /// What stands in it beside the reason.
    pub(super) fields: &'a [(&'a str, Option<String>)],
    /// What its button says.
    pub(super) label: &'a str,
    /// Whether it takes something away from machines or cannot simply be taken back.
    pub(super) grave: bool,
    /// The page to go back to if it is not done, below the base.
    pub(super) from: &'a str,
    /// The command that does the same.
    pub(super) command: &'a str,
}

impl Deed<'_> {
    pub(super) fn form(&self, visitor: &Visitor) -> Markup {
        html! {
            h2 { "Do it" }
            form.stacked method="post" action={ (BASE) (self.action) } {
                (visitor.token())
                @for (name, value) in self.fields {
                    @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
                }
                (forms::reason())
                div.acts {
                    button.bad[self.grave] type="submit" { (self.label) }
                    a.button.plain href={ (BASE) (self.from) } { "Leave it" }
                }
            }
            (forms::command(self.command))
        }
    }
}

/// The options of a command that mean a scope.
pub(super) fn options(scope: &WireScope) -> String {
    scope_query(scope)
        .into_iter()
        .map(|(name, value)| (if name == "architecture" { "arch" } else { name }, value))
        .filter_map(|(name, value)| Some(format!(" --{name} {}", forms::word(&value?))))
        .collect()
}

/// The form that narrows an act to a part of the patch.
pub(super) fn narrow(action: &str, asked: &Asked, wrong: Option<&str>) -> Markup {
    let chosen = asked.architecture.as_deref().unwrap_or_default();
    html! {
        details open[wrong.is_some()] {
            summary { "Only for some kernels" }
            @if let Some(wrong) = wrong { p.problem #scope-problem role="alert" { (wrong) } }
            form.row method="get" action={ (BASE) (action) } {
                @if let Some(tier) = &asked.tier { input type="hidden" name="tier" value=(tier); }
                div {
                    label for="scope-kernel" { "Kernel" }
                    input #scope-kernel name="kernel" value=[asked.kernel.as_deref()] placeholder="5.15.0-107.117-generic"
                        aria-describedby=[wrong.map(|_| "scope-problem")];
                }
                div {
                    label for="scope-flavour" { "Flavour" }
                    input #scope-flavour name="flavour" value=[asked.flavour.as_deref()] placeholder="aws"
                        aria-describedby=[wrong.map(|_| "scope-problem")];
                }
                div {
                    label for="scope-architecture" { "Architecture" }
                    select #scope-architecture name="architecture" {
                        option value="" { "all" }
                        @for arch in Architecture::ALL {
                            option value=(arch) selected[arch.as_str() == chosen] { (arch) }
                        }
                    }
                }
                button.plain type="submit" { "Show what that would do" }
            }
        }
    }
}

/// How an act is spoken of.
struct Words {
    title: &'static str,
    verb: &'static str,
    done: &'static str,
    /// What it sets or lifts.
    kind: BlockKind,
    sets: bool,
}

const fn words(act: Act) -> Words {
    let (title, verb, done, kind, sets) = match act {
        Act::Block => ("Block", "block", "blocked", BlockKind::Block, true),
        Act::Unblock => (
            "Lift the block of",
            "unblock",
            "unblocked",
            BlockKind::Block,
            false,
        ),
        Act::Hold => ("Hold", "hold", "held", BlockKind::Hold, true),
        Act::Resume => (
            "Lift the hold of",
            "resume",
            "resumed",
            BlockKind::Hold,
            false,
        ),
    };
    Words {
        title,
        verb,
        done,
        kind,
        sets,
    }
}

async fn preview_stop(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path((version, act)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let (version, act) = (named("patch", &version)?, read_act(&act)?);
    let words = words(act);
    let (from, action) = (path(version), format!("{}/{}", path(version), words.verb));
    let title = format!("{} {version}?", words.title);
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
    let blocks = patches::show(&core, version).await?.patch.blocks;
    let wire: WireScope = scope.clone().into();
    let stands = blocks
        .iter()
        .any(|block| block.kind == words.kind && block.scope == wire);
    let command = format!("patch {} {version}{}", words.verb, options(&wire));
    let fields = scope_query(&wire);
    let deed = Deed {
        action: &action,
        fields: &fields,
        label: &format!("{} {version}", words.title),
        grave: act == Act::Block,
        from: &from,
        command: &command,
    };
    let content = html! {
        h1 { (title) }
        @if words.sets { (narrow(&action, &asked, None)) }
        p { "For: " (scope) "." }
        (meaning(act))
        @if words.sets { (touched(&core, version, &scope).await?) } @else { (lifted(&core, version, &blocks, words.kind, &wire).await?) }
        @if stands == words.sets {
            p.notice { @if words.sets { "That stands already: nothing would change." } @else { "Nothing of that kind stands: nothing would change." } }
            p { a href={ (BASE) (from) } { "Back to the patch" } }
        } @else {
            (deed.form(&visitor))
        }
    };
    Ok(page(&visitor, &title, "", content))
}

/// What an act means, in words.
fn meaning(act: Act) -> Markup {
    html! {
        p {
            @match act {
                Act::Block => "Nobody is offered it any more, in any tier, from the next check-in on. Machines that run it may go back to \
                    a lower version.",
                Act::Hold => "Nobody is offered it anew, in any tier, from the next check-in on. Machines that run it keep it.",
                Act::Unblock | Act::Resume => "Machines in the tiers that it has reached are offered it again, as far as their rollouts \
                    let them in and nothing else stops it.",
            }
        }
    }
}

/// The machines that stopping it concerns.
async fn touched(core: &Core, version: PatchVersion, scope: &Scope) -> Result<Markup, PageError> {
    let catalog = Arc::clone(&core.snapshots.get_full().catalog);
    let counted = census::current(core).await?;
    let tiers = InTier::of(&catalog, &counted, version, scope);
    let running = InTier::sum(&tiers, |counts| counts.running);
    let waiting = InTier::sum(&tiers, |counts| counts.waiting);
    let rows: Vec<Vec<Markup>> = tiers
        .iter()
        .filter(|tier| tier.counts.known() > 0)
        .map(|tier| {
            let (name, counts) = (&tier.name, tier.counts);
            // The lists know no scope.
            let linked = |count, list: String| {
                html! { @if scope.is_all() { a href=(list) { (number(count)) } } @else { (number(count)) } }
            };
            let to = |fate| to_machines(name, version, fate);
            vec![
                html! { (name) },
                linked(counts.running, to_running(name, version)),
                linked(counts.failed, to(Fate::Failed)),
                linked(counts.waiting, to(Fate::Waiting)),
            ]
        })
        .collect();
    Ok(html! {
        p {
            strong { (number(running)) " machines run it" } ", and " (number(waiting)) " were offered it and have not applied it yet."
        }
        (table(
            "Machines concerned, by tier",
            &["Tier", "Run it", "Failed", "Offered, not yet applied"],
            &rows,
            "No machine runs it or was offered it last.",
        ))
    })
}

/// What would come of it once something is lifted: what still stops it, and who would be offered it.
async fn lifted(
    core: &Core,
    version: PatchVersion,
    blocks: &[Block],
    kind: BlockKind,
    scope: &WireScope,
) -> Result<Markup, PageError> {
    let left: Vec<&Block> = blocks
        .iter()
        .filter(|block| block.kind != kind || block.scope != *scope)
        .collect();
    let of_it = RolloutQuery {
        version: Some(version),
        all: true,
        ..RolloutQuery::default()
    };
    let rollouts = show::list(core, &of_it).await?;
    let forecast = match show::of_patch(core, version, &ForecastQuery::default()).await {
        Ok(forecast) => Some(forecast),
        Err(ServiceError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let still: Vec<&RolloutEntry> = rollouts
        .iter()
        .filter(|rollout| !matches!(rollout.state.as_str(), "running" | "done"))
        .collect();
    Ok(html! {
        @if !left.is_empty() {
            h2 { "What else stops it" }
            ul {
                @for block in left {
                    li {
                        @match block.kind { BlockKind::Block => "Blocked", BlockKind::Hold => "Held" }
                        " for " (scope_text(&block.scope)) " by " (block.actor)
                        @if !block.reason.is_empty() { ": " (block.reason) }
                    }
                }
            }
        }
        @if !still.is_empty() {
            h2 { "Rollouts that stand still" }
            p { "These let nobody in, whatever is lifted here, until they are approved or resumed themselves." }
            ul {
                @for rollout in still {
                    li { a href={ (BASE) "/rollouts/" (rollout.id) } { "In " (rollout.tier) } ": " (rollouts::state(rollout)) }
                }
            }
        }
        @if let Some(forecast) = forecast {
            h2 { "If all goes well" }
            (by_tier(&forecast))
        }
    })
}

async fn stop(
    State(core): State<Arc<Core>>,
    Path((version, act)): Path<(String, String)>,
    Posted { visitor, form }: Posted<Asked>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let (version, act) = (named("patch", &version)?, read_act(&act)?);
    let request = BlockRequest {
        scope: form.scope()?.into(),
        reason: given(form.reason),
    };
    let actor = visitor.caller.actor();
    let outcome = patches::act(&core, &actor, version, act, &request).await?;
    let word = if outcome.changed {
        words(act).done
    } else {
        "unchanged"
    };
    Ok(back(&path(version), word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_act_is_known_by_its_verb_and_said_when_done() {
        for act in [Act::Block, Act::Unblock, Act::Hold, Act::Resume] {
            let words = words(act);
            assert_eq!(read_act(words.verb).unwrap(), act);
            assert!(forms::said(words.done).is_some(), "{}", words.done);
        }
        assert!(read_act("explode").is_err());
    }

    #[test]
    fn empty_fields_are_not_given_and_wrong_ones_are_said() {
        let asked = |kernel: &str, flavour: &str| Asked {
            kernel: Some(kernel.to_owned()),
            flavour: Some(flavour.to_owned()),
            architecture: Some(String::new()),
            ..Asked::default()
        };
        assert!(asked("", " ").scope().unwrap().is_all());
        let scope = asked("5.15.0-107.117-aws", "aws").scope().unwrap();
        assert_eq!(
            options(&scope.into()),
            " --kernel 5.15.0-107.117-aws --flavour aws"
        );
        let wrong = asked("5.15.0-107.117-aws", "<b>");
        let why = wrong.scope().unwrap_err().to_string();
        let shown = narrow("/patches/107.1/block", &wrong, Some(&why)).into_string();
        assert!(shown.contains("role=\"alert\"") && !shown.contains("<b>"));
        assert!(Asked::default().tier().is_err());
    }
}
