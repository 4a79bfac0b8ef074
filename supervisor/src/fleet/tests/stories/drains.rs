//! What is asked of a host whose workers were all drained.

use aegis_ipc::{deploy::Order, operator::Verdict};

use std::time::Duration;

use super::{Probe, Script, an_order, host, offer, proven};
use crate::fleet::{
    Asker, Event, Exit, Origin, Request,
    tests::world::{App, Bind, Manner, NewImage, StoreSays, World},
};

const STILL: &str = "all workers stay drained, as was asked for before";

fn drained(workers: u32) -> World<Script> {
    let mut world = proven(workers);
    world.ask(Request::Drain);
    world.run(1_000);
    world.story();
    world
}

/// Only the store is there, and nothing was started meanwhile but what makes a generation.
fn assert_drained(world: &mut World<Script>) {
    assert!(world.fleet.summary(world.now_ms).contains("drained on request"));
    assert_eq!(world.processes.len(), 1, "only the store is there");
    assert_eq!(world.bundles.len(), 1, "only the generation in force is held");
    let story = world.story();
    assert!(!story.contains("Worker"), "{story}");
}

fn assert_rejected(world: &World<Script>, asker: Asker) {
    let Some(Verdict::Rejected { reasons } | Verdict::Incompatible { reasons }) = world.verdict(asker) else {
        panic!("{:?}", world.verdict(asker))
    };
    assert_eq!(reasons.last().map(String::as_str), Some(STILL));
}

#[test]
fn what_is_rejected_ends_no_drain() {
    let mut world = drained(2);
    world.fate.probes.push_back(Probe::Invalid);
    let asker = world.reload();
    world.run(10_000);
    assert_rejected(&world, asker);
    assert_drained(&mut world);

    let (mut unwanted, mut unbound) = (App::new("second", 2), App::new("third", 2));
    unwanted.store = StoreSays::No;
    unbound.bind = Bind::Fails;
    for app in [unwanted, unbound] {
        offer(&mut world, app);
        let asker = world.reload();
        world.run(10_000);
        assert_rejected(&world, asker);
        assert_drained(&mut world);
    }

    world.fate.probes.push_back(Probe::Invalid);
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    assert_rejected(&world, asker);
    assert_drained(&mut world);

    world.fate.images.push_back(NewImage::Fails);
    let asker = world.ask(Request::Upgrade { path: None });
    world.run(10_000);
    assert_rejected(&world, asker);
    assert_drained(&mut world);

    world.scale(2);
    world.run(10_000);
    world.check_converged();
}

#[test]
fn a_deployment_of_what_is_there_ends_no_drain_but_a_reload_of_it_does() {
    let mut world = drained(1);
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Unchanged));
    assert!(world.fleet.summary(world.now_ms).contains("drained on request"));
    assert!(world.story().contains(STILL));
    let asker = world.reload();
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done), "workers are there again");
    assert!(world.story().contains("starting 1 workers again"), "{}", world.story());
    assert_eq!(world.fleet.status(world.now_ms).generation, 1);
    world.check_converged();
}

#[test]
fn a_reload_that_only_ends_a_drain_is_done_when_somebody_serves_and_not_before() {
    let mut world = drained(2);
    world.fate.workers.extend(std::iter::repeat_n(Manner::NeverReady, 20));
    let asker = world.reload();
    world.run(60_000);
    let Some(Verdict::Rejected { reasons }) = world.verdict(asker) else {
        panic!("{:?}", world.verdict(asker))
    };
    assert_eq!(reasons, &["none of 2 workers serves yet; trying on"]);

    let mut world = drained(2);
    world.fate.workers.extend(std::iter::repeat_n(Manner::Slow(5_000), 2));
    let asker = world.reload();
    world.run(100);
    world.ask(Request::Drain);
    world.run(10_000);
    assert!(matches!(world.verdict(asker), Some(Verdict::RolledBack { .. })), "{:?}", world.verdict(asker));
    assert!(world.fleet.summary(world.now_ms).contains("drained on request"));
}

#[test]
fn what_comes_into_force_ends_a_drain() {
    for request in [
        Request::Deploy(Order { force: true, ..an_order("customer") }),
        Request::Rollback,
        Request::Upgrade { path: None },
    ] {
        let mut world = drained(2);
        if !matches!(request, Request::Upgrade { .. }) {
            offer(&mut world, App::new("second", 2));
        }
        let asker = world.ask(request);
        world.run(30_000);
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
        world.check_converged();
    }
}

/// No worker of the generation that was drained was started, or told to serve.
fn assert_none_of_before(story: &str) {
    let is_of_before =
        |line: &&str| line.contains(" gen 1") && (line.contains("Worker") || line.contains("serve"));
    assert_eq!(story.lines().find(is_of_before), None, "{story}");
}

/// It has failed, and only the store is there.
fn assert_drained_again(world: &mut World<Script>, asker: Asker) {
    let Some(Verdict::RolledBack { reason }) = world.verdict(asker) else {
        panic!("{:?}", world.verdict(asker))
    };
    assert!(reason.ends_with(&format!("; {STILL}")), "{reason}");
    assert!(world.fleet.summary(world.now_ms).contains("drained on request"));
    assert_eq!((world.processes.len(), world.bundles.len(), world.fleet.in_force), (1, 1, 1));
    assert_none_of_before(&world.story());
    world.scale(2);
    world.run(10_000);
    world.check_converged();
}

#[test]
fn what_was_drained_does_not_serve_again_on_the_way_to_something_else() {
    let requests = [
        Request::Reload { origin: Origin::Operator, mode: None },
        Request::Deploy(an_order("customer")),
        Request::Rollback,
    ];
    for request in requests {
        for app in [App::new("second", 2), App::new("second", 2).swapped()] {
            let mut world = drained(2);
            offer(&mut world, app);
            let asker = world.ask(request.clone());
            world.run(1_500);
            assert_eq!(world.serving().len(), 1, "one worker is tried alone");
            world.run(30_000);
            assert_eq!(world.verdict(asker), Some(&Verdict::Done));
            assert_none_of_before(&world.story());
            world.check_converged();
        }
    }
}

#[test]
fn what_was_to_end_a_drain_and_fails_leaves_all_drained() {
    for manner in
        [Manner::Errs(90), Manner::Fails(78), Manner::Crashes(500, Exit::Signal(11)), Manner::NeverReady]
    {
        let mut world = drained(2);
        offer(&mut world, App::new("second", 2).manner(manner));
        let asker = world.reload();
        world.run(60_000);
        assert_drained_again(&mut world, asker);
    }
    // The first one is good, the next one is not.
    let mut world = drained(2);
    world.fate.workers = [Manner::Good, Manner::Fails(78)].into();
    offer(&mut world, App::new("second", 2));
    let asker = world.reload();
    world.run(60_000);
    assert_drained_again(&mut world, asker);
    // A new executable as well.
    let mut world = drained(2);
    world.fate.workers = [Manner::Fails(78)].into();
    let asker = world.ask(Request::Upgrade { path: None });
    world.run(60_000);
    assert_drained_again(&mut world, asker);
}

#[test]
fn what_is_asked_for_while_a_drain_is_about_to_end_ends_with_it_when_that_fails() {
    let mut world = drained(2);
    offer(&mut world, App::new("second", 2).manner(Manner::Crashes(500, Exit::Signal(11))));
    let reload = world.reload();
    world.run(100);
    let (scale, restart) = (world.scale(4), world.ask(Request::Restart { slot: None }));
    world.run(60_000);
    assert_eq!(world.verdict(scale), Some(&Verdict::RolledBack { reason: STILL.to_owned() }));
    assert_eq!(world.verdict(restart), Some(&Verdict::Superseded));
    assert_eq!(world.fleet.wanted, 2);
    assert_drained_again(&mut world, reload);
}

#[test]
fn a_host_is_well_while_one_worker_is_tried_alone() {
    let mut world = host(4);
    let mut app = App::new("first", 4);
    app.policy.reload.canary_time = Duration::from_secs(100);
    offer(&mut world, app);
    world.start();
    world.run(30_000);
    world.ask(Request::Drain);
    world.run(1_000);
    offer(&mut world, App::new("second", 4));
    let asker = world.reload();
    world.run(90_000);
    assert_eq!(world.serving().len(), 1);
    assert!(world.fleet.has_quorum(world.now_ms));
    world.run_until("it is judged", |world| world.serving().len() > 1);
    assert!(world.fleet.has_quorum(world.now_ms));
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn a_drain_takes_the_place_of_a_reload_that_was_about_to_end_it() {
    let mut world = drained(1);
    world.fate.probes.push_back(Probe::Hangs);
    let reload = world.reload();
    let drain = world.ask(Request::Drain);
    world.run(60_000);
    let reason = "all workers were drained on request".to_owned();
    assert_eq!(world.verdict(reload), Some(&Verdict::RolledBack { reason }));
    assert_eq!(world.verdict(drain), Some(&Verdict::Unchanged));
    assert_drained(&mut world);
}

#[test]
fn a_change_that_nobody_asked_for_waits_for_a_reload_that_is_about_to_end_a_drain() {
    let mut world = drained(1);
    let automatic = || Request::Reload { origin: Origin::Automatic, mode: None };
    world.fate.probes.push_back(Probe::Invalid);
    let person = world.reload();
    world.report(Event::Request { asker: None, request: automatic() });
    world.run(10_000);
    assert_rejected(&world, person);
    assert!(world.story().contains("what changed in the app is not taken up: all workers were drained"));
    assert_eq!(world.processes.len(), 1, "only the store is there");

    offer(&mut world, App::new("second", 1));
    offer(&mut world, App::new("third", 1));
    let person = world.reload();
    world.report(Event::Request { asker: None, request: automatic() });
    world.run(30_000);
    assert_eq!(world.verdict(person), Some(&Verdict::Done));
    assert_eq!(world.fleet.status(world.now_ms).generation, 4);
    world.check_converged();
}

#[test]
fn a_restart_of_a_slot_ends_a_drain_only_if_there_is_such_a_slot() {
    let mut world = drained(2);
    let asker = world.ask(Request::Restart { slot: Some(99) });
    world.run(10_000);
    assert_eq!(world.checks.refusal(asker), Some("there is no slot 99, only 0, 1"));
    assert_drained(&mut world);
    let asker = world.ask(Request::Restart { slot: Some(1) });
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
    // More were wanted for as long as something else was about to end the drain.
    let mut world = drained(2);
    offer(&mut world, App::new("second", 2).manner(Manner::Crashes(500, Exit::Signal(11))));
    world.reload();
    world.run(100);
    world.scale(4);
    world.run(60_000);
    let asker = world.ask(Request::Restart { slot: Some(3) });
    assert_eq!(world.checks.refusal(asker), Some("there is no slot 3, only 0, 1"));
    assert!(world.fleet.summary(world.now_ms).contains("drained on request"));
}
