//! The reference client: the whole conversation of one machine with a server, and a simulated fleet.
//!
//! [`api`] speaks the protocol and knows nothing of files, [`check`] is one round of it on one machine, [`fleet`] is many
//! machines at once for load, the rest is the one machine: its facts, its state directory, its kernel. Nothing of the server's inside is imported here, only `wire`,
//! `domain` and `bundle`, so that this client is a witness of the protocol and not of the server's code.

pub mod api;
pub mod check;
pub mod cli;
pub mod daemon;
pub mod error;
pub mod facts;
pub mod fleet;
pub mod insert;
pub mod state;
pub mod status;
pub mod tls;
pub mod verify;

pub use api::{ConnectOptions, ServerApi};
pub use error::Error;
