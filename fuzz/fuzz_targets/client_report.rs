#![no_main]
//! Runs the function of this name in `targets.rs`.

#[expect(dead_code, reason = "each target uses one of all functions")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::client_report(data));
