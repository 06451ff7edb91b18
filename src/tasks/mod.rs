//! Work that runs beside requests: following changes, retention, leading, and what a leader does.

pub mod follow;
pub mod leader;
pub mod retention;
pub mod sync;
