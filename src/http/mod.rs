//! The HTTP surface: extract, one service call, wire type out. No SQL and no business rule belongs here.

pub mod admin;
mod capture;
mod client;
mod connection;
pub mod error;
mod front;
mod governor;
mod legacy;
mod machine;
mod observe;
mod ops;
mod patches;
mod peer;
mod places;
pub mod serve;

use crate::service::Core;
use axum::Router;
use axum::middleware;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

pub use front::Front;

/// All surfaces, as a service of connections.
pub fn front(core: Arc<Core>) -> Front {
    let governor = governor::Governor::new(&core);
    let router = router(Arc::clone(&core), governor.clone());
    Front::new(core, governor, router)
}

fn router(core: Arc<Core>, governor: governor::Governor) -> Router {
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
