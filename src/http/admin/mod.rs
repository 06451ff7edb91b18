//! The admin API under `/v1/admin`: who may ([`extract`]), one file per noun, and the OpenAPI document of it all.
//!
//! A handler extracts, calls one service and gives a wire type out. Every route is made with `routes!`, so that it
//! stands in the document; a test walks the document and tries each operation.

mod api;
mod body;
pub mod extract;
mod jobs;
mod patches;
mod payloads;
mod quarantine;
mod sessions;
mod storage;
mod tiers;

pub use api::{openapi, routes};
