//! What every service works with, made once at start.

use super::captures::Captures;
use super::checkin::Queue;
use super::snapshots::Snapshots;
use crate::blob::{PatchCache, Store};
use crate::bundle::TrustStore;
use crate::config::Config;
use crate::db::Db;
use crate::domain::token::MachineTokenKey;
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
    /// Cancelled when the server is told to stop.
    pub stopping: tokio_util::sync::CancellationToken,
    /// Check-ins on their way to the database.
    pub check_ins: Queue,
}
