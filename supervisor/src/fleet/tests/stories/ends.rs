//! How a host ends.

use aegis_ipc::operator::StopMode;

use super::proven;
use crate::fleet::tests::world::Parting;

#[test]
fn graceful_stop() {
    let mut world = proven(2);
    world.stop(StopMode::Graceful);
    world.run(10_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Stop { mode: Graceful } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Stopping)
            to 1: stopping: what is in flight is finished within the drain timeout
            drain #3 (slot 0 gen 1) in Some(5000)
            drain #4 (slot 1 gen 1) in Some(5000)
    21050 #3 exited with 0
    21050 #4 exited with 0
            terminate #2 (Store { epoch: 1 })
    21100 #2 exited with 0
            to 1: Done
            Exit { code: 0, reason: None }
    ");
    world.check_ended();
}

#[test]
fn stop_that_is_asked_for_again_and_again() {
    let mut world = proven(1);
    world.fate.partings = [Parting::Never, Parting::Never, Parting::Never, Parting::Never].into();
    world.stop(StopMode::Patient);
    world.run(60_000);
    world.stop(StopMode::Patient);
    world.run(1_000);
    world.stop(StopMode::Patient);
    world.run(1_000);
    world.stop(StopMode::Patient);
    world.run(1_000);
    insta::assert_snapshot!(world.story(), @r"
    21000 Stop { mode: Patient } by Some(1)
            Accepted { asker: Asker(1), job: 2 }
            Notify(Stopping)
            to 1: stopping: what is in flight is finished however long it takes
            drain #3 (slot 0 gen 1) in None
    81000 Stop { mode: Patient } by Some(2)
            Accepted { asker: Asker(2), job: 2 }
            to 1: stopping harder: Graceful
            to 2: stopping harder: Graceful
            drain #3 (slot 0 gen 1) in Some(5000)
    82000 Stop { mode: Patient } by Some(3)
            Accepted { asker: Asker(3), job: 2 }
            to 1: stopping harder: Immediate
            to 2: stopping harder: Immediate
            to 3: stopping harder: Immediate
            kill #3 (slot 0 gen 1)
    82001 #3 crashed by SIGKILL
            terminate #2 (Store { epoch: 1 })
    83000 Stop { mode: Patient } by Some(4)
            Accepted { asker: Asker(4), job: 2 }
            to 1: stopping harder: Immediate
            to 2: stopping harder: Immediate
            to 3: stopping harder: Immediate
            to 4: stopping harder: Immediate
            kill #2 (Store { epoch: 1 })
    83001 #2 crashed by SIGKILL
            to 1: Done
            to 2: Done
            to 3: Done
            to 4: Done
            Exit { code: 0, reason: None }
    ");
    world.check_ended();
}
