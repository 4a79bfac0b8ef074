//! When it is told that something was put back: not before a restart comes up on it.

use aegis_ipc::operator::{StopMode, Verdict};

use super::{Script, an_order, offer, proven};
use crate::fleet::{
    Asker, Exit, Request,
    tests::world::{App, World},
};

/// A rollback that is in force, and takes so long to be kept.
fn put_back(keeping_ms: u64) -> (World<Script>, Asker) {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.fate.keepings.push_back(keeping_ms);
    let asker = world.ask(Request::Rollback);
    world.run_until("it is in force", |world| world.fleet.in_force == 2);
    (world, asker)
}

#[test]
fn what_was_put_back_is_told_when_it_is_kept() {
    let (mut world, asker) = put_back(60_000);
    world.run(59_000);
    assert_eq!(world.verdict(asker), None);
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn a_deployment_is_told_when_it_is_kept_if_a_restart_is_to_come_up_on_it() {
    let (mut world, _) = put_back(0);
    world.run(10_000);
    offer(&mut world, App::new("third", 1));
    world.fate.keepings.push_back(60_000);
    let pinned = world.ask(Request::Deploy(an_order("customer")));
    world.run(50_000);
    assert_eq!((world.verdict(pinned), world.fleet.in_force), (None, 3));
    world.run(20_000);
    assert_eq!(world.verdict(pinned), Some(&Verdict::Done));

    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.fate.keepings.push_back(60_000);
    let free = world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    assert_eq!(world.verdict(free), Some(&Verdict::Done), "the app folder says the same");
}

#[test]
fn what_was_put_back_is_told_when_it_is_kept_although_all_are_drained_meanwhile() {
    let (mut world, asker) = put_back(20_000);
    let drain = world.ask(Request::Drain);
    world.run(10_000);
    assert_eq!((world.verdict(asker), world.verdict(drain)), (None, Some(&Verdict::Done)));
    world.run(20_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    assert!(world.fleet.summary(world.now_ms).contains("drained on request"));
    world.scale(1);
    world.run(10_000);
    world.check_converged();
}

#[test]
fn a_host_does_not_end_before_what_was_put_back_is_kept() {
    for mode in [StopMode::Graceful, StopMode::Immediate] {
        let (mut world, asker) = put_back(20_000);
        world.stop(mode);
        world.run(15_000);
        assert_eq!((world.verdict(asker), world.exit), (None, None));
        world.run(10_000);
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
        world.check_ended();
    }
}

#[test]
fn what_was_put_back_and_does_not_live_is_gone_back_from_before_it_is_kept() {
    let (mut world, asker) = put_back(60_000);
    while world.verdict(asker).is_none() {
        assert_eq!(world.fleet.in_force, 2);
        world.run(1_000);
        if let Some(child) = world.serving().first() {
            world.die(*child, Exit::Signal(11));
        }
    }
    assert!(matches!(world.verdict(asker), Some(Verdict::RolledBack { .. })));
    world.run(120_000);
    assert_eq!(world.fleet.in_force, 1);
    world.check_converged();
}
