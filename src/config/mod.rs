//! Configuration: Canonical's keys, ours beside them, read once and refused early.
//!
//! `keys` is the one table; `load` reads file and environment into values; `assemble` makes the typed `Config` of
//! `model` from them; `checks` finds contradictions; `show` and `reference` print. Nothing here listens or connects.

mod assemble;
pub mod certificates;
mod checks;
mod collect;
pub(crate) mod connection;
pub mod convert;
mod downloads;
mod error;
mod files;
pub mod keys;
pub mod lines;
mod load;
mod model;
mod oauth;
pub mod reference;
pub mod show;
mod suggest;
mod sync;
mod tls;
mod tracing;
mod value;
mod yaml;

pub use error::{ConfigError, ErrorKind, Notice, NoticeLevel, Source};
pub use files::check_files;
pub use load::{
    DEFAULT_PATH, Effective, LOCATION_VARIABLE, Loaded, Values, load_with, process_environment,
};
pub use model::*;
pub use value::{Value, parse_bytes};
