//! Why a run did not come to its end.

use crate::db::DbError;
use crate::service::ServiceError;
use crate::upstream::UpstreamError;
use crate::wire::admin::SyncPending;

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Upstream did not give what it was asked for, or is not believed.
    #[error("{0}")]
    Upstream(#[from] UpstreamError),
    /// Payloads did not come whole or are not what upstream said.
    #[error("{0}")]
    Payloads(String),
    /// Another replica leads now; nothing of this run was made visible.
    #[error(
        "another replica has become the leader meanwhile; nothing of this run was made visible"
    )]
    Superseded,
    /// The server stops.
    #[error("the server was stopped; the next run goes on")]
    Stopped,
    /// The connection that holds the lock broke.
    #[error("the connection to the database broke; the next run goes on")]
    Lost,
    /// A person must confirm.
    #[error("{}", waits(.0))]
    Waiting(Box<SyncPending>),
    /// Something here is in the way.
    #[error("{0}")]
    Service(#[from] ServiceError),
}

impl From<DbError> for RunError {
    fn from(error: DbError) -> Self {
        Self::Service(error.into())
    }
}

impl RunError {
    /// A word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Upstream(error) => error.code(),
            Self::Payloads(_) => "payloads",
            Self::Superseded => "superseded",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
            Self::Waiting(pending) => {
                if pending.shrink.is_some() {
                    "shrink"
                } else {
                    "tiers"
                }
            }
            Self::Service(ServiceError::Unavailable(_)) => "unavailable",
            Self::Service(_) => "internal",
        }
    }
}

fn waits(pending: &SyncPending) -> String {
    let mut why = Vec::new();
    if let Some(shrink) = &pending.shrink {
        why.push(format!(
            "upstream does not have {} of {} payloads any more, more than patch-sync.max-shrink ({}%) allows; \
             what it does not have would be held here",
            shrink.gone, shrink.before, shrink.limit
        ));
    }
    if let Some(tiers) = &pending.tiers {
        why.push(format!(
            "taking over the tiers of upstream removes {} tiers and {} promotions here",
            tiers.removed.len(),
            tiers.promotions_removed
        ));
    }
    format!(
        "{}; look at `livepatch-admin sync status`, then `livepatch-admin sync confirm`",
        why.join("; ")
    )
}
