//! The air gap: archives out of a connected site and into an isolated one, and the fleet's status the other way.
//!
//! An archive is taken in through the same engine and the same door as everything else; here stands only what is special about
//! carrying it by hand.

mod changes;
mod export;
mod import;
mod source;
mod status;
mod take;
mod write;

pub use changes::Changes;
pub use export::{ExportError, ExportOptions, ExportReport, SinceRef, export};
pub use import::{ImportError, ImportOptions, Opened, archives, everything, open};
pub use status::{StatusError, export_status, import_status};
pub use take::{TakeOptions, take};
pub use write::{Target, WriteError, Written};
