//! Between servers: the index of a tier, signed; its payloads; reports back; and the same from the other side.
//!
//! [`state`] and [`keys`] need nothing but a database: archives are made of them as well.

mod history;
pub mod keys;
mod report;
pub mod state;
pub mod tokens;

pub(super) use report::{count_word, is_count, own_report};
pub use report::{peers, report_up, take_report};

use super::{Core, ServiceError};
use crate::blob::PayloadRef;
use crate::db::{audit, sync_tokens};
use crate::domain::token::token_hash;
use crate::domain::{Sha256, TierName};
use crate::index;
use crate::rollout::{Standing, TokenError};
use crate::telemetry::TokenKind;
use crate::wire::sync::{FORMAT, Head};
use bytes::Bytes;
use history::{History, Version};
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A head is signed anew when this part of its life is over, so that nobody gets one that is about to expire.
const RENEWED: i32 = 8;

/// Another server that has shown a sync token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Database id of the token.
    pub token: i32,
    /// Name of the token.
    pub name: String,
    /// The tier it may pull from.
    pub tier: TierName,
    place: u16,
}

/// Checks a sync token against the snapshot.
pub fn authenticate(core: &Core, token: &str, now: Timestamp) -> Result<Caller, ServiceError> {
    let started = Instant::now();
    let caller = known(core, token, now);
    let seconds = started.elapsed().as_secs_f64();
    let auth = &core.metrics.auth;
    auth.duration.observe(TokenKind::Sync, seconds);
    caller
}

fn known(core: &Core, token: &str, now: Timestamp) -> Result<Caller, ServiceError> {
    let refuse = |why: &str| {
        ServiceError::Unauthorized(format!(
            "{why}; an administrator of that server makes a new one with `livepatch-admin sync-tokens add <tier> <name>`"
        ))
    };
    let snapshot = core.snapshots.get();
    let entry = snapshot
        .sync_token(&token_hash(token), now.as_microsecond())
        .map_err(|error| {
            refuse(match error {
                TokenError::Revoked => "the sync token was revoked",
                TokenError::Expired => "the sync token has expired",
                _ => "the sync token is not known",
            })
        })?;
    let place = snapshot
        .catalog
        .tier_index(entry.tier_id)
        .ok_or_else(|| refuse("the tier of the sync token is not there any more"))?;
    Ok(Caller {
        token: entry.id,
        name: entry.name.clone(),
        tier: snapshot.catalog.tiers()[usize::from(place)].name.clone(),
        place,
    })
}

/// A head that was signed, as it is sent.
#[derive(Debug, Clone)]
struct Sealed {
    version: u64,
    issued_at: Timestamp,
    json: Bytes,
    tag: String,
}

/// One tier's index.
#[derive(Debug, Default)]
struct Index {
    history: History,
    sealed: Option<Sealed>,
}

/// The indexes that were asked for, by tier. Each is made when it is asked for and something has changed since.
#[derive(Debug, Default)]
pub struct Indexes(Mutex<HashMap<TierName, Arc<tokio::sync::Mutex<Index>>>>);

impl Indexes {
    fn of(&self, tier: &TierName) -> Arc<tokio::sync::Mutex<Index>> {
        let mut indexes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(indexes.entry(tier.clone()).or_default())
    }
}

impl Index {
    /// Brings it up to the database, unless nothing was changed there.
    async fn refresh(
        &mut self,
        core: &Core,
        tier: &TierName,
    ) -> Result<Arc<Version>, ServiceError> {
        let (seq, _) = audit::head(&core.db.conn().await?).await?;
        if let Some(newest) = self.history.newest()
            && newest.number >= seq.unsigned_abs()
        {
            return Ok(Arc::clone(newest));
        }
        let read = state::read(&core.db, Some(tier)).await?;
        let mut history = std::mem::take(&mut self.history);
        self.history = tokio::task::spawn_blocking(move || {
            history.push(read.version, &read.state);
            history
        })
        .await
        .map_err(|e| ServiceError::Internal(format!("making the index failed: {e}")))?;
        self.history
            .newest()
            .cloned()
            .ok_or_else(|| ServiceError::Internal("the index has no version".to_owned()))
    }

    async fn seal(
        &mut self,
        core: &Core,
        tier: &TierName,
        version: &Version,
        now: Timestamp,
    ) -> Result<Sealed, ServiceError> {
        let lifetime = core.config.patch_sync.index_lifetime;
        let lifetime = SignedDuration::try_from(lifetime).unwrap_or(SignedDuration::MAX);
        let fresh = |sealed: &&Sealed| {
            let age = now.duration_since(sealed.issued_at);
            sealed.version == version.number && !age.is_negative() && age < lifetime / RENEWED
        };
        if let Some(sealed) = self.sealed.as_ref().filter(fresh) {
            return Ok(sealed.clone());
        }
        let keys = keys::signing(&core.db).await?;
        let head = Head {
            format: FORMAT,
            deployment: keys::deployment(&core.db).await?,
            tier: tier.clone(),
            version: version.number,
            digest: version.digest,
            bytes: version.text.len() as u64,
            payloads: version.payloads,
            issued_at: now,
            expires_at: now.checked_add(lifetime).unwrap_or(Timestamp::MAX),
            keys: keys.public()?,
        };
        let sealed = index::seal(&head, &keys.all()).map_err(ServiceError::Internal)?;
        let json = serde_json::to_vec(&sealed)
            .map_err(|e| ServiceError::Internal(format!("writing the index: {e}")))?;
        let sealed = Sealed {
            version: version.number,
            issued_at: now,
            tag: format!("\"{}\"", Sha256::of(&json)),
            json: json.into(),
        };
        self.sealed = Some(sealed.clone());
        Ok(sealed)
    }
}

/// The signed head of the caller's tier: its JSON and its entity tag.
pub async fn signed_head(
    core: &Core,
    caller: &Caller,
    now: Timestamp,
) -> Result<(Bytes, String), ServiceError> {
    // What is made at first need stands in the audit log, and so makes another version: first it is made.
    keys::deployment(&core.db).await?;
    keys::signing(&core.db).await?;
    let index = core.indexes.of(&caller.tier);
    let mut index = index.lock().await;
    let newest = index.refresh(core, &caller.tier).await?;
    let sealed = index.seal(core, &caller.tier, &newest, now).await?;
    drop(index);
    sync_tokens::touch(&core.db.conn().await?, caller.token).await?;
    Ok((sealed.json, sealed.tag))
}

/// A state on its way to a server below.
#[derive(Debug, Clone)]
pub enum Told {
    /// All of it.
    Whole(Bytes),
    /// What makes it of the one that the caller has.
    Difference(String),
}

/// The state of a version, or how it differs from the version that the caller has.
pub async fn state_of(
    core: &Core,
    caller: &Caller,
    version: u64,
    since: Option<u64>,
) -> Result<Told, ServiceError> {
    let index = core.indexes.of(&caller.tier);
    let mut index = index.lock().await;
    if index.history.get(version).is_none() {
        index.refresh(core, &caller.tier).await?;
    }
    let moved = || {
        ServiceError::Conflict(format!(
            "version {version} of the index of tier {} is not kept here any more; ask for its head again",
            caller.tier
        ))
    };
    let wanted = index.history.get(version).cloned().ok_or_else(moved)?;
    let newest = index.history.newest().is_some_and(|v| v.number == version);
    let difference = since
        .filter(|_| newest)
        .and_then(|since| index.history.difference(since));
    Ok(difference.map_or_else(|| Told::Whole(wanted.text.clone()), Told::Difference))
}

/// A payload of the caller's tier. Blocked and held ones are sent too: the index says that they are, and whoever lifts the
/// block wants it to be there.
pub fn find(
    core: &Core,
    caller: &Caller,
    filename: &str,
) -> Result<super::delivery::Found, ServiceError> {
    let snapshot = core.snapshots.get();
    let payload = snapshot
        .catalog
        .by_filename(filename)
        .filter(|payload| payload.reach.is_some_and(|reach| reach >= caller.place))
        .ok_or_else(|| super::text::missing("payload in the tier of this token", filename))?;
    if payload.standing == Standing::Damaged {
        return Err(ServiceError::Unavailable(format!(
            "{filename} does not verify in the storage; `livepatch-admin storage verify` says more"
        )));
    }
    Ok(super::delivery::Found {
        id: payload.id,
        filename: Arc::clone(&payload.filename),
        sha256: payload.sha256,
        size: payload.size,
    })
}

impl super::delivery::Found {
    /// As the storage knows it.
    pub fn as_payload(&self) -> PayloadRef<'_> {
        PayloadRef {
            filename: &self.filename,
            sha256: self.sha256,
            size: self.size,
        }
    }
}
