//! The serde shapes of every protocol, frozen by golden fixtures.

pub mod admin;
