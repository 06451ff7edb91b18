//! The engine: who is offered what and why. Pure: values and a clock reading in, decisions with their reasons out;
//! no pool, no async, no randomness. Requests are answered from a [`Snapshot`]; PostgreSQL is the truth behind it.

pub mod advance;
mod answers;
mod catalog;
pub mod cohort;
pub mod coverage;
mod decide;
pub mod forecast;
pub mod limits;
mod reason;
mod rollouts;
pub mod simulate;
mod snapshot;
pub mod support;
pub mod support_csv;

pub use answers::{Answer, Answers, Rendered};
pub use catalog::{
    BlockKind, BlockRow, Catalog, CatalogRows, PatchRow, Payload, PayloadRow, PromotionRow,
    Standing, Tier, TierRow,
};
pub use decide::{Decision, Facts, Outcome, decide};
pub use reason::{ReasonCode, Skip};
pub use rollouts::{LabelValue, Rollout, RolloutState, Rollouts, labels_of};
pub use snapshot::{
    AuthTokenEntry, MachineOverride, Overrides, Snapshot, SyncTokenEntry, TokenError, Tokens,
};
