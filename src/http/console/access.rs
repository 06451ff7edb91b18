//! Who may: sessions, administrators and tokens. What can be done about them is in `grants`.

use super::error::PageError;
use super::forms::{address, button, command};
use super::machines::tiers;
use super::page::{may_act, or_none, page, time};
use super::session::Visitor;
use super::tables::table;
use crate::domain::grant::SECTIONS;
use crate::domain::{Role, grant};
use crate::service::peer::tokens as sync_tokens;
use crate::service::{Core, admins, auth, auth_tokens, census, service_tokens};
use crate::wire::admin::{AdminOrigin, PageQuery};
use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use jiff::Timestamp;
use maud::{Markup, html};
use std::sync::Arc;

/// Its place in the navigation.
pub(super) const PLACE: &str = "/access";

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/access", get(access))
        .merge(super::grants::routes())
}

async fn access(
    State(core): State<Arc<Core>>,
    visitor: Visitor,
) -> Result<Html<String>, PageError> {
    let all = PageQuery::default();
    let sessions = auth::sessions(&core, &visitor.caller, &all).await?;
    let rows: Vec<Vec<Markup>> = sessions
        .items
        .iter()
        .map(|session| {
            let id = session.id.to_string();
            vec![
                html! { (session.user) @if session.current { " " span.tag.good { "this one" } } },
                html! { (session.role) },
                or_none(Some(&session.source)),
                time(Some(session.created_at)),
                time(Some(session.last_used)),
                time(Some(session.expires_at)),
                button(&visitor, "/access/sessions/end", &[("id", &id)], "End"),
            ]
        })
        .collect();
    let names = tiers(&core);
    let content = html! {
        h1 { "Access" }
        h2 { "Sessions" }
        (table("Open sessions", &["Who", "Role", "From", "Opened", "Last used", "Ends", ""], &rows, "There are no sessions."))
        (rest(sessions.next_cursor.as_deref(), "session list"))
        @if visitor.caller.role >= Role::Admin {
            (administrators(&core, &visitor).await?)
            (programs(&core, &visitor).await?)
        }
        (machines(&core, &visitor, &names).await?)
        (servers(&core, &visitor, &names).await?)
    };
    Ok(page(&visitor, "Access", PLACE, content))
}

async fn administrators(core: &Core, visitor: &Visitor) -> Result<Markup, PageError> {
    let found = admins::list(core, &PageQuery::default()).await?;
    let rows: Vec<Vec<Markup>> = found
        .items
        .iter()
        .map(|admin| {
            let kept = admin.origin == AdminOrigin::Database;
            let others = admin.name != visitor.caller.name;
            let named = [
                ("name", Some(admin.name.clone())),
                ("role", Some(admin.role.to_string())),
            ];
            vec![
                html! { (admin.name) },
                html! { (admin.role) @if !kept { " " span.quiet { "by the configuration" } } },
                time(admin.changed_at),
                html! {
                    @if kept && others {
                        a.button.plain href=(address("/access/admins", &named)) { "Change" }
                    }
                },
            ]
        })
        .collect();
    Ok(html! {
        h2 { "Administrators" }
        (table("Administrators", &["Name", "Role", "Changed", ""], &rows, "There are no administrators."))
        details {
            summary { "Add an administrator" }
            form.stacked method="post" action=(address("/access/admins/add", &[])) {
                (visitor.token())
                label for="admin-name" { "Name" }
                input #admin-name name="name" required autocomplete="off";
                label for="admin-password" { "Password, at least 12 characters" }
                input #admin-password name="password" type="password" required autocomplete="new-password";
                (roles("admin-role", Role::Operator))
                div.acts { button type="submit" { "Add" } }
            }
        }
        (rest(found.next_cursor.as_deref(), "admin list"))
    })
}

/// The command that gives the whole list, which goes on if there is a next page.
fn rest(next: Option<&str>, list: &str) -> Markup {
    html! {
        @if next.is_some() { p { "There are more than are shown here." } }
        (command(list))
    }
}

/// The choice of a role.
pub(super) fn roles(id: &str, chosen: Role) -> Markup {
    html! {
        label for=(id) { "Role: viewer sees, operator acts, admin also manages access" }
        select id=(id) name="role" {
            @for role in Role::ALL {
                option value=(role) selected[role == chosen] { (role) }
            }
        }
    }
}

/// How a token stands.
fn standing(revoked: Option<Timestamp>, until: Option<Timestamp>) -> Markup {
    if revoked.is_some() {
        return html! { span.tag.bad { "revoked" } };
    }
    match until {
        Some(until) if until < Timestamp::now() => html! { span.tag.idle { "expired" } },
        Some(until) => html! { span.tag.good { "valid" } " until " (time(Some(until))) },
        None => html! { span.tag.good { "valid" } " without end" },
    }
}

/// The way to revoke a token that lives.
fn revoke(kind: &str, name: &str, revoked: Option<Timestamp>) -> Markup {
    let query = [
        ("kind", Some(kind.to_owned())),
        ("name", Some(name.to_owned())),
    ];
    html! {
        @if revoked.is_none() {
            a.button.plain href=(address("/access/revoke", &query)) { "Revoke" }
        }
    }
}

async fn programs(core: &Core, visitor: &Visitor) -> Result<Markup, PageError> {
    let found = service_tokens::list(core, &PageQuery::default()).await?;
    let rows: Vec<Vec<Markup>> = found
        .items
        .iter()
        .map(|token| {
            vec![
                html! { (token.name) },
                html! { (grant::list(&token.scopes)) },
                html! { (token.created_by) },
                standing(token.revoked_at, token.valid_until),
                time(token.last_used),
                revoke("service", &token.name, token.revoked_at),
            ]
        })
        .collect();
    Ok(html! {
        h2 { "Service tokens, of programs" }
        (table("Service tokens", &["Name", "May", "Made by", "Standing", "Last used", ""], &rows, "There are no service tokens."))
        details {
            summary { "Make a service token" }
            form.stacked method="post" action=(address("/access/tokens/service", &[])) {
                (visitor.token())
                label for="service-name" { "Name" }
                input #service-name name="name" required autocomplete="off";
                label for="service-scopes" { "Scopes, separated by commas: read, write, admin, or one of them for a section, as patches:write" }
                input #service-scopes name="scopes" required value="read" aria-describedby="service-sections";
                p #service-sections .quiet { "Sections: " (SECTIONS.join(", ")) "." }
                p.quiet { "It is valid for 90 days and shown once." }
                div.acts { button type="submit" { "Make it" } }
            }
        }
        (rest(found.next_cursor.as_deref(), "admin token list --all"))
    })
}

/// The choice of a tier.
fn tier(id: &str, tiers: &[String]) -> Markup {
    html! {
        label for=(id) { "Tier" }
        select id=(id) name="tier" {
            @for tier in tiers {
                option value=(tier) { (tier) }
            }
        }
    }
}

async fn machines(core: &Core, visitor: &Visitor, tiers: &[String]) -> Result<Markup, PageError> {
    // Of a large fleet they are not counted for each look; `auth-token list` counts them.
    let counted = census::current(core).await?.machines() <= census::DEAR;
    let found = auth_tokens::page(core, &PageQuery::default(), counted).await?;
    let acts = may_act(visitor);
    let rows: Vec<Vec<Markup>> = found
        .items
        .iter()
        .map(|token| {
            let labels: Vec<String> = token
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            vec![
                html! { (token.name) },
                html! { (token.tier) },
                html! { @if counted { (token.machines) } @else { (or_none(None)) } },
                or_none(Some(&labels.join(", "))),
                standing(token.revoked_at, token.valid_until),
                time(token.last_used),
                html! { @if acts { (revoke("auth", &token.name, token.revoked_at)) } },
            ]
        })
        .collect();
    Ok(html! {
        h2 { "Auth tokens, of machines" }
        (table("Auth tokens", &["Name", "Tier", "Machines", "Labels", "Standing", "Last used", ""], &rows, "There are no auth tokens."))
        @if acts {
            details {
                summary { "Make an auth token" }
                form.stacked method="post" action=(address("/access/tokens/auth", &[])) {
                    (visitor.token())
                    label for="auth-name" { "Name" }
                    input #auth-name name="name" required autocomplete="off";
                    (tier("auth-tier", tiers))
                    label for="auth-labels" { "Labels for its machines, as rack=r1, separated by commas" }
                    input #auth-labels name="labels" autocomplete="off";
                    div.acts { button type="submit" { "Make it" } }
                }
            }
        }
        (rest(found.next_cursor.as_deref(), "auth-token list --all"))
    })
}

async fn servers(core: &Core, visitor: &Visitor, tiers: &[String]) -> Result<Markup, PageError> {
    let found = sync_tokens::list(core, &PageQuery::default()).await?;
    let acts = may_act(visitor);
    let rows: Vec<Vec<Markup>> = found
        .items
        .iter()
        .map(|token| {
            vec![
                html! { (token.name) },
                html! { (token.tier) },
                html! { (token.created_by) },
                standing(token.revoked_at, token.valid_until),
                time(token.last_used),
                html! { @if acts { (revoke("sync", &token.name, token.revoked_at)) } },
            ]
        })
        .collect();
    Ok(html! {
        h2 { "Sync tokens, of other servers" }
        (table("Sync tokens", &["Name", "Tier", "Made by", "Standing", "Last used", ""], &rows, "There are no sync tokens."))
        @if acts {
            details {
                summary { "Make a sync token" }
                form.stacked method="post" action=(address("/access/tokens/sync", &[])) {
                    (visitor.token())
                    label for="sync-name" { "Name" }
                    input #sync-name name="name" required autocomplete="off";
                    (tier("sync-tier", tiers))
                    p.quiet { "It is valid for 90 days and shown once." }
                    div.acts { button type="submit" { "Make it" } }
                }
            }
        }
        (rest(found.next_cursor.as_deref(), "sync-tokens list --all"))
    })
}
