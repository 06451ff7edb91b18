//! Logs and the one registry of metrics.
