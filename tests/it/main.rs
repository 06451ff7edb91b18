//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod bundle;
mod config;
mod layering;
mod support;
mod telemetry;
mod wire;
mod wire_reports;
