//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

#![expect(
    unreachable_pub,
    reason = "a test binary has no outside; `pub` marks what other test files use"
)]

mod admin_sessions;
mod bundle;
mod db;
mod layering;
mod support;
mod wire;
mod wire_reports;
