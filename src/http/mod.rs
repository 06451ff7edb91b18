//! The HTTP surface: extract, one service call, wire type out. No SQL and no business rule belongs here.

pub mod admin;
mod capture;
mod client;
pub mod error;
mod governor;
mod legacy;
mod machine;
mod observe;
mod ops;
mod patches;
mod peer;
pub mod serve;

use crate::service::Core;
use axum::Router;
use axum::middleware;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

/// The router of all surfaces.
pub fn router(core: Arc<Core>) -> Router {
    let governor = governor::Governor::new(&core);
    let machines = Router::new()
        .merge(client::routes())
        .merge(legacy::routes())
        .merge(patches::routes())
        .layer(middleware::from_fn_with_state(
            Arc::clone(&core),
            capture::capture,
        ))
        // Other servers stand in the same line, but captures are of machines.
        .merge(peer::routes())
        .layer(middleware::from_fn_with_state(governor, governor::govern));
    Router::new()
        .merge(machines)
        .merge(ops::routes())
        .merge(admin::routes())
        .fallback(error::not_found)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(error::problems))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&core),
            observe::observe,
        ))
        .with_state(core)
}
