//! A version that is tried beside the one in force, and is taken back when it faults.

use aegis_ipc::{
    deploy::{Order, Supply, TrialStep},
    operator::Verdict,
};

use super::{Script, an_order, offer, proven};
use crate::fleet::{
    Calls, Event, Exit, Request, TrialReading,
    tests::world::{Adopts, App, Probe, World},
};

/// Time in which a bad version has to be gone, from the first sign of it.
const GONE_WITHIN_MS: u64 = 1_000;

fn step(trial: TrialStep, supply: Supply) -> Request {
    Request::Deploy(Order { supply, trial: Some(trial), ..an_order("order") })
}

fn source() -> Supply {
    Supply::Source("https://a.example/order/".to_owned())
}

/// A host that tries another version of the module `order`.
fn trying() -> World<Script> {
    let mut world = proven(2);
    offer(&mut world, App::new("tried", 2));
    let asker = world.ask(step(TrialStep::Share(10), source()));
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.story();
    read(&mut world, (0, 0), (0, 0));
    world
}

fn read(world: &mut World<Script>, current: (u64, u64), trial: (u64, u64)) {
    let calls = |(calls, faults)| Calls { calls, faults };
    let (module, digest) = ("order".to_owned(), "ab".repeat(32));
    let reading = TrialReading { module, digest, current: calls(current), trial: calls(trial) };
    world.report(Event::Trials(vec![reading]));
}

fn last(world: &World<Script>) -> (u64, Option<Verdict>) {
    let ended = world.fleet.jobs.last().unwrap();
    (ended.job.generation, ended.job.verdict.clone())
}

#[test]
fn a_version_that_faults_is_taken_back_at_once_by_the_workers_that_run() {
    let mut world = trying();
    offer(&mut world, App::new("first again", 2));
    read(&mut world, (90, 0), (10, 5));
    world.run(GONE_WITHIN_MS);
    let reason = "50.0 % of 10 calls of the version on trial were faults, of the one in force 0.0 % of 90";
    assert_eq!(last(&world), (3, Some(Verdict::RolledBack { reason: reason.to_owned() })));
    assert_eq!(world.fleet.in_force, 3);
    let summary = world.fleet.summary(world.now_ms);
    assert!(summary.contains("last deploy rolled back"), "{summary}");
    let story = world.story();
    let order = "trial: Some(Abort { reason: Some(\"50.0 % of 10 calls";
    assert!(
        story.contains(order) && story.contains(&format!("sha256: Some(\"{}\")", "ab".repeat(32))),
        "{story}"
    );
    assert!(!story.contains("Worker"), "no worker is started: {story}");
    assert!(story.contains("Error: deploy (job 3): rolled back: 50.0 %"), "{story}");
    world.report(Event::Trials(Vec::new()));
    world.check_converged();
}

#[test]
fn one_that_faults_while_the_first_worker_tries_it_does_not_come_into_force() {
    let mut world = proven(2);
    offer(&mut world, App::new("tried", 2));
    let asker = world.ask(step(TrialStep::Share(10), source()));
    world.run(500);
    assert_eq!((world.fleet.in_force, world.fleet.generation_of_trials()), (1, 2));
    read(&mut world, (0, 0), (0, 0));
    read(&mut world, (90, 0), (10, 5));
    world.run(GONE_WITHIN_MS);
    let reason = "50.0 % of 10 calls of the version on trial were faults, of the one in force 0.0 % of 90";
    assert_eq!(world.verdict(asker), Some(&Verdict::RolledBack { reason: reason.to_owned() }));
    assert_eq!((world.fleet.in_force, world.fleet.generation_of_trials()), (1, 1));
    world.report(Event::Trials(Vec::new()));
    world.check_converged();
}

#[test]
fn one_that_does_as_well_as_the_other_goes_on() {
    let mut world = trying();
    for round in 1..100 {
        read(&mut world, (round * 90, round * 30), (round * 10, round * 3));
        world.run(500);
    }
    assert_eq!(world.fleet.in_force, 2);
    assert!(!world.story().contains("Instruct"));
}

#[test]
fn it_is_taken_back_before_others_deploy_and_once() {
    let mut world = trying();
    world.fate.probes.push_back(Probe::Hangs);
    let running = world.ask(Request::Deploy(an_order("customer")));
    let waiting = world.ask(Request::Deploy(an_order("stock")));
    offer(&mut world, App::new("first again", 2));
    offer(&mut world, App::new("stock", 2));
    for round in 1..5 {
        read(&mut world, (round * 90, 0), (round * 10, round * 5));
        world.run(100);
    }
    world.run_until("all are answered", |world| world.checks.unanswered().is_empty());
    assert!(matches!(world.verdict(running), Some(Verdict::Rejected { .. })));
    assert_eq!(world.verdict(waiting), Some(&Verdict::Done));
    let story = world.story();
    assert_eq!(story.matches("Instruct { child").count(), 3, "{story}");
    assert!(story.find("trial: Some(Abort") < story.rfind("module: \"stock\""), "{story}");
}

#[test]
fn what_cannot_be_taken_back_is_tried_again_a_while_later() {
    let mut world = trying();
    world.fate.probes.push_back(Probe::Dies(Exit::Signal(9)));
    read(&mut world, (90, 0), (10, 5));
    world.run(GONE_WITHIN_MS);
    assert!(matches!(last(&world), (_, Some(Verdict::Rejected { .. }))), "{:?}", last(&world));
    offer(&mut world, App::new("first again", 2));
    for round in 2..12 {
        read(&mut world, (round * 90, 0), (round * 10, round * 5));
        world.run(500);
    }
    assert!(matches!(last(&world), (_, Some(Verdict::RolledBack { .. }))), "{:?}", last(&world));
}

#[test]
fn a_share_that_changes_needs_no_judgement_and_a_version_that_is_promoted_does() {
    let mut world = trying();
    let soak_ms = 2_000;
    offer(&mut world, App::new("half", 2));
    let shared = world.ask(step(TrialStep::Share(50), Supply::App));
    world.run(GONE_WITHIN_MS);
    assert_eq!(world.verdict(shared), Some(&Verdict::Done));
    offer(&mut world, App::new("promoted", 2));
    world.fate.adopts.push_back(Adopts::After(8));
    let promoted = world.ask(step(TrialStep::Promote, Supply::App));
    world.run(soak_ms);
    assert_eq!(world.verdict(promoted), None);
    world.run(soak_ms);
    assert_eq!(world.verdict(promoted), Some(&Verdict::Done));
}
