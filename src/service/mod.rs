//! What the server does, one file per service; the only layer that joins database, objects and engine.
//!
//! [`Core`] is what every service works with. A service that changes something does so in one transaction that ends
//! with its audit row, then reloads the part of the snapshot it changed before it answers.

pub mod auth;
mod core;
mod error;
pub mod paging;
pub mod passwords;
mod snapshots;

pub use core::Core;
pub use error::ServiceError;
pub use snapshots::Snapshots;
