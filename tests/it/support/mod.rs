//! What the integration tests share.

pub mod admin;
pub mod airgap;
pub mod browser;
pub mod cluster;
pub mod collector;
pub mod contracts;
pub mod db;
pub mod front;
pub mod intake;
pub mod kmod;
pub mod ledger;
pub mod page;
pub mod pki;
pub mod postgres_tls;
pub mod process;
pub mod provider;
pub mod proxy;
pub mod receiver;
pub mod s3;
pub mod scripted;
pub mod server;
pub mod sources;

/// The password of every administrator.
pub const PASSWORD: &str = "correct horse battery";
