//! Modules that do not behave: each costs its instance at most, and the next call is served.

use std::time::{Duration, Instant};

use aegis_domain::code::CodeLimits;
use aegis_guests::{Guest, spin, trap};

use super::{Worker, answer, call, command, trapped};
use crate::{CallError, Entry, RefusalCode};

/// Time of one call in these tests.
const CALL_MS: u32 = 100;
/// How much later than its deadline code may end, on a busy machine.
const SLACK: Duration = Duration::from_millis(400);

fn unruly() -> Worker {
    Worker::limited(&aegis_guests::unruly(), limits())
}

fn limits() -> CodeLimits {
    CodeLimits { call_ms_max: CALL_MS, cpu_call_ms_max: CALL_MS, ..CodeLimits::default() }
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
    let worker = unruly();
    for name in ["spin", "spin-calling", "fill"] {
        let begun = Instant::now();
        let result = worker.command(name, "{}");
        let took = begun.elapsed();
        let allowed = Duration::from_millis(u64::from(CALL_MS));
        assert!(matches!(result, Err(CallError::Deadline { .. })), "{name}: {result:?}");
        assert!(took >= allowed - Duration::from_millis(10) && took < allowed + SLACK, "{name}: {took:?}");
        assert_eq!(worker.command("fine", "{}"), answer("{\"fine\":true}"), "after {name}");
    }
}

#[test]
fn the_deadline_of_the_caller_counts_too() {
    let worker = Worker::of(&aegis_guests::unruly());
    let begun = Instant::now();
    let mut call = call();
    call.deadline = begun + Duration::from_millis(50);
    let result = worker.tokio.block_on(worker.enter(call, command("spin", "{}")));
    assert!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}");
    assert!(begun.elapsed() < Duration::from_millis(50) + SLACK, "{:?}", begun.elapsed());
}

#[test]
fn one_that_spins_does_not_hold_up_another_on_the_same_thread() {
    let worker = Worker::limited(&aegis_guests::unruly(), CodeLimits::default());
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    one.block_on(async {
        let spins = worker.enter(call(), command("spin", "{}"));
        let others = async {
            let begun = Instant::now();
            let fine = worker.enter(call(), command("fine", "{}")).await;
            (fine, begun.elapsed())
        };
        let (spun, (fine, took)) = tokio::join!(spins, others);
        assert!(matches!(spun, Err(CallError::Deadline { .. })), "{spun:?}");
        assert_eq!(fine, answer("{\"fine\":true}"));
        assert!(took < Duration::from_millis(500), "it waited {took:?} for one that spins");
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
    let limits = CodeLimits { call_ms_max: 10_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::unruly(), limits);
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
        let worker = Worker::limited(&guest, limits());
        let begun = Instant::now();
        let result = worker.command("echo", "{}");
        match name {
            "traps" => assert!(trapped(result).contains("unreachable")),
            "spins" => assert!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}"),
            _ => assert!(trapped(result).contains("it refused to begin: not today")),
        }
        assert!(begun.elapsed() < Duration::from_millis(u64::from(CALL_MS)) + SLACK, "{name}");
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
    deep.depth = crate::DEPTH_MAX + 1;
    let result = worker.tokio.block_on(worker.enter(deep, command("echo", "{}")));
    assert!(matches!(result, Err(CallError::Refused(_))), "{result:?}");
}
