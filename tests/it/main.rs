//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod cli;
mod cli_http;
mod cli_output;
mod layering;
mod wire;
mod wire_reports;
