//! Many calls at once, and who is told that it is too many.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use aegis_domain::code::{CodeLimits, CommandPlace};

use wasmtime::{
    Store,
    component::{Component, Linker},
};

use super::{NOTHING, PATIENCE, Worker, answer, call, command, prepare, seal};
use crate::{
    Call, CallError, Runtime,
    engine::{self, Profile},
    ticker::EPOCH,
};

/// Calls at once.
const CALLS: usize = 2000;
/// Instances for them.
const INSTANCES: u32 = 100;

#[test]
fn two_thousand_calls_share_a_hundred_instances() {
    let limits = CodeLimits { instances_max: INSTANCES, call_ms_max: 10_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::todo(), limits);
    worker.tokio.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..CALLS {
            let (runtime, module) = (Arc::clone(&worker.runtime), Arc::clone(&worker.module));
            calls.spawn(async move {
                let entry = command("echo", &number.to_string());
                let echoed = runtime.call(&module, CommandPlace::Io, call(), entry).await;
                (echoed, number, module.instances())
            });
        }
        while let Some(ended) = calls.join_next().await {
            let (echoed, number, instances) = ended.unwrap();
            assert_eq!(echoed, answer(&number.to_string()));
            assert!(instances <= INSTANCES as usize);
        }
    });
}

#[test]
fn who_waits_past_the_deadline_is_told_that_it_is_busy() {
    let limits = CodeLimits { instances_max: 1, call_ms_max: 400, ..CodeLimits::default() };
    // Until there is a tick, code that spins looks at nothing: it outlasts whoever waits, however busy the machine is.
    let runtime = Runtime::ticking_by_hand(1, 1).unwrap();
    let worker = Worker::in_runtime(runtime, &aegis_guests::unruly().build(), limits, Arc::new(NOTHING));
    worker.tokio.block_on(async {
        let (runtime, module) = (Arc::clone(&worker.runtime), Arc::clone(&worker.module));
        let mut spins = tokio::spawn(async move {
            runtime.call(&module, CommandPlace::Io, call(), command("spin", "{}")).await
        });
        let taken = Instant::now();
        while worker.module.instances() == 0 {
            assert!(taken.elapsed() < PATIENCE, "the call that spins did not begin");
            tokio::task::yield_now().await;
        }
        let hurried = Call { deadline: Instant::now() + Duration::from_millis(50), ..call() };
        let refused = worker.enter(hurried, command("fine", "{}")).await;
        assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");
        let ticks = async {
            let mut clock = tokio::time::interval(EPOCH);
            loop {
                clock.tick().await;
                worker.runtime.engine().increment_epoch();
            }
        };
        let spun = tokio::select! { spun = &mut spins => spun.unwrap(), never = ticks => never };
        assert!(matches!(spun, Err(CallError::Deadline { .. })), "{spun:?}");
        assert_eq!(worker.enter(call(), command("fine", "{}")).await, answer("{\"fine\":true}"));
    });
}

#[test]
fn the_queue_for_long_computations_has_an_end() {
    let limits = CodeLimits { cpu_call_ms_max: 500, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::unruly(), limits);
    worker.tokio.block_on(async {
        let cpu = worker.runtime.cpu();
        // One thread and one place in the queue.
        let one = worker.compute(command("spin", "{}"));
        let two = worker.compute(command("fine", "{}"));
        let three = worker.compute(command("fine", "{}"));
        let (one, two, three) = tokio::join!(one, two, three);
        assert!(matches!(one, Err(CallError::Deadline { .. })), "{one:?}");
        assert!(matches!(three, Err(CallError::Busy { .. })), "{three:?}");
        // The second waited for the first and has its own time from when it was asked.
        assert!(matches!(two, Ok(_) | Err(CallError::Busy { .. } | CallError::Deadline { .. })), "{two:?}");
        assert_eq!(cpu.taken(), 0);
    });
}

#[test]
fn a_caller_who_goes_away_frees_the_thread() {
    let limits = CodeLimits { cpu_call_ms_max: 60_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::unruly(), limits);
    worker.tokio.block_on(async {
        let cpu = worker.runtime.cpu();
        let spins = worker.compute(command("spin", "{}"));
        assert!(tokio::time::timeout(Duration::from_millis(50), spins).await.is_err());
        let begun = Instant::now();
        while cpu.taken() > 0 {
            assert!(begun.elapsed() < PATIENCE, "the thread is still taken");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_caller_who_goes_away_leaves_the_queue() {
    let limits = CodeLimits { cpu_call_ms_max: 600_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::unruly(), limits);
    worker.tokio.block_on(async {
        let ask = |name: &'static str| {
            let (runtime, module) = (Arc::clone(&worker.runtime), Arc::clone(&worker.module));
            Box::pin(
                async move { runtime.call(&module, CommandPlace::Cpu, call(), command(name, "{}")).await },
            )
        };
        // One thread and one place in the queue.
        let mut spins = ask("spin");
        assert!(polled(&mut spins).is_pending());
        for _ in 0..1_000 {
            let mut waits = ask("fine");
            assert!(polled(&mut waits).is_pending(), "there is room for one that waits");
            assert_eq!(polled(&mut ask("fine")), Poll::Ready(Err(busy())));
            drop(waits);
            assert_eq!(worker.runtime.cpu().taken(), 1);
        }
        // But for the one that spins, which leaves the queue when its thread has come to it.
        let begun = Instant::now();
        while !format!("{:?}", worker.runtime.cpu()).contains("waiting: 0") {
            assert!(
                begun.elapsed() < PATIENCE,
                "{:?} has calls whose callers went away",
                worker.runtime.cpu()
            );
            tokio::task::yield_now().await;
        }
        let fine = tokio::spawn(ask("fine"));
        drop(spins);
        assert_eq!(fine.await.unwrap(), answer("{\"fine\":true}"));
    });
}

#[test]
fn a_call_that_has_not_begun_when_its_time_is_up_found_no_room() {
    let limits = CodeLimits { cpu_call_ms_max: 600_000, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::unruly(), limits);
    worker.tokio.block_on(async {
        let mut spins = Box::pin(worker.compute(command("spin", "{}")));
        assert!(polled(&mut spins).is_pending());
        let hurried = Call { deadline: Instant::now() + Duration::from_millis(50), ..call() };
        let fine = command("fine", "{}");
        let waited = worker.runtime.call(&worker.module, CommandPlace::Cpu, hurried, fine).await;
        assert_eq!(waited, Err(busy()));
        assert_eq!(worker.runtime.cpu().taken(), 1);
    });
}

/// What it has come to by now.
fn polled<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn busy() -> CallError {
    CallError::Busy { module: "unruly".to_owned() }
}

#[test]
fn a_call_that_had_to_wait_is_late_by_what_was_left_to_it() {
    let limits = CodeLimits { instances_max: 1, call_ms_max: 400, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::unruly(), limits);
    worker.tokio.block_on(async {
        let late = Instant::now() + Duration::from_millis(300);
        let place = worker.module.place(&crate::call::Budget::new(PATIENCE)).await.unwrap();
        let mut spins = Box::pin(worker.enter(call(), command("spin", "{}")));
        assert!(polled(&mut spins).is_pending());
        while Instant::now() < late {
            tokio::task::yield_now().await;
        }
        drop(place);
        match spins.await {
            Err(CallError::Deadline { allowed, .. }) => assert!(allowed <= Duration::from_millis(100)),
            // The machine may be busier than that.
            other => assert_eq!(other, Err(busy())),
        }
        let alone = worker.enter(call(), command("spin", "{}")).await;
        let whole = Duration::from_millis(400);
        assert!(matches!(alone, Err(CallError::Deadline { allowed, .. }) if allowed == whole), "{alone:?}");
    });
}

#[test]
fn an_instance_is_replaced_after_its_calls() {
    let limits = CodeLimits { calls_per_instance_max: 3, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::counter(), limits);
    let answers: Vec<String> = (0..7).map(|_| worker.command("next", "{}").unwrap().unwrap()).collect();
    assert_eq!(answers, ["1", "2", "3", "1", "2", "3", "1"]);
}

#[test]
fn a_module_gets_the_room_of_instances_of_another_one_that_wait_and_is_busy_when_there_is_none() {
    let worker =
        Worker::limited(&aegis_guests::counter(), CodeLimits { instances_max: 2, ..CodeLimits::default() });
    let prepared = prepare(&aegis_guests::counter().build(), CodeLimits::default()).unwrap();
    let (file, place) = seal(&prepared.code);
    let (name, code) = (prepared.spec.name.to_string(), prepared.spec.code.unwrap());
    let other = worker.runtime.load(&name, &code, (&file, place), Arc::new(NOTHING)).unwrap();
    let other = Arc::new(other);
    assert_eq!(worker.command("next", "{}").unwrap().unwrap(), "1");
    worker.tokio.block_on(async {
        let runtime = &worker.runtime;
        let all = runtime.berths().leave(0);
        let next = || runtime.call(&other, CommandPlace::Io, call(), command("next", "{}"));
        assert_eq!((next().await, worker.module.instances()), (answer("1"), 0));
        assert_eq!(next().await, answer("2"), "who has an instance keeps it");
        let _last = runtime.berths().take(1).await;
        let hurried = Call { deadline: Instant::now() + Duration::from_millis(50), ..call() };
        let refused = runtime.call(&other, CommandPlace::Io, hurried, command("next", "{}")).await;
        assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");
        drop(all);
        assert_eq!(next().await, answer("1"));
    });
}

#[test]
fn instances_of_many_parts_leave_room_for_as_many_as_there_are_berths() {
    let engine = engine::runner(Profile::Classic).unwrap();
    let linker = Linker::new(&engine);
    let of = |parts: usize| {
        let parts = "(core instance (instantiate $part))".repeat(parts);
        let component = wat::parse_str(format!("(component (core module $part) {parts})")).unwrap();
        Component::new(&engine, component).unwrap()
    };
    let instance = |component: &Component| {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1);
        linker.instantiate(&mut store, component).unwrap_or_else(|error| panic!("{error:#}"));
        store
    };
    let large = of(200);
    let _waiting: Vec<_> = (0..110).map(|_| instance(&large)).collect();
    let _next = instance(&of(1));
}
