//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` marks what other test files use"
)]

mod admin_admins;
mod admin_api;
mod admin_audit;
mod admin_captures;
mod admin_explain;
mod admin_machines;
mod admin_nonsense;
mod admin_reports;
mod admin_samples;
mod admin_sessions;
mod admin_throttle;
mod admin_tokens;
mod blob;
mod blob_contract;
mod bundle;
mod bundle_cli;
mod config;
mod db;
mod engine;
mod layering;
mod support;
mod telemetry;
mod wire;
mod wire_reports;
