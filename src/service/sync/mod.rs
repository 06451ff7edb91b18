//! What is fetched from elsewhere: the run that takes a listing of an upstream and makes the catalog agree with it.
//!
//! A run lists, believes or refuses, filters, fetches what is not here through the one door of ingest as *staged* payloads that
//! nobody sees, and makes all of it visible in one transaction together with what upstream withdrew, blocked, promoted and says
//! of kernels. So an index shows whole or not at all. A run that ends early, however, leaves its staged payloads for the next
//! one, which does not fetch them again.
//!
//! Two locks: one run works at a time ([`RunLock`], for every kind of run), and a leader's transactions commit only while it
//! leads ([`Fence`]).

mod admin;
mod believed;
mod error;
mod fetch;
mod filters;
mod holds;
mod mirror;
mod plan;
mod publish;
mod record;
mod request;
mod run;

pub use admin::{confirm, due, filters, report, reports, reset, status, trigger};
pub use error::RunError;
pub(super) use fetch::discard;
pub use filters::{configured as configured_filter, locked_tiers};
pub use holds::{UPSTREAM, WITHDRAWN};
pub use record::next_run;
pub use request::{Cause, Ended, Fence, Run};
pub use run::{queue, run};
