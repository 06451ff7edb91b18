//! Objects: where payloads are kept, and how they come out again.
//!
//! One invariant carries everything: **no byte of an object leaves this module as a payload before its SHA-256 has been
//! compared with the one expected.** What is written is compared before it becomes visible, what is read is compared
//! before it is handed out. The functions that do otherwise say `unverified` or `found` in their names and serve only
//! intake and repair.
//!
//! [`Store`] hides which of the three backends is configured; [`PatchCache`] keeps hot payloads in memory and sees to
//! it that a payload is fetched once however many wait; [`respond`] answers a download by the rules of HTTP. What a
//! payload *is* (bundles, signatures, catalog) does not belong here.

mod backend;
mod body;
mod buffers;
mod cache;
mod conditional;
mod content;
mod crypto;
mod download;
mod error;
mod filesystem;
mod key;
mod postgres;
mod range;
mod s3;
mod s3_client;
mod store;
mod verified;

pub use backend::{ByteStream, Object};
pub use body::Body;
pub use cache::{CacheStats, PatchCache};
pub use content::{Content, Expect, Gather};
pub use download::{PayloadRef, respond};
pub use error::BlobError;
pub use key::{FoundPath, Key};
pub use store::{Observer, PutOutcome, Store};
