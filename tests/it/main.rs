//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod layering;
mod wire;
mod wire_reports;
