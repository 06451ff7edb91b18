//! Leadership: every replica wants it, one has it, and what only one may do runs while it does.
//!
//! The leader renews its lease three times as often as it runs out. A candidate that finds the lease run out although the lock is
//! held ends the holder's connection: its process stands still, and when it wakes its transactions are refused by their epoch.

use super::{adoption, rollouts, sync, webhooks};
use crate::db::DbError;
use crate::db::leader::Candidate;
use crate::service::Core;
use crate::telemetry::security::{self, Deed, Event};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How long a leader may say nothing.
pub const LEASE: Duration = Duration::from_secs(10);
/// How often it renews, and a candidate tries.
const TURN: Duration = Duration::from_secs(2);

/// Leads when it can, until `stopping`. `name` tells people which replica it is.
pub async fn run(core: Arc<Core>, name: String, stopping: CancellationToken) {
    loop {
        match Box::pin(term(&core, &name, &stopping)).await {
            Ok(()) if stopping.is_cancelled() => return,
            Ok(()) => tracing::warn!("another replica leads now"),
            Err(error) => tracing::warn!(%error, "the connection for leadership broke"),
        }
        lead(&core, false);
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(TURN / 2) => {}
        }
    }
}

/// One connection's life: waits for leadership, leads, and returns when that ends.
async fn term(core: &Arc<Core>, name: &str, stopping: &CancellationToken) -> Result<(), DbError> {
    let mut turn = tokio::time::interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let candidate = bounded(Candidate::connect(&core.db)).await?;
    let epoch = loop {
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            _ = turn.tick() => {}
        }
        if let Some(epoch) = bounded(candidate.try_take(name)).await? {
            break epoch;
        }
        if bounded(candidate.depose(LEASE)).await? {
            tracing::warn!("the leader has not renewed its lease; its connection was ended");
        }
    };
    tracing::info!(epoch, "leading");
    let deed = Deed {
        target: name,
        ..Deed::default()
    };
    security::emit(Event::LeaderTaken, deed);
    core.metrics.sync.epoch.set(epoch);
    lead(core, true);
    let renewing = async {
        loop {
            turn.tick().await;
            if !bounded(candidate.renew(epoch)).await? {
                return Ok(());
            }
        }
    };
    // A run that is told to stop still records that it was; one of a leader that is none any more is cut off.
    tokio::select! {
        ended = renewing => {
            security::emit(Event::LeaderLost, deed);
            ended
        }
        () = work(core, epoch, stopping) => Ok(()),
    }
}

/// Shows who leads; what only the leader shows comes and goes with it.
fn lead(core: &Core, leads: bool) {
    core.metrics.sync.leads.set(i64::from(leads));
    core.metrics.fleet.lead(leads);
    if !leads {
        core.metrics.rollouts.show([]);
    }
}

/// What only the leader does, until `stopping`.
async fn work(core: &Arc<Core>, epoch: i64, stopping: &CancellationToken) {
    tokio::join!(
        sync::schedule(core, epoch, stopping),
        rollouts::watch(core, epoch, stopping),
        webhooks::deliver(core, epoch, stopping),
        adoption::note(core, epoch, stopping),
    );
}

/// No word from the database within a lease is an end too.
async fn bounded<T>(work: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    tokio::time::timeout(LEASE, work).await.unwrap_or_else(|_| {
        Err(DbError::Unavailable(
            "no answer within the lease".to_owned(),
        ))
    })
}
