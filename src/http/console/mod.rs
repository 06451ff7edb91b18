//! The console under `/console`: pages made at the server, for people who would rather look than read.
//!
//! A page works without scripts; with them it keeps itself current ([`live`]) and loses nothing else. Everything that changes something
//! is a form with a token of its session ([`session`]), has a preview or says what it does, takes a reason, and shows the command that
//! does the same. Pages load nothing from elsewhere and hold no style or script of their own (the policy in [`page`] forbids it).

mod access;
mod assets;
mod audit;
mod bars;
mod cookies;
mod error;
mod forecasts;
mod forms;
mod grants;
mod home;
mod intake;
mod jobs;
mod live;
mod machine;
mod machine_acts;
mod machines;
mod oidc;
mod page;
mod patch_acts;
mod patch_parts;
mod patch_promote;
mod patches;
mod pending;
mod quarantine;
mod rollout_acts;
mod rollout_reach;
mod rollouts;
mod runs;
mod session;
mod tables;

use crate::service::Core;
use axum::Router;

use std::sync::Arc;

/// Where the console is.
const BASE: &str = "/console";

/// Every page and form.
pub(super) fn routes() -> Router<Arc<Core>> {
    let pages = Router::new()
        .merge(session::routes())
        .merge(home::routes())
        .merge(patches::routes())
        .merge(rollouts::routes())
        .merge(machines::routes())
        .merge(intake::routes())
        .merge(access::routes())
        .merge(audit::routes())
        .layer(axum::middleware::map_response(page::protect));
    Router::new()
        .merge(assets::routes())
        .merge(live::routes())
        .merge(pages)
}
