//! One module instead of all, and the way back.

use aegis_ipc::{
    deploy::{Order, TrialStep},
    operator::{ReloadMode, Verdict},
};

use super::{Script, an_order, host, offer, proven};
use crate::fleet::{
    Action, Event, Exit, Origin, Request, Role,
    hold::Cause,
    requests::LINE_MAX,
    tests::world::{Adopts, App, Fate, Manner, Probe, World},
};

/// The helper that works.
fn helper<F: Fate>(world: &World<F>) -> crate::fleet::ChildId {
    let is_helper = |role: &Role| matches!(role, Role::Compile);
    let found = world.processes.iter().find(|(_, process)| is_helper(&process.spawn.role));
    *found.expect("a helper works").0
}

fn lines(story: &str, words: &[&str]) -> String {
    let is_wanted = |line: &&str| words.iter().any(|word| line.contains(word));
    story.lines().filter(is_wanted).map(str::trim).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_deployment_is_exchanged_in_the_workers_that_run_after_an_instructed_helper() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    let story =
        lines(&world.story(), &["Instruct", "spawn", "dopt", "preparing module", "Write", "Pin", "Done"]);
    insta::assert_snapshot!(story, @r#"
    to 1: generation 2: preparing module customer
    Instruct { child: ChildId(4), task: Deploy(Order { module: "customer", supply: App, sha256: None, force: false, mode: None, trial: None }) }
    spawn #4 Compile gen 2 image 1
    #3 (slot 0 gen 1) adopts gen 2
    21014 #3 adopted gen 2
    WritePrevious { generation: 1 }
    WriteLastGood { generation: 2 }
    to 1: Done
    "#);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn a_deployment_goes_by_new_workers_when_that_is_asked_for() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    let order = Order { mode: Some(ReloadMode::Rolling), ..an_order("customer") };
    let asker = world.ask(Request::Deploy(order));
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    let story = lines(&world.story(), &["spawn", "dopt"]);
    insta::assert_snapshot!(story, @r#"
    spawn #4 Compile gen 2 image 1
    spawn #5 Worker { slot: 0 } gen 2 image 1
    "#);
    world.check_converged();
}

#[test]
fn a_deployment_that_would_lose_state_is_rejected_and_says_how_it_goes_on_without() {
    let mut world = proven(2);
    world.fate.adopts.push_back(Adopts::LosesState);
    offer(&mut world, App::new("second", 2));
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    let Some(Verdict::Rejected { reasons }) = world.verdict(asker) else {
        panic!("found {:?}", world.verdict(asker));
    };
    assert!(reasons[0].ends_with("; to go on without it: deploy it with `--mode rolling`"), "{reasons:?}");
    world.check_converged();
}

#[test]
fn a_deployment_that_others_would_notice_touches_nothing() {
    let mut world = proven(2);
    world.fate.probes.push_back(Probe::Hangs);
    let asker = world.ask(Request::Deploy(an_order("customer")));
    let (child, reasons) = (helper(&world), vec!["endpoint: found x, expected y".to_owned()]);
    world.report(Event::Incompatible { child, reasons: reasons.clone() });
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Incompatible { reasons }));
    assert!(!world.story().contains("Worker"), "no worker is started");
}

#[test]
fn deployments_of_different_modules_wait_for_each_other_and_equal_ones_are_one() {
    let mut world = proven(1);
    for digest in ["second", "third", "fourth"] {
        offer(&mut world, App::new(digest, 1));
    }
    let modules = ["customer", "order", "customer", "order", "stock"];
    let askers = modules.map(|module| world.ask(Request::Deploy(an_order(module))));
    world.run_until("all are answered", |world| world.checks.unanswered().is_empty());
    for asker in askers {
        assert!(matches!(world.verdict(asker), Some(Verdict::Done | Verdict::Unchanged)), "{asker:?}");
    }
    assert_eq!(world.story().matches("preparing module order").count(), 2, "told to two, done once");
}

#[test]
fn a_deployment_does_not_join_an_equal_one_that_another_for_the_same_module_came_after() {
    let mut world = proven(1);
    for digest in ["second", "third", "fourth", "fifth", "sixth"] {
        offer(&mut world, App::new(digest, 1));
    }
    let step = |trial| Request::Deploy(Order { trial: Some(trial), ..an_order("order") });
    let abort = || step(TrialStep::Abort { reason: None });
    let requests = [
        Request::Deploy(an_order("customer")),
        abort(),
        step(TrialStep::Share(50)),
        abort(),
        Request::Deploy(an_order("stock")),
        abort(),
    ];
    let askers = requests.map(|request| world.ask(request));
    world.run_until("all are answered", |world| world.checks.unanswered().is_empty());
    for asker in askers {
        assert_eq!(world.verdict(asker), Some(&Verdict::Done), "{asker:?}");
    }
    insta::assert_snapshot!(lines(&world.story(), &["of module", "preparing module"]), @r"
    to 1: generation 2: preparing module customer
    to 2: generation 3: ending the trial of module order
    to 3: generation 4: preparing a trial of module order with 50 %
    to 4: generation 5: ending the trial of module order
    to 6: generation 5: ending the trial of module order
    to 5: generation 6: preparing module stock
    ");
}

#[test]
fn a_reload_takes_its_turn_among_deployments_and_takes_no_place_of_theirs() {
    let mut world = proven(1);
    for digest in ["second", "third", "fourth"] {
        offer(&mut world, App::new(digest, 1));
    }
    let first = world.ask(Request::Deploy(an_order("customer")));
    let second = world.ask(Request::Deploy(an_order("order")));
    let reload = world.reload();
    world.run_until("all are answered", |world| world.checks.unanswered().is_empty());
    let story = lines(&world.story(), &["generation 3", "generation 4"]);
    assert!(story.starts_with(&format!("to {}: generation 3: preparing module order", second.0)), "{story}");
    assert!(story.contains(&format!("to {}: generation 4: validating", reload.0)), "{story}");
    for asker in [first, second, reload] {
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    }
}

#[test]
fn the_line_is_bounded() {
    let mut world = proven(1);
    world.fate.probes.push_back(Probe::Hangs);
    for number in 0..=LINE_MAX {
        let asker = world.ask(Request::Deploy(an_order(&format!("m{number}"))));
        assert_eq!(world.checks.refusal(asker), None);
    }
    let asker = world.ask(Request::Deploy(an_order("one too many")));
    let refusal = world.checks.refusal(asker).unwrap();
    insta::assert_snapshot!(refusal, @"16 changes wait already, try again later");
}

#[test]
fn a_rollback_pins_what_it_goes_back_to_and_a_reload_lets_go_of_it() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    world.run(10_000);
    world.story();
    offer(&mut world, App::new("first", 1));
    let asker = world.ask(Request::Rollback);
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    let words = ["Instruct", "Write", "Pin", "Done", "spawn"];
    insta::assert_snapshot!(lines(&world.story(), &words), @r#"
    Instruct { child: ChildId(6), task: Restore(Digest("first")) }
    spawn #6 Compile gen 3 image 1
    spawn #7 Worker { slot: 0 } gen 3 image 1
    WriteLastGood { generation: 3 }
    WritePrevious { generation: 2 }
    Pin { generation: Some(3) }
    to 2: Done
    "#);
    assert!(world.fleet.summary(world.now_ms).contains("PINNED by a rollback"));
    world.report(Event::Request {
        asker: None,
        request: Request::Reload { origin: Origin::Automatic, mode: None },
    });
    world.run(10_000);
    assert_eq!(world.fleet.in_force, 3, "what nobody asked for waits");
    offer(&mut world, App::new("patched", 1));
    world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    // What it was pinned to is kept elsewhere before it makes room, and the pin moves along.
    insta::assert_snapshot!(lines(&world.story(), &["Write", "Pin"]), @r"
    WritePrevious { generation: 3 }
    WriteLastGood { generation: 4 }
    Pin { generation: Some(4) }
    ");
    offer(&mut world, App::new("third", 1));
    world.reload();
    world.run(10_000);
    assert!(world.story().contains("Pin { generation: None }"));
    assert!(world.fleet.hold.is_none());
    world.check_converged();
}

/// What a rollback takes up, if that could be taken up.
fn way_back(world: &mut World<Script>) -> String {
    world.story();
    world.fate.probes.push_back(Probe::Invalid);
    let asker = world.ask(Request::Rollback);
    world.run(10_000);
    assert!(matches!(world.verdict(asker), Some(Verdict::Rejected { .. })), "{:?}", world.verdict(asker));
    let story = lines(&world.story(), &["Instruct"]);
    let (_, task) = story.split_once("task: ").expect("a helper was instructed");
    task.trim_end_matches(" }").to_owned()
}

#[test]
fn a_rollback_takes_up_what_was_in_force_before_the_last_change_whatever_could_be_written() {
    let mut world = proven(1);
    assert_eq!(way_back(&mut world), "Restore(Previous)", "a host that starts knows no more");
    for (digest, before) in [("second", "first"), ("third", "second")] {
        offer(&mut world, App::new(digest, 1));
        world.reload();
        world.run(10_000);
        let (generation, reason) = (world.fleet.in_force, "read-only file system".to_owned());
        world.report(Event::PreviousNotWritten { generation: generation - 1, reason: reason.clone() });
        world.report(Event::LastGoodNotWritten { generation, reason });
        assert_eq!(way_back(&mut world), format!("Restore(Digest({before:?}))"));
    }
    offer(&mut world, App::new("fourth", 1));
    world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    assert_eq!(way_back(&mut world), "Restore(Digest(\"third\"))");
    let upgrade = world.ask(Request::Upgrade { path: None });
    world.run(10_000);
    assert_eq!(world.verdict(upgrade), Some(&Verdict::Done));
    assert_eq!(way_back(&mut world), "Restore(Digest(\"third\"))");
    offer(&mut world, App::new("third", 1));
    world.ask(Request::Rollback);
    world.run(10_000);
    assert_eq!(world.fleet.digest(), "third");
    assert_eq!(way_back(&mut world), "Restore(Digest(\"fourth\"))");
}

#[test]
fn a_rollback_after_a_crash_loop_leads_no_further_than_that_did() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    world.run(20_000);
    offer(&mut world, App::new("third", 1).manner(Manner::Crashes(3_000, Exit::Signal(6))));
    world.reload();
    world.run(60_000);
    assert_eq!(world.fleet.digest(), "second");
    assert_eq!(way_back(&mut world), "Restore(Digest(\"second\"))");
}

#[test]
fn a_rollback_brings_the_number_of_workers_back_unless_somebody_has_scaled() {
    for (scaled, expected) in [(None, 1), (Some(3), 3)] {
        let mut world = proven(1);
        offer(&mut world, App::new("second", 2));
        world.reload();
        world.run(10_000);
        assert_eq!(world.fleet.wanted, 2);
        if let Some(workers) = scaled {
            world.scale(workers);
            world.run(1_000);
        }
        offer(&mut world, App::new("first", 1));
        let asker = world.ask(Request::Rollback);
        world.run(10_000);
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
        assert_eq!((world.fleet.wanted, world.fleet.serving()), (expected, expected as usize));
    }
}

#[test]
fn who_scales_while_a_reload_runs_keeps_that_number() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 3));
    let reload = world.reload();
    world.run(100);
    assert_eq!(world.verdict(reload), None, "it runs");
    let scale = world.scale(4);
    world.run(20_000);
    assert_eq!([world.verdict(reload), world.verdict(scale)], [Some(&Verdict::Done); 2]);
    assert_eq!((world.fleet.wanted, world.fleet.serving()), (4, 4));
    offer(&mut world, App::new("third", 3));
    world.reload();
    world.run(20_000);
    assert_eq!(world.fleet.wanted, 3, "the next one brings the number of the app");
}

#[test]
fn a_change_in_the_app_takes_no_place_of_a_rollback_that_waits() {
    let automatic = || Request::Reload { origin: Origin::Automatic, mode: None };
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    let deploy = world.ask(Request::Deploy(an_order("customer")));
    offer(&mut world, App::new("first", 1));
    let (rollback, change, again) =
        (world.ask(Request::Rollback), world.ask(automatic()), world.ask(automatic()));
    world.run(20_000);
    assert_eq!(world.verdict(deploy), Some(&Verdict::Done));
    assert_eq!(world.verdict(rollback), Some(&Verdict::Done));
    for asker in [change, again] {
        let verdict = world.verdict(asker);
        assert!(
            matches!(verdict, Some(Verdict::Rejected { .. })),
            "it stays as it was put back: {verdict:?}"
        );
    }
    assert!(world.fleet.summary(world.now_ms).contains("PINNED by a rollback"));
    world.check_converged();
}

#[test]
fn a_change_in_the_app_waits_for_a_restart_that_waits_and_is_not_lost() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    let deploy = world.ask(Request::Deploy(an_order("customer")));
    let restart = world.ask(Request::Restart { slot: None });
    offer(&mut world, App::new("third", 1));
    let change = world.ask(Request::Reload { origin: Origin::Automatic, mode: None });
    world.run(20_000);
    for asker in [deploy, restart, change] {
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    }
    world.check_converged();
}

#[test]
fn what_a_restart_would_not_come_up_on_is_told_to_whoever_asked() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    let asker = world.ask(Request::Rollback);
    world.run_until("it is in force", |world| world.fleet.in_force == 2);
    world.story();
    world.report(Event::NotPinned { generation: 2, reason: "disk full".to_owned() });
    insta::assert_snapshot!(lines(&world.story(), &["a restart"]), @r"
    Error: a restart may come up on another generation than 2: disk full
    to 1: a restart may come up on another generation than 2: disk full
    ");
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
}

#[test]
fn what_a_restart_or_reload_would_undo_is_told_to_whoever_deployed_it_before_it_is_done() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run_until("it is in force", |world| world.fleet.in_force == 2);
    assert_eq!(world.verdict(asker), None);
    world.story();
    world.report(Event::DeploymentsNotNoted { generation: 2, reason: "disk full".to_owned() });
    world.report(Event::VersionsNotNoted { generation: 2, reason: "disk full".to_owned() });
    insta::assert_snapshot!(lines(&world.story(), &["may "]), @r"
    Error: a restart or reload may undo what is deployed in generation 2: disk full
    to 1: a restart or reload may undo what is deployed in generation 2: disk full
    Error: older versions than those of generation 2 may be let in: disk full
    to 1: older versions than those of generation 2 may be let in: disk full
    ");
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn what_was_deployed_is_kept_while_what_was_good_before_stands_in_for_an_app_with_mistakes() {
    let held = || {
        let mut world = host(1);
        let reason = "the app has 1 mistake".to_owned();
        world.fleet = world.fleet.clone().restoring("d".repeat(64), Cause::Mistakes, reason);
        world.start();
        world.run(20_000);
        assert!(world.fleet.is_stand_in());
        world
    };
    let mut world = held();
    world.fate.probes.push_back(Probe::Invalid);
    world.ask(Request::Deploy(an_order("customer")));
    world.run(10_000);
    assert!(world.fleet.is_stand_in(), "nothing came of it");
    world.ask(Request::Upgrade { path: None });
    world.run(30_000);
    assert_eq!(world.fleet.in_force, 3);
    assert!(world.fleet.is_stand_in(), "it is the same with another executable");
    for request in [
        Request::Deploy(an_order("customer")),
        Request::Reload { origin: Origin::Operator, mode: None },
        Request::Rollback,
    ] {
        let mut world = held();
        offer(&mut world, App::new("second", 1));
        let asker = world.ask(request.clone());
        world.run(20_000);
        assert_eq!(world.verdict(asker), Some(&Verdict::Done));
        assert!(!world.fleet.is_stand_in(), "somebody asked for it: {request:?}");
    }
    let mut world = host(1);
    world.last_good = Some(App::new("yesterday", 1));
    world.fate.stores.push_back(Manner::Fails(78));
    world.start();
    world.run(12_000);
    assert!(world.fleet.is_stand_in(), "its store does not start with the app");
    assert!(!proven(1).fleet.is_stand_in());
}

#[test]
fn a_rollback_that_fails_pins_nothing() {
    let mut world = proven(1);
    world.fate.probes.push_back(Probe::Invalid);
    let asker = world.ask(Request::Rollback);
    world.run(10_000);
    assert!(matches!(world.verdict(asker), Some(Verdict::Rejected { .. })));
    offer(&mut world, App::new("second", 1).manner(Manner::Fails(78)));
    let asker = world.ask(Request::Rollback);
    world.run(10_000);
    assert!(matches!(world.verdict(asker), Some(Verdict::RolledBack { .. })));
    assert!(!world.story().contains("Pin"));
    assert!(world.fleet.hold.is_none());
    world.check_converged();
}

#[test]
fn a_host_begins_with_what_is_kept_when_its_app_has_mistakes_and_takes_up_the_app_when_it_can() {
    let mut world = host(2);
    let reason = "the app has 1 mistake".to_owned();
    world.fleet = world.fleet.clone().restoring("d".repeat(64), Cause::Mistakes, reason.clone());
    world.start();
    world.run(30_000);
    let story = world.story();
    let words = ["Instruct", "Write"];
    insta::assert_snapshot!(lines(&story, &words), @r#"Instruct { child: ChildId(1), task: Restore(Digest("dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd")) }"#);
    let status = world.fleet.status(world.now_ms);
    assert_eq!(status.notice, Some(reason));
    assert!(status.summary.contains("LAST GOOD generation"), "{}", status.summary);
    offer(&mut world, App::new("mended", 2));
    world.report(Event::Request {
        asker: None,
        request: Request::Reload { origin: Origin::Automatic, mode: None },
    });
    world.run(10_000);
    assert_eq!(world.fleet.status(world.now_ms).notice, None);
    assert!(!world.story().contains("Pin"));
    world.check_converged();
}

#[test]
fn a_stop_ends_the_whole_line() {
    let mut world = proven(1);
    world.fate.probes.push_back(Probe::Hangs);
    let askers = ["a", "b", "c"].map(|module| world.ask(Request::Deploy(an_order(module))));
    world.stop(aegis_ipc::operator::StopMode::Graceful);
    world.run(60_000);
    for asker in askers {
        assert_eq!(world.verdict(asker), Some(&Verdict::Superseded));
    }
    world.check_ended();
}

#[test]
fn instructions_come_before_the_process() {
    let mut world = proven(1);
    let request = Request::Deploy(an_order("customer"));
    let now_ms = world.now_ms;
    let actions = world.fleet.on(now_ms, Event::Request { asker: None, request });
    let at = |wanted: fn(&Action) -> bool| actions.iter().position(wanted).unwrap();
    let instructed = at(|action| matches!(action, Action::Instruct { .. }));
    assert!(instructed < at(|action| matches!(action, Action::Spawn(_))));
}
