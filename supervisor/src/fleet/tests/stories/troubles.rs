//! Crashes and silence.

use aegis_ipc::operator::Verdict;

use super::{an_order, offer, proven};
use crate::fleet::{
    Exit, Origin, Request,
    hold::Cause,
    tests::world::{App, Manner},
};

#[test]
fn crash_loop_after_the_commit_goes_back_by_itself() {
    let mut world = proven(2);
    // Good for as long as it is looked at, bad afterwards: each worker dies three seconds after it was ready.
    offer(&mut world, App::new("second", 2).manner(Manner::Crashes(3_000, Exit::Signal(6))));
    let asker = world.reload();
    world.run(2_500);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.story();
    world.run(60_000);
    insta::assert_snapshot!(world.story(), @r"
    24016 #6 crashed by SIGABRT
            Warn: worker 0 (pid 106, generation 2) crashed by SIGABRT, 3000 ms after it was ready; its slot waits 0 ms
            spawn #8 Worker { slot: 0 } gen 2 image 1
    24026 #8 (slot 0 gen 2) is ready
            serve #8 (slot 0 gen 2)
    26026 #7 crashed by SIGABRT
            Warn: worker 1 (pid 107, generation 2) crashed by SIGABRT, 3000 ms after it was ready; its slot waits 0 ms
            spawn #9 Worker { slot: 1 } gen 2 image 1
    26036 #9 (slot 1 gen 2) is ready
            serve #9 (slot 1 gen 2)
    27026 #8 crashed by SIGABRT
            Warn: worker 0 (pid 108, generation 2) crashed by SIGABRT, 3000 ms after it was ready; its slot waits 49 ms
    27075 …
            spawn #10 Worker { slot: 0 } gen 2 image 1
    27085 #10 (slot 0 gen 2) is ready
            serve #10 (slot 0 gen 2)
    29036 #9 crashed by SIGABRT
            Warn: worker 1 (pid 109, generation 2) crashed by SIGABRT, 3000 ms after it was ready; its slot waits 43 ms
    29079 …
            spawn #11 Worker { slot: 1 } gen 2 image 1
    29089 #11 (slot 1 gen 2) is ready
            serve #11 (slot 1 gen 2)
    30085 #10 crashed by SIGABRT
            Warn: worker 0 (pid 110, generation 2) crashed by SIGABRT, 3000 ms after it was ready; its slot waits 109 ms
            Error: crash loop of generation 2, lately: crashed by SIGABRT
            Notify(Reloading)
            BindListeners { generation: 1 }
    30085 ListenersBound { generation: 1 }
            Prepare { child: ChildId(2), generation: 1 }
    30086 Prepared { child: ChildId(2), generation: 1 }
            Activate { child: ChildId(2), generation: 1 }
            CloseListeners { generation: 1 }
            Notify(Ready)
            spawn #12 Worker { slot: 0 } gen 1 image 1
            spawn #13 Worker { slot: 1 } gen 1 image 1
            Forget { generation: 2 }
    30096 #12 (slot 0 gen 1) is ready
            serve #12 (slot 0 gen 1)
    30096 #13 (slot 1 gen 1) is ready
            serve #13 (slot 1 gen 1)
            drain #11 (slot 1 gen 2) in Some(5000)
    30146 #11 exited with 0
    40096 …
            WriteLastGood { generation: 1 }
    ");
    world.check_converged();
}

#[test]
fn set_that_was_found_bad_comes_back_only_when_a_person_insists() {
    let mut world = proven(2);
    offer(&mut world, App::new("second", 2).manner(Manner::Crashes(3_000, Exit::Signal(6))));
    world.reload();
    world.run(60_000);
    assert_eq!(world.fleet.status(world.now_ms).generation, 1);
    offer(&mut world, App::new("second", 2));
    let automatic = world.ask(Request::Reload { origin: Origin::Automatic, mode: None });
    world.run(10_000);
    insta::assert_debug_snapshot!(world.verdict(automatic), @r#"
    Some(
        Rejected {
            reasons: [
                "this very set was found bad before (crash loop of generation 2: crashed by SIGABRT); change it, or ask for a reload",
            ],
        },
    )
    "#);
    offer(&mut world, App::new("second", 2));
    let person = world.reload();
    world.run(10_000);
    assert_eq!(world.verdict(person), Some(&Verdict::Done));
}

#[test]
fn crash_loop_of_a_deployment_leaves_a_host_pinned() {
    let mut world = proven(1);
    offer(&mut world, App::new("second", 1));
    world.reload();
    world.run(20_000);
    offer(&mut world, App::new("first", 1));
    world.ask(Request::Rollback);
    world.run(20_000);
    assert!(world.fleet.is_pinned());
    offer(&mut world, App::new("deployed", 1).manner(Manner::Crashes(3_000, Exit::Signal(6))));
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run_until("it is in force", |world| world.verdict(asker).is_some());
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.story();
    world.run(60_000);
    let (in_force, story) = (world.fleet.in_force, world.story());
    assert_eq!(world.fleet.digest(), "first");
    assert!(world.fleet.is_pinned(), "{story}");
    assert!(story.contains(&format!("Pin {{ generation: Some({in_force}) }}")), "{story}");
    let published = world.ask(Request::Reload { origin: Origin::Automatic, mode: None });
    assert!(matches!(world.verdict(published), Some(Verdict::Rejected { .. })), "it stays");
}

#[test]
fn crash_loop_of_a_deployment_leaves_a_host_that_waits_for_a_mended_app() {
    let mut world = proven(1);
    let reason = "the app has mistakes".to_owned();
    world.fleet =
        world.fleet.clone().restoring(world.fleet.digest().to_owned(), Cause::Mistakes, reason.clone());
    offer(&mut world, App::new("deployed", 1).manner(Manner::Crashes(3_000, Exit::Signal(6))));
    let asker = world.ask(Request::Deploy(an_order("customer")));
    world.run_until("it is in force", |world| world.verdict(asker).is_some());
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.run(60_000);
    assert_eq!(world.fleet.digest(), "first");
    let notice = world.fleet.status(world.now_ms).notice;
    assert_eq!(notice, Some(reason), "what was there before it is not the app either");
    offer(&mut world, App::new("mended", 1));
    world.reload();
    world.run(20_000);
    assert_eq!(world.fleet.status(world.now_ms).notice, None);
}

#[test]
fn crash_loop_brings_the_number_of_workers_back_unless_somebody_has_scaled() {
    for (scaled, expected) in [(None, 1), (Some(3), 3)] {
        let mut world = proven(1);
        offer(&mut world, App::new("second", 2).manner(Manner::Crashes(3_000, Exit::Signal(6))));
        let asker = world.reload();
        world.run_until("it is in force", |world| world.verdict(asker).is_some());
        assert_eq!((world.verdict(asker), world.fleet.wanted), (Some(&Verdict::Done), 2));
        if let Some(workers) = scaled {
            world.scale(workers);
        }
        world.run(60_000);
        assert_eq!(world.fleet.digest(), "first");
        assert_eq!((world.fleet.wanted, world.serving().len()), (expected, expected as usize));
        world.check_converged();
    }
}

#[test]
fn crash_is_answered_at_once_and_then_ever_later() {
    let mut world = proven(1);
    world.fate.workers = [Manner::Crashes(100, Exit::Signal(11)); 4].into();
    world.die(world.serving()[0], Exit::Signal(11));
    world.run(2_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 #3 crashed by SIGSEGV
            Warn: worker 0 (pid 103, generation 1) crashed by SIGSEGV, 20975 ms after it was ready; its slot waits 0 ms
            spawn #4 Worker { slot: 0 } gen 1 image 1
    21010 #4 (slot 0 gen 1) is ready
            serve #4 (slot 0 gen 1)
    21110 #4 crashed by SIGSEGV
            Warn: worker 0 (pid 104, generation 1) crashed by SIGSEGV, 100 ms after it was ready; its slot waits 49 ms
    21159 …
            spawn #5 Worker { slot: 0 } gen 1 image 1
    21169 #5 (slot 0 gen 1) is ready
            serve #5 (slot 0 gen 1)
    21269 #5 crashed by SIGSEGV
            Warn: worker 0 (pid 105, generation 1) crashed by SIGSEGV, 100 ms after it was ready; its slot waits 117 ms
    21386 …
            spawn #6 Worker { slot: 0 } gen 1 image 1
    21396 #6 (slot 0 gen 1) is ready
            serve #6 (slot 0 gen 1)
    21496 #6 crashed by SIGSEGV
            Warn: worker 0 (pid 106, generation 1) crashed by SIGSEGV, 100 ms after it was ready; its slot waits 223 ms
    21719 …
            spawn #7 Worker { slot: 0 } gen 1 image 1
    21729 #7 (slot 0 gen 1) is ready
            serve #7 (slot 0 gen 1)
    21829 #7 crashed by SIGSEGV
            Warn: worker 0 (pid 107, generation 1) crashed by SIGSEGV, 100 ms after it was ready; its slot waits 456 ms
            Error: crash loop of generation 1, lately: crashed by SIGSEGV
            Error: there is no other generation to go back to; trying on
    22285 …
            spawn #8 Worker { slot: 0 } gen 1 image 1
    22295 #8 (slot 0 gen 1) is ready
            serve #8 (slot 0 gen 1)
    ");
    world.check_converged();
}

#[test]
fn hung_worker_is_replaced_then_killed() {
    let mut world = proven(2);
    world.hang(world.serving()[0]);
    world.run(15_000);
    insta::assert_snapshot!(world.story(), @r"
    23005 …
            Warn: worker 0 (pid 103, generation 1) shows no sign of life for 2005 ms
            spawn #5 Worker { slot: 0 } gen 1 image 1
    23015 #5 (slot 0 gen 1) is ready
            serve #5 (slot 0 gen 1)
            drain #3 (slot 0 gen 1) in Some(5000)
    30015 …
            kill #3 (slot 0 gen 1)
    30016 #3 crashed by SIGKILL
    ");
    world.check_converged();
}

#[test]
fn store_that_crashes_leaves_the_workers_alone() {
    let mut world = proven(2);
    world.fate.stores = [Manner::DiesEarly(5, Exit::Code(71)), Manner::Good].into();
    world.die(world.store(), Exit::Signal(9));
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 #2 crashed by SIGKILL
            Error: the store (pid 102) crashed by SIGKILL; next in 0 ms
            spawn #5 Store { epoch: 2 } gen 1 image 1
    21005 #5 exited with 71
            Error: the store (pid 105) exited with 71; next in 49 ms
    21054 …
            spawn #6 Store { epoch: 3 } gen 1 image 1
    21064 #6 (Store { epoch: 3 }) is ready
    ");
    world.check_converged();
}

#[test]
fn store_that_shows_no_sign_of_life_is_told_for_as_long_as_it_does() {
    let mut world = proven(1);
    world.fate.stores = [Manner::Hangs(1_000, 10_000)].into();
    world.die(world.store(), Exit::Signal(9));
    for (state, is_told) in [("ready", false), ("silent", true), ("ready", false)] {
        world.run(4_500);
        let status = world.fleet.status(world.now_ms);
        assert_eq!(status.store.state, state);
        assert_eq!(status.summary.contains("store silent"), is_told, "{}", status.summary);
    }
    assert_eq!(world.story().matches("the store (pid 104) shows no sign of life for").count(), 1);
    world.check_converged();
}
