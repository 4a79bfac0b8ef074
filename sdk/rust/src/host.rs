//! What the host tells a module.

use serde_json::Value;

use crate::bindings::aegis::module::{clock, config, random};

/// A setting of this module by JSON Pointer (RFC 6901), such as `/greeting`; nothing when it is not set.
#[must_use]
pub fn setting(pointer: &str) -> Option<Value> {
    config::get_json(pointer).and_then(|text| serde_json::from_str(&text).ok())
}

/// The time, milliseconds since 1970.
#[must_use]
pub fn now_ms() -> u64 {
    clock::now()
}

/// Number of the generation that this module is part of.
#[must_use]
pub fn generation() -> u64 {
    config::generation()
}

/// A clock that only grows, nanoseconds: for measuring how long something takes.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock::monotonic_ns()
}

/// Milliseconds that this call may still take.
#[must_use]
pub fn time_left_ms() -> u32 {
    clock::remaining_ms()
}

/// Whether the caller went away, so that the answer is not wanted any more.
#[must_use]
pub fn is_cancelled() -> bool {
    clock::cancelled()
}

/// A new UUID.
#[must_use]
pub fn new_id() -> String {
    random::uuid()
}

/// Bytes that nobody can guess.
#[must_use]
pub fn random_bytes(count: u32) -> Vec<u8> {
    random::bytes(count)
}
