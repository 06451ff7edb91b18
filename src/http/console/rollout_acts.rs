//! Acts on a rollout: approve, pause, resume, abort and block, each with what it would do before it is done.

use super::BASE;
use super::error::{PageError, named};
use super::forecasts::ahead;
use super::forms::{back, given};
use super::page::{number, page};
use super::patch_acts::Deed;
use super::patches::scope_text;
use super::rollouts::{path, state};
use super::session::{Posted, Visitor};
use super::tables::facts;
use crate::domain::Role;
use crate::service::rollouts::act::{self, Act};
use crate::service::rollouts::{policies, show};
use crate::service::{Core, ServiceError, identity};
use crate::wire::admin::{PolicySpec, RolloutDetail, RolloutEntry};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use maud::{Markup, html};
use serde::Deserialize;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/console/rollouts/{id}/{act}", get(preview).post(done))
}

const ACTS: [Act; 5] = [
    Act::Approve,
    Act::Resume,
    Act::Pause,
    Act::Abort,
    Act::Block,
];

/// How an act is spoken of: its verb, the button, the word for what was done.
const fn words(act: Act) -> (&'static str, &'static str, &'static str) {
    match act {
        Act::Approve => ("approve", "Approve", "approved"),
        Act::Pause => ("pause", "Pause", "paused"),
        Act::Resume => ("resume", "Resume", "resumed"),
        Act::Abort => ("abort", "Abort and hold", "aborted"),
        Act::Block => ("block", "Abort and block", "blocked"),
    }
}

fn read_act(text: &str) -> Result<Act, PageError> {
    let known = ACTS.into_iter().find(|act| words(*act).0 == text);
    known.ok_or_else(|| ServiceError::not_found("page", text).into())
}

/// Whether the act can be done to a rollout in this state.
fn applies(act: Act, state: &str) -> bool {
    match act {
        Act::Approve => state == "awaiting-approval",
        Act::Pause => state == "running",
        Act::Resume => matches!(state, "paused" | "halted" | "aborted"),
        Act::Abort | Act::Block => state != "aborted",
    }
}

/// Ways to what can be done now.
pub(super) fn links(rollout: &RolloutEntry) -> Markup {
    let path = path(rollout.id);
    html! {
        div.acts role="group" aria-label={ "Acts on rollout " (rollout.id) } {
            @for act in ACTS.into_iter().filter(|act| applies(*act, &rollout.state)) {
                @let (verb, label, _) = words(act);
                @let class = match act {
                    Act::Approve | Act::Resume => "button",
                    Act::Pause | Act::Abort => "button plain",
                    Act::Block => "button bad",
                };
                a class=(class) href={ (BASE) (path) "/" (verb) } { (label) "…" }
            }
        }
    }
}

/// Refuses whoever may not do it.
fn may(visitor: &Visitor, act: Act) -> Result<(), PageError> {
    visitor.require(Role::Operator)?;
    if act == Act::Approve {
        // A second pair of eyes is what this is for.
        visitor.caller.person()?;
    }
    Ok(())
}

async fn preview(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
    Path((id, act)): Path<(String, String)>,
) -> Result<Html<String>, PageError> {
    let (id, act) = (named("rollout", &id)?, read_act(&act)?);
    may(&visitor, act)?;
    let found = show::detail(&core, id).await?;
    let rollout = &found.rollout;
    let (verb, label, _) = words(act);
    let from = path(id);
    let title = format!("{label}: {} in {}?", rollout.version, rollout.tier);
    let command = format!("rollout {verb} {id}");
    let deed = Deed {
        action: &format!("{from}/{verb}"),
        fields: &[],
        label,
        grave: act == Act::Block,
        from: &from,
        command: &command,
    };
    let policy = if matches!(act, Act::Approve | Act::Resume) {
        match policies::of(&core, &rollout.tier).await {
            Ok(entry) => Some(entry.policy),
            Err(ServiceError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        }
    } else {
        None
    };
    let refused = refusal(&visitor.caller.name, act, rollout);
    let content = html! {
        h1 { (title) }
        (facts(&[
            ("Rollout", html! { a href={ (BASE) (from) } { (id) } }),
            ("State", state(rollout)),
            ("For", html! { (scope_text(&rollout.scope)) }),
            ("Let in", html! { (rollout.share) }),
            ("Offered it", html! { (number(found.health.offered)) " of " (number(found.health.machines)) " machines" }),
            ("Asked for by", html! { (rollout.requested_by) }),
        ]))
        (meaning(act, &found))
        @if let Some(policy) = policy { (phases(&policy)) }
        @if let Some(forecast) = found.forecast.as_ref().filter(|_| act == Act::Pause) {
            h2 { "What would come without it" }
            (ahead("Phases still to open", forecast, &rollout.zone))
        }
        @if let Some(why) = refused {
            p.problem { (why) }
            p { a href={ (BASE) (from) } { "Back to the rollout" } }
        } @else {
            (deed.form(&visitor))
        }
    };
    Ok(page(&visitor, &title, "/rollouts", content))
}

/// Why it cannot be done, as far as that is known before.
fn refusal(name: &str, act: Act, rollout: &RolloutEntry) -> Option<String> {
    if !applies(act, &rollout.state) {
        return Some(format!(
            "It is {} and stands otherwise than this needs: nothing can be done here now.",
            rollout.state
        ));
    }
    let own = act == Act::Approve && identity::may_be_one(&rollout.requested_by, name);
    own.then(|| "You asked for it yourself: somebody else must approve it.".to_owned())
}

/// What an act means, with numbers.
fn meaning(act: Act, found: &RolloutDetail) -> Markup {
    let (rollout, health) = (&found.rollout, &found.health);
    let version = rollout.version;
    html! {
        @match act {
            Act::Approve => p {
                "It begins: " (version) " is offered to the machines of " (rollout.tier) " phase by phase, "
                strong { (number(health.machines)) " machines" } " in the end."
            },
            Act::Pause => p {
                "Nobody is let in until it is resumed. The " strong { (number(health.offered)) " machines" }
                " that were let in so far keep it; " (number(health.pending)) " of them are not known to have it yet."
            },
            Act::Resume => {
                p {
                    "It goes on where it stands, at " (rollout.share) " in phase " (rollout.phase) " of " (rollout.phases) ", and that phase begins anew."
                }
                @if rollout.state != "paused" {
                    p.notice {
                        "What failed before counts no more toward the gate: now "
                        strong { (number(health.failed)) " failed and " (number(health.silent)) " silent" } " machines."
                    }
                }
                @if rollout.state == "aborted" {
                    p.notice { "The hold or block of its patch is not lifted by this; that is done on the page of the patch." }
                }
            },
            Act::Abort => p {
                "It ends for good, and " (version) " is held: nobody is offered it anew, in any tier. The "
                strong { (number(health.applied)) " machines" } " that are known to have it by this rollout keep it."
            },
            Act::Block => p {
                "It ends for good, and " (version) " is blocked: nobody is offered it, in any tier, and machines that run it, "
                strong { (number(health.applied)) " by this rollout" } ", may go back to a lower version."
            },
        }
    }
}

fn phases(policy: &PolicySpec) -> Markup {
    html! {
        h2 { "Phases of the tier's policy" }
        ol { @for phase in &policy.phases { li { (phase) } } }
    }
}

#[derive(Debug, Deserialize)]
struct Given {
    reason: Option<String>,
}

async fn done(
    State(core): State<Arc<Core>>,
    Path((id, act)): Path<(String, String)>,
    Posted { visitor, form }: Posted<Given>,
) -> Result<Redirect, PageError> {
    let (id, act) = (named("rollout", &id)?, read_act(&act)?);
    may(&visitor, act)?;
    let reason = given(form.reason);
    act::act(&core, &visitor.caller.actor(), id, act, reason.as_deref()).await?;
    Ok(back(&path(id), words(act).2))
}

#[cfg(test)]
mod tests {
    use super::super::forms::said;
    use super::super::rollouts::tests::entry;
    use super::*;

    #[test]
    fn every_act_is_known_by_its_verb_and_said_when_done() {
        for act in ACTS {
            let (verb, _, done) = words(act);
            assert_eq!(read_act(verb).unwrap(), act);
            assert!(said(done).is_some(), "{done}");
        }
        assert!(read_act("reach").is_err());
    }

    #[test]
    fn only_what_can_be_done_is_offered() {
        let verbs = |state: &str| -> Vec<&str> {
            let acts = ACTS.into_iter().filter(|act| applies(*act, state));
            acts.map(|act| words(act).0).collect()
        };
        assert_eq!(verbs("awaiting-approval"), ["approve", "abort", "block"]);
        assert_eq!(verbs("running"), ["pause", "abort", "block"]);
        assert_eq!(verbs("halted"), ["resume", "abort", "block"]);
        assert_eq!(verbs("done"), ["abort", "block"]);
        assert_eq!(verbs("aborted"), ["resume"]);
        assert!(
            links(&entry("halted"))
                .into_string()
                .contains("/console/rollouts/7/resume")
        );
    }

    #[test]
    fn who_asked_does_not_approve() {
        let waiting = entry("awaiting-approval");
        assert!(refusal("ann", Act::Approve, &waiting).is_some());
        assert!(refusal("bob", Act::Approve, &waiting).is_none());
        assert!(refusal("ann", Act::Abort, &waiting).is_none());
        assert!(refusal("bob", Act::Approve, &entry("running")).is_some());
    }
}
