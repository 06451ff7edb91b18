//! What the server does, one file per service; the only layer that joins database, objects and engine.
//!
//! [`Core`] is what every service works with. A service that changes something does so in one transaction that ends
//! with its audit row, then reloads the part of the snapshot it changed before it answers.

pub mod admins;
pub mod adoption;
pub mod airgap;
pub mod audit;
pub mod auth;
pub mod auth_tokens;
pub mod captures;
pub mod census;
pub mod checkin;
pub mod clients;
pub mod contracts;
mod core;
pub mod coverage;
pub mod delivery;
mod error;
mod events;
pub mod explain;
pub mod failpoint;
pub mod fleet;
pub mod health;
pub mod identity;
pub mod ingest;
pub mod jobs;
pub mod kernels;
pub mod labels;
pub mod masking;
pub mod moves;
pub mod paging;
pub mod passwords;
pub mod patches;
pub mod peer;
mod preview;
pub mod promotions;
mod prune;
pub mod quarantine;
pub mod reach;
pub mod reports;
pub mod rollouts;
pub mod service_tokens;
mod snapshots;
pub mod storage;
pub mod sync;
pub mod text;
pub mod tiers;
pub mod webhooks;
mod words;

pub use core::Core;
pub use error::ServiceError;
pub use snapshots::Snapshots;
