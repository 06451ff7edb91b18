//! Counts the machines anew from time to time: for the metrics, and so that no report of a large fleet waits for it.

use crate::service::{Core, census};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often few machines are counted, and counting is tried again after a failure.
const LOOK: Duration = Duration::from_secs(30);

/// Counts once, and again every half minute, or whenever a large fleet's counts are half of their time old, until `stopping`.
pub async fn run(core: Arc<Core>, stopping: CancellationToken) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        // The first time nothing is kept. Of few machines nothing is kept ever, and counting them for the metrics takes milliseconds.
        wait = match core.counts.due_in() {
            Some(due) if !due.is_zero() => due,
            Some(_) | None => {
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
