//! machines.

use crate::service::Core;
use axum::Router;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Core>> {
    Router::new()
}
