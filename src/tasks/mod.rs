//! Work that runs beside requests: counting machines, following changes, and retention.

pub mod census;
pub mod follow;
pub mod retention;
