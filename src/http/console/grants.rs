//! What is done about access: sessions end, administrators come, change and go, tokens are made (shown once) and revoked.

use super::access::{PLACE, roles};
use super::error::PageError;
use super::forms::{address, back, command, word};
use super::page::page;
use super::session::{Posted, Visitor};
use crate::domain::{Grant, Labels, Role, Secret, TierName};
use crate::service::peer::tokens as sync_tokens;
use crate::service::{Core, ServiceError, admins, auth, auth_tokens, service_tokens};
use crate::wire::admin::{
    AdminCreate, AuthTokenCreate, RoleChange, ServiceTokenCreate, SyncTokenCreate, TokenFormat,
};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::html;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use uuid::Uuid;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
        .route("/console/access/sessions/end", post(end_session))
        .route(
            "/console/access/admins",
            get(administrator).post(change_role),
        )
        .route("/console/access/admins/add", post(add_admin))
        .route("/console/access/admins/remove", post(remove_admin))
        .route("/console/access/tokens/service", post(make_service_token))
        .route("/console/access/tokens/auth", post(make_auth_token))
        .route("/console/access/tokens/sync", post(make_sync_token))
        .route("/console/access/revoke", get(ask_to_revoke).post(revoke))
}

fn invalid(error: impl std::fmt::Display) -> PageError {
    ServiceError::Invalid(error.to_string()).into()
}

#[derive(Debug, Deserialize)]
struct EndSession {
    id: Uuid,
}

async fn end_session(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<EndSession>,
) -> Result<Redirect, PageError> {
    auth::end_session(&core, &visitor.caller, form.id).await?;
    Ok(back(PLACE, "ended"))
}

#[derive(Debug, Deserialize)]
struct NewAdmin {
    name: String,
    password: String,
    role: String,
}

async fn add_admin(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<NewAdmin>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Admin)?;
    let request = AdminCreate {
        name: form.name.trim().to_owned(),
        password: Secret::new(form.password),
        role: form.role.parse().map_err(invalid)?,
    };
    admins::create(&core, &visitor.caller, &request).await?;
    Ok(back(PLACE, "added"))
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

/// An administrator and the role that the list shows.
#[derive(Debug, Deserialize)]
struct Standing {
    name: String,
    role: Role,
}

async fn administrator(
    State(_): State<Arc<Core>>,
    visitor: Visitor,
    Query(Standing { name, role }): Query<Standing>,
) -> Result<Html<String>, PageError> {
    visitor.require(Role::Admin)?;
    let content = html! {
        h1 { "Administrator " (name) }
        h2 { "Role" }
        form.stacked method="post" action=(address("/access/admins", &[])) {
            (visitor.token())
            input type="hidden" name="name" value=(name);
            (roles("role", role))
            div.acts { button type="submit" { "Change the role" } }
        }
        (command(&format!("admin role {} ROLE", word(&name))))
        h2 { "Remove" }
        p { "All sessions of " (name) " end. Tokens that " (name) " made stay." }
        form method="post" action=(address("/access/admins/remove", &[])) {
            (visitor.token())
            input type="hidden" name="name" value=(name);
            div.acts { button.bad type="submit" { "Remove " (name) } a.button.plain href=(address(PLACE, &[])) { "Leave it" } }
        }
        (command(&format!("admin remove {}", word(&name))))
    };
    Ok(page(&visitor, "Administrator", PLACE, content))
}

#[derive(Debug, Deserialize)]
struct NewRole {
    name: String,
    role: String,
}

async fn change_role(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<NewRole>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Admin)?;
    let change = RoleChange {
        role: form.role.parse().map_err(invalid)?,
    };
    admins::change_role(&core, &visitor.caller, &form.name, &change).await?;
    Ok(back(PLACE, "changed"))
}

async fn remove_admin(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<Named>,
) -> Result<Redirect, PageError> {
    visitor.require(Role::Admin)?;
    admins::remove(&core, &visitor.caller, &form.name).await?;
    Ok(back(PLACE, "removed"))
}

/// A token that was just made; it is shown on this page and never again.
fn shown_once(
    visitor: &Visitor,
    title: &str,
    token: &Secret,
    use_it: &str,
    same: &str,
) -> Response {
    let content = html! {
        h1 { (title) }
        p.notice { "It is shown only now, and kept only as a hash." }
        p { code #token { (token.expose()) } }
        p { (use_it) }
        (command(same))
        p { a href=(address(PLACE, &[])) { "To access" } }
    };
    page(visitor, title, PLACE, content).into_response()
}

#[derive(Debug, Deserialize)]
struct NewServiceToken {
    name: String,
    scopes: String,
}

async fn make_service_token(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<NewServiceToken>,
) -> Result<Response, PageError> {
    visitor.require(Role::Admin)?;
    let scopes: Vec<Grant> = form
        .scopes
        .split(',')
        .map(str::trim)
        .filter(|scope| !scope.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(invalid)?;
    let words: Vec<String> = scopes
        .iter()
        .map(|scope| format!(" --scope {scope}"))
        .collect();
    let request = ServiceTokenCreate {
        name: form.name.trim().to_owned(),
        scopes,
        valid_until: None,
        no_expiry: false,
    };
    let created = service_tokens::create(&core, &visitor.caller, request).await?;
    let same = format!("admin token add {}{}", word(&created.name), words.concat());
    let use_it = "A program sends it as `Authorization: Bearer`; livepatch-admin takes it from LIVEPATCH_ADMIN_TOKEN.";
    Ok(shown_once(
        &visitor,
        "Service token",
        &created.token,
        use_it,
        &same,
    ))
}

#[derive(Debug, Deserialize)]
struct NewAuthToken {
    name: String,
    tier: String,
    #[serde(default)]
    labels: String,
}

async fn make_auth_token(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<NewAuthToken>,
) -> Result<Response, PageError> {
    visitor.require(Role::Operator)?;
    let mut labels = BTreeMap::new();
    let mut words = String::new();
    for pair in form
        .labels
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty())
    {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| invalid(format!("{pair:?} is not a label; expected KEY=VALUE")))?;
        labels.insert(
            key.parse().map_err(invalid)?,
            value.parse().map_err(invalid)?,
        );
        let _ = write!(words, " --label {}", word(pair));
    }
    let request = AuthTokenCreate {
        name: form.name.trim().to_owned(),
        tier: form.tier.parse().map_err(invalid)?,
        valid_until: None,
        labels: Labels::try_from(labels).map_err(invalid)?,
        format: TokenFormat::default(),
    };
    let created = auth_tokens::create(&core, &visitor.caller.actor(), request).await?;
    let same = format!("auth-token {} {}{words}", word(&created.name), created.tier);
    let use_it = "On each machine: `canonical-livepatch enable TOKEN`, after its `remote-server` was set to this server.";
    Ok(shown_once(
        &visitor,
        "Auth token",
        &created.token,
        use_it,
        &same,
    ))
}

#[derive(Debug, Deserialize)]
struct NewSyncToken {
    name: String,
    tier: String,
}

async fn make_sync_token(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<NewSyncToken>,
) -> Result<Response, PageError> {
    visitor.require(Role::Operator)?;
    let tier: TierName = form.tier.parse().map_err(invalid)?;
    let request = SyncTokenCreate {
        name: form.name.trim().to_owned(),
        tier: tier.clone(),
        valid_until: None,
        no_expiry: false,
    };
    let created = sync_tokens::create(&core, &visitor.caller.actor(), request).await?;
    let same = format!("sync-tokens add {tier} {}", word(&created.name));
    let use_it = "The other server takes it as patch-sync.token.";
    Ok(shown_once(
        &visitor,
        "Sync token",
        &created.token,
        use_it,
        &same,
    ))
}

#[derive(Debug, Deserialize)]
struct Token {
    kind: String,
    name: String,
}

/// What is revoked, what that means, and the command.
fn kind(word: &str) -> Result<(&'static str, &'static str, &'static str, Role), PageError> {
    match word {
        "auth" => Ok((
            "auth token",
            "It enables no more machines, and those it enabled are refused from now on.",
            "auth-token revoke",
            Role::Operator,
        )),
        "sync" => Ok((
            "sync token",
            "Servers that show it are refused from now on.",
            "sync-tokens revoke",
            Role::Operator,
        )),
        "service" => Ok((
            "service token",
            "Programs that show it are refused from now on.",
            "admin token revoke",
            Role::Admin,
        )),
        _ => Err(invalid("there is no such kind of token")),
    }
}

async fn ask_to_revoke(
    State(_): State<Arc<Core>>,
    visitor: Visitor,
    Query(token): Query<Token>,
) -> Result<Html<String>, PageError> {
    let (what, means, same, role) = kind(&token.kind)?;
    visitor.require(role)?;
    let content = html! {
        h1 { "Revoke " (what) " " (token.name) "?" }
        p { (means) " This cannot be undone." }
        form method="post" action=(address("/access/revoke", &[])) {
            (visitor.token())
            input type="hidden" name="kind" value=(token.kind);
            input type="hidden" name="name" value=(token.name);
            div.acts { button.bad type="submit" { "Revoke it" } a.button.plain href=(address(PLACE, &[])) { "Leave it" } }
        }
        (command(&format!("{same} {}", word(&token.name))))
    };
    Ok(page(&visitor, "Revoke a token", PLACE, content))
}

async fn revoke(
    State(core): State<Arc<Core>>,
    Posted { visitor, form }: Posted<Token>,
) -> Result<Redirect, PageError> {
    let (_, _, _, role) = kind(&form.kind)?;
    visitor.require(role)?;
    let actor = visitor.caller.actor();
    match form.kind.as_str() {
        "auth" => auth_tokens::revoke(&core, &actor, &form.name).await?,
        "sync" => sync_tokens::revoke(&core, &actor, &form.name).await?,
        _ => service_tokens::revoke(&core, &visitor.caller, &form.name).await?,
    }
    Ok(back(PLACE, "revoked"))
}
