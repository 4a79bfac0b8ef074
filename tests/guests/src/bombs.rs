//! Modules that take without end of what a host has, and components that cost a compiler as much as they can.

use std::fmt::Write;

use serde_json::json;

use crate::{
    body::{Body, answer},
    guest::Guest,
    system::{CLOCK_NAME, with_system},
};

// Instructions, and what stands for a block without result (core specification, 5.4).
const BLOCK: u8 = 0x02;
const LOOP: u8 = 0x03;
const END: u8 = 0x0b;
const BR_IF: u8 = 0x0d;
const BR_TABLE: u8 = 0x0e;
const LOCAL_GET: u8 = 0x20;
const LOCAL_SET: u8 = 0x21;
const I32_CONST: u8 = 0x41;
const I32_MUL: u8 = 0x6c;
const NO_RESULT: u8 = 0x40;
/// Bytes of one page of linear memory.
const PAGE_BYTES: usize = 65_536;
/// Handles that are asked for.
const HANDLES: u32 = 10_000_000;
/// A resource of the guest's own.
const OWN: &str = "package acme:tools@1.0.0; interface shed { resource thing { constructor(); } }";
const OWN_NAME: &str = "acme:tools/shed@1.0.0";

/// A model whose commands want ten million handles and give none back: `timers` those of the host, `things` those of a
/// resource of its own. `some` wants 400 timers, `many` 600. `fine` behaves. Endpoint `hoarders`.
#[must_use]
pub fn hoarder() -> Guest {
    let timers = |count| {
        again(count, "(drop (call $monotonic_clock_subscribe_duration (i64.const 1)))")
            .calling(CLOCK_NAME, "subscribe-duration")
    };
    let things =
        again(HANDLES, "(drop (call $shed_thing (i32.const 7)))").calling(OWN_NAME, "[resource-new]thing");
    with_system(Guest::model(json!({ "name": "hoarder", "endpoint": "hoarders", "version": "1.0.0" })))
        .package(OWN)
        .export(OWN_NAME)
        .command("timers", timers(HANDLES))
        .command("some", timers(400))
        .command("many", timers(600))
        .command("things", things)
        .command("fine", answer("{\"fine\":true}"))
}

fn again(count: u32, wat: &str) -> Body {
    let wat = format!(
        "(local.set $i (i32.const {count}))
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

/// A component with another core module in it, which nobody ever instantiates: all the same, it has to be compiled.
#[must_use]
pub fn with_core_module(mut component: Vec<u8>, core_module: &[u8]) -> Vec<u8> {
    component.push(1);
    component.extend(leb(core_module.len()));
    component.extend(core_module);
    component
}

/// A core module of so many functions, each a [`maze`] of so many places, in binary: as text it would be several times as
/// large as a component may be.
#[must_use]
pub fn mazes(functions: usize, places: usize) -> Vec<u8> {
    let body = maze_body(places);
    let types = [1, 0x60, 1, 0x7f, 1, 0x7f]; // one: from i32 to i32
    let mut declared = leb(functions);
    declared.resize(declared.len() + functions, 0);
    let mut code = leb(functions);
    for _ in 0..functions {
        code.extend(leb(body.len()));
        code.extend(&body);
    }
    core_module_of(&[(1, &types), (3, &declared), (10, &code)])
}

/// A core module with so many bytes of data, none of them zero, all of them for its memory.
#[must_use]
pub fn bytes_of_data(length: usize) -> Vec<u8> {
    let pages = leb(length.div_ceil(PAGE_BYTES));
    let memory = [&[1, 0], pages.as_slice()].concat();
    let mut data = vec![1, 0, I32_CONST, 0, END];
    data.extend(leb(length));
    let pattern: Vec<u8> = (1..=251).collect();
    data.extend(pattern.repeat(length.div_ceil(pattern.len())));
    data.truncate(5 + leb(length).len() + length);
    core_module_of(&[(5, &memory), (11, &data)])
}

fn core_module_of(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, content) in sections {
        module.push(*id);
        module.extend(leb(content.len()));
        module.extend(*content);
    }
    module
}

fn maze_body(places: usize) -> Vec<u8> {
    const NO_LOCALS: u8 = 0;
    const WHERE: u8 = 0; // its only parameter
    let mut body = vec![NO_LOCALS];
    for place in 0..places {
        body.extend([if place % 2 == 0 { BLOCK } else { LOOP }, NO_RESULT]);
    }
    for place in 0..places {
        body.extend([LOCAL_GET, WHERE, I32_CONST, 3, I32_MUL, LOCAL_SET, WHERE]);
        body.extend([LOCAL_GET, WHERE, BR_IF, 0, LOCAL_GET, WHERE, BR_TABLE]);
        // The last label is where it leads otherwise, and is not counted.
        let labels = places - place;
        body.extend(leb(labels - 1));
        (0..labels).for_each(|label| body.extend(leb(label)));
        body.push(END);
    }
    body.extend([LOCAL_GET, WHERE, END]);
    body
}

/// LEB128.
fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
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
