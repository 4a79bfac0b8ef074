//! A new image under a running host.

use aegis_ipc::operator::{StopMode, Verdict};

use super::{
    super::{Event, Exit, Request},
    stories::{Script, proven, serving},
    world::{Manner, NewImage, Probe, World},
};

#[test]
fn upgrade_that_works() {
    let mut world = proven(2);
    let asker = world.ask(Request::Upgrade { path: Some("/opt/aegis/new".to_owned()) });
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Upgrade { path: Some("/opt/aegis/new") } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: trying the new executable
            Upgrade { path: Some("/opt/aegis/new") }
    21030 Upgraded { image: 2, has_code: false }
            CopyGeneration { from: 1, to: 2 }
            to 1: the supervisor runs the new executable; the workers follow as generation 2
            Prepare { child: ChildId(2), generation: 2 }
    21031 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #5 Worker { slot: 0 } gen 2 image 2
    21041 #5 (slot 0 gen 2) is ready
            serve #5 (slot 0 gen 2)
            to 1: generation 2: one worker serves, to be judged in 2000 ms
    23041 …
            to 1: generation 2: the canary is good (2000 requests, 0.0 % of them 5xx); the others follow
            drain #3 (slot 0 gen 1) in Some(5000)
            spawn #6 Worker { slot: 1 } gen 2 image 2
            to 1: 1 of 2 workers replaced
    23051 #6 (slot 1 gen 2) is ready
            serve #6 (slot 1 gen 2)
            drain #4 (slot 1 gen 1) in Some(5000)
            to 1: 2 of 2 workers replaced
            WriteLastGood { generation: 2 }
            Activate { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 2 }
            to 1: generation 2 is in force
    23052 #4 accepts no more
            to 1: starting the store from the new executable
            keep #2 (Store { epoch: 1 })
            terminate #2 (Store { epoch: 1 })
    23091 #3 exited with 0
    23101 #4 exited with 0
    23102 #2 exited with 0
            spawn #7 Store { epoch: 2 } gen 2 image 2
    23112 #7 (Store { epoch: 2 }) is ready
            to 1: Done
            Notify(Ready)
    "#);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
    world.run(700_000);
    insta::assert_snapshot!(world.story(), @r"
    623051 …
             Forget { generation: 1 }
             ForgetImage { image: 1 }
    ");
}

#[test]
fn code_is_compiled_anew_by_the_new_image_before_its_workers_start() {
    let mut world = proven(1);
    world.has_code = true;
    let asker = world.ask(Request::Upgrade { path: None });
    world.run(2_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Upgrade { path: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: trying the new executable
            Upgrade { path: None }
    21030 Upgraded { image: 2, has_code: true }
            CopyGeneration { from: 1, to: 2 }
            to 1: the supervisor runs the new executable; the workers follow as generation 2
            to 1: generation 2: compiling what the new executable cannot run as it is
            spawn #4 Compile gen 2 image 2
    21032 Working { child: ChildId(4), on: "modules/order/order.wasm" }
    21035 compiled first
            BindListeners { generation: 2 }
    21035 ListenersBound { generation: 2 }
            to 1: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    21036 #4 exited with 0
    21036 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #5 Worker { slot: 0 } gen 2 image 2
    21046 #5 (slot 0 gen 2) is ready
            serve #5 (slot 0 gen 2)
            to 1: generation 2: one worker serves, to be judged in 2000 ms
    "#);
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn an_app_that_the_new_image_cannot_compile_leaves_the_workers_as_they_are() {
    let mut world = proven(1);
    world.has_code = true;
    world.fate.probes.push_back(Probe::Dies(Exit::Signal(11)));
    let asker = world.ask(Request::Upgrade { path: None });
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Upgrade { path: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: trying the new executable
            Upgrade { path: None }
    21030 Upgraded { image: 2, has_code: true }
            CopyGeneration { from: 1, to: 2 }
            to 1: the supervisor runs the new executable; the workers follow as generation 2
            to 1: generation 2: compiling what the new executable cannot run as it is
            spawn #4 Compile gen 2 image 2
    21032 Working { child: ChildId(4), on: "modules/order/order.wasm" }
    21035 #4 crashed by SIGSEGV
            Error: upgrade (job 2): rejected: the compile helper gave no answer: crashed by SIGSEGV while it compiled modules/order/order.wasm
            to 1: Rejected { reasons: ["the compile helper gave no answer: crashed by SIGSEGV while it compiled modules/order/order.wasm"] }
            Notify(Ready)
            Forget { generation: 2 }
    "#);
    assert!(matches!(world.verdict(asker), Some(Verdict::Rejected { .. })));
    world.check_converged();
}

#[test]
fn a_component_that_takes_more_than_a_helper_may_have_is_to_blame() {
    for (signal, told) in [
        (6, "takes more memory than the compile helper may have (which crashed by SIGABRT)"),
        (24, "takes more computing time than the compile helper may have (which crashed by SIGXCPU)"),
    ] {
        let mut world = proven(1);
        world.has_code = true;
        world.fate.probes.push_back(Probe::Dies(Exit::Signal(signal)));
        let asker = world.ask(Request::Upgrade { path: None });
        world.run(1_000);
        let reason = format!(
            "modules/order/order.wasm: AEGIS-M172 compiling the component: found that it {told}, expected less"
        );
        assert_eq!(world.verdict(asker), Some(&Verdict::Rejected { reasons: vec![reason] }));
        world.check_converged();
    }
}

/// An image of before, which could not call an upgrade off, has become the new one.
fn continue_all_the_same(world: &mut World<Script>) {
    let image = world.checks.next_image();
    world.report(Event::Upgraded { image, has_code: world.has_code });
}

#[test]
fn code_stays_with_the_image_that_compiled_it_when_an_upgrade_is_called_off_too_late() {
    let mut world = serving(1);
    world.has_code = true;
    world.ask(Request::Upgrade { path: None });
    world.ask(Request::Drain);
    world.run(30);
    continue_all_the_same(&mut world);
    world.run(970);
    world.story();
    world.scale(1);
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @"
    2000 Scale(To(1)) by Some(3)
           Accepted { asker: Asker(3), job: 4 }
           to 3: from 1 to 1 workers
           spawn #4 Worker { slot: 0 } gen 1 image 1
    2010 #4 (slot 0 gen 1) is ready
           serve #4 (slot 0 gen 1)
           to 3: Done
    ");
    world.check_converged();
}

#[test]
fn upgrade_to_something_that_is_no_executable_is_rejected() {
    let mut world = proven(2);
    world.fate.images.push_back(NewImage::Fails);
    world.ask(Request::Upgrade { path: None });
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Upgrade { path: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: trying the new executable
            Upgrade { path: None }
    21030 UpgradeFailed { reasons: ["not an executable"] }
            Error: upgrade (job 2): rejected: not an executable
            to 1: Rejected { reasons: ["not an executable"] }
            Notify(Ready)
    "#);
    world.check_converged();
}

#[test]
fn upgrade_whose_image_went_back_is_rolled_back() {
    let mut world = proven(2);
    world.fate.images.push_back(NewImage::Returns);
    world.ask(Request::Upgrade { path: None });
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Upgrade { path: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: trying the new executable
            Upgrade { path: None }
    21030 UpgradeReturned { reason: "it cannot read the state" }
            Error: upgrade (job 2): rolled back: it cannot read the state
            to 1: RolledBack { reason: "it cannot read the state" }
            Notify(Ready)
    "#);
    world.check_converged();
}

#[test]
fn workers_that_fail_with_the_new_image_go_back_to_the_old_one() {
    let mut world = proven(2);
    world.fate.workers = [Manner::Fails(70)].into();
    world.ask(Request::Upgrade { path: None });
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r#"
    21000 Upgrade { path: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: trying the new executable
            Upgrade { path: None }
    21030 Upgraded { image: 2, has_code: false }
            CopyGeneration { from: 1, to: 2 }
            to 1: the supervisor runs the new executable; the workers follow as generation 2
            Prepare { child: ChildId(2), generation: 2 }
    21031 Prepared { child: ChildId(2), generation: 2 }
            to 1: generation 2: starting one worker
            spawn #5 Worker { slot: 0 } gen 2 image 2
    21036 Failed { child: ChildId(5), code: 70, reason: "the self-test failed" }
    21037 #5 exited with 70
            Warn: worker 0 (pid 105, generation 2) exited with 70: the self-test failed, before it was ready; its slot waits 0 ms
            to 1: back to generation 1: worker 0 of generation 2 exited with 70: the self-test failed
            Discard { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 1 }
            Error: upgrade (job 2): rolled back: worker 0 of generation 2 exited with 70: the self-test failed
            to 1: RolledBack { reason: "worker 0 of generation 2 exited with 70: the self-test failed" }
            Notify(Ready)
            Forget { generation: 2 }
    "#);
    world.check_converged();
    // The digest is not to blame, so the next reload is not refused, and its workers use the image that is known to work.
    let asker = world.reload();
    world.run(10_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Unchanged));
}

#[test]
fn upgrade_that_was_called_off_too_late_changes_the_image_of_later_workers() {
    let mut world = serving(1);
    world.ask(Request::Upgrade { path: None });
    world.ask(Request::Drain);
    world.run(30);
    continue_all_the_same(&mut world);
    world.run(970);
    world.scale(2);
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
    1000 Upgrade { path: None } by Some(1)
           Accepted { asker: Asker(1), job: 2 }
           Notify(Reloading)
           to 1: trying the new executable
           Upgrade { path: None }
    1000 Drain by Some(2)
           Accepted { asker: Asker(2), job: 3 }
           CallOffUpgrade
           Error: upgrade (job 2): rolled back: all workers were drained on request
           to 1: RolledBack { reason: "all workers were drained on request" }
           Notify(Ready)
           to 2: draining all workers
           drain #3 (slot 0 gen 1) in Some(5000)
    1030 Upgraded { image: 2, has_code: false }
           Warn: the new executable runs, though nobody waits for it any more
           ForgetImage { image: 1 }
    1050 #3 exited with 0
           to 2: Done
    2000 Scale(To(2)) by Some(3)
           Accepted { asker: Asker(3), job: 4 }
           to 3: from 1 to 2 workers
           spawn #4 Worker { slot: 0 } gen 1 image 2
           spawn #5 Worker { slot: 1 } gen 1 image 2
    2010 #4 (slot 0 gen 1) is ready
           serve #4 (slot 0 gen 1)
    2010 #5 (slot 1 gen 1) is ready
           serve #5 (slot 1 gen 1)
           to 3: Done
    "#);
    world.check_converged();
}

#[test]
fn upgrade_that_was_called_off_leads_nowhere_and_the_next_one_is_another() {
    let mut world = proven(1);
    let called_off = world.ask(Request::Upgrade { path: None });
    world.run(10);
    world.ask(Request::Drain);
    world.run(1_000);
    let reason = "all workers were drained on request".to_owned();
    assert_eq!(world.verdict(called_off), Some(&Verdict::RolledBack { reason }));
    let story = world.story();
    assert!(story.contains("CallOffUpgrade") && !story.contains("Upgraded"), "{story}");

    let asker = world.ask(Request::Upgrade { path: None });
    world.run(30_000);
    assert_eq!(world.verdict(asker), Some(&Verdict::Done));
    world.check_converged();
}

#[test]
fn stop_during_an_upgrade_calls_it_off() {
    let mut world = serving(1);
    world.ask(Request::Upgrade { path: None });
    world.run(10);
    world.stop(StopMode::Graceful);
    world.run(5_000);
    insta::assert_snapshot!(world.story(), @r"
    1000 Upgrade { path: None } by Some(1)
           Accepted { asker: Asker(1), job: 2 }
           Notify(Reloading)
           to 1: trying the new executable
           Upgrade { path: None }
    1010 Stop { mode: Graceful } by Some(2)
           Accepted { asker: Asker(2), job: 3 }
           CallOffUpgrade
           to 1: Superseded
           Notify(Ready)
           Notify(Stopping)
           to 2: stopping: what is in flight is finished within the drain timeout
           drain #3 (slot 0 gen 1) in Some(5000)
    1060 #3 exited with 0
           terminate #2 (Store { epoch: 1 })
    1110 #2 exited with 0
           to 2: Done
           Exit { code: 0, reason: None }
    ");
    world.check_ended();
}

#[test]
fn state_that_crosses_an_upgrade_goes_on_to_the_millisecond() {
    let mut world = proven(3);
    world.reload();
    world.run(1_000);
    let mut other = world.fleet.clone();
    world.check_handover();
    for later_ms in [0, 10, 500, 2_000, 50_000] {
        let now_ms = world.now_ms + later_ms;
        assert_eq!(world.fleet.on(now_ms, Event::Tick), other.on(now_ms, Event::Tick));
        assert_eq!(world.fleet.next_deadline(), other.next_deadline());
        assert_eq!(world.fleet.summary(now_ms), other.summary(now_ms));
    }
}
