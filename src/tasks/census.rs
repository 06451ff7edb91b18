//! Counts a large fleet anew from time to time, so that no report waits for it.

use crate::service::{Core, census};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether there are many machines, and tried again after a failure.
const LOOK: Duration = Duration::from_secs(30);

/// Counts once, and again whenever a large fleet's counts are half of their time old, until `stopping`.
pub async fn run(core: Arc<Core>, stopping: CancellationToken) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let due = if wait.is_zero() {
            Some(Duration::ZERO)
        } else {
            core.counts.due_in()
        };
        wait = match due {
            None => LOOK,
            Some(due) if !due.is_zero() => due,
            Some(_) => {
                let counted = tokio::select! {
                    () = stopping.cancelled() => return,
                    counted = census::count_anew(&core) => counted,
                };
                match counted {
                    Ok(()) => core
                        .counts
                        .due_in()
                        .unwrap_or(LOOK)
                        .max(Duration::from_secs(1)),
                    Err(error) => {
                        tracing::warn!(%error, "the machines were not counted; it is tried again later");
                        LOOK
                    }
                }
            }
        };
    }
}
