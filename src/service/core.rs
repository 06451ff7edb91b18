//! What every service works with, made once at start.

use super::captures::Captures;
use super::snapshots::Snapshots;
use crate::config::Config;
use crate::db::Db;

/// The parts of a running server.
#[derive(Debug)]
pub struct Core {
    /// Configuration.
    pub config: Config,
    /// Database.
    pub db: Db,
    /// Current snapshot.
    pub snapshots: Snapshots,
    /// Captures that record now.
    pub captures: Captures,
}
