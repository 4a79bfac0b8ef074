//! When the service manager hears that the host is well.

use super::{
    super::{Exit, Request},
    stories::{Script, offer, proven},
    world::{App, Manner, World},
};

/// Time to become ready in these tests, milliseconds, and the time that all who are new have together.
const READY_MS: u64 = 10_000;
const PATIENCE_MS: u64 = 2 * READY_MS;

/// Lets time pass; whether enough served all the while.
fn stays_well(world: &mut World<Script>, for_ms: u64) -> bool {
    (0..for_ms / 100).all(|_| {
        world.run(100);
        world.fleet.has_quorum(world.now_ms)
    })
}

fn slow(world: &mut World<Script>, count: usize) {
    world.fate.workers = vec![Manner::Slow(READY_MS - 1_000); count].into();
}

fn everybody_dies(world: &mut World<Script>) {
    for child in world.serving() {
        world.die(child, Exit::Signal(11));
    }
}

#[test]
fn workers_that_are_asked_for_have_time_to_start() {
    let mut world = proven(2);
    slow(&mut world, 40);
    world.scale(40);
    assert!(stays_well(&mut world, PATIENCE_MS + READY_MS), "two of two serve all the while");
    slow(&mut world, 40);
    world.scale(12);
    world.run(1_000);
    everybody_dies(&mut world);
    assert!(!world.fleet.has_quorum(world.now_ms), "none of two");
}

#[test]
fn all_count_as_soon_as_all_have_come() {
    let mut world = proven(2);
    world.scale(12);
    assert!(stays_well(&mut world, 1_000));
    for child in world.serving().into_iter().take(8) {
        world.die(child, Exit::Signal(11));
    }
    assert!(!world.fleet.has_quorum(world.now_ms), "four of twelve");
}

#[test]
fn a_generation_with_more_workers_has_time_to_start_them() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 12));
    world.reload();
    world.run(100);
    slow(&mut world, 12);
    assert!(stays_well(&mut world, 30_000));
    assert_eq!(world.serving().len(), 12);
}

#[test]
fn workers_that_come_back_after_a_drain_have_time_to_start() {
    let mut world = proven(4);
    world.ask(Request::Drain);
    assert!(stays_well(&mut world, 1_000));
    slow(&mut world, 4);
    world.scale(5);
    assert!(stays_well(&mut world, READY_MS));
    world.ask(Request::Drain);
    world.run(1_000);
    world.fate.workers = vec![Manner::NeverReady; 20].into();
    world.scale(4);
    assert!(stays_well(&mut world, PATIENCE_MS - 1_000));
    world.run(2_000);
    assert!(!world.fleet.has_quorum(world.now_ms), "nobody has come");
}
