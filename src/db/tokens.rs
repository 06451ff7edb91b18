//! Auth tokens, sync tokens and overrides of single machines, as the snapshot reads them, and the keys that replicas share.

use super::run::{DbError, Run};
use super::{labels, statements, sync_tokens};
use crate::domain::{MachineId, Secret, Sha256};
use crate::rollout::{AuthTokenEntry, MachineOverride, Overrides, Tokens};
use jiff::Timestamp;
use uuid::Uuid;

statements! {
    SELECT_AUTH_TOKENS = "select id, name, tier_id, hash, valid_until, revoked_at is not null, labels from auth_tokens";
    SELECT_OVERRIDES = "select machine_id, tier_id, revoked_before from machine_overrides";
    TOUCH_AUTH_TOKEN = "update auth_tokens set last_used = now()
        where id = $1 and (last_used is null or last_used < now() - interval '1 minute')";
    INSERT_SERVER_KEY = "insert into server_keys (name, value) values ($1, $2) on conflict do nothing";
    REPLACE_SERVER_KEY = "insert into server_keys (name, value) values ($1, $2)
        on conflict (name) do update set value = excluded.value, created_at = now()";
    SELECT_SERVER_KEY = "select value from server_keys where name = $1";
}

/// Reads all auth tokens and sync tokens.
pub async fn load_tokens(run: &impl Run) -> Result<Tokens, DbError> {
    let mut entries = Vec::new();
    for row in run.rows(&SELECT_AUTH_TOKENS, &[]).await? {
        let hash = Sha256::try_from(row.get::<_, &[u8]>(3))?;
        let entry = AuthTokenEntry {
            id: row.get(0),
            name: row.get(1),
            tier_id: row.get(2),
            valid_until: row
                .get::<_, Option<Timestamp>>(4)
                .map(Timestamp::as_microsecond),
            revoked: row.get(5),
            labels: labels::of_token(row.get(1), row.get(6)),
        };
        entries.push((hash, entry));
    }
    Ok(Tokens::new(entries).with_sync(sync_tokens::load(run).await?))
}

/// Reads all overrides.
pub async fn load_overrides(run: &impl Run) -> Result<Overrides, DbError> {
    let rows = run.rows(&SELECT_OVERRIDES, &[]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let entry = MachineOverride {
                tier_id: row.get(1),
                revoked_before: row
                    .get::<_, Option<Timestamp>>(2)
                    .map(Timestamp::as_microsecond),
            };
            (MachineId(row.get::<_, Uuid>(0).into_bytes()), entry)
        })
        .collect())
}

/// Notes that an auth token was used, at most once a minute.
pub async fn touch(run: &impl Run, id: i32) -> Result<(), DbError> {
    run.exec(&TOUCH_AUTH_TOKEN, &[&id]).await.map(|_| ())
}

/// The shared key of this name; `fresh` becomes it if there is none yet. Whichever replica comes first wins.
pub async fn server_key(run: &impl Run, name: &str, fresh: &[u8]) -> Result<Vec<u8>, DbError> {
    run.exec(&INSERT_SERVER_KEY, &[&name, &fresh]).await?;
    Ok(run.one(&SELECT_SERVER_KEY, &[&name]).await?.get(0))
}

/// Name of the resource token in `server_keys`.
const RESOURCE_TOKEN: &str = "resource-token";

/// Stores the resource token of this server in place of the one before.
pub async fn store_resource_token(run: &impl Run, token: &Secret) -> Result<(), DbError> {
    let value = token.expose().as_bytes();
    run.exec(&REPLACE_SERVER_KEY, &[&RESOURCE_TOKEN, &value])
        .await
        .map(|_| ())
}

/// The resource token of this server, if one was stored.
pub async fn resource_token(run: &impl Run) -> Result<Option<Secret>, DbError> {
    let Some(row) = run.opt(&SELECT_SERVER_KEY, &[&RESOURCE_TOKEN]).await? else {
        return Ok(None);
    };
    let text = String::from_utf8(row.get(0))
        .map_err(|_| DbError::Row("the stored resource token is not text".to_owned()))?;
    Ok(Some(Secret::new(text)))
}
