//! The admin API under `/v1/admin`: who may ([`extract`]), one file per noun, and the OpenAPI document of it all.
//!
//! A handler extracts, calls one service and gives a wire type out. Every route is made with `routes!`, so that it
//! stands in the document; a test walks the document and tries each operation.

mod admins;
mod api;
mod audit;
mod body;
mod captures;
mod coverage;
pub mod extract;
mod jobs;
mod kernels;
mod machines;
mod patches;
mod payloads;
mod policies;
mod quarantine;
mod reports;
mod rollouts;
mod service_tokens;
mod sessions;
mod storage;
mod sync;
mod sync_tokens;
mod tiers;
mod tokens;
mod webhooks;

pub use api::{openapi, routes};
