//! Logs and the one registry of metrics.

pub mod logs;
