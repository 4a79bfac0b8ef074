//! Modules that do not behave: each costs its instance at most, and the next call is served.

use std::time::{Duration, Instant};

use aegis_domain::code::CodeLimits;
use aegis_guests::{Guest, spin, trap};
use rustix::time::ClockId;

use super::{Worker, answer, call, command, trapped, worked};
use crate::{CallError, Entry, RefusalCode};

/// Time of one call of code that does not end.
const CALL_MS: u32 = 100;
const CALL: Duration = Duration::from_millis(CALL_MS as u64);
/// How much may be done after the deadline of a call, and beside it.
const SLACK: Duration = Duration::from_millis(400);
/// Time of one call that is ended before.
const LONG_CALL_MS: u32 = 50_000;

fn unruly() -> Worker {
    Worker::out_of_time(&aegis_guests::unruly())
}

fn within(milliseconds: u32) -> CodeLimits {
    CodeLimits { call_ms_max: milliseconds, cpu_call_ms_max: milliseconds, ..CodeLimits::default() }
}

/// What comes of it, as a command and as a hook; the worker is well after each.
fn deed(worker: &Worker, name: &str) -> Result<Option<String>, CallError> {
    let as_command = worker.command(name, "{}");
    assert_eq!(worker.command("fine", "{}"), answer("{\"fine\":true}"), "after the command {name}");
    let as_hook = worker.call(Entry::Create { input: format!("{{\"do\":\"{name}\"}}") });
    assert_eq!(worker.command("fine", "{}"), answer("{\"fine\":true}"), "after the hook {name}");
    assert_eq!(as_command.is_ok(), as_hook.is_ok(), "{name}: {as_command:?}, {as_hook:?}");
    as_command
}

#[test]
fn a_trap_costs_the_instance_and_tells_its_kind() {
    let worker = unruly();
    for (name, told) in [
        ("trap", "unreachable"),
        ("divide", "divide by zero"),
        ("bad-call", "uninitialized element"),
        ("recurse", "call stack exhausted"),
    ] {
        let reason = trapped(deed(&worker, name));
        assert!(reason.contains(told), "{name}: {reason}");
        assert!(reason.contains("; in "), "{name}: {reason}");
    }
    assert_eq!(worker.module.instances(), 1);
}

#[test]
fn code_that_does_not_end_ends_at_its_deadline() {
    let worker = Worker::limited(&aegis_guests::unruly(), within(CALL_MS));
    for name in ["spin", "spin-calling", "fill"] {
        let (begun, before) = (Instant::now(), worked(ClockId::ProcessCPUTime));
        let result = worker.command(name, "{}");
        let (took, did) = (begun.elapsed(), worked(ClockId::ProcessCPUTime) - before);
        assert!(matches!(result, Err(CallError::Deadline { .. })), "{name}: {result:?}");
        assert!(took >= CALL && did < CALL + SLACK, "{name}: it worked {did:?} in {took:?}");
        worker.until_all_have_ended(name);
    }
}

#[test]
fn the_deadline_of_the_caller_counts_too() {
    let worker = Worker::limited(&aegis_guests::unruly(), within(LONG_CALL_MS));
    let before = worked(ClockId::ProcessCPUTime);
    let mut call = call();
    call.deadline = Instant::now() + CALL;
    let result = worker.tokio.block_on(worker.enter(call, command("spin", "{}")));
    let did = worked(ClockId::ProcessCPUTime) - before;
    assert!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}");
    assert!(did < CALL + SLACK, "it worked {did:?}");
}

#[test]
fn one_that_spins_does_not_hold_up_another_on_the_same_thread() {
    let worker = Worker::limited(&aegis_guests::unruly(), within(LONG_CALL_MS));
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    one.block_on(async {
        let before = worked(ClockId::ThreadCPUTime);
        let spun = tokio::select! {
            biased;
            spun = worker.enter(call(), command("spin", "{}")) => Err(spun),
            fine = worker.enter(call(), command("fine", "{}")) => Ok(fine),
        };
        let did = worked(ClockId::ThreadCPUTime) - before;
        assert_eq!(spun, Ok(answer("{\"fine\":true}")), "it waited for one that spins");
        assert!(did < SLACK, "the thread worked {did:?} for one that spins");
    });
}

#[test]
fn memory_ends_at_its_limit() {
    let worker = unruly();
    for _ in 0..2 {
        match worker.command("memory", "{}") {
            Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Unavailable),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(worker.module.instances(), 0, "an instance that took all is not kept");
    let reason = trapped(deed(&worker, "memory-rude"));
    assert!(reason.contains("at most 67108864 are allowed"), "{reason}");
}

#[test]
fn all_memories_of_an_instance_have_one_limit() {
    let guest = Guest::model(serde_json::json!({ "name": "twin", "endpoint": "twins", "version": "1.0.0" }))
        .item("(memory $other 0)")
        .command(
            "both",
            "(drop (memory.grow (i32.const 96)))
             (local.set $i (memory.grow $other (i32.const 96)))
             (call $answer (call $digits (i64.extend_i32_u (i32.eq (local.get $i) (i32.const -1)))))",
        );
    let limits = CodeLimits { memory_bytes_max: 10 * 1024 * 1024, ..CodeLimits::default() };
    let worker = Worker::limited(&guest, limits);
    assert_eq!(worker.command("both", "{}"), answer("1"), "twice 6 MiB are more than 10 MiB");
    assert_eq!(worker.module.instances(), 0, "an instance that took all is not kept");
}

#[test]
fn an_instance_that_grew_large_is_replaced() {
    let limits = CodeLimits { memory_bytes_max: 10 * 1024 * 1024, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::greedy(), limits);
    let mut kept = 0;
    for _ in 0..100 {
        assert_eq!(worker.command("eat", "{}"), answer("true"));
        kept += worker.module.instances();
    }
    assert!(
        (70..90).contains(&kept),
        "after {kept} of 100 calls the instance was kept, at 7 or 8 MiB it is not"
    );
}

#[test]
fn tables_end_at_their_limit() {
    let worker = unruly();
    assert!(deed(&worker, "table").is_ok());
}

#[test]
fn answers_have_a_bound_and_have_to_be_text() {
    let worker = unruly();
    for name in ["huge", "not-utf8", "outside", "not-a-tag"] {
        let reason = trapped(deed(&worker, name));
        assert!(!reason.is_empty(), "{name}");
    }
    assert_eq!(deed(&worker, "not-json"), answer("{\"a\":"), "the caller of this crate reads it");
}

#[test]
fn floods_are_cut() {
    let worker = unruly();
    assert_eq!(worker.command("log-bomb", "{}"), answer("{\"logged\":true}"));
    let reason = trapped(worker.command("random-bomb", "{}"));
    assert!(reason.contains("at most 65536 are given"), "{reason}");
}

#[test]
fn an_instance_that_does_not_begin_is_a_failed_call() {
    let begins: [(&str, Guest); 3] = [
        ("traps", aegis_guests::todo().lifecycle("init", trap())),
        ("spins", aegis_guests::todo().lifecycle("init", spin())),
        ("refuses", aegis_guests::todo().lifecycle("init", aegis_guests::refuse("unavailable", "not today"))),
    ];
    for (name, guest) in begins {
        let worker = Worker::limited(&guest, within(if name == "spins" { CALL_MS } else { LONG_CALL_MS }));
        let before = worked(ClockId::ProcessCPUTime);
        let result = worker.command("echo", "{}");
        let did = worked(ClockId::ProcessCPUTime) - before;
        match name {
            "traps" => assert!(trapped(result).contains("unreachable")),
            "spins" => assert!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}"),
            _ => assert!(trapped(result).contains("it refused to begin: not today")),
        }
        assert!(did < CALL + SLACK, "{name}: it worked {did:?}");
        assert_eq!(worker.module.instances(), 0, "{name}");
    }
}

#[test]
fn an_instance_gets_its_settings_when_it_begins() {
    let guest = aegis_guests::todo().lifecycle(
        "init",
        aegis_guests::refuse("invalid", "it was greeted")
            .when_holds("config", "\"hello\"")
            .then(aegis_guests::agree()),
    );
    let reason = trapped(Worker::of(&guest).command("echo", "{}"));
    assert!(reason.contains("it was greeted"), "{reason}");
}

#[test]
fn a_call_too_deep_is_refused() {
    let worker = Worker::of(&aegis_guests::todo());
    let mut deep = call();
    deep.lineage.depth = crate::DEPTH_MAX + 1;
    let result = worker.tokio.block_on(worker.enter(deep, command("echo", "{}")));
    assert!(matches!(result, Err(CallError::Refused(_))), "{result:?}");
}
