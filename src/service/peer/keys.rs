//! This deployment's own identity towards others: its id and the keys it signs with, made at first need; and the keys of
//! others that are believed.
//!
//! After a rotation the old key goes on signing beside the new one for [`OVERLAP`], so that servers below, which trust the
//! old one, learn of the new one by themselves.

use crate::db::audit::{self, Actor, Entry};
use crate::db::listen::Change;
use crate::db::trusted_keys::{self as rows, TrustedKey};
use crate::db::{Db, DbError, Run};
use crate::domain::{PublicKey, SigningKey};
use crate::service::{ServiceError, text};
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// How long a replaced key goes on signing.
pub const OVERLAP: Duration = Duration::from_hours(90 * 24);

const SIGNING: &str = "sync-signing";
const DEPLOYMENT: &str = "sync-deployment";
const REPORTS: &str = "sync-report-hmac";
const MAX_NAME: usize = 100;

/// A key that was replaced and signs on for a while.
#[derive(Debug, Clone)]
pub struct FormerKey {
    /// The key.
    pub key: SigningKey,
    /// When it was replaced.
    pub replaced_at: Timestamp,
}

/// The keys that this deployment signs with.
#[derive(Debug, Clone)]
pub struct SigningKeys {
    /// The one that signs now.
    pub current: SigningKey,
    /// Those that sign on for a while, the latest first.
    pub former: Vec<FormerKey>,
}

impl SigningKeys {
    /// All keys, the current one first.
    pub fn all(&self) -> Vec<SigningKey> {
        let former = self.former.iter().map(|former| former.key.clone());
        std::iter::once(self.current.clone())
            .chain(former)
            .collect()
    }

    /// The public halves, the current one first.
    pub fn public(&self) -> Result<Vec<PublicKey>, ServiceError> {
        self.all().iter().map(public).collect()
    }
}

/// The public half of a key.
pub fn public(key: &SigningKey) -> Result<PublicKey, ServiceError> {
    key.public().map_err(ServiceError::Internal)
}

fn system() -> Actor {
    Actor {
        name: "system".to_owned(),
        source: "sync".to_owned(),
    }
}

fn random() -> Result<[u8; 32], ServiceError> {
    let mut bytes = [0; 32];
    openssl::rand::rand_bytes(&mut bytes)
        .map_err(|e| ServiceError::Internal(format!("no random numbers: {e}")))?;
    Ok(bytes)
}

fn read(seed: &[u8]) -> Result<SigningKey, ServiceError> {
    let seed = seed
        .try_into()
        .map_err(|_| ServiceError::Internal("a signing key is not of 32 bytes".to_owned()))?;
    SigningKey::from_seed(seed).map_err(ServiceError::Internal)
}

/// The value of an own key; `fresh` becomes it if there is none, with an audit row. Whichever replica comes first wins.
async fn own(
    db: &Db,
    actor: &Actor,
    name: &str,
    fresh: &[u8],
    told: serde_json::Value,
) -> Result<(Vec<u8>, bool), ServiceError> {
    let mut conn = db.conn().await?;
    if let Some(known) = rows::own(&conn, name).await? {
        return Ok((known, false));
    }
    let tx = conn.begin().await?;
    let made = rows::add_own(&tx, name, fresh).await?;
    let value = rows::own(&tx, name)
        .await?
        .ok_or_else(|| DbError::Row(format!("the key {name} is not there")))?;
    if made {
        let entry = Entry {
            actor,
            action: "keys.generate",
            target: name,
            details: told,
        };
        audit::append(&tx, entry, Change::Nothing).await?;
    }
    tx.commit().await?;
    Ok((value, made))
}

/// The id of this deployment in its index: made once, for its life.
pub async fn deployment(db: &Db) -> Result<Uuid, ServiceError> {
    let fresh = Uuid::new_v4();
    let told = json!({ "deployment": fresh });
    let (value, _) = own(db, &system(), DEPLOYMENT, fresh.as_bytes(), told).await?;
    Uuid::from_slice(&value)
        .map_err(|e| ServiceError::Internal(format!("the id of this deployment: {e}")))
}

/// The key that machine ids are hidden with in reports upwards; it never leaves this deployment.
pub async fn report_key(db: &Db) -> Result<Vec<u8>, ServiceError> {
    let (value, _) = own(db, &system(), REPORTS, &random()?, json!({})).await?;
    Ok(value)
}

/// Makes the signing key if there is none; says whether it did.
pub async fn generate(db: &Db, actor: &Actor) -> Result<(PublicKey, bool), ServiceError> {
    let fresh = random()?;
    let told = json!({ "key": public(&read(&fresh)?)? });
    let (seed, made) = own(db, actor, SIGNING, &fresh, told).await?;
    Ok((public(&read(&seed)?)?, made))
}

/// The keys that this deployment signs with; the first is made if there is none.
pub async fn signing(db: &Db) -> Result<SigningKeys, ServiceError> {
    let conn = db.conn().await?;
    let known = rows::own(&conn, SIGNING).await?;
    let former = rows::former(&conn, OVERLAP.as_secs_f64()).await?;
    drop(conn);
    let seed = if let Some(seed) = known {
        seed
    } else {
        generate(db, &system()).await?;
        let conn = db.conn().await?;
        rows::own(&conn, SIGNING)
            .await?
            .ok_or_else(|| DbError::Row(format!("the key {SIGNING} is not there")))?
    };
    Ok(SigningKeys {
        current: read(&seed)?,
        former: former
            .into_iter()
            .map(|(seed, replaced_at)| {
                Ok(FormerKey {
                    key: read(&seed)?,
                    replaced_at,
                })
            })
            .collect::<Result<_, ServiceError>>()?,
    })
}

/// Replaces the signing key and returns the old and the new one. With `drop_old`, no key that was replaced signs any more:
/// servers below refuse the index until they trust the new key.
pub async fn rotate(
    db: &Db,
    actor: &Actor,
    drop_old: bool,
) -> Result<(PublicKey, PublicKey), ServiceError> {
    generate(db, actor).await?;
    let fresh = random()?;
    let new = public(&read(&fresh)?)?;
    let mut conn = db.conn().await?;
    let tx = conn.begin().await?;
    let seed = rows::own_locked(&tx, SIGNING)
        .await?
        .ok_or_else(|| DbError::Row(format!("the key {SIGNING} is not there")))?;
    let old = public(&read(&seed)?)?;
    if drop_old {
        rows::forget_former(&tx).await?;
    } else {
        rows::add_own(&tx, &format!("{SIGNING}-was-{}", old.id()), &seed).await?;
    }
    rows::replace_own(&tx, SIGNING, &fresh).await?;
    let entry = Entry {
        actor,
        action: "keys.rotate",
        target: SIGNING,
        details: json!({ "old": old, "new": new, "old-dropped": drop_old }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    tx.commit().await?;
    Ok((old, new))
}

/// Believes what is signed with this key from now on.
pub async fn trust(
    db: &Db,
    actor: &Actor,
    key: &PublicKey,
    name: &str,
) -> Result<(), ServiceError> {
    text::name("key's name", name, MAX_NAME)?;
    let mut conn = db.conn().await?;
    let tx = conn.begin().await?;
    rows::insert(&tx, key, name, &actor.name)
        .await
        .map_err(|error| match error {
            DbError::Exists(_) => ServiceError::Conflict(format!("{key} is trusted already")),
            other => other.into(),
        })?;
    let entry = Entry {
        actor,
        action: "keys.trust",
        target: &key.to_string(),
        details: json!({ "name": name }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    Ok(tx.commit().await?)
}

/// Stops believing what is signed with this key; returns what it was called.
pub async fn untrust(db: &Db, actor: &Actor, key: &PublicKey) -> Result<String, ServiceError> {
    let mut conn = db.conn().await?;
    let tx = conn.begin().await?;
    let name = rows::delete(&tx, key)
        .await?
        .ok_or_else(|| ServiceError::not_found("trusted key", key))?;
    let entry = Entry {
        actor,
        action: "keys.untrust",
        target: &key.to_string(),
        details: json!({ "name": name }),
    };
    audit::append(&tx, entry, Change::Nothing).await?;
    tx.commit().await?;
    Ok(name)
}

/// Keys of others that are believed, oldest first.
pub async fn list(db: &Db) -> Result<Vec<TrustedKey>, ServiceError> {
    Ok(rows::list(&db.conn().await?).await?)
}

/// The same, only the keys.
pub async fn trusted(run: &impl Run) -> Result<Vec<PublicKey>, DbError> {
    Ok(rows::list(run).await?.into_iter().map(|k| k.key).collect())
}
