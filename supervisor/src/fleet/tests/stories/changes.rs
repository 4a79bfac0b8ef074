//! Healthy workers that come and go.

use aegis_ipc::operator::Verdict;

use super::{Script, offer, proven};
use crate::fleet::{
    Event, Request, Vital,
    tests::world::{App, World},
};

#[test]
fn scaling_up_and_down() {
    let mut world = proven(2);
    let up = world.scale(4);
    world.run(1_000);
    let down = world.scale(1);
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Scale(To(4)) by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            to 1: from 2 to 4 workers
            spawn #5 Worker { slot: 2 } gen 1 image 1
            spawn #6 Worker { slot: 3 } gen 1 image 1
    21010 #5 (slot 2 gen 1) is ready
            serve #5 (slot 2 gen 1)
    21010 #6 (slot 3 gen 1) is ready
            serve #6 (slot 3 gen 1)
            to 1: Done
    22000 Scale(To(1)) by Some(2)
            Accepted { asker: Asker(2), job: 3 }
            to 2: from 4 to 1 workers
            drain #6 (slot 3 gen 1) in Some(5000)
            drain #5 (slot 2 gen 1) in Some(5000)
            drain #4 (slot 1 gen 1) in Some(5000)
    22001 #4 accepts no more
            to 2: Done
    22050 #6 exited with 0
    22050 #5 exited with 0
    22050 #4 exited with 0
    ");
    assert_eq!((world.verdict(up), world.verdict(down)), (Some(&Verdict::Done), Some(&Verdict::Done)));
}

#[test]
fn restart_of_all_replaces_one_by_one() {
    let mut world = proven(2);
    world.ask(Request::Restart { slot: None });
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Restart { slot: None } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Reloading)
            to 1: replacing workers
            spawn #5 Worker { slot: 0 } gen 1 image 1
    21010 #5 (slot 0 gen 1) is ready
            serve #5 (slot 0 gen 1)
            drain #3 (slot 0 gen 1) in Some(5000)
            spawn #6 Worker { slot: 1 } gen 1 image 1
    21020 #6 (slot 1 gen 1) is ready
            serve #6 (slot 1 gen 1)
            drain #4 (slot 1 gen 1) in Some(5000)
    21021 #4 accepts no more
            to 1: Done
            Notify(Ready)
    21060 #3 exited with 0
    21070 #4 exited with 0
    ");
    world.check_converged();
}

#[test]
fn worker_with_too_much_memory_is_replaced_first() {
    let mut world = proven(2);
    let mut app = App::new("second", 2);
    app.policy.recycle.memory_bytes_max = Some(1 << 30);
    offer(&mut world, app);
    world.reload();
    world.run(20_000);
    world.story();
    for process in world.processes.values_mut() {
        process.resident_bytes = 2 << 30;
    }
    world.run(2_000);
    insta::assert_snapshot!(world.story(), @r"
    41005 …
            spawn #8 Worker { slot: 0 } gen 2 image 1
    41015 #8 (slot 0 gen 2) is ready
            serve #8 (slot 0 gen 2)
            drain #6 (slot 0 gen 2) in Some(5000)
    41065 #6 exited with 0
    41505 …
            spawn #9 Worker { slot: 1 } gen 2 image 1
    41515 #9 (slot 1 gen 2) is ready
            serve #9 (slot 1 gen 2)
            drain #7 (slot 1 gen 2) in Some(5000)
    41565 #7 exited with 0
    ");
    world.check_converged();
}

#[test]
fn workers_that_are_too_large_from_the_beginning_are_not_replaced_without_end() {
    let mut world = proven(2);
    let mut app = App::new("second", 2);
    app.policy.recycle.memory_bytes_max = Some(1 << 30);
    offer(&mut world, app);
    world.reload();
    world.run(20_000);
    world.story();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..300 {
        for process in world.processes.values_mut() {
            process.resident_bytes = 2 << 30;
        }
        world.run(100);
        seen.extend(world.serving());
    }
    assert!(seen.len() <= 2 + 2 * 3, "one for each slot in ten seconds, not {}", seen.len());
    let warnings = world.story().matches("more than recycle.memory_bytes_max").count();
    assert_eq!(warnings, 1);
    world.check_converged();
}

#[test]
fn spent_workers_are_recycled_one_at_a_time() {
    let mut world = proven(2);
    let mut app = App::new("second", 2);
    app.policy.recycle.requests_max = Some(1_000);
    offer(&mut world, app);
    world.reload();
    world.run(10_000);
    world.story();
    let vitals = |world: &World<Script>, requests| {
        let vital = |child| Vital { child, beat_ms: world.now_ms, requests, resident_bytes: 0 };
        world.serving().into_iter().map(vital).collect()
    };
    world.report(Event::Vitals(vitals(&world, 899)));
    assert_eq!(world.story(), "", "fewer than any jitter allows");
    world.report(Event::Vitals(vitals(&world, 1_101)));
    world.report(Event::Vitals(vitals(&world, 1_101)));
    world.run(400);
    insta::assert_snapshot!(world.story(), @r"
    31000 …
            spawn #8 Worker { slot: 0 } gen 2 image 1
    31010 #8 (slot 0 gen 2) is ready
            serve #8 (slot 0 gen 2)
            drain #6 (slot 0 gen 2) in Some(5000)
    31060 #6 exited with 0
    ");
    world.check_converged();
}

#[test]
fn drain_all_and_resume() {
    let mut world = proven(2);
    world.ask(Request::Drain);
    world.run(1_000);
    assert_eq!(world.serving().len(), 0);
    offer(&mut world, App::new("second", 2));
    world.reload();
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Drain by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            to 1: draining all workers
            drain #3 (slot 0 gen 1) in Some(5000)
            drain #4 (slot 1 gen 1) in Some(5000)
    21050 #3 exited with 0
    21050 #4 exited with 0
            to 1: Done
    22000 Reload { origin: Operator, mode: None } by Some(2)
            Accepted { asker: Asker(2), job: 3 }
            Notify(Reloading)
            to 2: generation 2: validating the application
            spawn #5 Compile gen 2 image 1
    22005 compiled second
            BindListeners { generation: 2 }
    22005 ListenersBound { generation: 2 }
            to 2: generation 2: preparing the store
            Prepare { child: ChildId(2), generation: 2 }
    22006 #5 exited with 0
    22006 Prepared { child: ChildId(2), generation: 2 }
            to 2: generation 2: starting one worker
            spawn #6 Worker { slot: 0 } gen 2 image 1
    22016 #6 (slot 0 gen 2) is ready
            serve #6 (slot 0 gen 2)
            to 2: generation 2: one worker serves, to be judged in 2000 ms
    24016 …
            to 2: generation 2: the canary is good (2000 requests, 0.0 % of them 5xx); the others follow
            spawn #7 Worker { slot: 1 } gen 2 image 1
            to 2: 1 of 2 workers replaced
    24026 #7 (slot 1 gen 2) is ready
            serve #7 (slot 1 gen 2)
            to 2: 2 of 2 workers replaced
            WritePrevious { generation: 1 }
            WriteLastGood { generation: 2 }
            Activate { child: ChildId(2), generation: 2 }
            CloseListeners { generation: 2 }
            to 2: generation 2 is in force
            to 2: Done
            Notify(Ready)
    ");
    world.check_converged();
}
