//! One generation follows another while writes go on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aegis_ipc::{
    board::{Board, StoreWord},
    data::{ChangeKind, Expect, Operation, Outcome},
};

use super::world::{NOTE, Replica, TODO, World, committed};
use crate::{
    engine::{Engine, fjall::Options, memory::MemoryEngine},
    notice::Notice,
    storage::Place,
    testing::{create, generation},
    writer::Command,
};

const TODO_MAIL: &str = "name = \"todo\"\n[fields]\ncode = { unique = true }\nmail = { unique = true }";
const NOTE_UNIQUE: &str = "name = \"note\"\ndatasource = \"memory\"\n[fields]\ntext = { unique = true }";

pub(super) fn prepare(world: &World, number: u64, modules: &[&str]) -> Result<(), Vec<String>> {
    world.commands.send(Command::Prepare(Box::new(generation(number, modules)))).unwrap();
    match world.notices.wait() {
        Notice::Prepared { generation } if generation == number => Ok(()),
        Notice::Refused { generation, reasons } if generation == number => Err(reasons),
        other => panic!("{other:?}"),
    }
}

fn memory() -> Box<MemoryEngine> {
    Box::new(MemoryEngine::new())
}

#[test]
fn a_prepared_generation_has_its_unique_fields_enforced_beside_those_in_force() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    for number in 0..300 {
        let text = format!("{{\"code\":{number},\"mail\":\"m{number}\"}}");
        committed(worker.write(create("TODO", &format!("a{number}"), &text), &mut replica));
    }
    prepare(&world, 2, &[TODO_MAIL, NOTE]).unwrap();
    let taken = |field: &str| Outcome::UniqueTaken { operation: 0, field: field.into() };
    assert_eq!(worker.write(create("TODO", "x", "{\"mail\":\"m7\"}"), &mut replica), taken("mail"));
    assert_eq!(worker.write(create("TODO", "x", "{\"code\":7}"), &mut replica), taken("code"));
    world.commands.send(Command::Discard(2)).unwrap();
    world.wait_until(|world| world.shared.rules().index_numbers().len() == 1, "the generation is discarded");
    committed(worker.write(create("TODO", "x", "{\"mail\":\"m7\"}"), &mut replica));
    let reasons = prepare(&world, 3, &[TODO_MAIL, NOTE]).unwrap_err();
    insta::assert_snapshot!(reasons.join("\n"), @r#"unique field mail of model TODO: documents "a7" and "x" have the same value"#);
    let remove = Operation { expect: Expect::At(301), body: None, ..create("TODO", "x", "") };
    committed(worker.write(remove, &mut replica));
    prepare(&world, 4, &[TODO_MAIL, NOTE]).unwrap();
    world.commands.send(Command::Activate(4)).unwrap();
    assert_eq!(worker.write(create("TODO", "x", "{\"mail\":\"m7\"}"), &mut replica), taken("mail"));
    let file = |world: &World| world.shared.storage.engine(Place::File).recover().unwrap();
    world.wait_until(|world| file(world).dropped.is_empty(), "the rows of dropped indexes are removed");
    world.stop();
}

#[test]
fn workers_of_the_generation_before_still_write_to_a_model_that_is_gone() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    prepare(&world, 2, &[TODO]).unwrap();
    world.commands.send(Command::Activate(2)).unwrap();
    // It is told after the one before it is in force.
    prepare(&world, 3, &[TODO]).unwrap();
    committed(worker.write(create("NOTE", "a", "{}"), &mut replica));
    world.commands.send(Command::Activate(3)).unwrap();
    world.wait_until(|world| world.shared.rules().model("NOTE").is_none(), "nobody has the model any more");
    let outcome = worker.write(create("NOTE", "b", "{}"), &mut replica);
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    world.stop();
}

#[test]
fn fields_of_models_in_memory_become_unique_too() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    for id in ["a", "b"] {
        committed(worker.write(create("NOTE", id, "{\"text\":\"same\"}"), &mut replica));
    }
    let reasons = prepare(&world, 2, &[TODO, NOTE_UNIQUE]).unwrap_err();
    insta::assert_snapshot!(reasons.join("\n"), @r#"unique field text of model NOTE: documents "a" and "b" have the same value"#);
    let remove = Operation { expect: Expect::At(2), body: None, ..create("NOTE", "b", "") };
    committed(worker.write(remove, &mut replica));
    prepare(&world, 3, &[TODO, NOTE_UNIQUE]).unwrap();
    let outcome = worker.write(create("NOTE", "b", "{\"text\":\"same\"}"), &mut replica);
    assert_eq!(outcome, Outcome::UniqueTaken { operation: 0, field: "text".into() });
    world.stop();
}

#[test]
fn a_datasource_does_not_change_while_the_host_runs() {
    let world = World::start(memory());
    let reasons = prepare(&world, 2, &[TODO, "name = \"note\""]).unwrap_err();
    insta::assert_snapshot!(reasons.join("\n"), @"model NOTE: its datasource changes from memory to file, which only a restart of the host can do");
    prepare(&world, 3, &[TODO]).unwrap();
    world.stop();
}

#[test]
fn a_model_in_memory_that_a_prepared_generation_brings_back_is_emptied_where_it_is_shown() {
    let (board, _) = Board::create().unwrap();
    let start = |epoch| World::continuing(memory(), generation(1, &[TODO]), board, epoch).unwrap();
    let world = start(1);
    prepare(&world, 2, &[TODO, NOTE]).unwrap();
    let (mut worker, mut replica) = world.worker();
    assert_eq!(committed(worker.write(create("NOTE", "a", "{}"), &mut replica)), 1);
    world.stop();
    // The workers of the generation that is judged outlive the store, which is told of that generation anew.
    let world = start(2);
    let (mut worker, mut seen) = (world.connect(), Replica { received: 1, ..Replica::default() });
    worker.attach(Some(1));
    prepare(&world, 2, &[TODO, NOTE]).unwrap();
    worker.follow(2, &mut seen);
    assert_eq!((seen.changes[0].model.as_str(), &seen.changes[0].kind), ("NOTE", &ChangeKind::Truncate));
    assert_eq!(committed(worker.write(create("NOTE", "a", "{}"), &mut seen)), 3);
    world.commands.send(Command::Discard(2)).unwrap();
    prepare(&world, 3, &[TODO, NOTE]).unwrap();
    assert_eq!(world.board.durable(), 3, "what is there stays");
    world.stop();
}

#[test]
fn a_disk_that_is_nearly_full_is_not_filled_with_an_index() {
    let free_bytes = Arc::new(AtomicU64::new(u64::MAX));
    let world = World::on_disk_with(&free_bytes);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("TODO", "a", "{\"mail\":1}"), &mut replica));
    free_bytes.store(1 << 20, Ordering::Relaxed);
    let is_full = |world: &World| world.board.store(StoreWord::DiskFullSince).load(Ordering::Relaxed) != 0;
    world.wait_until(is_full, "the store has noticed");
    let reasons = prepare(&world, 2, &[TODO_MAIL, NOTE]).unwrap_err();
    insta::assert_snapshot!(reasons.join("\n"), @"no unique index is built: the disk of the store is nearly full");
    world.stop();
}

#[test]
fn writes_during_the_build_are_in_the_index() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    for number in 0..2000 {
        committed(
            worker.write(
                create("TODO", &format!("a{number}"), &format!("{{\"mail\":{number}}}")),
                &mut replica,
            ),
        );
    }
    world.commands.send(Command::Prepare(Box::new(generation(2, &[TODO_MAIL, NOTE])))).unwrap();
    // Every document changes its value while the scan runs or after it.
    for number in 0..2000_u64 {
        let change = Operation { expect: Expect::At(number + 1), revision: 2, ..create("TODO", "", "") };
        let body = Some(crate::testing::body(&format!("{{\"mail\":{}}}", number + 5000)));
        committed(worker.write(Operation { id: format!("a{number}"), body, ..change }, &mut replica));
    }
    assert!(matches!(world.notices.wait(), Notice::Prepared { generation: 2 }));
    committed(worker.write(create("TODO", "free", "{\"mail\":17}"), &mut replica));
    let outcome = worker.write(create("TODO", "taken", "{\"mail\":5017}"), &mut replica);
    assert_eq!(outcome, Outcome::UniqueTaken { operation: 0, field: "mail".into() });
    world.stop();
}

#[test]
fn an_index_that_was_missed_while_the_host_was_down_is_built_at_the_start_or_stops_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { folder: folder.path().to_owned(), cache_bytes: 1 << 20 };
    let open = || -> Box<dyn Engine> { Box::new(options.open().unwrap().engine) };
    let world = World::start(open());
    let (mut worker, mut replica) = world.worker();
    for id in ["a", "b"] {
        committed(worker.write(create("TODO", id, "{\"mail\":\"same\"}"), &mut replica));
    }
    let board = world.board;
    world.stop();
    wait_until_closed(folder.path());
    let Err(error) = World::continuing(open(), generation(2, &[TODO_MAIL, NOTE]), board, 2) else {
        panic!("two documents with one value")
    };
    assert_eq!(error.exit_code(), crate::error::EXIT_CONFIGURATION);
    insta::assert_snapshot!(error.report(), @r#"generation 2 cannot be served: unique field mail of model TODO: documents "a" and "b" have the same value"#);
    wait_until_closed(folder.path());
    let world = World::continuing(open(), generation(3, &[TODO, NOTE]), board, 3).unwrap();
    let (mut worker, mut replica) = world.worker();
    let remove = Operation { expect: Expect::At(2), body: None, ..create("TODO", "b", "") };
    committed(worker.write(remove, &mut replica));
    world.stop();
    wait_until_closed(folder.path());
    let world = World::continuing(open(), generation(4, &[TODO_MAIL, NOTE]), board, 4).unwrap();
    let (mut worker, mut replica) = world.worker();
    let outcome = worker.write(create("TODO", "c", "{\"mail\":\"same\"}"), &mut replica);
    assert_eq!(outcome, Outcome::UniqueTaken { operation: 0, field: "mail".into() });
    world.stop();
}

/// Threads that ended let go of the engine a moment later.
pub(super) fn wait_until_closed(folder: &std::path::Path) {
    let deadline = std::time::Instant::now() + super::world::PATIENCE;
    let lock = std::fs::File::open(folder.join("engine/lock")).unwrap();
    while lock.try_lock().is_err() {
        assert!(std::time::Instant::now() < deadline, "the engine is still open");
        std::thread::yield_now();
    }
}
