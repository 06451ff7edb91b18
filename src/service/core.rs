//! What every service works with, made once at start.

use super::captures::Captures;
use super::census::Counts;
use super::checkin::Queue;
use super::contracts::Contracts;
use super::ingest::Gate;
use super::jobs::Runner;
use super::peer::Indexes;
use super::rollouts::Looks;
use super::snapshots::Snapshots;
use super::webhooks::Webhooks;
use crate::blob::{PatchCache, Store};
use crate::bundle::TrustStore;
use crate::config::Config;
use crate::db::Db;
use crate::db::listen::Change;
use crate::domain::token::MachineTokenKey;
use crate::telemetry::Metrics;
use crate::upstream::oidc::Provider;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The parts of a running server.
#[derive(Debug)]
pub struct Core {
    /// Configuration.
    pub config: Config,
    /// Database.
    pub db: Db,
    /// Current snapshot.
    pub snapshots: Snapshots,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Object store.
    pub store: Store,
    /// Payloads in memory.
    pub cache: PatchCache,
    /// Certificates that modules may be signed with; `None` with policy `off`.
    pub trust: Option<TrustStore>,
    /// Key of machine tokens.
    pub machine_key: MachineTokenKey,
    /// Captures that run.
    pub captures: Captures,
    /// Machines as they were counted last.
    pub counts: Counts,
    /// What machines reported of rollouts, as it was counted last.
    pub looks: Looks,
    /// The identity provider of administrators, if one is configured.
    pub provider: Option<Arc<Provider>>,
    /// The contracts service of Ubuntu Pro.
    pub contracts: Contracts,
    /// Check-ins on their way to the database.
    pub check_ins: Queue,
    /// Bounds intake.
    pub gate: Gate,
    /// Runs jobs.
    pub jobs: Runner,
    /// Indexes for other servers.
    pub indexes: Indexes,
    /// Told when somebody asks this replica for a sync run, so that a leader need not wait until it looks.
    pub sync_asked: Notify,
    /// Delivers events to webhooks.
    pub webhooks: Webhooks,
    /// Cancelled when the server is told to stop.
    pub stopping: CancellationToken,
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
