//! What the server does, one file per service; the only layer that joins database, objects and engine.
//!
//! [`Core`] is what every service works with. A service that changes something does so in one transaction that ends
//! with its audit row, then reloads the part of the snapshot it changed before it answers.

pub mod auth;
mod core;
mod error;
pub mod ingest;
pub mod jobs;
pub mod paging;
pub mod passwords;
pub mod patches;
mod preview;
pub mod promotions;
pub mod quarantine;
mod snapshots;
pub mod storage;
pub mod tiers;

pub use core::Core;
pub use error::ServiceError;
pub use snapshots::Snapshots;
