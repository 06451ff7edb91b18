//! The commands of livepatch-server, one file each.

pub mod bundle;
pub mod config;
