//! Entry point of livepatch-admin.

fn main() {}
