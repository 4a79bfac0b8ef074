//! What is only in memory outlives a store that another one was announced to follow.

use std::path::Path;

use aegis_ipc::{
    board::Board,
    data::{ChangeKind, Expect, Operation, Outcome, Write},
};

use super::{
    generations::{prepare, wait_until_closed},
    world::{Replica, TODO, World, committed},
};
use crate::{
    engine::{
        fjall::Options,
        memory::{MemoryEngine, kept::Kept},
    },
    testing::{create, generation, idempotency, write},
};

const NOTE: &str = "name = \"note\"\ndatasource = \"memory\"\n[fields]\ntext = { unique = true }";

fn start(folder: &Path, kept: Option<&[u8]>, board: Board, epoch: u64) -> World {
    let options = Options { folder: folder.to_owned(), cache_bytes: 1 << 20 };
    if options.exists().unwrap() {
        wait_until_closed(folder);
    }
    let engine = Box::new(options.open().unwrap().engine);
    let generation = generation(1, &[TODO, NOTE]);
    match kept {
        Some(kept) => World::taking_up(engine, generation, kept, board, epoch).unwrap(),
        None => World::continuing(engine, generation, board, epoch).unwrap(),
    }
}

fn removal(id: &str, at: u64) -> Operation {
    Operation { expect: Expect::At(at), body: None, ..create("NOTE", id, "") }
}

#[test]
fn unique_values_are_right_also_when_another_generation_takes_them_up() {
    const ALPHA: &str = "name = \"alpha\"\ndatasource = \"memory\"\n[fields]\ntext = { unique = true }";
    let alone = || generation(1, &[NOTE]);
    let both = || generation(2, &[NOTE, ALPHA]);
    let engine = || Box::new(MemoryEngine::new());
    let (board, _) = Board::create().unwrap();
    let world = World::continuing(engine(), alone(), board, 1).unwrap();
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("NOTE", "a", "{\"text\":\"x\"}"), &mut replica));
    prepare(&world, 2, &[NOTE, ALPHA]).unwrap();
    committed(worker.write(create("ALPHA", "b", "{\"text\":\"x\"}"), &mut replica));
    let kept = world.stop_and_keep();

    // There are more indexes than before, so they are counted differently.
    let world = World::taking_up(engine(), both(), &kept, board, 2).unwrap();
    let (mut worker, mut replica) = world.worker();
    for model in ["NOTE", "ALPHA"] {
        let taken = Outcome::UniqueTaken { operation: 0, field: "text".into() };
        assert_eq!(worker.write(create(model, "c", "{\"text\":\"x\"}"), &mut replica), taken, "{model}");
    }
    assert_eq!(committed(worker.write(removal("a", 1), &mut replica)), 3);
    assert_eq!(committed(worker.write(create("NOTE", "d", "{\"text\":\"x\"}"), &mut replica)), 4);
    world.stop();
}

#[test]
fn documents_unique_values_responses_and_the_log_go_on_in_the_next_store() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), None, board, 1);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("TODO", "a", "{}"), &mut replica));
    let keyed = Write { idempotency: Some(idempotency("k", "r")), ..write(0, create("NOTE", "b", "{}")) };
    assert_eq!(committed(worker.write_all(keyed, &mut replica)), 2);
    assert_eq!(committed(worker.write(create("NOTE", "c", "{\"text\":\"c\"}"), &mut replica)), 3);
    assert_eq!(committed(worker.write(create("NOTE", "d", "{\"text\":\"d\"}"), &mut replica)), 4);
    assert_eq!(committed(worker.write(removal("d", 4), &mut replica)), 5);
    let kept = world.stop_and_keep();

    let world = start(folder.path(), Some(&kept), board, 2);
    assert_eq!(board.durable(), 5, "nothing was forgotten");
    let mut worker = world.connect();
    let mut seen = Replica { received: 1, ..Replica::default() };
    assert_eq!(worker.attach(Some(1)), (2, 5));
    worker.follow(5, &mut seen);
    assert_eq!(seen.ids(), ["b", "c", "d"], "a worker that is behind is sent what it lacks");
    assert!(matches!(seen.changes[3].kind, ChangeKind::Remove { .. }));
    let (_, copy) = world.worker();
    let mut ids: Vec<&str> = copy.documents.iter().map(|stored| stored.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "c"]);

    let taken = Outcome::UniqueTaken { operation: 0, field: "text".into() };
    assert_eq!(worker.write(create("NOTE", "x", "{\"text\":\"c\"}"), &mut seen), taken);
    let again = Write { idempotency: Some(idempotency("k", "other")), ..write(0, create("NOTE", "y", "{}")) };
    assert!(matches!(worker.write_all(again, &mut seen), Outcome::Replayed(stored) if stored.sequence == 2));
    assert_eq!(committed(worker.write(create("NOTE", "d", "{\"text\":\"d\"}"), &mut seen)), 6);
    assert_eq!(committed(worker.write(removal("c", 3), &mut seen)), 7);
    world.stop();
}

#[test]
fn a_write_that_is_sent_again_to_the_next_store_is_answered_from_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), None, board, 1);
    let (mut worker, mut replica) = world.worker();
    let incarnation = worker.incarnation;
    assert_eq!(committed(worker.write(create("NOTE", "a", "{}"), &mut replica)), 1);
    assert_eq!(committed(worker.write(create("TODO", "b", "{}"), &mut replica)), 2);
    let mut kept = world.stop_and_keep();

    for epoch in 2..4 {
        let world = start(folder.path(), Some(&kept), board, epoch);
        let mut worker = world.connect();
        worker.incarnation = incarnation;
        assert_eq!(worker.attach(Some(2)), (epoch, 2));
        for (number, model, id) in [(1, "NOTE", "a"), (2, "TODO", "b")] {
            let outcome = worker.write(create(model, id, "{}"), &mut replica);
            assert_eq!(outcome, Outcome::Committed { first: number, last: number }, "{model}");
        }
        assert_eq!(board.durable(), 2, "nothing was written again");
        kept = world.stop_and_keep();
    }
}

#[test]
fn what_another_store_has_outdated_is_not_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), None, board, 1);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("NOTE", "a", "{}"), &mut replica));
    let kept = world.stop_and_keep();

    // It crashes before the supervisor knows that it is ready, but not before it has committed something.
    let world = start(folder.path(), Some(&kept), board, 2);
    let (mut worker, mut replica) = world.worker();
    assert_eq!(committed(worker.write(removal("a", 1), &mut replica)), 2);
    world.stop();

    let world = start(folder.path(), Some(&kept), board, 3);
    let mut worker = world.connect();
    let mut seen = Replica { received: 2, ..Replica::default() };
    assert_eq!(worker.attach(Some(2)), (3, 3));
    worker.follow(3, &mut seen);
    assert_eq!(seen.changes[0].kind, ChangeKind::Truncate);
    let (_, copy) = world.worker();
    assert!(copy.documents.is_empty());
    world.stop();
}

#[test]
fn a_store_that_comes_no_further_than_reading_leaves_it_to_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), None, board, 1);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("NOTE", "a", "{}"), &mut replica));
    let kept = world.stop_and_keep();
    for epoch in 2..4 {
        let world = start(folder.path(), Some(&kept), board, epoch);
        let (_, copy) = world.worker();
        assert_eq!(copy.documents.len(), 1, "epoch {epoch}");
        world.stop();
    }
}

#[test]
fn much_goes_in_many_pieces_and_what_is_cut_short_is_refused() {
    let (board, _) = Board::create().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), None, board, 1);
    let (mut worker, mut replica) = world.worker();
    let text = format!("{{\"fill\":\"{}\"}}", "x".repeat(100_000));
    for number in 0..40 {
        committed(worker.write(create("NOTE", &number.to_string(), &text), &mut replica));
    }
    let kept = world.stop_and_keep();
    assert!(kept.len() > 4_000_000, "{}", kept.len());
    let world = start(folder.path(), Some(&kept), board, 2);
    let (_, copy) = world.worker();
    assert_eq!(copy.documents.len(), 40);
    assert!(copy.documents.iter().all(|stored| stored.body == text.as_bytes()));
    world.stop();

    for length in [0, 1, 100, kept.len() / 2, kept.len() - 1] {
        let error = Kept::read(&mut &kept[..length]).unwrap_err().to_string();
        assert!(error.contains("an end in the middle"), "{length}: {error}");
    }
    let mut damaged = kept;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    assert!(Kept::read(&mut &*damaged).unwrap_err().to_string().contains("damaged"));
}
