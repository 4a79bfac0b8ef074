//! No slot is filled again earlier than its delay allows: at once, 50 ms × 2^k, at most 30 s, about a fifth more or less.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::{ChildId, Exit, Role},
    world::{Adopts, App, Fate, Manner, NewImage, Parting, Probe, World},
};

/// Time after which a host that starts well has proved its generation.
const PROVEN_MS: u64 = 21_000;
/// Bounds of the delays in the tests, milliseconds.
const DELAY_MIN_MS: u64 = 50;
const DELAY_MAX_MS: u64 = 30_000;
/// Failures after which the delay is the longest one.
const FAILURES_MANY: u32 = 20;

/// Workers live well or all die the same death.
#[derive(Debug)]
struct Plague {
    workers: u32,
    death: Option<Manner>,
}

impl Fate for Plague {
    fn manner(&mut self, role: Role) -> Option<Manner> {
        self.death.filter(|_| matches!(role, Role::Worker { .. }))
    }

    fn parting(&mut self) -> Parting {
        Parting::After(50)
    }

    fn dying(&mut self) -> u64 {
        1
    }

    fn adopts(&mut self) -> Adopts {
        Adopts::Not
    }

    fn probe(&mut self) -> Probe {
        App::new("first", self.workers).found()
    }

    fn upgrade(&mut self) -> NewImage {
        NewImage::Works
    }

    fn delay(&mut self, _most_ms: u64) -> u64 {
        0
    }
}

/// Runs the world and returns, for each slot, how long it was empty each time until it was filled again.
fn gaps(world: &mut World<Plague>, for_ms: u64) -> BTreeMap<u32, Vec<u64>> {
    let workers = |world: &World<Plague>| -> BTreeMap<u32, ChildId> {
        let slot = |(child, process): (&ChildId, &super::world::Process)| match process.spawn.role {
            Role::Worker { slot } => Some((slot, *child)),
            Role::Store { .. } | Role::Compile | Role::Look => None,
        };
        world.processes.iter().filter_map(slot).collect()
    };
    let mut gaps: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut empty_since_ms: BTreeMap<u32, u64> = BTreeMap::new();
    let mut before = workers(world);
    for _ in 0..for_ms {
        world.run(1);
        let now = workers(world);
        for (slot, child) in &before {
            if now.get(slot) != Some(child) {
                empty_since_ms.insert(*slot, world.now_ms);
            }
        }
        for (slot, child) in &now {
            if before.get(slot) != Some(child)
                && let Some(since_ms) = empty_since_ms.remove(slot)
            {
                gaps.entry(*slot).or_default().push(world.now_ms - since_ms);
            }
        }
        before = now;
    }
    gaps
}

fn crash_all(world: &mut World<Plague>) {
    let workers: Vec<ChildId> =
        world.processes.iter().filter(|(_, process)| process.is_worker()).map(|(child, _)| *child).collect();
    for child in workers {
        world.die(child, Exit::Signal(11));
    }
}

/// Asserts the delays after so many failures that count already.
fn assert_delays(gaps: &[u64], failures: u32) {
    for (index, gap) in gaps.iter().enumerate() {
        let doublings = failures + index as u32;
        let nominal = DELAY_MIN_MS.saturating_mul(1 << doublings.min(20)).min(DELAY_MAX_MS);
        let allowed = nominal * 8 / 10..=nominal * 12 / 10 + 1;
        assert!(allowed.contains(gap), "{index}: {gap} ms, expected about {nominal} ms of {gaps:?}");
    }
}

fn exit() -> impl Strategy<Value = Exit> {
    prop_oneof![Just(Exit::Signal(11)), Just(Exit::Signal(6)), Just(Exit::Code(70)), Just(Exit::Code(1))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slot_whose_workers_die_waits_twice_as_long_each_time_until_one_lives_for_a_minute(
        workers in 1..3_u32,
        dies_after_ms in 0..2_000_u64,
        exit in exit(),
        healthy_ms in 10_500..59_000_u64,
    ) {
        let mut world = World::new(workers, Plague { workers, death: None });
        world.start();
        world.run(PROVEN_MS);
        prop_assert!(world.last_good.is_some());

        // The first death comes after a healthy life and is answered at once.
        world.fate.death = Some(Manner::DiesEarly(dies_after_ms, exit));
        crash_all(&mut world);
        prop_assert_eq!(world.processes.values().filter(|process| process.is_worker()).count(), workers as usize);
        let counted = gaps(&mut world, 200_000);
        prop_assert_eq!(counted.len(), workers as usize);
        for gaps in counted.values() {
            assert_delays(gaps, 0);
            prop_assert!(gaps.last().is_some_and(|gap| *gap >= DELAY_MAX_MS * 8 / 10), "{:?}", gaps);
        }

        // The end of a healthy life is answered at once. One of less than a minute forgets nothing, a longer one all.
        for (lives_ms, failures) in [(healthy_ms, FAILURES_MANY), (61_000, 0)] {
            world.fate.death = None;
            world.run(DELAY_MAX_MS * 2);
            crash_all(&mut world);
            world.run(lives_ms);
            world.fate.death = Some(Manner::DiesEarly(dies_after_ms, exit));
            crash_all(&mut world);
            let counted = gaps(&mut world, 40_000);
            prop_assert_eq!(counted.len(), workers as usize);
            for gaps in counted.values() {
                assert_delays(gaps, failures);
            }
        }
    }
}
