//! Bytes from the other side of a socket: no panic, no allocation beyond the frame.

#![no_main]

#[path = "../bodies/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| frames::body(bytes));
