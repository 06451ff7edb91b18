//! What sync waits for until a person has looked at it, and the form that confirms it.

use super::BASE;
use super::error::PageError;
use super::forms::{back, command};
use super::page::{number, page};
use super::session::{Posted, Visitor};
use super::tables::{facts, table};
use crate::domain::{ParseError, Role, Sha256, TierName};
use crate::service::{Core, ServiceError, sync};
use crate::wire::admin::{SyncConfirm, SyncPending, TiersPreview};
use axum::Router;
use axum::extract::State;
use axum::response::{Html, Redirect};
use axum::routing::get;
use maud::{Markup, html};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The field that says where a tier's machines go begins so.
const MOVE: &str = "move-";

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new().route("/console/intake/confirm", get(look).post(confirm))
}

/// That something waits for a person, and the way to decide.
pub(super) fn waits(pending: &SyncPending, may_act: bool) -> Markup {
    html! {
        div.notice data-alarm="a decision on sync waits" {
            p {
                strong { "Sync waits for a decision. " }
                @if let Some(shrink) = &pending.shrink {
                    "Upstream does not have " (number(shrink.gone)) " of " (number(shrink.before)) " payloads any more. "
                }
                @if let Some(tiers) = &pending.tiers {
                    "Tiers and promotions would become upstream's: " (number(tiers.removed.len() as u64)) " tiers and "
                    (number(tiers.promotions_removed)) " promotions go. "
                }
                @if pending.confirmed { "It was confirmed; the next run goes on." }
            }
            @if may_act && !pending.confirmed {
                p { a.button href={ (BASE) "/intake/confirm" } { "Look at it and decide" } }
            }
        }
    }
}

/// What waits, in words with numbers.
pub(super) fn in_words(pending: &SyncPending) -> Markup {
    html! {
        @if let Some(shrink) = &pending.shrink {
            p {
                "Upstream does not have " (number(shrink.gone)) " of " (number(shrink.before)) " payloads any more, or has them "
                "with another content. That is more than the " (shrink.limit) " % that patch-sync.max-shrink allows. "
                "Once confirmed they are held here: nobody is offered them anew, and none is deleted."
            }
            (names(&shrink.names, shrink.gone))
        }
        @if let Some(tiers) = &pending.tiers {
            (tiers_in_words(tiers))
        }
    }
}

fn tiers_in_words(tiers: &TiersPreview) -> Markup {
    let list = |names: &[TierName]| {
        let names: Vec<&str> = names.iter().map(TierName::as_str).collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    let rows: Vec<Vec<Markup>> = tiers
        .removed
        .iter()
        .map(|gone| {
            vec![
                html! { (gone.name) },
                html! { a href={ (BASE) "/machines?tier=" (gone.name) } { (number(gone.machines)) } },
                html! { (number(gone.auth_tokens)) },
                html! { (number(gone.sync_tokens)) },
            ]
        })
        .collect();
    let promotions: Vec<String> = tiers
        .promotions
        .iter()
        .map(|gone| format!("{} in {}", gone.version, gone.tier))
        .collect();
    html! {
        p { "Tiers and promotions become upstream's." }
        (facts(&[
            ("Tiers afterwards, first to last", html! { (list(&tiers.tiers)) }),
            ("New tiers", html! { (list(&tiers.added)) }),
            ("Promotions that come", html! { (number(tiers.promotions_added)) }),
            ("Promotions that go", html! { (number(tiers.promotions_removed)) }),
        ]))
        (table("Tiers that go", &["Tier that goes", "Machines", "Auth tokens", "Sync tokens"], &rows, "No tier goes."))
        (names(&promotions, tiers.promotions_removed))
    }
}

/// Some names, and how many more there are.
pub(super) fn names(names: &[String], all: u64) -> Markup {
    let left_out = all.saturating_sub(names.len() as u64);
    html! {
        @if !names.is_empty() {
            ul {
                @for name in names { li { code { (name) } } }
                @if left_out > 0 { li.quiet { "and " (number(left_out)) " more" } }
            }
        }
    }
}

async fn look(State(core): State<Arc<Core>>, visitor: Visitor) -> Result<Html<String>, PageError> {
    visitor.require(Role::Operator)?;
    let status = sync::status(&core).await?;
    let content = html! {
        h1 { "What sync waits for" }
        @match status.pending.as_ref().map(|pending| (pending, pending.digest)) {
            None => p { "Nothing waits to be confirmed." },
            Some((pending, digest)) => {
                p { "From " (status.upstream) "." }
                (in_words(pending))
                @if pending.confirmed {
                    p.notice { "This was confirmed; the next run goes on." }
                } @else if let Some(digest) = digest {
                    (agree(&visitor, pending, digest))
                }
            },
        }
        p { a href={ (BASE) "/intake" } { "Back to intake, nothing is changed" } }
    };
    Ok(page(&visitor, "What sync waits for", "/intake", content))
}

/// The form that confirms, with a place for those whose tier goes.
fn agree(visitor: &Visitor, pending: &SyncPending, digest: Sha256) -> Markup {
    let tiers = pending.tiers.as_ref();
    let used: Vec<&TierName> = tiers
        .into_iter()
        .flat_map(|tiers| tiers.removed.iter().filter(|gone| gone.is_used()))
        .map(|gone| &gone.name)
        .collect();
    let stay = tiers.map_or(&[][..], |tiers| &tiers.tiers);
    let mut words = vec!["sync confirm".to_owned()];
    words.extend(used.iter().map(|name| format!("--move {name}=TIER")));
    html! {
        h2 { "Confirm" }
        p { "This confirms exactly what is shown here, and asks for a run. If upstream has changed when that run looks, it waits again." }
        form.stacked method="post" action={ (BASE) "/intake/confirm" } {
            (visitor.token())
            input type="hidden" name="digest" value=(digest);
            @for (at, gone) in used.iter().enumerate() {
                label for={ "move-" (at) } { "Machines and tokens of " (gone) " go to" }
                select id={ "move-" (at) } name={ (MOVE) (gone) } required {
                    option value="" { "choose" }
                    @for tier in stay { option value=(tier) { (tier) } }
                }
            }
            button.bad type="submit" { "Confirm" }
        }
        (command(&words.join(" ")))
    }
}

/// Reads the form of [`agree`], whose fields depend on which tiers go.
fn confirmation(form: &BTreeMap<String, String>) -> Result<SyncConfirm, ParseError> {
    let digest = form.get("digest").map(String::as_str).unwrap_or_default();
    let moves = form.iter().filter_map(|(field, to)| {
        let from = field.strip_prefix(MOVE)?;
        (!to.is_empty()).then_some((from, to))
    });
    let moves: Result<BTreeMap<TierName, TierName>, ParseError> = moves
        .map(|(from, to)| Ok((from.parse()?, to.parse()?)))
        .collect();
    Ok(SyncConfirm {
        digest: digest.parse()?,
        r#move: moves?,
    })
}

async fn confirm(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<BTreeMap<String, String>>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Operator)?;
    let request = confirmation(&form).map_err(ServiceError::from)?;
    sync::confirm(&core, &visitor.caller.actor(), &request).await?;
    Ok(back("/intake", "confirmed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> BTreeMap<String, String> {
        let fields = fields.iter();
        fields
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_confirmation_names_where_tiers_go() {
        let digest = Sha256::of(b"x").to_string();
        let given = form(&[
            ("proof", "p"),
            ("digest", &digest),
            ("move-beta", "candidate"),
            ("move-old", ""),
        ]);
        let request = confirmation(&given).unwrap();
        assert_eq!(request.digest, Sha256::of(b"x"));
        let moves: Vec<_> = request.r#move.iter().collect();
        assert_eq!(moves.len(), 1);
        assert_eq!(
            (moves[0].0.as_str(), moves[0].1.as_str()),
            ("beta", "candidate")
        );
        assert!(confirmation(&form(&[])).is_err());
        assert!(confirmation(&form(&[("digest", &digest), ("move-A", "b")])).is_err());
    }
}
