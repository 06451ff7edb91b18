//! `patch-sync.sync-tiers`: tiers and promotions of upstream take the place of the local ones.
//!
//! Promotions of patches that upstream does not know stay, except in tiers that go. A tier that goes never takes a machine or a
//! token with it: where they are moved, a person says when confirming.

use super::error::RunError;
use super::publish::Failure;
use super::run::Work;
use crate::db::tiers::{self as rows, Tier};
use crate::db::{Run, Tx, staged};
use crate::domain::{PatchVersion, Scope, TierName};
use crate::index::State;
use crate::service::{ServiceError, events};
use crate::upstream::UpstreamError;
use crate::wire::admin::{PromotionGone, SyncPending, TierGone, TiersPreview};
use crate::wire::sync::Record;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Promotions that a preview names.
const NAMED: usize = 100;

/// Where the users of tiers that go are moved.
pub(super) type Moves = BTreeMap<TierName, TierName>;

/// What is kept of a confirmation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Confirmed {
    pub(super) pending: SyncPending,
    pub(super) moves: Moves,
}

/// The moves that were given with the confirmation.
pub(super) fn moves(pending: Option<&str>) -> Moves {
    pending
        .and_then(|text| serde_json::from_str::<Confirmed>(text).ok())
        .map(|confirmed| confirmed.moves)
        .unwrap_or_default()
}

/// What upstream says of tiers and promotions.
#[derive(Debug, Default)]
struct Theirs {
    tiers: Vec<TierName>,
    promotions: Vec<(PatchVersion, TierName, Scope)>,
    versions: BTreeSet<PatchVersion>,
}

fn theirs(state: &State) -> Result<Theirs, RunError> {
    let mut theirs = Theirs::default();
    let mut tiers: Vec<(u32, TierName)> = Vec::new();
    for record in state.records() {
        match record {
            Record::Tier(tier) => tiers.push((tier.position, tier.name)),
            Record::Promotion(promotion) => {
                let scope = promotion.scope.scope().map_err(ServiceError::from)?;
                theirs.versions.insert(promotion.version);
                theirs
                    .promotions
                    .push((promotion.version, promotion.tier, scope));
            }
            Record::Payload(payload) => {
                if let Ok(name) = payload.filename.parse::<crate::bundle::BundleName>() {
                    theirs.versions.insert(name.version);
                }
            }
            Record::Block(_) | Record::Kernel(_) => {}
        }
    }
    tiers.sort();
    theirs.tiers = tiers.into_iter().map(|(_, name)| name).collect();
    let unique: BTreeSet<&TierName> = theirs.tiers.iter().collect();
    if theirs.tiers.is_empty() || unique.len() != theirs.tiers.len() {
        let why =
            "its index has no tiers that could be taken over; set patch-sync.sync-tiers to false";
        return Err(UpstreamError::Nonsense(why.to_owned()).into());
    }
    theirs
        .promotions
        .retain(|(_, tier, _)| theirs.tiers.contains(tier));
    Ok(theirs)
}

/// What taking over would change here.
pub(super) async fn preview(run: &impl Run, state: &State) -> Result<TiersPreview, RunError> {
    let theirs = theirs(state)?;
    let order = rows::order(run).await?;
    let mut preview = TiersPreview {
        tiers: theirs.tiers.clone(),
        ..TiersPreview::default()
    };
    preview.added = theirs
        .tiers
        .iter()
        .filter(|name| order.iter().all(|tier| tier.name != **name))
        .cloned()
        .collect();
    for tier in order.iter().filter(|t| !theirs.tiers.contains(&t.name)) {
        let usage = rows::usage(run, tier.id).await?;
        preview.removed.push(TierGone {
            name: tier.name.clone(),
            machines: usage.machines + usage.overrides,
            auth_tokens: usage.auth_tokens,
            sync_tokens: staged::count_sync_tokens(run, tier.id).await?,
        });
    }
    let ids = staged::patch_ids(run).await?;
    let name = |id: i32| order.iter().find(|t| t.id == id).map(|t| t.name.clone());
    let reached = rows::reached(run, None).await?;
    let mut ours: BTreeSet<(PatchVersion, TierName, String)> = BTreeSet::new();
    for promotion in &reached {
        let Some(tier) = name(promotion.tier_id) else {
            continue;
        };
        let known = theirs.versions.contains(&promotion.version);
        let stays =
            theirs
                .promotions
                .contains(&(promotion.version, tier.clone(), promotion.scope.clone()));
        let vanishes = !theirs.tiers.contains(&tier);
        if (known && !stays) || vanishes {
            preview.promotions_removed += 1;
            if preview.promotions.len() < NAMED {
                preview.promotions.push(PromotionGone {
                    version: promotion.version,
                    tier: tier.clone(),
                    scope: promotion.scope.clone().into(),
                });
            }
        }
        ours.insert((promotion.version, tier, format!("{:?}", promotion.scope)));
    }
    preview.promotions_added = theirs
        .promotions
        .iter()
        .filter(|(version, tier, scope)| {
            ids.contains_key(version)
                && !ours.contains(&(*version, tier.clone(), format!("{scope:?}")))
        })
        .count() as u64;
    Ok(preview)
}

/// Takes tiers and promotions over. Returns whether anything changed.
pub(super) async fn apply(
    work: &Work<'_>,
    tx: &Tx<'_>,
    state: &State,
    moves: &Moves,
) -> Result<bool, Failure> {
    let theirs = theirs(state)?;
    let mut order = rows::order(tx).await?;
    let before: Vec<TierName> = order.iter().map(|tier| tier.name.clone()).collect();
    for name in &theirs.tiers {
        if !before.contains(name) {
            let id = rows::insert(tx, name, order.len() as i32).await?;
            let name = name.clone();
            order.push(Tier { id, name });
        }
    }
    let id_of = |name: &TierName| order.iter().find(|t| t.name == *name).map(|t| t.id);
    let first = theirs.tiers.first().and_then(id_of);
    let mut changed = before != theirs.tiers;
    for tier in order.iter().filter(|t| !theirs.tiers.contains(&t.name)) {
        let to = moves.get(&tier.name).and_then(id_of);
        let usage = rows::usage(tx, tier.id).await?;
        let sync = staged::count_sync_tokens(tx, tier.id).await?;
        let used = usage.machines + usage.overrides + usage.auth_tokens + sync > 0;
        if used && to.is_none() && !work.run.confirmed {
            return Err(Failure::Run(RunError::Service(ServiceError::Conflict(
                format!(
                    "upstream has no tier {} and it is used here; look at `livepatch-admin sync status` and confirm \
                     with `--move {}=TIER`",
                    tier.name, tier.name
                ),
            ))));
        }
        let Some(to) = to.or(first) else { continue };
        let actor = &work.run.actor.name;
        let reason = format!("{} has no tier {}", work.name, tier.name);
        rows::forget_promotions(tx, tier.id, Some(to), actor, &reason).await?;
        rows::move_users(tx, tier.id, to).await?;
        staged::move_sync_tokens(tx, tier.id, to).await?;
        rows::delete(tx, tier.id).await?;
    }
    let ids: Vec<i32> = theirs.tiers.iter().filter_map(id_of).collect();
    rows::set_order(tx, &ids).await?;
    changed |= promotions(work, tx, &theirs, &order).await?;
    Ok(changed)
}

/// Makes the promotions of every patch that upstream knows the same as there.
async fn promotions(
    work: &Work<'_>,
    tx: &Tx<'_>,
    theirs: &Theirs,
    order: &[Tier],
) -> Result<bool, Failure> {
    let ids = staged::patch_ids(tx).await?;
    let tier_of = |name: &TierName| order.iter().find(|t| t.name == *name).map(|t| t.id);
    let mut changed = false;
    for reached in rows::reached(tx, None).await? {
        let stays = theirs.promotions.iter().any(|(version, tier, scope)| {
            *version == reached.version
                && tier_of(tier) == Some(reached.tier_id)
                && *scope == reached.scope
        });
        if theirs.versions.contains(&reached.version) && !stays {
            staged::forget_promotion(tx, reached.patch_id, reached.tier_id, &reached.scope).await?;
            changed = true;
        }
    }
    let reason = format!("as in {}", work.name);
    for (version, tier, scope) in &theirs.promotions {
        if let (Some(patch), Some(id)) = (ids.get(version), tier_of(tier)) {
            let actor = &work.run.actor.name;
            if !rows::promote(tx, *patch, id, scope, actor, &reason).await? {
                continue;
            }
            changed = true;
            let act = events::Act {
                version: *version,
                scope,
                actor,
                reason: &reason,
            };
            events::promoted(tx, act, None, tier).await?;
        }
    }
    Ok(changed)
}
