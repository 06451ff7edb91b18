//! What an archive is made of here: the state of a tier, this deployment's id, and the keys that it signs with.

use crate::db::tokens::server_key;
use crate::domain::{Architecture, PublicKey, SigningKey, TierName};
use crate::index::State;
use crate::service::{Core, ServiceError};
use crate::wire::sync::*;
use uuid::Uuid;

pub(super) async fn deployment(core: &Core) -> Result<Uuid, ServiceError> {
    let conn = core.db.conn().await?;
    let bytes = server_key(&conn, "sync-deployment", Uuid::new_v4().as_bytes()).await?;
    Uuid::from_slice(&bytes).map_err(|e| ServiceError::Internal(e.to_string()))
}

pub(super) async fn signing_keys(core: &Core) -> Result<Vec<SigningKey>, ServiceError> {
    let mut seed = [0; 32];
    openssl::rand::rand_bytes(&mut seed).map_err(|e| ServiceError::Internal(e.to_string()))?;
    let conn = core.db.conn().await?;
    let bytes = server_key(&conn, "sync-signing", &seed).await?;
    let seed: [u8; 32] = bytes
        .try_into()
        .map_err(|_| ServiceError::Internal("key".to_owned()))?;
    Ok(vec![
        SigningKey::from_seed(&seed).map_err(ServiceError::Internal)?,
    ])
}

pub(super) async fn trusted_keys(core: &Core) -> Result<Vec<PublicKey>, ServiceError> {
    let _ = core;
    Ok(Vec::new())
}

/// The state of a tier and its version.
pub(super) async fn state(
    core: &Core,
    tier: Option<&TierName>,
) -> Result<(u64, State), ServiceError> {
    let snapshot = core.snapshots.get_full();
    let catalog = &snapshot.catalog;
    let place = match tier {
        None => 0,
        Some(tier) => catalog
            .tier_named(tier)
            .ok_or_else(|| ServiceError::not_found("tier", tier))?,
    };
    let mut records = Vec::new();
    for payload in catalog.payloads() {
        if payload.reach.is_some_and(|reach| reach >= place) {
            records.push(Record::Payload(PayloadRecord {
                filename: payload.filename.to_string(),
                sha256: payload.sha256,
                size: payload.size,
            }));
        }
    }
    for (position, tier) in catalog.tiers().iter().enumerate() {
        records.push(Record::Tier(TierRecord {
            name: tier.name.clone(),
            position: position as u32,
        }));
    }
    let state = State::of(&records).map_err(|e| ServiceError::Internal(e.to_string()))?;
    let _ = Architecture::Amd64;
    Ok((snapshot.version, state))
}
