//! An open, on-premises distribution server for Ubuntu kernel live patches.
//!
//! Layers, lowest first; imports point down and a test checks it (`docs/explanation/architecture.md`):
//! `domain` < `telemetry`, `config`, `wire`, `bundle`, `index`, `rollout` < `db` < `blob`, `upstream` < `service`
//! < `http`, `tasks`, `cli`, `sim` < `app` and the binaries.

pub mod app;
pub mod blob;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod http;
pub mod index;
pub mod rollout;
pub mod server_cli;
pub mod service;
pub mod sim;
pub mod tasks;
pub mod telemetry;
pub mod upstream;
pub mod wire;
