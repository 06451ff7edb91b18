//! What is asked of a run, and how it ended.

use super::error::RunError;
use super::filters;
use crate::db::audit::Actor;
use crate::db::{Tx, leader};
use crate::index::IntakeFilter;
use crate::service::{Core, ServiceError};
use crate::wire::admin::{SyncOutcome, SyncState};

/// Why a run runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It was due.
    Interval,
    /// An administrator asked for it.
    Trigger,
    /// An archive was brought.
    Import,
}

impl Cause {
    /// The word of the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interval => "interval",
            Self::Trigger => "trigger",
            Self::Import => "import",
        }
    }

    /// What its payloads say of how they came.
    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Interval | Self::Trigger => "sync",
        }
    }
}

/// What keeps a leader that was superseded from changing anything.
#[derive(Debug, Clone, Copy)]
pub struct Fence(Option<i64>);

impl Fence {
    /// Of the leader with this epoch.
    pub const fn of_leader(epoch: i64) -> Self {
        Self(Some(epoch))
    }

    /// Of a command that a person runs beside the servers; the lock of the run alone guards it.
    pub const fn of_command() -> Self {
        Self(None)
    }

    /// The leader's epoch.
    pub(super) const fn epoch(self) -> Option<i64> {
        self.0
    }

    /// Fails if another replica leads; else the transaction commits only while none does.
    pub(super) async fn check(self, tx: &Tx<'_>) -> Result<(), RunError> {
        match self.0 {
            Some(epoch) if !leader::fence(tx, epoch).await? => Err(RunError::Superseded),
            _ => Ok(()),
        }
    }
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The record that was queued for it; `None`: it makes one.
    pub id: Option<i64>,
    /// Why.
    pub cause: Cause,
    /// Who asked for it.
    pub actor: Actor,
    /// What is wanted.
    pub filter: IntakeFilter,
    /// How many percent of what upstream had may be gone before a person must confirm; 100: all.
    pub max_shrink: u32,
    /// Takes tiers and promotions over.
    pub mirror: bool,
    /// A person has confirmed beforehand whatever would wait.
    pub confirmed: bool,
    /// Only says what it would do.
    pub dry_run: bool,
}

impl Run {
    /// As configured in `patch-sync.*`.
    pub async fn configured(core: &Core, cause: Cause, actor: Actor) -> Result<Self, ServiceError> {
        let sync = &core.config.patch_sync;
        Ok(Self {
            id: None,
            cause,
            actor,
            filter: filters::configured(core, &core.db.conn().await?).await?,
            max_shrink: sync.max_shrink,
            mirror: sync.sync_tiers,
            confirmed: false,
            dry_run: false,
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its record; `None` if it only said what it would do.
    pub id: Option<i64>,
    /// `done`, `failed` or `waiting`.
    pub state: SyncState,
    /// Why, for programs.
    pub code: Option<String>,
    /// Why, for people.
    pub error: Option<String>,
    /// What came of it. With `dry_run`: `fetched` is what would be fetched.
    pub outcome: SyncOutcome,
}
