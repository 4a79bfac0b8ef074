//! Bodies of clients: no panic; what is accepted can be created, read back and patched.

#![no_main]

#[path = "../bodies/json.rs"]
mod json;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| json::body(bytes));
