//! The governor: how many requests of machines are worked on and wait at once. Administration and health do not pass
//! through it, so that machines cannot starve them.

use super::error::ApiError;
use crate::service::{Core, ServiceError};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// What a turned-away client is told to wait. Clients spread themselves when they retry.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Places for requests: `server.concurrency-limit` that are worked on, `server.burst-limit` more that wait.
#[derive(Debug, Clone)]
pub(super) struct Governor {
    working: Arc<Semaphore>,
    all: Arc<Semaphore>,
    core: Arc<Core>,
}

impl Governor {
    /// Takes the limits from the configuration.
    pub(super) fn new(core: &Arc<Core>) -> Self {
        let server = &core.config.server;
        let working = server.concurrency_limit as usize;
        Self {
            working: Arc::new(Semaphore::new(working)),
            all: Arc::new(Semaphore::new(working + server.burst_limit as usize)),
            core: Arc::clone(core),
        }
    }
}

/// Lets a request in, has it wait, or turns it away with 429.
pub(super) async fn govern(
    State(governor): State<Governor>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(_place) = governor.all.try_acquire() else {
        governor.core.metrics.overload.inc();
        let error = ServiceError::Throttled {
            why: "the server has as many requests as it can take; try again later".to_owned(),
            retry_after: RETRY_AFTER,
        };
        return ApiError::from(error).into_response();
    };
    // The semaphore is never closed; if it were, answering is still right.
    let _turn = governor.working.acquire().await;
    next.run(request).await
}
