//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` marks what other test files use"
)]

mod admin_sessions;
mod blob;
mod blob_contract;
mod bundle;
mod bundle_cli;
mod config;
mod db;
mod engine;
mod ingest;
mod ingest_bad;
mod ingest_quarantine;
mod layering;
mod promotion;
mod storage;
mod support;
mod telemetry;
mod tiers;
mod wire;
mod wire_reports;
