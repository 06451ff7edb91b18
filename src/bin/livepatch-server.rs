//! Entry point of livepatch-server.

fn main() {}
