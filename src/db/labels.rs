//! Labels of machines. What an auth token gives is written at registration (`machines`); which machines a selector means
//! is in `filter`.

use super::run::{DbError, Run};
use super::statements;
use crate::domain::{LabelChanges, LabelKey, LabelValue, Labels, MachineId};
use std::collections::BTreeMap;
use uuid::Uuid;

statements! {
    LOCK_LABELS = "select pg_advisory_xact_lock($1)";
    SET_LABELS = "insert into machine_labels (machine_id, key, value)
        select $1, t.key, t.value from unnest($2::text[], $3::text[]) t(key, value)
        on conflict (machine_id, key) do update set value = excluded.value, from_token = false
            where machine_labels.from_token or machine_labels.value <> excluded.value";
    REMOVE_LABELS = "delete from machine_labels where machine_id = $1 and key = any ($2::text[])";
    COUNT_LABELS = "select count(*) from machine_labels where machine_id = $1";
    // In no order: a sum is the same in each.
    DIGEST_LABEL = "select count(*), coalesce(sum(uuid_hash_extended(machine_id, hashtextextended(value, 0))), 0)::text
        from machine_labels where key = $1";
    SELECT_LABEL_VALUES = "select machine_id, value from machine_labels where key = $1";
}

/// Key of the advisory lock; any number that nothing else in this database uses.
const LOCK: i64 = 0x6c70_6c61_6265;

/// Nobody else changes labels until the transaction ends: two changes at once could leave a machine with more labels than
/// it may have.
pub async fn lock(run: &impl Run) -> Result<(), DbError> {
    run.rows(&LOCK_LABELS, &[&LOCK]).await.map(|_| ())
}

/// Keys and values as two columns.
pub(super) fn columns(labels: &Labels) -> (Vec<&str>, Vec<&str>) {
    labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .unzip()
}

/// Labels of an auth token as stored. One that this version's rules refuse, e.g. because an older version took it, is left
/// out and told of: it must not keep the server from its tokens.
pub(super) fn of_token(token: &str, stored: serde_json::Value) -> Labels {
    let stored = serde_json::from_value(stored);
    let texts: BTreeMap<String, String> = stored.unwrap_or_else(|error| {
        tracing::warn!(token, %error, "the labels of an auth token cannot be read and are left out");
        BTreeMap::new()
    });
    let mut labels: BTreeMap<LabelKey, LabelValue> = BTreeMap::new();
    for (key, value) in &texts {
        match (key.parse(), value.parse()) {
            (Ok(key), Ok(value)) if labels.len() < Labels::MAX => {
                labels.insert(key, value);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(token, %error, "a label of an auth token is left out; make a new token to have it");
            }
            _ => tracing::warn!(
                token,
                key,
                "an auth token has too many labels; one is left out"
            ),
        }
    }
    Labels::try_from(labels).unwrap_or_default()
}

/// Changes a machine's labels as a person's; how many of them changed. [`lock`] first, and [`count`] afterwards.
pub async fn change(
    run: &impl Run,
    machine: MachineId,
    changes: &LabelChanges,
) -> Result<u64, DbError> {
    let id = Uuid::from_bytes(machine.0);
    let remove: Vec<&str> = changes.remove().iter().map(LabelKey::as_str).collect();
    let (keys, values) = columns(changes.set());
    Ok(run.exec(&REMOVE_LABELS, &[&id, &remove]).await?
        + run.exec(&SET_LABELS, &[&id, &keys, &values]).await?)
}

/// How many labels a machine has.
pub async fn count(run: &impl Run, machine: MachineId) -> Result<usize, DbError> {
    let id = Uuid::from_bytes(machine.0);
    let row = run.one(&COUNT_LABELS, &[&id]).await?;
    Ok(row.get::<_, i64>(0).unsigned_abs() as usize)
}

/// The value of this key of every machine that has it, e.g. for a cap per rack. Reads an index, in no order.
pub async fn values_of(
    run: &impl Run,
    key: &LabelKey,
) -> Result<Vec<(MachineId, LabelValue)>, DbError> {
    let rows = run.rows(&SELECT_LABEL_VALUES, &[&key.as_str()]).await?;
    rows.iter()
        .map(|row| {
            let machine = MachineId(row.get::<_, Uuid>(0).into_bytes());
            Ok((machine, row.get::<_, &str>(1).parse()?))
        })
        .collect()
}

/// What changes when another machine has this key, or one has another value of it.
pub async fn digest(run: &impl Run, key: &LabelKey) -> Result<(i64, String), DbError> {
    let row = run.one(&DIGEST_LABEL, &[&key.as_str()]).await?;
    Ok((row.get(0), row.get(1)))
}
