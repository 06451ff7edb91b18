//! What the integration tests share.

pub mod db;
pub mod kmod;
pub mod s3;
pub mod scripted;
