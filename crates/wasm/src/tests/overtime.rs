//! Code that computes for long costs the thread of its request little, and only once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::code::{CodeLimits, CommandPlace};
use rustix::time::{ClockId, clock_gettime};

use super::{PATIENCE, Worker, call, command};
use crate::{Call, CallError, ticker::EPOCH};

/// Tens of milliseconds of one core, whatever the machine.
const LONG: &str = "{\"n\":30000000}";
/// Many seconds.
const LONGEST: &str = "{\"n\":60000000000}";
const SHORT: &str = "{\"n\":10}";

fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Calls the same command so often, from a runtime of one thread: how long that thread worked for it.
fn burn(worker: &Worker, arguments: &str, times: u32) -> Duration {
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = worked();
    for _ in 0..times {
        one.block_on(worker.enter(call(), command("burn", arguments))).unwrap();
    }
    worked() - before
}

#[test]
fn an_entry_that_took_long_begins_on_a_thread_of_its_own() {
    let worker = Worker::of(&aegis_guests::todo());
    burn(&worker, LONG, 1);
    assert!(worker.module.paces().knows_any());
    let did = burn(&worker, LONG, 10);
    assert!(did < 10 * EPOCH, "the thread worked {did:?} for what is known to take long");
    assert_eq!(worker.runtime.worked_overtime(), 11);
}

#[test]
fn an_entry_that_is_short_again_begins_where_it_is_asked_for() {
    let worker = Worker::of(&aegis_guests::todo());
    burn(&worker, LONG, 1);
    assert!(worker.module.paces().knows_any());
    burn(&worker, SHORT, 8);
    assert!(!worker.module.paces().knows_any());
    assert_eq!(worker.runtime.worked_overtime(), 9, "it is not known before that it is short");
}

#[test]
fn entries_that_are_short_stay_where_they_are_asked_for() {
    let worker = Worker::out_of_time(&aegis_guests::todo());
    burn(&worker, SHORT, 1000);
    assert!(!worker.module.paces().knows_any());
    assert_eq!(worker.runtime.worked_overtime(), 0);
}

#[test]
fn calls_that_work_overtime_take_turns() {
    let limits = CodeLimits { call_ms_max: 50_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::todo(), limits);
    burn(&worker, LONG, 1);
    worker.tokio.block_on(async {
        let first = tokio::select! {
            biased;
            longest = worker.enter(call(), command("burn", LONGEST)) => Err(longest),
            long = worker.enter(call(), command("burn", LONG)) => Ok(long),
        };
        assert!(matches!(first, Ok(Ok(_))), "{first:?}");
    });
    assert_eq!(worker.runtime.worked_overtime(), 3, "both had the one thread that there is");
}

#[test]
fn a_call_that_waits_for_others_is_ended_at_its_deadline() {
    let limits = CodeLimits { call_ms_max: 600_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::todo(), limits);
    burn(&worker, LONG, 1);
    worker.tokio.block_on(async {
        let mut longest = tokio::task::JoinSet::new();
        let spawn = |calls: &mut tokio::task::JoinSet<_>, call: Call| {
            let (runtime, module) = (Arc::clone(&worker.runtime), Arc::clone(&worker.module));
            calls.spawn(async move {
                runtime.call(&module, CommandPlace::Io, call, command("burn", LONGEST)).await
            });
        };
        for _ in 0..4 {
            spawn(&mut longest, call());
        }
        let mut hurried = tokio::task::JoinSet::new();
        for _ in 0..4 {
            spawn(&mut hurried, Call { deadline: Instant::now() + Duration::from_millis(200), ..call() });
        }
        for ended in hurried.join_all().await {
            assert!(matches!(ended, Err(CallError::Deadline { .. } | CallError::Busy { .. })), "{ended:?}");
        }
        let begun = Instant::now();
        while worker.module.instances() > longest.len() {
            assert!(begun.elapsed() < PATIENCE, "they keep their instances");
            tokio::task::yield_now().await;
        }
    });
}
