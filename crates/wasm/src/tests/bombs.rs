//! Modules that take without end of what the host has: each is cut, and nobody else notices.

use std::time::Duration;

use aegis_domain::code::CodeLimits;
use rustix::time::ClockId;

use super::{Worker, answer, call, command, trapped, worked};

/// How much a thread may do for a bomb that goes off on it before another call on it has ended.
const UNNOTICED: Duration = Duration::from_millis(500);

#[test]
fn handles_are_few_whoever_they_belong_to() {
    let worker = Worker::out_of_time(&aegis_guests::hoarder());
    for (name, told) in [("timers", "table has no free keys"), ("things", "handle limit exceeded")] {
        let before = worked(ClockId::ProcessCPUTime);
        let reason = trapped(worker.command(name, "{}"));
        let did = worked(ClockId::ProcessCPUTime) - before;
        assert!(reason.contains(told), "{name}: {reason}");
        assert!(did < Duration::from_secs(5), "{name}: it worked {did:?}");
        assert_eq!(worker.command("fine", "{}"), answer("{\"fine\":true}"), "after {name}");
    }
    assert_eq!(worker.command("some", "{}"), answer("true"));
    let reason = trapped(worker.command("many", "{}"));
    assert!(reason.contains("table has no free keys"), "{reason}");
}

#[test]
fn an_instance_that_has_many_calls_at_a_time_holds_no_more_of_the_host() {
    let limits = CodeLimits { calls_at_a_time_max: 16, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::hoarder(), limits);
    assert_eq!(worker.command("some", "{}"), answer("true"));
    let reason = trapped(worker.command("many", "{}"));
    assert!(reason.contains("table has no free keys"), "{reason}");
}

#[test]
fn nobody_waits_for_a_bomb_on_the_same_thread() {
    let bombs = [
        (aegis_guests::unruly(), vec!["log-bomb", "table", "memory", "spin-calling", "fill"]),
        (aegis_guests::hoarder(), vec!["timers", "things"]),
    ];
    for (guest, names) in bombs {
        let worker = Worker::limited(&guest, CodeLimits { call_ms_max: 1_000, ..CodeLimits::default() });
        assert_eq!(worker.command("fine", "{}"), answer("{\"fine\":true}"));
        let one = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for name in names {
            one.block_on(async {
                let bomb = worker.enter(call(), command(name, "{}"));
                let others = async {
                    let fine = worker.enter(call(), command("fine", "{}")).await;
                    (fine, worked(ClockId::ThreadCPUTime))
                };
                let before = worked(ClockId::ThreadCPUTime);
                let (_, (fine, after)) = tokio::join!(bomb, others);
                assert_eq!(fine, answer("{\"fine\":true}"), "beside {name}");
                assert!(after - before < UNNOTICED, "the thread worked {:?} for {name}", after - before);
            });
        }
    }
}
