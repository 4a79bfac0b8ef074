//! What workers are sent: copies, the live feed, the log; and what they may send that makes no sense.

use std::io::Write as _;

use aegis_ipc::{
    board::StoreWord,
    data::{Attach, ChangeKind, Expect, FromStore, Operation, ToStore, Version},
    frame,
};
use proptest::prelude::*;

use super::{
    gated::{Gate, GatedEngine},
    world::{PATIENCE, Replica, World, committed},
};
use crate::{
    catalog::Settings,
    engine::{fjall::Options, memory::MemoryEngine},
    testing::{create, settings, write},
};

fn memory() -> Box<MemoryEngine> {
    Box::new(MemoryEngine::new())
}

#[test]
fn a_worker_gets_a_copy_and_then_every_change_before_the_answer() {
    let world = World::start(memory());
    let (mut first, mut replica) = world.worker();
    assert_eq!((replica.received, replica.documents.len()), (0, 0));
    assert_eq!(committed(first.write(create("TODO", "a", "{\"x\":1}"), &mut replica)), 1);
    assert_eq!(committed(first.write(create("NOTE", "b", "{}"), &mut replica)), 2);
    assert_eq!(replica.ids(), ["a", "b"]);
    assert_eq!(world.board.durable(), 2);
    let (mut second, mut copy) = world.worker();
    copy.documents.sort_by(|left, right| left.id.cmp(&right.id));
    let found: Vec<_> =
        copy.documents.iter().map(|stored| (&stored.model[..], &stored.id[..], stored.sequence)).collect();
    assert_eq!(found, [("TODO", "a", 1), ("NOTE", "b", 2)]);
    assert_eq!(&copy.documents[0].body[..], b"{\"x\":1}");
    committed(first.write(create("TODO", "c", "{}"), &mut replica));
    second.follow(3, &mut copy);
    assert_eq!(copy.ids(), ["c"]);
    assert_eq!(world.board.store(StoreWord::Snapshots).load(std::sync::atomic::Ordering::Relaxed), 2);
    world.stop();
}

#[test]
fn the_feed_is_sent_while_the_group_is_synced_and_the_answer_after_it_is_published() {
    let gate = Gate::new();
    let world = World::start(Box::new(GatedEngine { gate: gate.clone(), engine: MemoryEngine::new() }));
    let (mut worker, mut replica) = world.worker();
    gate.close();
    let asked = worker.ask(write(0, create("TODO", "a", "{}")));
    worker.follow(1, &mut replica);
    gate.wait_for_commit();
    assert_eq!(world.board.durable(), 0, "what is fed is not durable yet");
    gate.open();
    let FromStore::Written { request, .. } = worker.receive() else { panic!("no answer") };
    assert_eq!((request, world.board.durable()), (asked, 1));
    world.stop();
}

#[test]
fn a_worker_that_attaches_during_a_sync_is_sent_the_group_once_it_is_durable() {
    let gate = Gate::new();
    let world = World::start(Box::new(GatedEngine { gate: gate.clone(), engine: MemoryEngine::new() }));
    let (mut first, mut replica) = world.worker();
    gate.close();
    first.ask(write(0, create("TODO", "a", "{}")));
    gate.wait_for_commit();
    let mut second = world.connect();
    second.attach(None);
    let mut copy = second.receive_copy();
    assert_eq!(
        (copy.received, copy.documents.len()),
        (0, 0),
        "the copy does not wait for the sync and shows nothing of it"
    );
    let mut third = world.connect();
    third.attach(Some(0));
    gate.open();
    second.follow(1, &mut copy);
    third.follow(1, &mut Replica::default());
    first.follow(1, &mut replica);
    world.stop();
}

#[test]
fn a_worker_that_does_not_read_delays_nobody_and_is_sent_the_log() {
    let mut bounds = settings();
    bounds.store.feed_bytes_max = 64 * 1024;
    let world = World::with(memory(), bounds);
    let (mut slow, mut late) = world.worker();
    let (mut quick, mut replica) = world.worker();
    // More than the kernel keeps for a socket and the bound together.
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(8 * 1024));
    let count = 400;
    for number in 0..count {
        committed(quick.write(create("TODO", &format!("a{number}"), &text), &mut replica));
    }
    slow.follow(count, &mut late);
    assert_eq!(late.ids(), replica.ids());
    committed(quick.write(create("TODO", "last", "{}"), &mut replica));
    slow.follow(count + 1, &mut late);
    world.stop();
}

#[test]
fn a_worker_that_comes_back_is_sent_what_it_lacks_and_one_that_was_away_too_long_a_copy() {
    let mut bounds: Settings = settings();
    bounds.store.log_changes_min = 10;
    let world = World::with(memory(), bounds);
    let (mut writer, mut replica) = world.worker();
    for number in 0..60 {
        committed(writer.write(create("TODO", &format!("a{number}"), "{}"), &mut replica));
    }
    world.wait_until(|world| world.shared.storage.log_oldest() > 50, "old changes are removed");
    let mut back = world.connect();
    back.attach(Some(55));
    let mut rest = Replica { received: 55, ..Replica::default() };
    back.follow(60, &mut rest);
    assert_eq!(rest.ids(), ["a55", "a56", "a57", "a58", "a59"]);
    for applied in [3, 61] {
        let mut stranger = world.connect();
        stranger.attach(Some(applied));
        assert_eq!(stranger.receive_copy().documents.len(), 60, "a copy for one that says it has {applied}");
    }
    world.stop();
}

#[test]
fn after_a_resync_everything_comes_again_from_there() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    for number in 0..20 {
        committed(worker.write(create("NOTE", &format!("a{number}"), "{}"), &mut replica));
    }
    worker.send(&ToStore::Resync { applied: 5 });
    let mut again = Replica { received: 5, ..Replica::default() };
    worker.follow(20, &mut again);
    assert_eq!(again.ids(), &replica.ids()[5..]);
    committed(worker.write(create("NOTE", "more", "{}"), &mut again));
    world.stop();
}

#[test]
fn exact_versions_and_the_log_can_be_read() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    for (model, id, text) in [("TODO", "a", "{\"n\":1}"), ("NOTE", "b", "{\"n\":2}")] {
        committed(worker.write(create(model, id, text), &mut replica));
    }
    let version = |model: &str, id: &str, sequence| Version { model: model.into(), id: id.into(), sequence };
    let versions = vec![
        version("TODO", "a", 1),
        version("NOTE", "b", 2),
        version("TODO", "a", 2),
        version("TODO", "b", 2),
    ];
    worker.send(&ToStore::Fetch { request: 9, versions });
    let FromStore::Fetched { request: 9, bodies } = worker.receive() else { panic!("no bodies") };
    let bodies: Vec<_> = bodies.iter().map(|body| body.as_deref()).collect();
    assert_eq!(bodies, [Some(&b"{\"n\":1}"[..]), Some(b"{\"n\":2}"), None, None]);
    worker.send(&ToStore::Changes { request: 10, after: 1, limit: 5 });
    let FromStore::ChangesRead { request: 10, oldest: 1, memory_oldest: 1, durable: 2, changes } =
        worker.receive()
    else {
        panic!("no changes")
    };
    assert_eq!(changes, replica.changes[1..]);
    world.stop();
}

#[test]
fn a_worker_of_before_is_fed_and_answered_in_the_plain_form_beside_one_that_is_not() {
    let world = World::start(memory());
    let mut older = world.connect();
    older.brief = false;
    older.attach(None);
    let mut older_replica = older.receive_copy();
    let (mut newer, mut newer_replica) = world.worker();
    committed(older.write(create("TODO", "a", "{\"x\":1}"), &mut older_replica));
    committed(newer.write(create("TODO", "b", "{\"x\":2}"), &mut newer_replica));
    older.follow(2, &mut older_replica);
    assert_eq!(older_replica.changes.len(), 2);
    assert_eq!(older_replica.changes, newer_replica.changes);
    world.stop();
}

#[test]
fn during_an_upgrade_workers_of_the_next_protocol_are_served() {
    let world = World::start(Box::new(MemoryEngine::new()));
    let mut worker = world.connect();
    worker.send(&ToStore::Attach(Attach {
        protocol: aegis_ipc::PROTOCOL_VERSION + 1,
        incarnation: 1,
        cell: 1,
        generation: 1,
        applied: None,
        brief: true,
    }));
    let answer = worker.receive();
    assert!(matches!(answer, FromStore::Attached { .. }), "{answer:?}");
    drop(worker);
    world.stop();
}

#[test]
fn workers_of_another_protocol_are_refused_with_a_reason() {
    let world = World::start(memory());
    let mut worker = world.connect();
    worker.send(&ToStore::Attach(Attach {
        protocol: 99,
        incarnation: 1,
        cell: 1,
        generation: 1,
        applied: None,
        brief: true,
    }));
    let FromStore::AttachRefused { reason } = worker.receive() else { panic!("not refused") };
    insta::assert_snapshot!(reason, @"found protocol 99, expected 1");
    assert_eq!(worker.next(), None);
    world.stop();
}

#[test]
fn a_store_that_stops_refuses_workers() {
    let world = World::start(memory());
    world.shared.stop();
    let mut worker = world.connect();
    let attach = Attach { protocol: 1, incarnation: 1, cell: 1, generation: 1, applied: None, brief: true };
    worker.send(&ToStore::Attach(attach));
    assert_eq!(worker.receive(), FromStore::AttachRefused { reason: "the store is stopping".into() });
    world.stop();
}

#[test]
fn a_worker_that_breaks_the_protocol_is_cut_off() {
    let world = World::start(memory());
    let mut silent = world.connect();
    silent.send(&ToStore::Resync { applied: 0 });
    assert_eq!(silent.next(), None);
    let (mut twice, _) = world.worker();
    twice.send(&ToStore::Attach(Attach {
        protocol: 1,
        incarnation: 1,
        cell: 1,
        generation: 1,
        applied: None,
        brief: true,
    }));
    assert_eq!(twice.next(), None);
    world.stop();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn garbage_closes_its_connection_and_no_other(
        garbage in prop::collection::vec(any::<u8>(), 1..200),
        framed in any::<bool>(),
        flip in prop::option::of((any::<prop::sample::Index>(), 0_u8..8)),
    ) {
        let world = World::start(memory());
        let (mut honest, mut replica) = world.worker();
        let (mut liar, _) = world.worker();
        let mut bytes = Vec::new();
        if framed {
            frame::write(&garbage, &mut bytes).unwrap();
        } else {
            frame::write_message(&ToStore::Write(write(1, create("TODO", "x", "{}"))), &mut bytes).unwrap();
            match flip {
                Some((at, bit)) => {
                    let at = at.index(bytes.len());
                    bytes[at] ^= 1 << bit;
                }
                None => bytes = [[0xff; 8].to_vec(), garbage].concat(),
            }
        }
        liar.socket.write_all(&bytes).unwrap();
        // A length that became larger makes the store wait for more.
        liar.socket.shutdown(std::net::Shutdown::Write).unwrap();
        liar.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        while liar.next().is_some() {}
        let outcome = honest.write(create("TODO", "y", "{}"), &mut replica);
        prop_assert!(committed(outcome) <= 2);
        world.stop();
    }
}

#[test]
fn what_is_different_is_told_live_and_from_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { folder: folder.path().to_owned(), cache_bytes: 1 << 20 };
    let world = World::start(Box::new(options.open().unwrap().engine));
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("TODO", "a", "{\"x\":1}"), &mut replica));
    let update = Operation {
        expect: Expect::At(1),
        revision: 2,
        changes: Some(crate::testing::body("{\"x\":2}")),
        ..create("TODO", "a", "{\"x\":2,\"y\":3}")
    };
    committed(worker.write(update, &mut replica));
    let body = crate::testing::body("{\"x\":2,\"y\":3}");
    let changes = Some(crate::testing::body("{\"x\":2}"));
    let expected = ChangeKind::Put { id: "a".into(), revision: 2, body, changes };
    assert_eq!(replica.changes[1].kind, expected, "live");
    worker.send(&ToStore::Changes { request: 7, after: 1, limit: 10 });
    let told = std::iter::from_fn(|| worker.next()).find_map(|message| match message {
        FromStore::ChangesRead { changes, .. } => Some(changes),
        _ => None,
    });
    assert_eq!(told.unwrap()[0].kind, expected, "from the log");
    world.stop();
}

#[test]
fn removing_and_truncating_reach_the_workers() {
    let world = World::start(memory());
    let (mut worker, mut replica) = world.worker();
    committed(worker.write(create("TODO", "a", "{}"), &mut replica));
    let remove = Operation { expect: Expect::At(1), body: None, ..create("TODO", "a", "") };
    committed(worker.write(remove, &mut replica));
    assert_eq!(replica.changes[1].kind, ChangeKind::Remove { id: "a".into(), revision: 1 });
    world.stop();
}
