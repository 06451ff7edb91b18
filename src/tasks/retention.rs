//! Partitions of the history made ahead and dropped when they are old; sessions and counters that ended.

use crate::db::{DbError, outbox, retention};
use crate::service::Core;
use jiff::{ToSpan, civil::Date};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// How many days ahead there are partitions; more than the longest pause between two runs.
const AHEAD: i32 = 3;
/// The most days that deliveries to webhooks are kept: a century, which the database can subtract from any time.
const MOST_DAYS: u32 = 36_500;

/// Runs at once and then at `machine-reports.database.cleanup-interval`, until `stopping`.
pub async fn run(core: Arc<Core>, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(core.config.machine_reports.cleanup_interval);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = interval.tick() => {}
        }
        match now(&core).await {
            Ok(()) => {}
            Err(error) => tracing::warn!(%error, "retention did not run; it is tried again later"),
        }
    }
}

/// One run, for the day that the database says it is.
pub async fn now(core: &Core) -> Result<(), DbError> {
    let today = retention::today(&core.db.conn().await?).await?;
    once(core, today).await
}

/// One run, for the day `today` (UTC).
pub async fn once(core: &Core, today: Date) -> Result<(), DbError> {
    let mut conn = core.db.conn().await?;
    for ahead in 0..AHEAD {
        let Ok(day) = today.checked_add(ahead.days()) else {
            continue;
        };
        let tx = conn.begin().await?;
        if !retention::try_lock(&tx).await? {
            return Ok(());
        }
        match retention::make_partition(&tx, day).await {
            Ok(_) => tx.commit().await?,
            // Rows of that day lie in the default partition already; they are dropped by age from there.
            Err(error) => {
                tracing::warn!(%error, %day, "no partition could be made for a day of the history");
            }
        }
    }
    let keep = i64::from(core.config.machine_reports.retention_days);
    let tx = conn.begin().await?;
    if !retention::try_lock(&tx).await? {
        return Ok(());
    }
    if let Ok(before) = today.checked_sub(keep.days()) {
        let dropped = retention::drop_before(&tx, before).await?;
        if dropped > 0 {
            tracing::info!(dropped, %before, "days of the history were dropped");
        }
    }
    retention::delete_ended(&tx).await?;
    let keep = core.config.webhooks.retention_days.min(MOST_DAYS);
    outbox::delete_old(&tx, keep.cast_signed()).await?;
    tx.commit().await
}
