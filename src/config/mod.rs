//! Configuration: Canonical's keys, ours beside them, read once and refused early.

mod model;

pub use model::*;
