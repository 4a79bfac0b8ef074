//! Modules that take without end of what a host has, and components that cost a compiler as much as they can.

use std::fmt::Write;

use serde_json::json;

use crate::{
    body::{Body, answer},
    guest::Guest,
};

/// Handles that are asked for.
const HANDLES: u32 = 10_000_000;
/// Resources of the host that an instance can have many of, as far as these guests need to know them.
const POLL: &str = "package wasi:io@0.2.0; interface poll { resource pollable; }";
const CLOCK: &str = "package wasi:clocks@0.2.0; interface monotonic-clock {
    use wasi:io/poll@0.2.0.{pollable};
    subscribe-duration: func(when: u64) -> pollable;
}";
const CLOCK_NAME: &str = "wasi:clocks/monotonic-clock@0.2.0";
/// A resource of the guest's own.
const OWN: &str = "package acme:tools@1.0.0; interface shed { resource thing { constructor(); } }";
const OWN_NAME: &str = "acme:tools/shed@1.0.0";

/// A model whose commands want ten million handles and give none back: `timers` those of the host, `things` those of a
/// resource of its own. `fine` behaves. Endpoint `hoarders`.
#[must_use]
pub fn hoarder() -> Guest {
    let timers = again("(drop (call $monotonic_clock_subscribe_duration (i64.const 1)))")
        .calling(CLOCK_NAME, "subscribe-duration");
    let things = again("(drop (call $shed_thing (i32.const 7)))").calling(OWN_NAME, "[resource-new]thing");
    Guest::model(json!({ "name": "hoarder", "endpoint": "hoarders", "version": "1.0.0" }))
        .package(POLL)
        .package(CLOCK)
        .package(OWN)
        .export(OWN_NAME)
        .command("timers", timers)
        .command("things", things)
        .command("fine", answer("{\"fine\":true}"))
}

fn again(wat: &str) -> Body {
    let wat = format!(
        "(local.set $i (i32.const {HANDLES}))
         (loop $again {wat}
           (local.set $i (i32.sub (local.get $i) (i32.const 1)))
           (br_if $again (local.get $i)))"
    );
    Body::from(wat).then(answer("true"))
}

/// A function in which from each of so many places, one in the other, a jump leads to each around it.
#[must_use]
pub fn maze(places: usize) -> String {
    let mut maze = "(func $maze (param $where i32) (result i32)\n".to_owned();
    for place in 0..places {
        maze.push_str(if place % 2 == 0 { "block " } else { "loop " });
    }
    for place in 0..places {
        let _ = write!(maze, "(local.set $where (i32.mul (local.get $where) (i32.const {})))", place + 3);
        maze.push_str("(br_if 0 (local.get $where)) (br_table");
        // The innermost place sees all others, the outermost itself.
        for label in 0..places - place {
            let _ = write!(maze, " {label}");
        }
        maze.push_str(" (local.get $where)) end\n");
    }
    maze.push_str("(local.get $where))");
    maze
}

/// A model with a [`maze`].
#[must_use]
pub fn labyrinth(places: usize) -> Guest {
    Guest::model(json!({ "name": "labyrinth", "endpoint": "labyrinths", "version": "1.0.0" }))
        .item(&maze(places))
}

/// A model with a function of so many local variables.
#[must_use]
pub fn many_locals(count: usize) -> Guest {
    let item = format!("(func $roomy (local {}))", "i64 ".repeat(count));
    Guest::model(json!({ "name": "roomy", "endpoint": "roomies", "version": "1.0.0" })).item(&item)
}

/// A component that says that a gigabyte of data follows, and ends.
#[must_use]
pub fn a_gigabyte_declared() -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // A core module of a gigabyte, and in it a data section of nearly as much (LEB128).
    bytes.extend([1, 0x80, 0x80, 0x80, 0x80, 0x04]);
    bytes.extend(b"\0asm\x01\0\0\0");
    bytes.extend([11, 0x80, 0x80, 0x80, 0xff, 0x03, 1, 0]);
    bytes
}
