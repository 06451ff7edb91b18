//! The livepatch-admin command line: arguments, the HTTP client, what is printed, and one file per noun.
//!
//! It knows the server only through `wire::admin`. Every noun's file holds its arguments, its calls and its tables;
//! [`Context::show`](context::Context::show) prints the wire types exactly with `--output json|yaml`. Results go to
//! standard output, everything else to standard error.

pub mod admin;
pub mod args;
pub mod audit;
pub mod capture;
pub mod client;
pub mod context;
pub mod coverage;
pub mod csv;
pub mod docs;
pub mod error;
pub mod job;
pub mod kernels;
pub mod login;
pub mod machine;
pub mod output;
pub mod patch;
pub mod policy;
pub mod prompt;
pub mod reach;
pub mod report;
pub mod rollout;
pub mod selected;
pub mod service_tokens;
pub mod session;
pub mod storage;
pub mod store;
pub mod sync;
pub mod sync_tokens;
pub mod tier;
pub mod times;
pub mod tls;
pub mod token;
pub mod upload;
pub mod validity;
pub mod webhook;

mod run;

pub use args::{Cli, Command};
pub use error::{CliError, Exit};
pub use run::main;
