//! Modules that take without end of what the host has: each is cut, and nobody else notices.

use std::time::{Duration, Instant};

use aegis_domain::code::CodeLimits;
use aegis_guests::Guest;

use super::{Worker, answer, call, command, trapped};

/// Time that another call may take while a bomb goes off on the same thread, on a busy machine.
const UNNOTICED: Duration = Duration::from_millis(500);

fn worker(guest: &Guest) -> Worker {
    Worker::limited(guest, CodeLimits { call_ms_max: 10_000, ..CodeLimits::default() })
}

#[test]
fn handles_are_few_whoever_they_belong_to() {
    let worker = worker(&aegis_guests::hoarder());
    for (name, told) in [("timers", "table has no free keys"), ("things", "handle limit exceeded")] {
        let begun = Instant::now();
        let reason = trapped(worker.command(name, "{}"));
        assert!(reason.contains(told), "{name}: {reason}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
        assert_eq!(worker.command("fine", "{}"), answer("{\"fine\":true}"), "after {name}");
    }
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
                    let begun = Instant::now();
                    let fine = worker.enter(call(), command("fine", "{}")).await;
                    (fine, begun.elapsed())
                };
                let (_, (fine, took)) = tokio::join!(bomb, others);
                assert_eq!(fine, answer("{\"fine\":true}"), "beside {name}");
                assert!(took < UNNOTICED, "it waited {took:?} for {name}");
            });
        }
    }
}
