//! Administrators: those in the database are managed here, those of the configuration only shown.
//!
//! There is always somebody who can let others in: the last administrator of role admin cannot be removed or demoted,
//! and nobody removes or demotes themselves.

use super::auth::{self, Caller, record};
use super::{Core, ServiceError, paging, passwords, text};
use crate::db::admins::{self as rows, AdminRow};
use crate::db::{DbError, Tx, sessions};
use crate::domain::Role;
use crate::wire::admin::{
    AdminCreate, AdminEntry, AdminOrigin, Page, PageQuery, PasswordChange, RoleChange,
};
use serde_json::json;

impl From<AdminRow> for AdminEntry {
    fn from(row: AdminRow) -> Self {
        Self {
            name: row.name,
            role: row.role,
            origin: AdminOrigin::Database,
            created_at: Some(row.created_at),
            changed_at: Some(row.changed_at),
        }
    }
}

/// Names of the users of `auth.basic.users`, if those count, in order.
fn configured_names(core: &Core) -> Vec<&str> {
    let auth = &core.config.auth;
    let users = auth.basic_users.iter().filter(|_| auth.basic_enabled);
    let mut names: Vec<&str> = users.map(|user| user.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Administrators by name: first those of the configuration, then those of the database.
pub async fn list(core: &Core, query: &PageQuery) -> Result<Page<AdminEntry>, ServiceError> {
    let limit = paging::limit(query.limit);
    let (from_database, after) = match &query.cursor {
        Some(cursor) => {
            let [origin, name] = paging::decode("admins", cursor)?;
            (paging::part::<bool>(&origin)?, Some(name))
        }
        None => (false, None),
    };
    let mut found: Vec<AdminEntry> = Vec::new();
    if !from_database {
        let names = configured_names(core).into_iter();
        let rest = names.filter(|name| after.as_deref().is_none_or(|after| *name > after));
        found.extend(rest.take(limit + 1).map(|name| AdminEntry {
            name: name.to_owned(),
            role: Role::Admin,
            origin: AdminOrigin::Configuration,
            created_at: None,
            changed_at: None,
        }));
    }
    let missing = (limit + 1).saturating_sub(found.len());
    let after = after.filter(|_| from_database);
    let conn = core.db.conn().await?;
    let more = rows::page(&conn, after.as_deref(), missing as i64).await?;
    found.extend(more.into_iter().map(AdminEntry::from));
    let place = |entry: &AdminEntry| {
        let from_database = entry.origin == AdminOrigin::Database;
        paging::encode("admins", &[&from_database, &entry.name])
    };
    Ok(paging::page(found, limit, place, |entry| entry))
}

/// Adds an administrator.
pub async fn create(
    core: &Core,
    caller: &Caller,
    request: &AdminCreate,
) -> Result<AdminEntry, ServiceError> {
    let name = &request.name;
    if !auth::is_name(name) {
        return Err(auth::bad_name(name));
    }
    if auth::configured(core, name).is_some() {
        return Err(ServiceError::Conflict(format!(
            "{name} is an administrator by the configuration (auth.basic.users); take another name"
        )));
    }
    passwords::check(name, &request.password)?;
    let hash = passwords::hash(&request.password).await?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    let row = rows::insert(&tx, name, &hash, request.role)
        .await
        .map_err(|error| match error {
            DbError::Exists(_) => ServiceError::Conflict(format!(
                "there is an administrator {name} already; take another name, or change that one's password"
            )),
            other => other.into(),
        })?;
    let details = json!({ "role": request.role });
    record(&tx, &caller.actor(), "admin.create", name, details).await?;
    tx.commit().await?;
    Ok(row.into())
}

/// Refuses what can only be done in the configuration.
fn in_database(core: &Core, name: &str) -> Result<(), ServiceError> {
    if !auth::is_name(name) {
        return Err(text::missing("administrator", name));
    }
    if auth::configured(core, name).is_none() {
        return Ok(());
    }
    Err(ServiceError::Conflict(format!(
        "{name} is an administrator by the configuration; change auth.basic.users there"
    )))
}

/// Changes a password: one's own, knowing the present one, or as role admin anybody's. Ends the administrator's other
/// sessions.
pub async fn change_password(
    core: &Core,
    caller: &Caller,
    name: &str,
    request: &PasswordChange,
) -> Result<(), ServiceError> {
    let own = caller.name == name;
    if !own {
        caller.require(Role::Admin)?;
    }
    in_database(core, name)?;
    passwords::check(name, &request.password)?;
    if own {
        let current = request.current.as_ref().ok_or_else(|| {
            ServiceError::Invalid("the field `current` must hold your present password".to_owned())
        })?;
        auth::check_password(core, name, current, &caller.source)
            .await
            .map_err(|error| match error {
                ServiceError::Unauthorized(_) => {
                    ServiceError::Forbidden("the present password is wrong".to_owned())
                }
                other => other,
            })?;
    }
    let hash = passwords::hash(&request.password).await?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if !rows::set_hash(&tx, name, &hash).await? {
        return Err(text::missing("administrator", name));
    }
    let kept = caller.session.as_ref().filter(|_| own);
    let ended = sessions::delete_of(&tx, name, kept.map(|session| session.id)).await?;
    let details = json!({ "sessions-ended": ended });
    record(&tx, &caller.actor(), "admin.password", name, details).await?;
    tx.commit().await?;
    Ok(())
}

/// Refuses to leave nobody in charge, and to let somebody shut themselves out.
async fn not_the_last(
    core: &Core,
    tx: &Tx<'_>,
    caller: &Caller,
    name: &str,
) -> Result<(), ServiceError> {
    if caller.name == name {
        return Err(ServiceError::Conflict(
            "nobody removes or demotes themselves; another administrator of role admin can"
                .to_owned(),
        ));
    }
    let owners = rows::lock_owners(tx).await?;
    let others = owners.iter().any(|owner| owner != name) || !configured_names(core).is_empty();
    if others || !owners.iter().any(|owner| owner == name) {
        return Ok(());
    }
    Err(ServiceError::Conflict(format!(
        "{name} is the last administrator of role admin; add another one first"
    )))
}

/// Changes a role; felt by open sessions at once.
pub async fn change_role(
    core: &Core,
    caller: &Caller,
    name: &str,
    request: &RoleChange,
) -> Result<AdminEntry, ServiceError> {
    in_database(core, name)?;
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    if request.role < Role::Admin {
        not_the_last(core, &tx, caller, name).await?;
    }
    let row = rows::set_role(&tx, name, request.role)
        .await?
        .ok_or_else(|| text::missing("administrator", name))?;
    sessions::set_role(&tx, name, request.role).await?;
    let details = json!({ "role": request.role });
    record(&tx, &caller.actor(), "admin.role", name, details).await?;
    tx.commit().await?;
    Ok(row.into())
}

/// Removes an administrator and ends their sessions.
pub async fn remove(core: &Core, caller: &Caller, name: &str) -> Result<(), ServiceError> {
    if !auth::is_name(name) {
        return Err(text::missing("administrator", name));
    }
    let mut conn = core.db.conn().await?;
    let tx = conn.begin().await?;
    not_the_last(core, &tx, caller, name).await?;
    if !rows::delete(&tx, name).await? {
        // Not there, or only in the configuration, which wins over the database.
        in_database(core, name)?;
        return Err(text::missing("administrator", name));
    }
    let ended = sessions::delete_of(&tx, name, None).await?;
    let details = json!({ "sessions-ended": ended });
    record(&tx, &caller.actor(), "admin.remove", name, details).await?;
    tx.commit().await?;
    Ok(())
}
