//! Whose turn it is, and who waits for an answer.

use aegis_config::ReloadMode;
use aegis_ipc::operator::Verdict;

use super::{an_order, offer, proven};
use crate::fleet::{
    Event, Origin, Patience, Request,
    jobs::ASKERS_MAX,
    requests::{Waiting, Wish},
    tests::world::App,
};

const RELOAD: Request = Request::Reload { origin: Origin::Operator, mode: None };
const PUBLISHED: Request = Request::Reload { origin: Origin::Automatic, mode: None };

#[test]
fn a_reload_takes_its_turn_behind_a_rollback_or_another_executable_that_waits() {
    for wanted in [Request::Rollback, Request::Upgrade { path: None }] {
        let mut world = proven(1);
        offer(&mut world, App::new("second", 1));
        let deploy = world.ask(Request::Deploy(an_order("customer")));
        let waiting = world.ask(wanted.clone());
        let reloads = [world.ask(PUBLISHED), world.ask(RELOAD)];
        world.run_until("all are answered", |world| world.checks.unanswered().is_empty());
        for asker in [deploy, waiting] {
            assert_eq!(world.verdict(asker), Some(&Verdict::Done), "{wanted:?}");
        }
        for reload in reloads {
            let verdict = world.verdict(reload);
            assert!(matches!(verdict, Some(Verdict::Done | Verdict::Unchanged)), "{wanted:?}: {verdict:?}");
        }
        assert!(world.fleet.hold.is_none(), "the reload came after it");
        world.run(10_000);
        world.check_converged();
    }
}

#[test]
fn who_tells_that_something_is_published_is_told_that_a_rollback_stays() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    world.run(10_000);
    offer(&mut world, App::new("first", 1));
    world.ask(Request::Rollback);
    world.run(10_000);
    let asker = world.ask(PUBLISHED);
    let Some(Verdict::Rejected { reasons }) = world.verdict(asker) else {
        panic!("found {:?}", world.verdict(asker));
    };
    insta::assert_snapshot!(
        reasons.join("\n"),
        @"what changed in the app is not taken up: rolled back on request; it stays until `aegis reload`"
    );
    world.run(10_000);
    assert_eq!(world.fleet.in_force, 3);
}

#[test]
fn how_a_reload_comes_into_force_is_what_somebody_has_said() {
    let asked = |origin, mode| Request::Reload { origin, mode: Some(mode) };
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    for request in
        [asked(Origin::Operator, ReloadMode::Rolling), asked(Origin::Automatic, ReloadMode::Swap), RELOAD]
    {
        world.ask(request);
    }
    let Some(Waiting { wish, .. }) = &world.fleet.waiting else { panic!("none waits") };
    assert_eq!(*wish, Wish::Reload { origin: Origin::Operator, mode: Some(ReloadMode::Rolling) });
}

#[test]
fn a_deployment_does_not_wait_for_reloads_that_are_asked_for_after_it() {
    let mut world = proven(1);
    world.reload();
    world.ask(RELOAD);
    let deploy = world.ask(Request::Deploy(an_order("customer")));
    for round in 0..100 {
        offer(&mut world, App::new(&format!("round {round}"), 1));
        world.ask(PUBLISHED);
        world.run(500);
    }
    assert_eq!(world.verdict(deploy), Some(&Verdict::Done));
    let told = world.fleet.job(4).unwrap();
    assert_eq!((told.kind.as_str(), told.generation), ("deploy", 4), "after two reloads: {told:?}");
}

#[test]
fn a_rollback_goes_before_deployments_that_wait() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    let deploys = ["customer", "order"].map(|model| world.ask(Request::Deploy(an_order(model))));
    let rollback = world.ask(Request::Rollback);
    world.run_until("it is rolled back", |world| world.verdict(rollback).is_some());
    assert!(deploys.iter().all(|deploy| world.verdict(*deploy).is_none()), "they wait");
    world.run_until("all are answered", |world| world.checks.unanswered().is_empty());
    world.run(10_000);
    world.check_converged();
}

#[test]
fn who_waits_for_no_verdict_takes_no_place_among_those_who_do() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    let hasty: Vec<_> = (0..=ASKERS_MAX).map(|_| world.ask_with(Patience::Accepted, RELOAD)).collect();
    let patient = world.reload();
    for asker in hasty.iter().chain([&patient]) {
        assert_eq!(world.checks.refusal(*asker), None);
    }
    world.run(20_000);
    assert!(world.verdict(patient).is_some_and(|verdict| verdict.exit_code() == 0));
    assert!(hasty.iter().all(|asker| world.verdict(*asker).is_none()), "one answer each");
}

#[test]
fn who_is_gone_takes_no_place_any_more() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    let askers: Vec<_> = (0..ASKERS_MAX).map(|_| world.reload()).collect();
    world.report(Event::Left { asker: askers[0] });
    let late = world.reload();
    assert_eq!(world.checks.refusal(late), None);
    world.run(20_000);
    assert_eq!(world.verdict(askers[0]), None);
    assert!(world.verdict(late).is_some_and(|verdict| verdict.exit_code() == 0));
}
