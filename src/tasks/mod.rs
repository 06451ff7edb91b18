//! Work that runs beside requests: counting machines, following changes, retention, leading, and what a leader does: sync, and
//! delivering events.

pub mod adoption;
pub mod census;
pub mod follow;
pub mod leader;
pub mod retention;
pub mod rollouts;
pub mod sync;
pub mod webhooks;
