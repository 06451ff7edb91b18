//! HTTP: routers, extractors and one file per surface. Handlers call one service each and hold no SQL and no rules.

pub mod admin;
pub mod error;
