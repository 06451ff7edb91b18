//! What the integration tests share.

pub mod admin;
pub mod contracts;
pub mod db;
pub mod intake;
pub mod kmod;
pub mod s3;
pub mod scripted;
pub mod server;
