//! The one integration binary: real PostgreSQL, a real S3 server, real processes.

mod bundle;
mod bundle_cli;
mod layering;
mod support;
