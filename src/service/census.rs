//! The machines counted: by tier, kernel, architecture, patch, offer, state and build date. Reports add up what they speak of.
//!
//! Counting reads the whole table, since nothing that a check-in changes is indexed. With few machines that takes
//! milliseconds and is done for each report. With more than [`DEAR`], counts are kept and counted anew beside the
//! requests (`tasks::census`), and every report says of when its counts are.
//!
//! Invariant: of many machines no counts older than [`Census::stale_after`] are given out.

use super::fleet::{self, Wanted};
use super::{Core, ServiceError, coverage};
use crate::db::reports::{self as rows, CensusRow};
use crate::db::{DbError, Tx};
use crate::domain::selector::Traits;
use crate::domain::{LabelKey, Labels, Selector, TierName};
use crate::wire::admin::CoverageCounts;
use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Machines beyond which counts are kept.
pub const DEAR: u64 = 20_000;
/// How long counts are kept, at least.
const KEPT: Duration = Duration::from_mins(1);
/// And how many times as long as it took to count them, so that counting takes a small share of the database's time.
const SHARE: u32 = 100;

/// How long counting may take; it holds up nobody but reports without kept counts.
const PATIENCE: Duration = Duration::from_mins(1);

/// The machines, counted.
#[derive(Debug)]
pub struct Census {
    /// Groups that differ in at least one respect.
    pub rows: Vec<CensusRow>,
    /// When they were counted.
    pub as_of: Timestamp,
    machines: u64,
    begun: Instant,
    took: Duration,
    /// How they are covered as a whole, by the snapshot of this version.
    pub(super) covered: std::sync::Mutex<Option<(u64, CoverageCounts)>>,
}

impl Census {
    /// How many machines there are.
    pub fn machines(&self) -> u64 {
        self.machines
    }

    /// From then on, seen from its beginning, it is not given out any more.
    fn stale_after(&self) -> Duration {
        KEPT.max(self.took * SHARE)
    }

    fn is_kept(&self) -> bool {
        self.machines > DEAR && self.begun.elapsed() < self.stale_after()
    }
}

/// The last census.
#[derive(Debug, Default)]
pub struct Counts {
    last: ArcSwapOption<Census>,
    counting: Mutex<()>,
}

impl Counts {
    /// When to count again beside the requests; `None` while there are so few machines that each report counts.
    pub fn due_in(&self) -> Option<Duration> {
        let last = self.last.load_full().filter(|last| last.machines > DEAR)?;
        Some((last.stale_after() / 2).saturating_sub(last.begun.elapsed()))
    }
}

/// Seconds without a check-in after which a machine is silent: twice the interval, so that one that is missed does not count.
pub(super) fn silence(core: &Core) -> f64 {
    core.config.check_in.interval.as_secs_f64() * 2.0
}

/// The machines as they are now or, if they are many, as they were counted last.
pub async fn current(core: &Core) -> Result<Arc<Census>, ServiceError> {
    let kept = || core.counts.last.load_full().filter(|last| last.is_kept());
    if let Some(census) = kept() {
        return Ok(census);
    }
    // Who waits here while another counts is served by what the other counted, if it is kept.
    let _turn = core.counts.counting.lock().await;
    match kept() {
        Some(census) => Ok(census),
        None => Ok(count(core).await?),
    }
}

/// Counts, while the last census goes on being given out.
pub async fn count_anew(core: &Core) -> Result<(), DbError> {
    let _turn = core.counts.counting.lock().await;
    count(core).await.map(drop)
}

async fn count(core: &Core) -> Result<Arc<Census>, DbError> {
    let (begun, as_of) = (Instant::now(), Timestamp::now());
    let rows = read(core, None).await?;
    let rows: Vec<CensusRow> = rows.into_iter().map(|(_, row)| row).collect();
    let census = Arc::new(Census {
        machines: rows.iter().map(|row| row.machines).sum(),
        rows,
        as_of,
        begun,
        took: begun.elapsed(),
        covered: std::sync::Mutex::default(),
    });
    core.counts.last.store(Some(Arc::clone(&census)));
    coverage::measure(core, &census);
    Ok(census)
}

/// Reads the whole table; with a label also by its value. Counts by labels are not kept: there are as many as there are keys.
async fn read(
    core: &Core,
    label: Option<&LabelKey>,
) -> Result<Vec<(Option<String>, CensusRow)>, DbError> {
    let silence = silence(core);
    patiently(core, async |tx: &Tx<'_>| {
        rows::census(tx, silence, label).await
    })
    .await
}

/// Some of the machines, counted.
pub(super) struct Counted {
    pub(super) as_of: Timestamp,
    /// Groups; with a label also by its value.
    pub(super) rows: Vec<(Option<String>, CensusRow)>,
}

/// The machines of a tier, or of all, that a selector means; with a label also by its value. Kept counts know nothing of
/// labels: where these are asked for, machines are counted now.
pub(super) async fn selected(
    core: &Core,
    tier: Option<&TierName>,
    selector: Option<&Selector>,
    label: Option<&LabelKey>,
) -> Result<Counted, ServiceError> {
    if label.is_some() || selector.is_some_and(Selector::asks_for_labels) {
        return counted_now(core, tier, selector, label).await;
    }
    let tier_id = tier.map(|tier| fleet::known_tier(core, tier)).transpose()?;
    let census = current(core).await?;
    let labels = Labels::default();
    let is_meant = |row: &&CensusRow| {
        let machine = Traits {
            kernel: row.kernel.as_deref(),
            architecture: row.architecture,
            labels: &labels,
        };
        tier_id.is_none_or(|id| row.tier_id == id)
            && selector.is_none_or(|selector| selector.matches(&machine))
    };
    let rows = census.rows.iter().filter(is_meant);
    Ok(Counted {
        as_of: census.as_of,
        rows: rows.map(|row| (None, row.clone())).collect(),
    })
}

async fn counted_now(
    core: &Core,
    tier: Option<&TierName>,
    selector: Option<&Selector>,
    label: Option<&LabelKey>,
) -> Result<Counted, ServiceError> {
    let as_of = Timestamp::now();
    let rows = if tier.is_none() && selector.is_none_or(Selector::is_all) {
        read(core, label).await?
    } else {
        let wanted = Wanted {
            tier,
            selector,
            ..Wanted::default()
        };
        let filter = fleet::filter(core, &core.db.conn().await?, &wanted).await?;
        let silence = silence(core);
        patiently(core, async |tx: &Tx<'_>| {
            rows::census_of(tx, &filter, silence, label).await
        })
        .await?
    };
    Ok(Counted { as_of, rows })
}

/// Counts in a transaction of its own and gives up when it takes too long.
async fn patiently<T>(
    core: &Core,
    count: impl AsyncFnOnce(&Tx<'_>) -> Result<T, DbError>,
) -> Result<T, DbError> {
    let mut conn = core.db.conn().await?;
    let work = async {
        let tx = conn.begin_read().await?;
        let rows = count(&tx).await?;
        tx.commit().await?;
        Ok::<_, DbError>(rows)
    };
    if let Ok(rows) = tokio::time::timeout(PATIENCE, work).await {
        return rows;
    }
    // The connection still waits for the answer; nobody else may get it.
    conn.discard();
    Err(DbError::Unavailable(format!(
        "the machines were not counted within {} s",
        PATIENCE.as_secs()
    )))
}
