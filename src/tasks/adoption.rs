//! When it is noted how many machines run each patch: every few minutes while this replica leads.

use crate::service::{Core, adoption};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often.
const EVERY: Duration = Duration::from_mins(5);

/// Notes until `stopping`, or until another replica leads.
pub async fn note(core: &Core, epoch: i64, stopping: &CancellationToken) {
    loop {
        match adoption::note(core, epoch).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "how many machines run each patch was not noted; it is tried again");
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
