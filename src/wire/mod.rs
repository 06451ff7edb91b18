//! The serde shapes of every protocol, frozen by golden fixtures.
//!
//! Two rules: what clients send is read tolerantly by one normalising reader ([`read`]), and what we answer has one
//! exact shape each way. Which lines of these shapes are public knowledge and which are ours stands in
//! `docs/reference/compatibility.md`. No business rule belongs here.

pub mod admin;
pub mod answer;
pub mod archive;
pub mod client;
pub mod contracts;
pub mod event;
pub mod kernels;
pub mod legacy;
pub mod ping;
pub mod problem;
pub mod read;
pub mod status;
pub mod sync;
pub mod token;

pub use answer::{Affordances, InfoAnswer, PatchOffer, Reason, RegisterAnswer, UpdatesAnswer};
pub use client::{ClientReport, Cloud, ReportedFix};
pub use kernels::{SupportedAnswer, SupportedQuery, parse_build_date};
pub use legacy::{LegacyError, LegacyRegisterAnswer};
pub use ping::{PingReport, PingType};
pub use problem::{Problem, ProblemItem};
pub use read::ReportError;
pub use status::{LivepatchStatus, StatusDocument, StatusEntry, StatusFix};
pub use token::Token;
