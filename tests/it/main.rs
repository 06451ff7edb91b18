//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod bundle;
mod client_apply;
mod client_cli;
mod client_flow;
mod layering;
mod support;
mod wire;
mod wire_reports;
