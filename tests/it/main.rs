//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` marks what other test files use"
)]

mod bundle;
mod db;
mod engine;
mod bundle_cli;
mod config;
mod layering;
mod support;
mod telemetry;
mod wire;
mod wire_reports;
mod blob;
mod blob_contract;
mod layering;
mod support {
    pub(crate) mod s3;
}
