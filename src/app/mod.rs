//! Wiring: configuration to pools to services to listeners and tasks, and an ordered shutdown.
//!
//! Order of stopping: no new connections, running requests end, check-ins that wait are committed, tasks end, the pool
//! closes.

mod certificates;
mod listen;
pub mod notify;
pub mod postgres;
pub mod quickstart;
mod start;
mod traces;

pub use listen::Addresses;
pub use start::{Running, StartError, open, start};
pub use traces::{Telling, tell};
