//! The state of a tier, as other servers and archives get it: its payloads, promotions, blocks and supported kernels.
//!
//! It is read in one transaction together with the place in the audit log, which is its version; so every replica makes
//! the same content of the same version, and a later version never has a lower number.
//!
//! Damaged payloads stay in it: what is damaged here is not withdrawn, and a server below must not take it for that. Asking
//! for one is answered 503 until it is whole again. Blocked payloads stay in it as well, beside the block that says so.

use crate::db::deployments::{self, BlockTold};
use crate::db::{Db, audit, catalog};
use crate::domain::{PatchVersion, TierName};
use crate::index::State;
use crate::rollout::{BlockKind, Catalog, CatalogRows};
use crate::service::ServiceError;
use crate::wire::sync::{
    BlockRecord, BlockWord, KernelRecord, PayloadRecord, PromotionRecord, Record, TierRecord,
};
use std::collections::{BTreeSet, HashMap};

/// The state of one tier.
#[derive(Debug, Clone)]
pub struct TierState {
    /// Grows with every change of anything.
    pub version: u64,
    /// The tier; with those after it.
    pub tier: TierName,
    /// The records.
    pub state: State,
}

/// Reads the state of a tier; without a name, of the first.
pub async fn read(db: &Db, tier: Option<&TierName>) -> Result<TierState, ServiceError> {
    let mut conn = db.conn().await?;
    let tx = conn.begin_read().await?;
    let (version, _) = audit::head(&tx).await?;
    let rows = catalog::load(&tx).await?;
    let blocks = deployments::blocks(&tx).await?;
    tx.commit().await?;
    drop(conn);
    let names: Vec<&TierName> = rows.tiers.iter().map(|tier| &tier.name).collect();
    let place = match tier {
        None => 0,
        Some(tier) => names
            .iter()
            .position(|name| *name == tier)
            .ok_or_else(|| ServiceError::not_found("tier", tier))?,
    };
    let tier = names
        .get(place)
        .map(|name| (*name).clone())
        .ok_or_else(|| ServiceError::Conflict("there are no tiers".to_owned()))?;
    // Tens of thousands of records would hold up other requests of this thread.
    let state = tokio::task::spawn_blocking(move || build(rows, &blocks, place))
        .await
        .map_err(|e| ServiceError::Internal(format!("making the index failed: {e}")))?
        .map_err(|e| ServiceError::Internal(format!("writing the index: {e}")))?;
    Ok(TierState {
        version: version.unsigned_abs(),
        tier,
        state,
    })
}

fn build(
    rows: CatalogRows,
    blocks: &[BlockTold],
    first: usize,
) -> Result<State, serde_json::Error> {
    let mut records = Vec::new();
    let tiers: HashMap<i32, (usize, TierName)> = rows
        .tiers
        .iter()
        .enumerate()
        .map(|(place, tier)| (tier.id, (place, tier.name.clone())))
        .collect();
    for (place, name) in tiers.values() {
        if let Some(position) = place.checked_sub(first) {
            records.push(Record::Tier(TierRecord {
                name: name.clone(),
                position: position as u32,
            }));
        }
    }
    let versions: HashMap<i32, PatchVersion> =
        rows.patches.iter().map(|p| (p.id, p.version)).collect();
    let promotions = rows.promotions.clone();
    let catalog = Catalog::build(rows);
    let mut there: BTreeSet<PatchVersion> = BTreeSet::new();
    let reached = catalog.payloads().iter().filter(|payload| {
        payload
            .reach
            .is_some_and(|reach| usize::from(reach) >= first)
    });
    for payload in reached {
        there.insert(payload.version);
        records.push(Record::Payload(PayloadRecord {
            filename: payload.filename.to_string(),
            sha256: payload.sha256,
            size: payload.size,
        }));
    }
    for promotion in &promotions {
        let (Some((place, tier)), Some(version)) = (
            tiers.get(&promotion.tier_id),
            versions.get(&promotion.patch_id),
        ) else {
            continue;
        };
        if *place >= first && there.contains(version) {
            records.push(Record::Promotion(PromotionRecord {
                version: *version,
                tier: tier.clone(),
                scope: (&promotion.scope).into(),
            }));
        }
    }
    for block in blocks.iter().filter(|b| there.contains(&b.version)) {
        records.push(Record::Block(BlockRecord {
            version: block.version,
            kind: match block.kind {
                BlockKind::Block => BlockWord::Block,
                BlockKind::Hold => BlockWord::Hold,
            },
            scope: (&block.scope).into(),
            reason: block.reason.clone(),
        }));
    }
    for row in catalog.support().rows() {
        records.push(Record::Kernel(KernelRecord {
            release: row.release.clone(),
            codename: row.codename.clone(),
            architecture: row.architecture,
            series: row.series.clone(),
            kind: row.kind.clone(),
            flavours: row.flavours.clone(),
            months: row.months,
            end_of_life: row.end_of_life,
        }));
    }
    State::of(&records)
}
