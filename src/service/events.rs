//! Says what happened to webhooks, each in the transaction of what happened.

use crate::db::{DbError, Tx, outbox};
use crate::domain::{EventKind, PatchVersion, Scope, TierName};
use crate::rollout::support_csv::Difference;
use crate::wire::event::{CoverageChanged, PatchArrived, PatchPromoted, PatchStopped};

/// A patch that nobody had seen before is here, in this tier.
pub(super) async fn arrived(
    tx: &Tx<'_>,
    version: PatchVersion,
    tier: Option<&TierName>,
    source: &str,
    actor: &str,
) -> Result<(), DbError> {
    let data = PatchArrived {
        version,
        notice: version.notice(),
        tier: tier.cloned(),
        source: source.to_owned(),
        actor: actor.to_owned(),
    };
    outbox::emit(tx, EventKind::PatchArrived, &data).await?;
    Ok(())
}

/// Who did something to a part of a patch, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    pub(super) version: PatchVersion,
    pub(super) scope: &'a Scope,
    pub(super) actor: &'a str,
    pub(super) reason: &'a str,
}

/// A part of a patch reached a tier.
pub(super) async fn promoted(
    tx: &Tx<'_>,
    act: Act<'_>,
    from: Option<&TierName>,
    tier: &TierName,
) -> Result<(), DbError> {
    let data = PatchPromoted {
        version: act.version,
        notice: act.version.notice(),
        from: from.cloned(),
        tier: tier.clone(),
        scope: act.scope.clone().into(),
        actor: act.actor.to_owned(),
        reason: act.reason.to_owned(),
    };
    outbox::emit(tx, EventKind::PatchPromoted, &data).await?;
    Ok(())
}

/// A part of a patch was blocked, unblocked, held or resumed.
pub(super) async fn stopped(tx: &Tx<'_>, kind: EventKind, act: Act<'_>) -> Result<(), DbError> {
    let data = PatchStopped {
        version: act.version,
        notice: act.version.notice(),
        scope: act.scope.clone().into(),
        actor: act.actor.to_owned(),
        reason: act.reason.to_owned(),
    };
    outbox::emit(tx, kind, &data).await?;
    Ok(())
}

/// The table of supported kernels changed.
pub(super) async fn coverage(
    tx: &Tx<'_>,
    difference: &Difference<'_>,
    actor: &str,
    reason: &str,
) -> Result<(), DbError> {
    let data = CoverageChanged {
        added: difference.added.len() as u64,
        removed: difference.removed.len() as u64,
        changed: difference.changed.len() as u64,
        actor: actor.to_owned(),
        reason: reason.to_owned(),
    };
    outbox::emit(tx, EventKind::CoverageChanged, &data).await?;
    Ok(())
}
