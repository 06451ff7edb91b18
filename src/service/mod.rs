//! What the server does, one file per service; the only layer that joins database, objects and engine.
//!
//! [`Core`] is what every service works with. A service that changes something does so in one transaction that ends
//! with its audit row, then reloads the part of the snapshot it changed before it answers.

pub mod admins;
pub mod audit;
pub mod auth;
pub mod auth_tokens;
pub mod captures;
pub mod checkin;
pub mod clients;
pub mod contracts;
mod core;
pub mod delivery;
mod error;
pub mod explain;
pub mod fleet;
pub mod health;
pub mod ingest;
pub mod jobs;
pub mod masking;
pub mod paging;
pub mod passwords;
pub mod patches;
mod preview;
pub mod promotions;
pub mod quarantine;
pub mod reports;
mod snapshots;
pub mod storage;
pub mod text;
pub mod tiers;

pub use core::Core;
pub use error::ServiceError;
pub use snapshots::Snapshots;
