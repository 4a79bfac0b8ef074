//! Reloads, good and bad.

use aegis_ipc::operator::Verdict;

use super::{offer, proven};
use crate::fleet::{
    Event, Exit,
    tests::world::{App, Bind, Manner, Probe, StoreSays},
};

#[test]
fn reload_that_works() {
    let mut world = proven(3);
    offer(&mut world, App::new("second", 3));
    let asker = world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #6 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21006 #6 exited with 0
    21006 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #7 Worker { slot: 0 } gen 2 image 1
    21016 #7 (slot 0 gen 2) is ready
            serve #7 (slot 0 gen 2)
            to 1: generation 2: one worker serves, to be judged in 2000 ms
    23016 …
            to 1: generation 2: the canary is good (2000 requests, 0.0 % of them 5xx); the others follow
            drain #3 (slot 0 gen 1) in Some(5000)
            spawn #8 Worker { slot: 1 } gen 2 image 1
            to 1: 1 of 3 workers replaced
    23026 #8 (slot 1 gen 2) is ready
            serve #8 (slot 1 gen 2)
            drain #4 (slot 1 gen 1) in Some(5000)
            spawn #9 Worker { slot: 2 } gen 2 image 1
            to 1: 2 of 3 workers replaced
    23036 #9 (slot 2 gen 2) is ready
            serve #9 (slot 2 gen 2)
            drain #5 (slot 2 gen 1) in Some(5000)
            to 1: 3 of 3 workers replaced
            WritePrevious { generation: 1 }
            WriteLastGood { generation: 2 }
            Activate { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 2 }
            to 1: generation 2 is in force
    23037 #5 accepts no more
            to 1: Done
            Notify(Ready)
    23066 #3 exited with 0
    23076 #4 exited with 0
    23086 #5 exited with 0
    ");
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn reload_that_changes_the_number_of_workers_and_listeners() {
    let mut world = proven(1);
    let mut app = App::new("second", 3);
    app.listeners = [443].into();
    offer(&mut world, app);
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #4 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21006 #4 exited with 0
    21006 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #5 Worker { slot: 0 } gen 2 image 1
    21016 #5 (slot 0 gen 2) is ready
            serve #5 (slot 0 gen 2)
            to 1: generation 2: one worker serves, to be judged in 2000 ms
    23016 …
            to 1: generation 2: the canary is good (2000 requests, 0.0 % of them 5xx); the others follow
            drain #3 (slot 0 gen 1) in Some(5000)
            to 1: 1 of 1 workers replaced
            WritePrevious { generation: 1 }
            WriteLastGood { generation: 2 }
            Activate { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 2 }
            to 1: generation 2 is in force
            spawn #6 Worker { slot: 1 } gen 2 image 1
            spawn #7 Worker { slot: 2 } gen 2 image 1
    23026 #6 (slot 1 gen 2) is ready
            serve #6 (slot 1 gen 2)
    23026 #7 (slot 2 gen 2) is ready
            serve #7 (slot 2 gen 2)
            to 1: Done
            Notify(Ready)
    23066 #3 exited with 0
    ");
    world.check_converged();
}

#[test]
fn reload_of_an_invalid_application_touches_nothing() {
    let mut world = proven(2);
    world.fate.probes.push_back(Probe::Invalid);
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #5 Compile gen 2 image 1
    21005 Invalid { child: ChildId(5), reasons: ["listen: found \"x\""] }
            Error: reload (job 2): rejected: listen: found "x"
            to 1: Rejected { reasons: ["listen: found \"x\""] }
            Notify(Ready)
    21006 #5 exited with 0
    "#);
    world.check_converged();
}

#[test]
fn reload_that_the_store_refuses() {
    let mut world = proven(2);
    let mut app = App::new("second", 2);
    app.store = StoreSays::No;
    offer(&mut world, app);
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #5 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21006 #5 exited with 0
    21006 Refused { child: ChildId(2), generation: 2, reasons: ["two documents have the same email"] }
            Discard { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 1 }
            Error: reload (job 2): rejected: two documents have the same email
            to 1: Rejected { reasons: ["two documents have the same email"] }
            Notify(Ready)
            Forget { generation: 2 }
    "#);
    world.check_converged();
}

#[test]
fn reload_whose_listeners_cannot_be_bound() {
    let mut world = proven(2);
    let mut app = App::new("second", 2);
    app.bind = Bind::Fails;
    offer(&mut world, app);
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #5 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersFailed { generation: 2, reasons: ["port 81 is taken"] }
            Error: reload (job 2): rejected: port 81 is taken
            to 1: Rejected { reasons: ["port 81 is taken"] }
            Notify(Ready)
            Forget { generation: 2 }
    21006 #5 exited with 0
    "#);
    world.check_converged();
}

#[test]
fn reload_whose_canary_never_becomes_ready() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 2).manner(Manner::Fails(78)));
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #5 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21006 #5 exited with 0
    21006 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #6 Worker { slot: 0 } gen 2 image 1
    21011 Failed { child: ChildId(6), code: 78, reason: "the self-test failed" }
    21012 #6 exited with 78
            Warn: worker 0 (pid 106, generation 2) exited with 78: the self-test failed, before it was ready; its slot waits 26521 ms
            to 1: back to generation 1: worker 0 of generation 2 exited with 78: the self-test failed
            Discard { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 1 }
            Error: reload (job 2): rolled back: worker 0 of generation 2 exited with 78: the self-test failed
            to 1: RolledBack { reason: "worker 0 of generation 2 exited with 78: the self-test failed" }
            Notify(Ready)
            Forget { generation: 2 }
    "#);
    world.check_converged();
}

#[test]
fn reload_whose_canary_answers_with_nothing_but_errors_is_over_before_its_time() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 2).manner(Manner::Errs(90)));
    world.reload();
    world.run(1_000);
    let story = world.story();
    let (_, rest) = story.split_once("back to generation 1: the canary answered 90.0 % of ").unwrap();
    let requests: u64 = rest.split_once(' ').unwrap().0.parse().unwrap();
    assert!(requests <= 200, "it answered {requests} requests");
    world.run(10_000);
    world.check_converged();
}

#[test]
fn reload_whose_canary_answers_with_errors() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 2).manner(Manner::Errs(10)));
    let asker = world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #5 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21006 #5 exited with 0
    21006 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #6 Worker { slot: 0 } gen 2 image 1
    21016 #6 (slot 0 gen 2) is ready
            serve #6 (slot 0 gen 2)
            to 1: generation 2: one worker serves, to be judged in 2000 ms
    23016 …
            to 1: back to generation 1: the canary answered 10.0 % of 2000 requests with 5xx, the others 0.0 % of 4000
            drain #6 (slot 0 gen 2) in Some(5000)
    23017 #6 accepts no more
            Discard { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 1 }
            Error: reload (job 2): rolled back: the canary answered 10.0 % of 2000 requests with 5xx, the others 0.0 % of 4000
            to 1: RolledBack { reason: "the canary answered 10.0 % of 2000 requests with 5xx, the others 0.0 % of 4000" }
            Notify(Ready)
            Forget { generation: 2 }
    23066 #6 exited with 0
    "#);
    assert!(matches!(world.verdict(asker), Some(Verdict::RolledBack { .. })));
    world.check_converged();
}

#[test]
fn crash_in_the_wave_rolls_back_old_ones_first() {
    let mut world = proven(3);
    offer(&mut world, App::new("second", 3));
    // The canary is good, the second new worker crashes as soon as it serves.
    world.fate.workers = [Manner::Good, Manner::Crashes(5, Exit::Signal(11))].into();
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Reload { origin: Operator, mode: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: generation 2: validating the application
            spawn #6 Compile gen 2 image 1
    21005 compiled second
            BindListeners { generation: 2 }
    21005 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21006 #6 exited with 0
    21006 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #7 Worker { slot: 0 } gen 2 image 1
    21016 #7 (slot 0 gen 2) is ready
            serve #7 (slot 0 gen 2)
            to 1: generation 2: one worker serves, to be judged in 2000 ms
    23016 …
            to 1: generation 2: the canary is good (2000 requests, 0.0 % of them 5xx); the others follow
            drain #3 (slot 0 gen 1) in Some(5000)
            spawn #8 Worker { slot: 1 } gen 2 image 1
            to 1: 1 of 3 workers replaced
    23026 #8 (slot 1 gen 2) is ready
            serve #8 (slot 1 gen 2)
            drain #4 (slot 1 gen 1) in Some(5000)
            spawn #9 Worker { slot: 2 } gen 2 image 1
            to 1: 2 of 3 workers replaced
    23031 #8 crashed by SIGSEGV
            Warn: worker 1 (pid 108, generation 2) crashed by SIGSEGV, 5 ms after it was ready; its slot waits 0 ms
            to 1: back to generation 1: worker 1 of generation 2 crashed by SIGSEGV
            kill #9 (slot 2 gen 2)
            spawn #10 Worker { slot: 1 } gen 1 image 1
            spawn #11 Worker { slot: 0 } gen 1 image 1
    23032 #9 crashed by SIGKILL
    23041 #10 (slot 1 gen 1) is ready
            serve #10 (slot 1 gen 1)
    23041 #11 (slot 0 gen 1) is ready
            serve #11 (slot 0 gen 1)
            drain #7 (slot 0 gen 2) in Some(5000)
    23042 #7 accepts no more
            Discard { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 1 }
            Error: reload (job 2): rolled back: worker 1 of generation 2 crashed by SIGSEGV
            to 1: RolledBack { reason: "worker 1 of generation 2 crashed by SIGSEGV" }
            Notify(Ready)
            Forget { generation: 2 }
    23066 #3 exited with 0
    23076 #4 exited with 0
    23091 #7 exited with 0
    "#);
    world.check_converged();
}

#[test]
fn what_a_helper_warns_of_is_told_to_whoever_waits_though_nothing_changes() {
    let mut world = proven(2);
    let asker = world.reload();
    let helper = *world.fleet.helpers.keys().next_back().unwrap();
    world.story();
    let warnings = ["modules.note: its source is away", "modules.order: its source is away"];
    world.report(Event::Warned { child: helper, warnings: warnings.map(str::to_owned).to_vec() });
    let story = world.story();
    for warning in warnings {
        assert!(story.contains(&format!("to {}: {warning}\n", asker.0)), "{story}");
    }
    world.run(5_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Unchanged));
    assert_eq!(world.fleet.job(2).unwrap().step, warnings.join("; "));
    world.story();
    world.report(Event::Warned { child: helper, warnings: vec!["too late".to_owned()] });
    assert!(!world.story().contains("to "), "nobody waits any more");
}
