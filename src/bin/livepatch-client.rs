//! Entry point of livepatch-client.

fn main() {}
