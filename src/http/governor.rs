//! The governor: how many requests of machines are worked on and wait at once. Administration and health do not pass
//! through it, so that machines cannot starve them.

use super::error::ApiError;
use crate::service::{Core, ServiceError};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What a turned-away client is told to wait. Clients spread themselves when they retry.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Places for requests: `server.concurrency-limit` that are worked on, `server.burst-limit` more that wait.
#[derive(Debug, Clone)]
pub(super) struct Governor {
    working: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    core: Arc<Core>,
}

impl Governor {
    /// Takes the limits from the configuration.
    pub(super) fn new(core: &Arc<Core>) -> Self {
        let server = &core.config.server;
        Self {
            working: Arc::new(Semaphore::new(server.concurrency_limit as usize)),
            waiting: Arc::new(Semaphore::new(server.burst_limit as usize)),
            core: Arc::clone(core),
        }
    }

    /// Lets a request in, has it wait, or refuses it. It is in until what is returned is dropped.
    pub(super) async fn enter(&self) -> Result<Option<SemaphorePermit<'_>>, ServiceError> {
        if let Ok(turn) = self.working.try_acquire() {
            return Ok(Some(turn));
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            self.core.metrics.overload.inc();
            return Err(ServiceError::Throttled {
                why: "the server has as many requests as it can take; try again later".to_owned(),
                retry_after: RETRY_AFTER,
            });
        };
        // The semaphore is never closed; if it were, answering is still right.
        Ok(self.working.acquire().await.ok())
    }
}

/// Lets a request in, has it wait, or turns it away with 429.
pub(super) async fn govern(
    State(governor): State<Governor>,
    request: Request,
    next: Next,
) -> Response {
    match governor.enter().await {
        Ok(_turn) => next.run(request).await,
        Err(refused) => ApiError::from(refused).into_response(),
    }
}
