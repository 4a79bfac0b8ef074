//! Reloads inside the workers that run.

use aegis_config::ReloadMode;
use aegis_ipc::operator::Verdict;

use super::{Script, offer, proven};
use crate::fleet::{
    ChildId, Exit, Origin, Request,
    tests::world::{Adopts, App, Manner, World},
};

fn workers(world: &World<Script>) -> Vec<(ChildId, u64)> {
    let workers = world.processes.iter().filter(|(_, process)| process.is_worker());
    workers.map(|(child, process)| (*child, process.spawn.generation)).collect()
}

fn children(world: &World<Script>) -> Vec<ChildId> {
    workers(world).into_iter().map(|(child, _)| child).collect()
}

#[test]
fn swap_that_works() {
    let mut world = proven(3);
    let before = children(&world);
    offer(&mut world, App::new("second", 3).swapped());
    let asker = world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story());
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    assert_eq!(children(&world), before, "nobody was replaced");
    world.check_converged();
}

#[test]
fn swap_of_what_fails_its_clients_is_taken_back() {
    let mut world = proven(2);
    let before = children(&world);
    offer(&mut world, App::new("second", 2).swapped().manner(Manner::Errs(90)));
    let asker = world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story());
    assert_eq!(world.verdict(asker).map(Verdict::exit_code), Some(4));
    assert_eq!(children(&world), before, "nobody was replaced");
    world.check_converged();
}

#[test]
fn what_cannot_be_swapped_is_rolled_out_by_new_workers() {
    let mut world = proven(2);
    world.fate.adopts.push_back(Adopts::Not);
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story());
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn whoever_does_not_answer_is_replaced_by_one_of_the_right_generation() {
    let mut world = proven(3);
    let before = children(&world);
    world.fate.adopts.extend([Adopts::After(8), Adopts::Silently, Adopts::Dying(Exit::Signal(11))]);
    offer(&mut world, App::new("second", 3).swapped());
    let asker = world.reload();
    world.run(40_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    assert_eq!(children(&world).iter().filter(|child| before.contains(child)).count(), 1);
    world.check_converged();
}

#[test]
fn the_death_of_a_canary_that_takes_over_is_the_fault_of_what_it_takes_over() {
    let mut world = proven(2);
    world.fate.adopts.push_back(Adopts::Dying(Exit::Signal(11)));
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run(10_000);
    assert_eq!(world.verdict(asker).map(Verdict::exit_code), Some(4));
    assert!(workers(&world).iter().all(|(_, generation)| *generation == 1));
    world.check_converged();
}

#[test]
fn a_request_goes_before_the_configuration() {
    let ask = |configured: fn(App) -> App, mode: ReloadMode| {
        let mut world = proven(2);
        let before = children(&world);
        offer(&mut world, configured(App::new("second", 2)));
        let asker = world.ask(Request::Reload { origin: Origin::Operator, mode: Some(mode) });
        world.run(10_000);
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
        world.check_converged();
        children(&world) == before
    };
    assert!(ask(|app| app, ReloadMode::Swap));
    assert!(!ask(App::swapped, ReloadMode::Rolling));
}

#[test]
fn an_answer_that_comes_after_all_is_believed() {
    let mut world = proven(2);
    world.fate.adopts.push_back(Adopts::After(15_000));
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run(60_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn a_worker_that_starts_during_a_swap_starts_with_what_its_slot_should_serve() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run_until("the canary is tried", |world| {
        workers(world).iter().any(|(_, generation)| *generation == 2)
    });
    let other =
        workers(&world).iter().find(|(_, generation)| *generation == 1).map(|(child, _)| *child).unwrap();
    world.die(other, Exit::Signal(9));
    world.run(200);
    assert_eq!(workers(&world).iter().map(|(_, generation)| *generation).max(), Some(2));
    world.run(20_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn a_swap_that_would_lose_state_is_rejected_and_nobody_is_replaced() {
    let mut world = proven(2);
    let before = children(&world);
    world.fate.adopts.push_back(Adopts::LosesState);
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story());
    assert_eq!(world.verdict(asker).map(Verdict::exit_code), Some(3));
    assert_eq!(children(&world), before);
    assert!(workers(&world).iter().all(|(_, generation)| *generation == 1));
    world.check_converged();
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done), "another attempt may be luckier");
    assert_eq!(children(&world), before);
    world.check_converged();
}

#[test]
fn a_later_worker_that_would_lose_state_takes_the_swap_back() {
    let mut world = proven(3);
    let before = children(&world);
    world.fate.adopts.extend([Adopts::After(8), Adopts::LosesState]);
    offer(&mut world, App::new("second", 3).swapped());
    let asker = world.reload();
    world.run(10_000);
    let Some(Verdict::RolledBack { reason }) = world.verdict(asker) else {
        panic!("found {:?}", world.verdict(asker));
    };
    assert!(reason.contains("to go on without it: `aegis reload --mode rolling`"), "{reason}");
    assert_eq!(children(&world), before);
    assert!(workers(&world).iter().all(|(_, generation)| *generation == 1));
    world.check_converged();
}

#[test]
fn the_way_back_is_gone_without_state_if_need_be() {
    let mut world = proven(2);
    let before = children(&world);
    world.fate.adopts.extend([Adopts::After(8), Adopts::LosesState, Adopts::LosesState]);
    offer(&mut world, App::new("second", 2).swapped());
    let asker = world.reload();
    world.run(30_000);
    assert_eq!(world.verdict(asker).map(Verdict::exit_code), Some(4));
    assert!(workers(&world).iter().all(|(_, generation)| *generation == 1));
    assert_eq!(children(&world).iter().filter(|child| before.contains(child)).count(), 1);
    world.check_converged();
}

#[test]
fn state_is_not_spared_where_new_workers_are_asked_for_by_name() {
    let mut world = proven(2);
    let before = children(&world);
    world.fate.adopts.push_back(Adopts::LosesState);
    offer(&mut world, App::new("second", 2).swapped());
    let rolling = Some(ReloadMode::Rolling);
    let asker = world.ask(Request::Reload { origin: Origin::Operator, mode: rolling });
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    assert!(children(&world).iter().all(|child| !before.contains(child)));
    world.check_converged();
}
