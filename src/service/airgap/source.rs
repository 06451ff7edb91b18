//! What archives are made of here, and who is believed: the state of a tier, this deployment's id and keys, and trusted keys.

use crate::domain::{PublicKey, SigningKey, TierName};
use crate::index::State;
use crate::service::peer::{keys, state as tiers};
use crate::service::{Core, ServiceError};
use uuid::Uuid;

/// This deployment.
pub(super) async fn deployment(core: &Core) -> Result<Uuid, ServiceError> {
    keys::deployment(&core.db).await
}

/// The keys that this deployment signs with.
pub(super) async fn signing_keys(core: &Core) -> Result<Vec<SigningKey>, ServiceError> {
    Ok(keys::signing(&core.db).await?.all())
}

/// The keys of others that are believed.
pub(super) async fn trusted_keys(core: &Core) -> Result<Vec<PublicKey>, ServiceError> {
    Ok(keys::trusted(&core.db.conn().await?).await?)
}

/// The state of a tier, without a name of the first, and its version.
pub(super) async fn state(
    core: &Core,
    tier: Option<&TierName>,
) -> Result<(u64, TierName, State), ServiceError> {
    let read = tiers::read(&core.db, tier).await?;
    Ok((read.version, read.tier, read.state))
}
