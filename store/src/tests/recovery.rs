//! What a store finds when the one before ended in the middle of something.

use std::path::Path;

use aegis_ipc::{
    board::Board,
    data::{Change, ChangeKind, FromStore, Outcome, ToStore, Write},
};
use bytes::Bytes;
use proptest::prelude::*;

use super::{
    generations::wait_until_closed,
    world::{NOTE, Replica, TODO, World, committed},
};
use crate::{
    engine::{Batch, Engine, LogBudget, fjall::Options, records::FORMAT},
    error::{EXIT_CONFIGURATION, EXIT_TRANSIENT, StoreError},
    recover::{Published, open_engine},
    testing::{create, generation, idempotency, write},
};

fn options(folder: &Path) -> Options {
    Options { folder: folder.to_owned(), cache_bytes: 1 << 20 }
}

fn start(folder: &Path, board: Board, epoch: u64) -> World {
    wait_until_closed_if_there(folder);
    let engine = Box::new(options(folder).open().unwrap().engine);
    World::continuing(engine, generation(1, &[TODO, NOTE]), board, epoch).unwrap()
}

fn wait_until_closed_if_there(folder: &Path) {
    if options(folder).exists().unwrap() {
        wait_until_closed(folder);
    }
}

#[test]
fn a_write_that_is_sent_again_after_a_restart_is_answered_from_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), board, 1);
    let (mut worker, mut replica) = world.worker();
    let incarnation = worker.incarnation;
    assert_eq!(committed(worker.write(create("TODO", "a", "{}"), &mut replica)), 1);
    let keyed = Write { idempotency: Some(idempotency("k", "r")), ..write(0, create("TODO", "b", "{}")) };
    assert_eq!(committed(worker.write_all(keyed.clone(), &mut replica)), 2);
    world.stop();

    let world = start(folder.path(), board, 2);
    let mut worker = world.connect();
    worker.incarnation = incarnation;
    assert_eq!(worker.attach(Some(2)), (2, 3), "the documents in memory are forgotten under number 3");
    assert_eq!(
        worker.write(create("TODO", "a", "{}"), &mut replica),
        Outcome::Committed { first: 1, last: 1 }
    );
    worker.follow(3, &mut replica);
    assert_eq!(replica.changes[2].kind, ChangeKind::Truncate);
    assert_eq!(replica.changes[2].model, "NOTE");
    let outcome = worker.write_all(keyed, &mut replica);
    assert_eq!(outcome, Outcome::Committed { first: 2, last: 2 });
    let again = Write { idempotency: Some(idempotency("k", "other")), ..write(0, create("TODO", "c", "{}")) };
    assert!(
        matches!(worker.write_all(again, &mut replica), Outcome::Replayed(stored) if stored.sequence == 2)
    );
    assert_eq!(committed(worker.write(create("TODO", "d", "{}"), &mut replica)), 4);
    world.stop();
}

#[test]
fn numbers_of_lost_changes_are_covered_and_never_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), board, 1);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("TODO", "a", "{}"), &mut replica));
    for number in 0..5 {
        committed(worker.write(create("NOTE", &number.to_string(), "{}"), &mut replica));
    }
    world.stop();

    let world = start(folder.path(), board, 2);
    let mut worker = world.connect();
    let mut seen = Replica { received: 3, ..Replica::default() };
    assert_eq!(worker.attach(Some(3)), (2, 7));
    worker.follow(7, &mut seen);
    assert_eq!(seen.changes.len(), 1, "only the truncation is left of 4 to 7");
    let (_, copy) = world.worker();
    assert_eq!(copy.documents.len(), 1);
    world.stop();

    // A new host has a new board; the numbers that clients have seen are still not used again.
    let (fresh, _) = Board::create().unwrap();
    let world = start(folder.path(), fresh, 1);
    let (mut worker, mut replica) = world.worker();
    let first = committed(worker.write(create("TODO", "b", "{}"), &mut replica));
    assert!(first > 7, "{first}");
    assert!(replica.changes.iter().all(|change| change.kind != ChangeKind::Truncate));
    world.stop();
}

#[test]
fn numbers_of_what_is_forgotten_are_reserved_so_that_the_next_store_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), board, 1);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("TODO", "a", "{}"), &mut replica));
    world.stop();
    start(folder.path(), board, 2).stop();
    assert_eq!(board.durable(), 2, "the documents in memory were forgotten");
    wait_until_closed(folder.path());
    open_engine(folder.path(), 1 << 20, Published::on(board)).unwrap();
}

#[test]
fn an_older_engine_is_found_out_also_when_numbers_beyond_it_are_reserved() {
    let (folder, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), board, 1);
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("NOTE", "a", "{}"), &mut replica));
    committed(worker.write(create("TODO", "b", "{}"), &mut replica));
    world.stop();
    wait_until_closed(folder.path());
    copy_folder(folder.path(), older.path());
    let world = start(folder.path(), board, 2);
    let (mut worker, mut replica) = world.worker();
    assert_eq!(committed(worker.write(create("TODO", "c", "{}"), &mut replica)), 4);
    world.stop();
    wait_until_closed(folder.path());
    open_engine(folder.path(), 1 << 20, Published::on(board)).unwrap();
    let error = open_engine(older.path(), 1 << 20, Published::on(board)).err().unwrap();
    assert!(matches!(error, StoreError::Behind { found: 2, published: 4, .. }), "{error:?}");
}

#[test]
fn whoever_has_heard_of_documents_in_memory_hears_from_the_next_host_that_they_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let world = start(folder.path(), Board::create().unwrap().0, 1);
    let (mut worker, mut replica) = world.worker();
    let heard = committed(worker.write(create("NOTE", "a", "{}"), &mut replica));
    world.stop();
    let world = start(folder.path(), Board::create().unwrap().0, 1);
    let (mut worker, _) = world.worker();
    worker.send(&ToStore::Changes { request: 7, after: heard, limit: 5 });
    let FromStore::ChangesRead { request: 7, changes, .. } = worker.receive() else { panic!("no changes") };
    let told: Vec<_> = changes.iter().map(|change| (change.model.as_str(), &change.kind)).collect();
    assert_eq!(told, [("NOTE", &ChangeKind::Truncate)]);
    world.stop();
}

#[test]
fn a_group_that_reached_the_disk_but_was_not_published_counts() {
    let folder = tempfile::tempdir().unwrap();
    let engine = options(folder.path()).open().unwrap().engine;
    let kind =
        ChangeKind::Put { id: "a".into(), revision: 1, body: Bytes::from_static(b"{}"), changes: None };
    let change = Change { sequence: 1, model: "TODO".into(), kind, time_ms: 1 };
    engine.apply(&Batch { changes: vec![&change], ..Batch::default() }).unwrap();
    drop(engine);
    let (board, _) = Board::create().unwrap();
    let world = start(folder.path(), board, 1);
    assert_eq!(board.durable(), 1);
    let (_, copy) = world.worker();
    assert_eq!(copy.documents.len(), 1);
    world.stop();
}

#[test]
fn two_stores_do_not_open_one_folder_and_a_newer_format_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = options(folder.path()).open().unwrap().engine;
    let error = options(folder.path()).open().err().unwrap();
    assert_eq!(error.exit_code(), EXIT_TRANSIENT, "{error}");
    engine.pretend_format(3);
    drop(engine);
    let error = options(folder.path()).open().err().unwrap();
    assert_eq!(error.exit_code(), EXIT_CONFIGURATION);
    let text = error.to_string().replace(&folder.path().display().to_string(), "/data/store");
    insta::assert_snapshot!(text, @"/data/store/engine has format 3, but this version of aegis reads formats up to 2: start the version that wrote it, or a later one");
}

#[test]
fn an_older_format_is_read_and_becomes_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let ends = fill(folder.path(), &[3]);
    options(folder.path()).open().unwrap().engine.pretend_format(1);
    let engine = options(folder.path()).open().unwrap().engine;
    assert_eq!((engine.last(), engine.format()), (ends[0], Some(FORMAT)));
    engine.pretend_format(0);
    drop(engine);
    let error = options(folder.path()).open().err().unwrap().to_string();
    assert!(error.contains("its format number: found"), "{error}");
}

#[test]
fn a_half_made_engine_is_made_again_and_a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mark, journal) = (folder.path().join("engine.new"), folder.path().join("engine/0.jnl"));
    // As earlier versions left it when they were killed, and as this one does before its first group.
    std::fs::create_dir_all(mark.join("keyspaces")).unwrap();
    drop(options(folder.path()).open().unwrap());
    assert!(!mark.exists());
    std::fs::write(&mark, "").unwrap();
    std::fs::write(&journal, [0; 100]).unwrap();
    std::fs::remove_file(folder.path().join("engine/version")).unwrap();
    assert!(!options(folder.path()).exists().unwrap());
    drop(options(folder.path()).open().unwrap());
    assert!(!mark.exists());
    let reserved = std::fs::metadata(&journal).unwrap().len();
    assert_eq!(reserved, 64 << 20, "a new engine writes into the space that it reserved");
    for file in ["engine/version", "engine/keyspaces/3/current", "engine/keyspaces/0/current"] {
        let path = folder.path().join(file);
        let aside = folder.path().join("aside");
        std::fs::rename(&path, &aside).unwrap();
        let error = options(folder.path()).open().err().unwrap();
        assert_eq!(error.exit_code(), EXIT_CONFIGURATION);
        assert_eq!(error.to_string(), format!("{} is damaged: the file is gone", path.display()));
        std::fs::rename(&aside, &path).unwrap();
    }
    drop(options(folder.path()).open().unwrap());
}

#[test]
fn an_engine_with_groups_in_it_is_never_taken_for_a_half_made_one() {
    let folder = tempfile::tempdir().unwrap();
    let ends = fill(folder.path(), &[2, 3]);
    std::fs::write(folder.path().join("engine.new"), "").unwrap();
    assert!(options(folder.path()).exists().unwrap());
    assert_eq!(options(folder.path()).open().unwrap().engine.last(), ends[1]);
    assert!(!folder.path().join("engine.new").exists());
}

/// Commits groups of 1 to 4 documents; returns the last number of each.
fn fill(folder: &Path, sizes: &[usize]) -> Vec<u64> {
    let engine = options(folder).open().unwrap().engine;
    let (mut sequence, mut ends) = (0, Vec::new());
    for (group, size) in sizes.iter().enumerate() {
        let changes: Vec<Change> = (0..*size)
            .map(|number| {
                sequence += 1;
                let body = Bytes::from(format!(
                    "{{\"group\":{group},\"fill\":\"{}\"}}",
                    "x".repeat(sequence as usize * 37 % 6000)
                ));
                let kind = ChangeKind::Put { id: format!("{number}"), revision: 1, body, changes: None };
                Change { sequence, model: "TODO".into(), kind, time_ms: 1 }
            })
            .collect();
        engine.apply(&Batch { changes: changes.iter().collect(), ..Batch::default() }).unwrap();
        ends.push(sequence);
    }
    ends
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// How the end of the newest journal file is spoilt.
#[derive(Debug, Clone)]
enum Damage {
    Cut,
    Zeros,
    Garbage(u8),
    Hole(usize),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_torn_journal_leaves_whole_groups_from_the_beginning(
        sizes in prop::collection::vec(1_usize..5, 1..10),
        cut in any::<prop::sample::Index>(),
        damage in prop_oneof![
            Just(Damage::Cut),
            Just(Damage::Zeros),
            (1_u8..255).prop_map(Damage::Garbage),
            (1_usize..600).prop_map(Damage::Hole),
        ],
    ) {
        let whole = tempfile::tempdir().unwrap();
        let ends = fill(whole.path(), &sizes);
        let folder = tempfile::tempdir().unwrap();
        copy_folder(whole.path(), folder.path());
        let journal = folder.path().join("engine/0.jnl");
        let mut bytes = std::fs::read(&journal).unwrap();
        // Without most of the space that is reserved behind the groups: it only takes time.
        let kept = bytes.chunks(4096).position(|piece| *piece == [0; 4096]).unwrap() + 1;
        bytes.truncate(kept * 4096);
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let last_group = written - written / sizes.len();
        let at = match damage {
            // A hole in the middle is damage, which another test looks at: only the last group can have one.
            Damage::Hole(_) => last_group + cut.index(written - last_group),
            _ => cut.index(written + 1),
        };
        match damage {
            Damage::Cut => bytes.truncate(at),
            Damage::Zeros => bytes[at..].fill(0),
            Damage::Garbage(byte) => bytes[at..].fill(byte),
            Damage::Hole(length) => { let end = (at + length).min(written); bytes[at..end].fill(0) }
        }
        std::fs::write(&journal, &bytes).unwrap();
        let opened = match options(folder.path()).open() {
            Ok(opened) => opened,
            Err(error) => {
                // The first group of all says which format the rows have; without it nothing is certain.
                prop_assert_eq!(error.exit_code(), EXIT_CONFIGURATION);
                let told = error.to_string();
                prop_assert!(told.contains("its format number") || matches!(damage, Damage::Hole(_)), "{}", told);
                return Ok(());
            }
        };
        let engine = opened.engine;
        let last = engine.last();
        prop_assert!(last == 0 || ends.contains(&last), "{last} of {ends:?}");
        let budget = LogBudget { changes_max: 1000, bytes_max: usize::MAX };
        let log = engine.log(0, last, budget).unwrap().changes;
        prop_assert_eq!(log.len() as u64, last);
        for id in 0..4 {
            let id = id.to_string();
            let newest = log.iter().rev().find(|change| matches!(&change.kind, ChangeKind::Put { id: other, .. } if *other == id));
            let found = engine.document("TODO", &id).unwrap().map(|stored| stored.sequence);
            prop_assert_eq!(found, newest.map(|change| change.sequence), "documents are the log");
        }
        if matches!(damage, Damage::Cut | Damage::Zeros) && at >= written {
            prop_assert_eq!(last, ends[ends.len() - 1], "nothing was lost that was there");
        }
        // What is recovered stays, and can be written on.
        let kind = ChangeKind::Put { id: "new".into(), revision: 1, body: Bytes::from_static(b"{}"), changes: None };
        let change = Change { sequence: last + 1, model: "TODO".into(), kind, time_ms: 1 };
        engine.apply(&Batch { changes: vec![&change], ..Batch::default() }).unwrap();
        drop(engine);
        let engine = options(folder.path()).open().unwrap().engine;
        prop_assert_eq!(engine.last(), last + 1);
    }
}
