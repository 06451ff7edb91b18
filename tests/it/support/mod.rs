//! What the integration tests share.

pub mod kmod;
pub(crate) mod scripted;
