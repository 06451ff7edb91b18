//! What every service works with, made once at start.

use super::ingest::Gate;
use super::jobs::Runner;
use super::snapshots::Snapshots;
use crate::blob::{PatchCache, Store};
use crate::bundle::TrustStore;
use crate::config::Config;
use crate::db::Db;
use crate::db::listen::Change;
use crate::telemetry::Metrics;
use std::sync::Arc;

/// The parts of a running server.
#[derive(Debug)]
pub struct Core {
    /// Configuration.
    pub config: Config,
    /// Database.
    pub db: Db,
    /// Current snapshot.
    pub snapshots: Snapshots,
    /// Objects.
    pub store: Store,
    /// Hot payloads in memory.
    pub cache: PatchCache,
    /// Certificates whose signatures count; `None` if none are configured.
    pub trust: Option<TrustStore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds intake.
    pub gate: Gate,
    /// Runs jobs.
    pub jobs: Runner,
}

impl Core {
    /// Brings the snapshot up to a change that is committed. A failure is logged and not told: the change stands, and
    /// the snapshot is read again when the database is back.
    pub(super) async fn changed(&self, change: Option<Change>, seq: i64) {
        if let Err(error) = self.snapshots.reload(change, seq).await {
            tracing::warn!(%error, seq, "the snapshot could not be read again after a change");
        }
    }
}
