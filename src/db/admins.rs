//! Administrators that are kept in the database.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::Role;
use jiff::Timestamp;
use tokio_postgres::Row;

statements! {
    INSERT_ADMIN = "insert into admins (name, hash, role) values ($1, $2, $3)
        returning name, role, created_at, changed_at";
    INSERT_FIRST_ADMIN = "insert into admins (name, hash, role) select $1, $2, $3
        where not exists (select from admins) on conflict do nothing
        returning name, role, created_at, changed_at";
    SELECT_ADMIN = "select name, role, created_at, changed_at from admins where name = $1";
    SELECT_ADMIN_HASH = "select hash, role from admins where name = $1";
    SELECT_ADMINS = "select name, role, created_at, changed_at from admins
        where ($1::text is null or name > $1) order by name limit $2";
    LOCK_OWNERS = "select name from admins where role = 'admin' order by name for update";
    UPDATE_ADMIN_HASH = "update admins set hash = $2, changed_at = now() where name = $1";
    UPDATE_ADMIN_ROLE = "update admins set role = $2, changed_at = now() where name = $1
        returning name, role, created_at, changed_at";
    DELETE_ADMIN = "delete from admins where name = $1";
}

/// An administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRow {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// When password or role last changed.
    pub changed_at: Timestamp,
}

impl AdminRow {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            name: row.get(0),
            role: row.get::<_, &str>(1).parse()?,
            created_at: row.get(2),
            changed_at: row.get(3),
        })
    }
}

/// Adds an administrator.
pub async fn insert(
    run: &impl Run,
    name: &str,
    hash: &str,
    role: Role,
) -> Result<AdminRow, DbError> {
    let row = run
        .one(&INSERT_ADMIN, &[&name, &hash, &role.as_str()])
        .await?;
    AdminRow::from_row(&row)
}

/// Adds an administrator if there is none at all; `None` if there is one.
pub async fn insert_first(
    run: &impl Run,
    name: &str,
    hash: &str,
    role: Role,
) -> Result<Option<AdminRow>, DbError> {
    let row = run
        .opt(&INSERT_FIRST_ADMIN, &[&name, &hash, &role.as_str()])
        .await?;
    row.as_ref().map(AdminRow::from_row).transpose()
}

/// The administrator of this name.
pub async fn find(run: &impl Run, name: &str) -> Result<Option<AdminRow>, DbError> {
    let row = run.opt(&SELECT_ADMIN, &[&name]).await?;
    row.as_ref().map(AdminRow::from_row).transpose()
}

/// Password hash and role of the administrator of this name.
pub async fn hash(run: &impl Run, name: &str) -> Result<Option<(String, Role)>, DbError> {
    let row = run.opt(&SELECT_ADMIN_HASH, &[&name]).await?;
    row.map(|row| Ok((row.get(0), row.get::<_, &str>(1).parse()?)))
        .transpose()
}

/// Administrators by name.
pub async fn page(
    run: &impl Run,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<AdminRow>, DbError> {
    let rows = run.rows(&SELECT_ADMINS, &[&after, &limit]).await?;
    rows.iter().map(AdminRow::from_row).collect()
}

/// Names of all administrators with the role `admin`, locked until the transaction ends, so that two requests cannot
/// each remove the other's last one.
pub async fn lock_owners(run: &impl Run) -> Result<Vec<String>, DbError> {
    let rows = run.rows(&LOCK_OWNERS, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Sets a password hash; `false` if there is no such administrator.
pub async fn set_hash(run: &impl Run, name: &str, hash: &str) -> Result<bool, DbError> {
    Ok(run.exec(&UPDATE_ADMIN_HASH, &[&name, &hash]).await? > 0)
}

/// Sets a role; `None` if there is no such administrator.
pub async fn set_role(run: &impl Run, name: &str, role: Role) -> Result<Option<AdminRow>, DbError> {
    let row = run
        .opt(&UPDATE_ADMIN_ROLE, &[&name, &role.as_str()])
        .await?;
    row.as_ref().map(AdminRow::from_row).transpose()
}

/// Removes an administrator; `false` if there is none of this name.
pub async fn delete(run: &impl Run, name: &str) -> Result<bool, DbError> {
    Ok(run.exec(&DELETE_ADMIN, &[&name]).await? > 0)
}
