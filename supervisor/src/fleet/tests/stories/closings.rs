//! Old workers accept once more after they were told to drain; nobody is told that a change is done before.

use aegis_ipc::operator::Verdict;

use super::{Script, offer, proven};
use crate::fleet::{
    Asker, Request,
    closing::CLOSING_MS,
    tests::world::{App, Closing, Manner, Parting, World},
};

/// Nobody leaves before this.
const STAY_MS: u64 = 4_000;

/// A host of two workers that finish what they have for a while, and say what is given of whether they accept.
fn leisurely(closings: [Closing; 2]) -> World<Script> {
    let mut world = proven(2);
    world.fate.partings = [Parting::After(STAY_MS), Parting::After(STAY_MS)].into();
    world.fate.closings = closings.into();
    world
}

/// When this was answered, milliseconds after the last worker was told to drain.
fn answered_after(world: &mut World<Script>, asker: Asker) -> u64 {
    world.run_until("the answer", |world| world.verdict(asker).is_some());
    let left = world.processes.values().filter(|process| process.is_leaving).map(|process| process.left_ms);
    world.now_ms - left.max().expect("the old workers finish what they have")
}

#[test]
fn a_reload_is_done_when_the_last_old_worker_accepts_no_more() {
    let mut world = leisurely([Closing::After(5), Closing::After(300)]);
    offer(&mut world, App::new("second", 2));
    let asker = world.reload();
    world.run_until("the new generation to be in force", |world| world.fleet.in_force == 2);
    world.story();
    world.run(STAY_MS);
    insta::assert_snapshot!(world.story(), @r"
    23326 #4 accepts no more
            to 1: Done
            Notify(Ready)
    27016 #3 exited with 0
    27026 #4 exited with 0
    ");
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn an_old_worker_that_does_not_say_so_is_waited_for_only_so_long() {
    let mut world = leisurely([Closing::Unsaid, Closing::Unsaid]);
    offer(&mut world, App::new("second", 2));
    let asker = world.reload();
    assert_eq!(answered_after(&mut world, asker), CLOSING_MS);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.run(STAY_MS);
    world.check_converged();
}

#[test]
fn an_old_worker_that_is_gone_is_not_waited_for() {
    let mut world = leisurely([Closing::Unsaid, Closing::Unsaid]);
    world.fate.partings = [Parting::After(70), Parting::After(80)].into();
    offer(&mut world, App::new("second", 2));
    let asker = world.reload();
    world.run_until("the new generation to be in force", |world| world.fleet.in_force == 2);
    world.run(79);
    assert_eq!(world.verdict(asker), None);
    world.run(1);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
}

#[test]
fn an_old_worker_that_hangs_holds_nobody_up_for_longer() {
    let mut world = leisurely([Closing::After(1), Closing::After(1)]);
    let hung = *world.processes.iter().rfind(|(_, process)| process.is_worker()).unwrap().0;
    offer(&mut world, App::new("second", 2));
    let asker = world.reload();
    world.run_until("the canary to serve", |world| world.serving().len() == 3);
    world.run(1_500);
    world.hang(hung);
    assert_eq!(answered_after(&mut world, asker), CLOSING_MS);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
}

#[test]
fn a_rollback_is_told_when_the_canary_accepts_no_more() {
    let mut world = leisurely([Closing::After(400), Closing::After(1)]);
    offer(&mut world, App::new("second", 2).manner(Manner::Errs(10)));
    let asker = world.reload();
    assert_eq!(answered_after(&mut world, asker), 400);
    assert!(matches!(world.verdict(asker), Some(Verdict::RolledBack { .. })));
    world.run(STAY_MS);
    world.check_converged();
}

#[test]
fn a_restart_and_fewer_workers_are_done_when_those_that_go_accept_no_more() {
    let mut world = leisurely([Closing::After(5), Closing::After(600)]);
    let asker = world.ask(Request::Restart { slot: None });
    assert_eq!(answered_after(&mut world, asker), 600);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.fate.partings = [Parting::After(STAY_MS)].into();
    world.fate.closings = [Closing::After(700)].into();
    let asker = world.scale(1);
    assert_eq!(answered_after(&mut world, asker), 700);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
}

#[test]
fn an_upgrade_from_a_version_that_says_nothing_is_done_all_the_same() {
    let mut world = leisurely([Closing::Unsaid, Closing::Unsaid]);
    let asker = world.ask(Request::Upgrade { path: None });
    world.run_until("the answer", |world| world.verdict(asker).is_some());
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.run(STAY_MS);
    world.check_converged();
}
