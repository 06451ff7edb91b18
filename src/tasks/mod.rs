//! Work that runs beside requests: following changes, and retention.

pub mod follow;
pub mod retention;
