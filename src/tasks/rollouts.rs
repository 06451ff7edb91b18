//! When rollouts are looked at: again and again while this replica leads, and less often the longer a look takes.

use crate::service::{Core, rollouts};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// The shortest time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// A look takes at most this share of the time: a large fleet is not counted all the time.
const SHARE: u32 = 20;

/// Looks until `stopping`, or until another replica leads. The caller drops it when it does not lead any more.
pub async fn watch(core: &Core, epoch: i64, stopping: &CancellationToken) {
    let mut memory = rollouts::Memory::new();
    loop {
        let begun = Instant::now();
        match rollouts::pass(core, epoch, &mut memory).await {
            Ok(pass) if pass.superseded => return,
            Ok(_) => {}
            Err(error) => {
                core.metrics.rollouts.failures.inc();
                tracing::warn!(%error, "the rollouts could not be looked at; it is tried again");
            }
        }
        let wait = LOOK.max(begun.elapsed() * SHARE);
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}
