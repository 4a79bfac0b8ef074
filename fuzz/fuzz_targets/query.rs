//! Query strings of clients: no panic, no unbounded work, and an answer that is JSON.

#![no_main]

#[path = "../bodies/query.rs"]
mod query;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| query::body(bytes));
