//! The HTTP surface: extract, one service call, wire type out. No SQL and no business rule belongs here.

pub mod admin;
mod bodies;
mod capture;
mod client;
mod connection;
mod console;
pub mod error;
mod front;
mod governor;
mod legacy;
mod machine;
mod observe;
mod ops;
mod origin;
mod patches;
mod peer;
mod places;
mod records;
pub mod serve;
pub mod tls;

use crate::service::Core;
use axum::Router;
use axum::middleware;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;

pub use front::Front;

/// What is answered on an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surfaces {
    /// Machines and other servers.
    pub machines: bool,
    /// Administration.
    pub admin: bool,
    /// Health and metrics.
    pub ops: bool,
}

impl Surfaces {
    /// Everything.
    pub const ALL: Self = Self {
        machines: true,
        admin: true,
        ops: true,
    };
    /// Nothing.
    pub const NONE: Self = Self {
        machines: false,
        admin: false,
        ops: false,
    };
}

/// The surfaces of one address, as a service of connections. What is not among them is not found there.
pub fn front(core: Arc<Core>, surfaces: Surfaces) -> Front {
    let governor = governor::Governor::new(&core);
    let router = router(Arc::clone(&core), governor.clone(), surfaces);
    Front::new(core, governor, router, surfaces.machines)
}

fn router(core: Arc<Core>, governor: governor::Governor, surfaces: Surfaces) -> Router {
    let mut router = Router::new().merge(ops::root());
    if surfaces.machines {
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
        router = router.merge(machines);
    }
    if surfaces.ops {
        router = router.merge(ops::routes());
    }
    if surfaces.admin {
        router = router.merge(admin::routes()).merge(console::routes());
    }
    router
        .fallback(error::not_found)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(error::problems))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&core),
            observe::observe,
        ))
        .with_state(core)
}
