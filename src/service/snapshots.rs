//! The current snapshot and its reloading. Readers never wait; reloads run one at a time, and one that began after a
//! change serves everybody who waits for that change.

use crate::db::listen::Change;
use crate::db::{Db, DbError, audit, catalog as catalog_rows, tokens as token_rows};
use crate::rollout::{Catalog, Snapshot};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};

/// Told of every reload: version and time taken.
pub(crate) type ReloadObserver = Arc<dyn Fn(u64, Duration) + Send + Sync>;

/// Which change each part is known to contain.
#[derive(Debug, Default, Clone, Copy)]
struct Parts {
    catalog: i64,
    rollouts: i64,
    tokens: i64,
    overrides: i64,
}

/// Holder of the current snapshot.
pub struct Snapshots {
    current: ArcSwap<Snapshot>,
    parts: Mutex<Parts>,
    db: Db,
    observer: ReloadObserver,
    versions: watch::Sender<u64>,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots")
            .field("version", &self.get().version)
            .finish_non_exhaustive()
    }
}

impl Snapshots {
    /// Reads the first snapshot.
    pub async fn load(db: Db, observer: ReloadObserver) -> Result<Self, DbError> {
        let snapshots = Self {
            current: ArcSwap::default(),
            parts: Mutex::new(Parts {
                catalog: -1,
                rollouts: -1,
                tokens: -1,
                overrides: -1,
            }),
            db,
            observer,
            versions: watch::Sender::default(),
        };
        snapshots.reload(None, i64::MAX).await?;
        Ok(snapshots)
    }

    /// The current snapshot. Hold it only for one request.
    pub fn get(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Tells of every new version.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.versions.subscribe()
    }

    /// The current snapshot, to be kept across awaits.
    pub fn get_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Makes sure that the snapshot contains change number `seq` of this part (`None`: of all parts).
    pub async fn reload(&self, change: Option<Change>, seq: i64) -> Result<(), DbError> {
        let mut parts = self.parts.lock().await;
        let wants =
            |part: Change, have: i64| (change.is_none() || change == Some(part)) && have < seq;
        let (catalog, rollouts, tokens, overrides) = (
            wants(Change::Catalog, parts.catalog),
            wants(Change::Rollouts, parts.rollouts),
            wants(Change::Tokens, parts.tokens),
            wants(Change::Overrides, parts.overrides),
        );
        if !(catalog || rollouts || tokens || overrides) {
            return Ok(());
        }
        let started = std::time::Instant::now();
        let mut conn = self.db.conn().await?;
        let tx = conn.begin_read().await?;
        let (head, _) = audit::head(&tx).await?;
        let mut next = Snapshot::clone(&self.current.load());
        if catalog {
            let rows = catalog_rows::load(&tx).await?;
            // Sorting tens of thousands of payloads would hold up other requests of this thread.
            let built = tokio::task::spawn_blocking(|| Catalog::build(rows)).await;
            next.catalog = Arc::new(
                built.map_err(|e| DbError::Row(format!("building the catalog failed: {e}")))?,
            );
        }
        if rollouts {
            next.rollouts = Arc::new(super::rollouts::load(&tx).await?);
        }
        if catalog || rollouts {
            next.answers = Arc::default();
        }
        if tokens {
            next.tokens = Arc::new(token_rows::load_tokens(&tx).await?);
        }
        if overrides {
            next.overrides = Arc::new(token_rows::load_overrides(&tx).await?);
        }
        tx.commit().await?;
        parts.catalog = if catalog { head } else { parts.catalog };
        parts.rollouts = if rollouts { head } else { parts.rollouts };
        parts.tokens = if tokens { head } else { parts.tokens };
        parts.overrides = if overrides { head } else { parts.overrides };
        next.version = next.version.max(head.unsigned_abs());
        (self.observer)(next.version, started.elapsed());
        let version = next.version;
        self.current.store(Arc::new(next));
        self.versions.send_replace(version);
        Ok(())
    }
}
