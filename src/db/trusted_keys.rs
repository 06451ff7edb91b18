//! Keys between deployments: the public ones of others that are believed, and this deployment's own signing keys.
//!
//! Own keys are rows of `server_keys`: `sync-signing` signs now, `sync-signing-was-<id>` are those before it. The row of an old
//! key was made when it was replaced, which is what its age counts from.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::PublicKey;
use jiff::Timestamp;

statements! {
    INSERT_TRUSTED_KEY = "insert into trusted_keys (key, name, added_by) values ($1, $2, $3)";
    DELETE_TRUSTED_KEY = "delete from trusted_keys where key = $1 returning name";
    SELECT_TRUSTED_KEYS = "select key, name, added_at, added_by from trusted_keys order by added_at, key";
    INSERT_OWN_KEY = "insert into server_keys (name, value) values ($1, $2) on conflict do nothing";
    SELECT_OWN_KEY = "select value from server_keys where name = $1";
    LOCK_OWN_KEY = "select value from server_keys where name = $1 for update";
    REPLACE_OWN_KEY = "update server_keys set value = $2, created_at = now() where name = $1";
    SELECT_FORMER_KEYS = "select value, created_at from server_keys where name like 'sync-signing-was-%'
        and created_at > now() - make_interval(secs => $1) order by created_at desc limit 8";
    DELETE_FORMER_KEYS = "delete from server_keys where name like 'sync-signing-was-%'";
}

/// A key of another deployment that is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// What people call it.
    pub name: String,
    /// Since when.
    pub added_at: Timestamp,
    /// By whom.
    pub added_by: String,
}

/// Trusts a key. [`DbError::Exists`]: it is trusted already.
pub async fn insert(
    run: &impl Run,
    key: &PublicKey,
    name: &str,
    added_by: &str,
) -> Result<(), DbError> {
    run.exec(&INSERT_TRUSTED_KEY, &[&key.to_string(), &name, &added_by])
        .await
        .map(|_| ())
}

/// Stops trusting a key, and says what it was called; `None` if it was not trusted.
pub async fn delete(run: &impl Run, key: &PublicKey) -> Result<Option<String>, DbError> {
    let row = run.opt(&DELETE_TRUSTED_KEY, &[&key.to_string()]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// All keys that are trusted, oldest first.
pub async fn list(run: &impl Run) -> Result<Vec<TrustedKey>, DbError> {
    let rows = run.rows(&SELECT_TRUSTED_KEYS, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(TrustedKey {
                key: row.get::<_, &str>(0).parse()?,
                name: row.get(1),
                added_at: row.get(2),
                added_by: row.get(3),
            })
        })
        .collect()
}

/// An own key of this name.
pub async fn own(run: &impl Run, name: &str) -> Result<Option<Vec<u8>>, DbError> {
    let row = run.opt(&SELECT_OWN_KEY, &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// The same, and nobody else changes it before the transaction ends.
pub async fn own_locked(run: &impl Run, name: &str) -> Result<Option<Vec<u8>>, DbError> {
    let row = run.opt(&LOCK_OWN_KEY, &[&name]).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Stores an own key unless there is one of this name; whether it was stored.
pub async fn add_own(run: &impl Run, name: &str, value: &[u8]) -> Result<bool, DbError> {
    Ok(run.exec(&INSERT_OWN_KEY, &[&name, &value]).await? > 0)
}

/// Puts another value in the place of an own key.
pub async fn replace_own(run: &impl Run, name: &str, value: &[u8]) -> Result<(), DbError> {
    run.exec(&REPLACE_OWN_KEY, &[&name, &value])
        .await
        .map(|_| ())
}

/// Signing keys that were replaced within the last `seconds`, the latest first, with when they were.
pub async fn former(run: &impl Run, seconds: f64) -> Result<Vec<(Vec<u8>, Timestamp)>, DbError> {
    let rows = run.rows(&SELECT_FORMER_KEYS, &[&seconds]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Forgets all signing keys that were replaced.
pub async fn forget_former(run: &impl Run) -> Result<u64, DbError> {
    run.exec(&DELETE_FORMER_KEYS, &[]).await
}
