//! The index that servers of this kind hand to each other, by the network or in an archive: made, signed, compared, and
//! believed or refused. Pure; it knows neither transport nor clock.
//!
//! What it defends against are the attacks of The Update Framework's specification: rollback, freeze, mix-and-match, fast-forward,
//! a wrong key, endless data, and an upstream that quietly loses what it had.

mod archive;
mod filter;
mod head;
mod state;

pub use archive::{
    ARCHIVE_CONTEXT, CONTENTS_NAME, END, LayoutError, Load, MAX_MANIFEST, Plan, STATE_NAME,
    STATUS_CONTEXT, VolumeEntry, accept_manifest, accept_status, comes_after, entries,
    leading_entries, manifest_header, manifest_span, plan, read_manifest_header, seal_manifest,
    seal_status,
};
pub use filter::{IntakeFilter, Skipped};
pub use head::{CONTEXT, Known, MAX_HEAD, MAX_STATE, Refusal, accept, seal};
pub use state::{State, StateError, Summary};
