//! What writers are told.

use std::sync::atomic::Ordering;

use aegis_ipc::{
    board::StoreWord,
    data::{Expect, FromStore, Operation, Outcome, POSITIONS, ToStore, Write},
};

use super::{
    gated::{Gate, GatedEngine},
    world::{NOTE, PATIENCE, TODO, World, committed},
};
use crate::{
    clock::now_ms,
    engine::{Batch, KeptResponse, memory::MemoryEngine},
    error::EXIT_TRANSIENT,
    notice::Notice,
    storage::Place,
    testing::{create, generation, idempotency, settings, write},
    writer::Command,
};

fn gated() -> (std::sync::Arc<Gate>, Box<GatedEngine>) {
    let gate = Gate::new();
    (gate.clone(), Box::new(GatedEngine { gate, engine: MemoryEngine::new() }))
}

#[test]
fn writes_that_wait_become_one_group_and_everybody_is_told_the_truth() {
    let (gate, engine) = gated();
    let world = World::start(engine);
    let (mut worker, mut replica) = world.worker();
    let (mut other, mut copy) = world.worker();
    gate.close();
    worker.ask(write(0, create("TODO", "first", "{}")));
    gate.wait_for_commit();
    let same = other.ask(write(0, create("TODO", "a", "{\"code\":1}")));
    other.ask(write(0, create("TODO", "a", "{}")));
    other.ask(write(0, create("TODO", "b", "{\"code\":1.0}")));
    let change = Operation { expect: Expect::At(9), revision: 2, ..create("TODO", "a", "{}") };
    let last = other.ask(write(0, change));
    gate.open();
    while copy.answers.last().is_none_or(|(request, _)| *request != last) {
        let message = other.receive();
        copy.take(message);
    }
    let outcomes: Vec<&Outcome> = copy.answers.iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(copy.answers[0].0, same);
    assert_eq!(
        outcomes,
        [
            &Outcome::Committed { first: 2, last: 2 },
            &Outcome::Conflict { operation: 0, current: Some(2) },
            &Outcome::UniqueTaken { operation: 0, field: "code".into() },
            &Outcome::Conflict { operation: 0, current: Some(2) },
        ]
    );
    worker.follow(2, &mut replica);
    assert_eq!(world.board.store(StoreWord::Conflicts).load(Ordering::Relaxed), 2);
    assert_eq!(world.board.store(StoreWord::Changes).load(Ordering::Relaxed), 2);
    world.stop();
}

#[test]
fn a_failed_sync_ends_the_store_without_an_answer() {
    let (gate, engine) = gated();
    let world = World::start(engine);
    let (mut worker, mut replica) = world.worker();
    gate.close();
    worker.ask(write(0, create("TODO", "a", "{}")));
    worker.follow(1, &mut replica);
    gate.wait_for_commit();
    gate.fail();
    let board = world.board;
    let shared = world.shared.clone();
    let error = world.failure();
    assert_eq!(error.exit_code(), EXIT_TRANSIENT);
    insta::assert_snapshot!(error.report(), @"committing a group failed: syncing failed: Input/output error (os error 5)");
    assert_eq!(board.durable(), 0);
    shared.registry.links().iter().for_each(|link| link.close());
    assert_eq!(worker.next(), None, "nobody was told anything");
}

#[test]
fn more_writes_than_the_queue_holds_are_told_to_come_again() {
    let (gate, engine) = gated();
    let mut bounds = settings();
    bounds.store.queue_writes_max = 4;
    bounds.store.group_writes_max = 1;
    let world = World::with(engine, bounds);
    let (mut worker, mut replica) = world.worker();
    gate.close();
    worker.ask(write(0, create("TODO", "first", "{}")));
    gate.wait_for_commit();
    for number in 0..10 {
        worker.ask(write(0, create("TODO", &format!("a{number}"), "{}")));
    }
    while replica.answers.len() < 6 {
        let message = worker.receive();
        replica.take(message);
    }
    for (_, outcome) in &replica.answers {
        assert_eq!(*outcome, Outcome::Unavailable { reason: "too many writes are waiting".into() });
    }
    gate.open();
    while replica.answers.len() < 11 {
        let message = worker.receive();
        replica.take(message);
    }
    world.stop();
}

#[test]
fn a_store_that_is_told_to_stop_writes_what_waits_and_answers_it() {
    let (gate, engine) = gated();
    let world = World::start(engine);
    let (mut worker, mut replica) = world.worker();
    gate.close();
    worker.ask(write(0, create("TODO", "a", "{}")));
    gate.wait_for_commit();
    for number in 0..50 {
        worker.ask(write(0, create("TODO", &format!("a{number}"), "{}")));
    }
    // The reader has passed on everything that was sent before this answer.
    worker.send(&ToStore::Recall { request: 99, key: "k".into() });
    loop {
        match worker.receive() {
            FromStore::Recalled { request: 99, stored: None } => break,
            message => replica.take(message),
        }
    }
    gate.open();
    let reader = std::thread::spawn(move || {
        while let Some(message) = worker.next() {
            replica.take(message);
        }
        replica
    });
    world.stop();
    let replica = reader.join().unwrap();
    assert_eq!((replica.answers.len(), replica.received), (51, 51));
}

#[test]
fn the_same_key_is_answered_with_the_first_response() {
    let world = World::start(Box::new(MemoryEngine::new()));
    let (mut worker, mut replica) = world.worker();
    for (model, first) in [("TODO", 1), ("NOTE", 2)] {
        let keyed = |id: &str| Write {
            idempotency: Some(idempotency(model, id)),
            ..write(0, create(model, id, "{}"))
        };
        let outcome = worker.write_all(keyed("a"), &mut replica);
        assert_eq!(outcome, Outcome::Committed { first, last: first });
        let Outcome::Replayed(stored) = worker.write_all(keyed("b"), &mut replica) else {
            panic!("not replayed")
        };
        assert_eq!((&stored.response[..], stored.sequence), (&b"a"[..], first));
        worker.send(&ToStore::Recall { request: 5, key: model.into() });
        assert_eq!(worker.receive(), FromStore::Recalled { request: 5, stored: Some(stored) });
    }
    assert_eq!(replica.received, 2);
    world.stop();
}

#[test]
fn a_kept_response_is_not_told_before_its_write_is_published() {
    let world = World::start(Box::new(MemoryEngine::new()));
    let (mut worker, mut replica) = world.worker();
    for (place, model, number) in [(Place::File, "TODO", 1), (Place::Memory, "NOTE", 2)] {
        // As between the sync of a group and its publication.
        let kept = KeptResponse {
            key: "k".into(),
            fingerprint: "f".into(),
            response: model.into(),
            sequence: number,
            time_ms: now_ms() + number,
        };
        let responses = vec![kept];
        world.shared.storage.engine(place).apply(&Batch { responses, ..Batch::default() }).unwrap();
        worker.send(&ToStore::Recall { request: 70, key: "k".into() });
        assert_eq!(worker.receive(), FromStore::Recalled { request: 70, stored: None }, "{model}");
        assert_eq!(committed(worker.write(create(model, "a", "{}"), &mut replica)), number);
        worker.send(&ToStore::Recall { request: 71, key: "k".into() });
        let FromStore::Recalled { request: 71, stored: Some(stored) } = worker.receive() else {
            panic!("not told")
        };
        assert_eq!((&stored.response[..], stored.sequence), (model.as_bytes(), number));
    }
    world.stop();
}

#[test]
fn a_kept_response_expires_and_is_removed() {
    let mut bounds = settings();
    bounds.store.idempotency_time = std::time::Duration::from_millis(1);
    let world = World::with(Box::new(MemoryEngine::new()), bounds);
    let (mut worker, mut replica) = world.worker();
    let keyed =
        |id: &str| Write { idempotency: Some(idempotency("k", id)), ..write(0, create("TODO", id, "{}")) };
    committed(worker.write_all(keyed("a"), &mut replica));
    let engine =
        |world: &World| world.shared.storage.engine(crate::storage::Place::File).response("k").unwrap();
    world.wait_until(|world| engine(world).is_none(), "the response is removed");
    assert_eq!(committed(worker.write_all(keyed("b"), &mut replica)), 2);
    world.stop();
}

#[test]
fn a_clock_that_is_set_forward_makes_no_response_expire() {
    let world = World::start(Box::new(MemoryEngine::new()));
    let (mut worker, mut replica) = world.worker();
    let keyed =
        |id: &str| Write { idempotency: Some(idempotency("k", id)), ..write(0, create("TODO", id, "{}")) };
    committed(worker.write_all(keyed("a"), &mut replica));
    world.shared.aging().set_forward_ms.store(86_400_000, Ordering::Relaxed);
    assert!(matches!(worker.write_all(keyed("b"), &mut replica), Outcome::Replayed(_)));
    // Another one makes room for itself.
    let other = Write { idempotency: Some(idempotency("l", "l")), ..write(0, create("TODO", "l", "{}")) };
    committed(worker.write_all(other, &mut replica));
    worker.send(&ToStore::Recall { request: 5, key: "k".into() });
    let answer = worker.receive();
    assert!(matches!(answer, FromStore::Recalled { request: 5, stored: Some(_) }), "{answer:?}");
    world.stop();
}

#[test]
fn a_group_larger_than_a_frame_arrives_in_several() {
    let world = World::start(Box::new(MemoryEngine::new()));
    let (mut worker, mut replica) = world.worker();
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(9 * 1024 * 1024));
    let operations = (0..4).map(|number| create("NOTE", &number.to_string(), &text)).collect();
    let outcome = worker.write_all(Write { request: 0, operations, idempotency: None }, &mut replica);
    assert_eq!(outcome, Outcome::Committed { first: 1, last: 4 });
    assert_eq!((replica.received, replica.ids().len()), (4, 4));
    let (_, copy) = world.worker();
    assert_eq!(copy.documents.len(), 4);
    world.stop();
}

#[test]
fn a_nearly_full_disk_refuses_writes_until_there_is_room_again() {
    let free_bytes = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1 << 30));
    let world = World::on_disk_with(&free_bytes);
    let (mut worker, mut replica) = world.worker();
    let mut number = 0;
    let mut until = |world: &World, wanted: bool| {
        let deadline = std::time::Instant::now() + super::world::PATIENCE;
        loop {
            number += 1;
            let outcome = worker.write(create("TODO", &format!("a{number}"), "{}"), &mut replica);
            let taken = match outcome {
                Outcome::Committed { last, .. } => last == world.board.durable(),
                Outcome::Unavailable { reason } => {
                    assert_eq!(reason, "the disk of the store is nearly full");
                    false
                }
                other => panic!("{other:?}"),
            };
            if taken == wanted {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "writes are not {wanted}");
        }
    };
    until(&world, true);
    free_bytes.store(1 << 20, Ordering::Relaxed);
    until(&world, false);
    free_bytes.store(1 << 30, Ordering::Relaxed);
    until(&world, true);
    world.stop();
}

#[test]
fn what_is_no_longer_needed_goes_also_while_the_disk_is_low_as_long_as_there_is_some_room() {
    let free_bytes = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(1 << 30));
    let world = World::on_disk_with(&free_bytes);
    let (mut worker, mut replica) = world.worker();
    // As many as are promised.
    for number in 0..1000 {
        committed(worker.write(create("TODO", &format!("a{number}"), "{}"), &mut replica));
    }
    free_bytes.store(48 << 20, Ordering::Relaxed);
    let deadline = std::time::Instant::now() + PATIENCE;
    for number in 0.. {
        match worker.write(create("TODO", &format!("b{number}"), "{}"), &mut replica) {
            Outcome::Unavailable { .. } => break,
            Outcome::Committed { .. } => assert!(std::time::Instant::now() < deadline, "no write is refused"),
            other => panic!("{other:?}"),
        }
    }
    let mut next = generation(2, &[TODO, NOTE]);
    next.settings.store.log_changes_min = 100;
    world.commands.send(Command::Prepare(Box::new(next))).unwrap();
    assert!(matches!(world.notices.wait(), Notice::Prepared { .. }));
    world.commands.send(Command::Activate(2)).unwrap();
    let kept = |world: &World| world.shared.storage.committed() - world.shared.storage.log_oldest();
    world.wait_until(|world| kept(world) < 200, "the log is cut");
    world.stop();
}

#[test]
fn workers_keep_positions_whatever_models_there_are() {
    let world = World::start(Box::new(MemoryEngine::new()));
    let (mut worker, mut replica) = world.worker();
    let position =
        |expect, revision| Operation { expect, revision, ..create(POSITIONS, "TODO", "{\"position\":7}") };
    let first = worker.write_all(write(0, position(Expect::Absent, 1)), &mut replica);
    assert_eq!(first, Outcome::Committed { first: 1, last: 1 });
    let again = worker.write_all(write(0, position(Expect::Absent, 1)), &mut replica);
    assert_eq!(again, Outcome::Conflict { operation: 0, current: Some(1) });
    let next = worker.write_all(write(0, position(Expect::At(1), 2)), &mut replica);
    assert_eq!(next, Outcome::Committed { first: 2, last: 2 });
    let late = worker.write_all(write(0, position(Expect::At(1), 2)), &mut replica);
    assert_eq!(late, Outcome::Conflict { operation: 0, current: Some(2) });
}
