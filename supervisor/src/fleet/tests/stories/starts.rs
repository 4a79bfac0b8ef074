//! How a host comes up, or does not.

use super::{host, offer};
use crate::fleet::{
    Exit,
    tests::world::{App, Bind, Manner, Probe},
};

#[test]
fn start() {
    let mut world = host(2);
    world.start();
    world.run(12_000);
    insta::assert_snapshot!(world.story(), @r"
        0 Start
            spawn #1 Compile gen 1 image 1
        5 compiled first
            BindListeners { generation: 1 }
        5 ListenersBound { generation: 1 }
            CloseListeners { generation: 1 }
            spawn #2 Store { epoch: 1 } gen 1 image 1
        6 #1 exited with 0
       15 #2 (Store { epoch: 1 }) is ready
            spawn #3 Worker { slot: 0 } gen 1 image 1
            spawn #4 Worker { slot: 1 } gen 1 image 1
       25 #3 (slot 0 gen 1) is ready
            serve #3 (slot 0 gen 1)
       25 #4 (slot 1 gen 1) is ready
            serve #4 (slot 1 gen 1)
            Notify(Ready)
    10025 …
            KeepLastGoodBefore { generation: 1 }
            WriteLastGood { generation: 1 }
    ");
    world.check_converged();
}

#[test]
fn crash_loop_at_the_first_start_falls_back_to_what_is_on_disk() {
    let mut world = host(2);
    world.last_good = Some(App::new("yesterday", 1));
    offer(&mut world, App::new("today", 2).manner(Manner::DiesEarly(20, Exit::Code(70))));
    world.start();
    world.run(20_000);
    insta::assert_snapshot!(world.story(), @r#"
        0 Start
            spawn #1 Compile gen 1 image 1
        5 compiled today
            BindListeners { generation: 1 }
        5 ListenersBound { generation: 1 }
            CloseListeners { generation: 1 }
            spawn #2 Store { epoch: 1 } gen 1 image 1
        6 #1 exited with 0
       15 #2 (Store { epoch: 1 }) is ready
            spawn #3 Worker { slot: 0 } gen 1 image 1
            spawn #4 Worker { slot: 1 } gen 1 image 1
       35 #3 exited with 70
            Warn: worker 0 (pid 103, generation 1) exited with 70, before it was ready; its slot waits 0 ms
            spawn #5 Worker { slot: 0 } gen 1 image 1
       35 #4 exited with 70
            Warn: worker 1 (pid 104, generation 1) exited with 70, before it was ready; its slot waits 0 ms
            spawn #6 Worker { slot: 1 } gen 1 image 1
       55 #5 exited with 70
            Warn: worker 0 (pid 105, generation 1) exited with 70, before it was ready; its slot waits 49 ms
       55 #6 exited with 70
            Warn: worker 1 (pid 106, generation 1) exited with 70, before it was ready; its slot waits 43 ms
       98 …
            spawn #7 Worker { slot: 1 } gen 1 image 1
      104 …
            spawn #8 Worker { slot: 0 } gen 1 image 1
      118 #7 exited with 70
            Warn: worker 1 (pid 107, generation 1) exited with 70, before it was ready; its slot waits 109 ms
            Error: crash loop of generation 1, lately: exited with 70
            Error: start (job 1): failed: crash loop of generation 1: exited with 70
            LoadLastGood { generation: 2 }
      118 LastGoodLoaded { generation: 2, digest: "yesterday", policy: Policy { workers: 1, surge: 1, ready_timeout: 10s, reload: Reload { mode: Rolling, watch: false, poll: None, webhook_secret_file: None, webhook_secret: None, canary_time: 2s, canary_requests_min: 100, error_rate_margin: 0.01, latency_factor_max: 1.5, probe_timeout: 20s }, drain: Drain { timeout: 5s, spread: 1s }, restart: Restart { delay_min: 50ms, delay_max: 30s, healthy_after: 10s, reset_after: 60s, crash_loop_count: 5, crash_loop_window: 30s }, recycle: Recycle { memory_bytes_max: None, requests_max: None }, hang: Hang { suspect_after: 2s, kill_after: 10s } } }
            BindListeners { generation: 2 }
      118 ListenersBound { generation: 2 }
            Prepare { child: ChildId(2), generation: 2 }
      119 Prepared { child: ChildId(2), generation: 2 }
            Activate { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 2 }
            kill #8 (slot 0 gen 1)
            spawn #9 Worker { slot: 0 } gen 2 image 1
            Forget { generation: 1 }
      120 #8 crashed by SIGKILL
      129 #9 (slot 0 gen 2) is ready
            serve #9 (slot 0 gen 2)
            Notify(Ready)
    10129 …
            KeepLastGoodBefore { generation: 2 }
            WriteLastGood { generation: 2 }
    "#);
    world.check_converged();
}

#[test]
fn crash_loop_with_nothing_to_go_back_to_is_tried_on_ever_more_slowly() {
    let mut world = host(1);
    offer(&mut world, App::new("today", 1).manner(Manner::DiesEarly(20, Exit::Signal(6))));
    world.start();
    world.run(300_000);
    let starts = world.story().matches("spawn").count();
    assert!((12..=22).contains(&starts), "{starts} processes in five minutes");
    insta::assert_snapshot!(world.fleet.summary(world.now_ms), @"gen 1 · 0/1 serving · 0 draining · DEGRADED: crash loop of generation 1: crashed by SIGABRT · last rollback rejected 4 min ago");
    // What was the matter is put right, and the next attempt works.
    world.fate.workers.push_back(Manner::Good);
    world.run(60_000);
    insta::assert_snapshot!(world.fleet.summary(world.now_ms), @"gen 1 · 1/1 serving · 0 draining · last rollback rejected 5 min ago");
}

#[test]
fn start_of_an_invalid_application_ends_at_once() {
    let mut world = host(2);
    world.fate.probes.push_back(Probe::Invalid);
    world.start();
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
    0 Start
        spawn #1 Compile gen 1 image 1
    5 Invalid { child: ChildId(1), reasons: ["listen: found \"x\""] }
        Error: cannot go on: listen: found "x"
        Error: start (job 1): failed: listen: found "x"
        kill #1 (Compile)
        Notify(Stopping)
    6 #1 exited with 0
        Exit { code: 78, reason: Some("listen: found \"x\"") }
    "#);
    world.check_ended();
    assert_eq!(world.exit, Some(78));
}

#[test]
fn start_whose_addresses_are_taken_ends_at_once() {
    let mut world = host(2);
    let mut app = App::new("first", 1);
    app.bind = Bind::Fails;
    offer(&mut world, app);
    world.start();
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
    0 Start
        spawn #1 Compile gen 1 image 1
    5 compiled first
        BindListeners { generation: 1 }
    5 ListenersFailed { generation: 1, reasons: ["port 81 is taken"] }
        Error: cannot go on: port 81 is taken
        Error: start (job 1): failed: port 81 is taken
        kill #1 (Compile)
        Notify(Stopping)
        Forget { generation: 1 }
    6 #1 exited with 0
        Exit { code: 71, reason: Some("port 81 is taken") }
    "#);
    world.check_ended();
    assert_eq!(world.exit, Some(71));
}

#[test]
fn start_whose_store_cannot_work_ends_at_once() {
    let mut world = host(2);
    world.fate.stores.push_back(Manner::Fails(78));
    world.start();
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r#"
     0 Start
         spawn #1 Compile gen 1 image 1
     5 compiled first
         BindListeners { generation: 1 }
     5 ListenersBound { generation: 1 }
         CloseListeners { generation: 1 }
         spawn #2 Store { epoch: 1 } gen 1 image 1
     6 #1 exited with 0
    10 Failed { child: ChildId(2), code: 78, reason: "the self-test failed" }
    11 #2 exited with 78
         Error: the store cannot start: exited with 78: the self-test failed; trying the last good generation
         LoadLastGood { generation: 2 }
    11 LastGoodMissing { generation: 2, reason: "no such file" }
         Error: cannot go on: the store cannot start: exited with 78: the self-test failed; there is no last good generation: no such file
         Error: start (job 1): failed: the store cannot start: exited with 78: the self-test failed; there is no last good generation: no such file
         Notify(Stopping)
         Exit { code: 78, reason: Some("the store cannot start: exited with 78: the self-test failed; there is no last good generation: no such file") }
    "#);
    world.check_ended();
    assert_eq!(world.exit, Some(78));
}

#[test]
fn start_of_an_app_that_does_not_fit_the_data_comes_up_on_the_last_good_one() {
    let mut world = host(1);
    world.last_good = Some(App::new("yesterday", 1));
    world.fate.stores.push_back(Manner::Fails(78));
    world.start();
    world.run(12_000);
    let story = world.story();
    let told = "Error: the store cannot start: exited with 78: the self-test failed; trying the last good generation";
    assert!(story.contains(told), "{story}");
    let told = "Warn: the host does not begin with the app folder: the last good generation, because with the app the store cannot start";
    assert!(story.contains(told), "{story}");
    let summary = world.fleet.summary(world.now_ms);
    assert!(summary.starts_with("gen 2 · 1/1 serving") && summary.contains("LAST GOOD"), "{summary}");
    world.check_converged();
}

#[test]
fn start_of_an_app_that_is_found_not_to_fit_after_a_long_time_comes_up_on_the_last_good_one() {
    let mut world = host(1);
    world.last_good = Some(App::new("yesterday", 1));
    // Twice as long as a start waits for its workers, and longer: an index is built first.
    world.fate.stores.push_back(Manner::DiesEarly(50_000, Exit::Code(78)));
    world.start();
    world.run(49_000);
    let story = world.story();
    assert!(!story.contains("Error: "), "it is still waited for: {story}");
    world.run(13_000);
    let summary = world.fleet.summary(world.now_ms);
    assert!(summary.starts_with("gen 2 · 1/1 serving") && summary.contains("LAST GOOD"), "{summary}");
    world.check_converged();
}

#[test]
fn start_whose_store_cannot_work_with_the_last_good_one_either_ends() {
    let mut world = host(1);
    world.last_good = Some(App::new("yesterday", 1));
    world.fate.stores.extend([Manner::Fails(78), Manner::Fails(78)]);
    world.start();
    world.run(1_000);
    world.check_ended();
    assert_eq!(world.exit, Some(78));
}

#[test]
fn start_of_the_last_good_one_that_does_not_fit_the_data_ends() {
    let mut world = host(1);
    offer(&mut world, App::new("today", 1));
    world.last_good = Some(App::new("today", 1));
    world.fate.stores.push_back(Manner::Fails(78));
    world.start();
    world.run(1_000);
    assert_eq!(world.story().matches(" Store {").count(), 1, "{}", world.story());
    world.check_ended();
    assert_eq!(world.exit, Some(78));
}
