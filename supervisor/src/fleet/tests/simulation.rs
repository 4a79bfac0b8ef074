//! Random lives of a host. Every step is judged by [`super::checks`], and once nothing is broken any more the fleet must
//! come to what is wanted by itself.

use std::{collections::BTreeSet, time::Duration};

use aegis_config::ReloadMode;
use aegis_ipc::operator::StopMode;
use proptest::prelude::*;

use super::{
    super::{Event, Exit, Look, Origin, Phase, Request, Role, Scale},
    checks::SURGE,
    stories::an_order,
    world::{
        Adopts, App, Bind, Closing, Fate, Manner, NewImage, Parting, Probe, StoreSays, World, nothing_new,
    },
};

/// Simulated time in which a host without faults must have recovered from whatever was: a hung start, a wave that is
/// stuck until its deadline, the longest delay.
const RECOVERY_MS: u64 = 900_000;

/// Time after which nothing that was decided about a process in bad luck is still to come, with room.
const FATE_MS_MAX: u64 = 60_000;

/// Whether things go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Bad,
    Good,
}

/// Throws dice (xorshift64*) for everything that processes do.
#[derive(Debug)]
struct Dice {
    state: u64,
    luck: Luck,
    apps: u64,
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self { state: seed | 1, luck: Luck::Good, apps: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    fn exit(&mut self) -> Exit {
        [Exit::Signal(11), Exit::Signal(9), Exit::Code(70), Exit::Code(78), Exit::Code(0), Exit::OutOfMemory]
            [self.below(6) as usize]
    }

    fn bad_manner(&mut self) -> Manner {
        match self.below(10) {
            0 => Manner::Unborn,
            1 => Manner::DiesEarly(self.below(3_000), self.exit()),
            2 => Manner::Fails([75, 78, 70][self.below(3) as usize]),
            3 => Manner::Impostor,
            4 => Manner::NeverReady,
            5 => Manner::Crashes(self.below(20_000), self.exit()),
            6 => Manner::Hangs(self.below(5_000), 1_000 + self.below(20_000)),
            7 => Manner::Mute(self.below(5_000)),
            8 => Manner::Slow(self.below(14_000)),
            _ => Manner::Errs(30),
        }
    }

    fn app(&mut self) -> App {
        // A few digests come again: unchanged, or found bad before.
        self.apps += 1;
        let digest = if self.below(4) == 0 { self.below(4) } else { 10 + self.apps };
        let mut app = App::new(&format!("d{digest}"), 1 + self.below(5) as u32);
        app.policy.reload.poll = (self.below(4) == 0).then_some(Duration::from_secs(1 + self.below(20)));
        app.policy.surge = 1 + self.below(SURGE as u64) as u32;
        if self.below(2) == 0 {
            app = app.swapped();
        }
        if self.below(4) == 0 {
            app.listeners = BTreeSet::from([80, 81 + self.below(2) as u16]);
        }
        if self.luck == Luck::Bad {
            app.store = [StoreSays::Yes, StoreSays::Yes, StoreSays::Yes, StoreSays::No, StoreSays::Nothing]
                [self.below(5) as usize];
            app.bind = if self.below(8) == 0 { Bind::Fails } else { Bind::Works };
            if self.below(3) == 0 {
                app.manner = self.bad_manner();
            }
        }
        app
    }
}

impl Fate for Dice {
    fn manner(&mut self, role: Role) -> Option<Manner> {
        let odds = if matches!(role, Role::Worker { .. }) { 5 } else { 12 };
        let is_odd = self.below(odds) == 0;
        match self.luck {
            Luck::Good => Some(Manner::Good),
            Luck::Bad if !is_odd => None,
            Luck::Bad if matches!(role, Role::Compile | Role::Look) => {
                [None, Some(Manner::Unborn)][self.below(2) as usize]
            }
            Luck::Bad => Some(self.bad_manner()),
        }
    }

    fn parting(&mut self) -> Parting {
        match (self.luck, self.below(10)) {
            (Luck::Bad, 0) => Parting::Never,
            (_, 1..4) => Parting::After(self.below(8_000)),
            _ => Parting::After(self.below(50)),
        }
    }

    fn closing(&mut self) -> Closing {
        match (self.luck, self.below(8)) {
            (Luck::Bad, 0) => Closing::Unsaid,
            (Luck::Bad, 1) => Closing::After(self.below(5_000)),
            _ => Closing::After(self.below(20)),
        }
    }

    fn dying(&mut self) -> u64 {
        if self.luck == Luck::Bad && self.below(10) == 0 { 12_000 } else { self.below(5) }
    }

    fn adopts(&mut self) -> Adopts {
        match (self.luck, self.below(8)) {
            (Luck::Bad, 0) => Adopts::Not,
            (Luck::Bad, 1) => Adopts::Silently,
            (Luck::Bad, 2) => Adopts::Dying(self.exit()),
            (Luck::Bad, 3) => Adopts::After(self.below(15_000)),
            (Luck::Bad, 4) => Adopts::LosesState,
            _ => Adopts::After(self.below(50)),
        }
    }

    fn probe(&mut self) -> Probe {
        match (self.luck, self.below(10)) {
            (Luck::Bad, 0) => Probe::Invalid,
            (Luck::Bad, 1) => Probe::Dies(self.exit()),
            (Luck::Bad, 2) => Probe::Hangs,
            _ => self.app().found(),
        }
    }

    fn look(&mut self) -> Option<Look> {
        let (changed, away) = (vec!["order".to_owned()], vec!["silence".to_owned()]);
        match (self.luck, self.below(6)) {
            (Luck::Bad, 0) => None,
            (Luck::Bad, 1) => Some(Look { away, absent: 1, ..nothing_new() }),
            (Luck::Bad, 2) => Some(Look { changed, ..nothing_new() }),
            _ => Some(nothing_new()),
        }
    }

    fn keeping(&mut self) -> u64 {
        if self.luck == Luck::Bad && self.below(8) == 0 { self.below(20_000) } else { self.below(50) }
    }

    fn upgrade(&mut self) -> NewImage {
        match (self.luck, self.below(6)) {
            (Luck::Bad, 0) => NewImage::Fails,
            (Luck::Bad, 1) => NewImage::Returns,
            _ => NewImage::Works,
        }
    }

    fn delay(&mut self, most_ms: u64) -> u64 {
        self.below(most_ms + 1)
    }
}

/// Something that people, or the machine, do to the host.
#[derive(Debug, Clone)]
enum Deed {
    Ask(Request),
    KillWorker(usize, Exit),
    HangWorker(usize),
    SignalWorker(usize),
    KillStore,
    HangStore,
    FreezeSupervisor(u64),
    FreezeMachine(u64),
    HandOver,
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => Just(Request::Reload { origin: Origin::Operator, mode: None }),
        1 => Just(Request::Reload { origin: Origin::Operator, mode: Some(ReloadMode::Rolling) }),
        1 => Just(Request::Reload { origin: Origin::Operator, mode: Some(ReloadMode::Swap) }),
        2 => Just(Request::Reload { origin: Origin::Automatic, mode: None }),
        3 => (0..7_u32).prop_map(|workers| Request::Scale(Scale::To(workers))),
        1 => Just(Request::Scale(Scale::More)),
        1 => Just(Request::Scale(Scale::Fewer)),
        1 => Just(Request::Restart { slot: None }),
        1 => (0..5_u32).prop_map(|slot| Request::Restart { slot: Some(slot) }),
        1 => Just(Request::Drain),
        2 => Just(Request::Upgrade { path: None }),
        3 => (0..4_u32).prop_map(|number| Request::Deploy(an_order(&format!("m{number}")))),
        1 => Just(Request::Rollback),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let exit =
        prop_oneof![Just(Exit::Signal(9)), Just(Exit::Signal(11)), Just(Exit::Code(0)), Just(Exit::Code(78))];
    prop_oneof![
        8 => request().prop_map(Deed::Ask),
        3 => (0..9_usize, exit).prop_map(|(index, exit)| Deed::KillWorker(index, exit)),
        2 => (0..9_usize).prop_map(Deed::HangWorker),
        1 => (0..9_usize).prop_map(Deed::SignalWorker),
        2 => Just(Deed::KillStore),
        1 => Just(Deed::HangStore),
        1 => (100..60_000_u64).prop_map(Deed::FreezeSupervisor),
        1 => (100..60_000_u64).prop_map(Deed::FreezeMachine),
        1 => Just(Deed::HandOver),
    ]
}

fn pause() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, 0..500_u64, 0..10_000_u64, Just(61_000_u64)]
}

fn stop_mode() -> impl Strategy<Value = StopMode> {
    prop_oneof![Just(StopMode::Graceful), Just(StopMode::Patient), Just(StopMode::Immediate)]
}

fn enact(world: &mut World<Dice>, deed: Deed) {
    let worker = |world: &World<Dice>, index: usize| {
        let workers: Vec<_> = world.processes.iter().filter(|(_, process)| process.is_worker()).collect();
        workers.get(index % workers.len().max(1)).map(|(child, _)| **child)
    };
    let is_store = |world: &World<Dice>| {
        world.processes.values().any(|process| matches!(process.spawn.role, Role::Store { .. }))
    };
    match deed {
        Deed::Ask(request) => {
            world.ask(request);
        }
        Deed::KillWorker(index, exit) => {
            if let Some(child) = worker(world, index) {
                world.die(child, exit);
            }
        }
        Deed::HangWorker(index) => {
            if let Some(child) = worker(world, index) {
                world.hang(child);
            }
        }
        Deed::SignalWorker(index) => {
            if let Some(child) = worker(world, index) {
                world.signal_to_drain(child);
            }
        }
        Deed::KillStore if is_store(world) => world.die(world.store(), Exit::Signal(6)),
        Deed::HangStore if is_store(world) => world.hang(world.store()),
        Deed::KillStore | Deed::HangStore => {}
        Deed::FreezeSupervisor(for_ms) => world.freeze_supervisor(for_ms),
        Deed::FreezeMachine(for_ms) => world.freeze_machine(for_ms),
        Deed::HandOver => world.check_handover(),
    }
}

fn live(world: &mut World<Dice>, deeds: Vec<(u64, Deed)>) {
    for (pause_ms, deed) in deeds {
        world.run(pause_ms);
        if world.exit.is_some() {
            return;
        }
        enact(world, deed);
    }
}

/// Somebody wants workers again, also when what was to end a drain fails yet: that of two rollouts, the one that runs and the
/// one that waits.
fn come_back(world: &mut World<Dice>) {
    for _ in 0..3 {
        if matches!(world.fleet.phase, Phase::Paused(_)) {
            world.scale(3);
        }
        world.run_until_converged(RECOVERY_MS);
    }
}

fn recover(world: &mut World<Dice>) {
    world.fate.luck = Luck::Good;
    come_back(world);
    world.check_converged();
    // Workers that take another generation over live on, with the fate that they were born with.
    world.run(FATE_MS_MAX);
    world.run_until_converged(RECOVERY_MS);
    world.check_converged();
    // Whatever is asked now must work.
    let asker = world.reload();
    world.run_until_converged(RECOVERY_MS);
    assert!(
        world.verdict(asker).is_some_and(|verdict| verdict.exit_code() == 0),
        "{:?}",
        world.verdict(asker)
    );
    world.check_converged();
}

/// Few lives by default, so that the tests stay quick; `PROPTEST_CASES=5000` for a night.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(64), failure_persistence: None, ..ProptestConfig::default() }
}

fn long_life(seed: u64, workers: u32, deeds: Vec<(u64, Deed)>) {
    let mut world = World::new(workers, Dice::new(seed));
    world.has_code = seed & 2 == 0;
    world.start();
    world.run(5_000);
    world.fate.luck = Luck::Bad;
    live(&mut world, deeds);
    recover(&mut world);
}

fn bad_start(seed: u64, deeds: Vec<(u64, Deed)>) {
    let mut dice = Dice::new(seed);
    dice.luck = Luck::Bad;
    let mut world = World::new(3, dice);
    world.start();
    live(&mut world, deeds);
    if world.exit.is_none() {
        world.run(60_000);
    }
    if world.exit.is_none() && world.fleet.phase != Phase::Starting {
        recover(&mut world);
    } else {
        world.run(60_000);
        world.check_ended();
    }
}

fn stopped_life(seed: u64, deeds: Vec<(u64, Deed)>, stops: Vec<(u64, StopMode)>, late: Vec<(u64, Deed)>) {
    let mut world = World::new(3, Dice::new(seed));
    world.start();
    world.run(1_000);
    world.fate.luck = Luck::Bad;
    live(&mut world, deeds);
    let is_patient = stops.len() == 1 && stops[0].1 == StopMode::Patient;
    for (pause_ms, mode) in stops {
        world.run(pause_ms);
        if world.exit.is_none() {
            world.stop(mode);
        }
    }
    live(&mut world, late);
    world.run(200_000);
    if is_patient && world.exit.is_none() {
        // It waits for as long as it takes, but not when it is asked again.
        world.stop(StopMode::Immediate);
        world.run(200_000);
    }
    world.check_ended();
    assert!(world.fleet.on(world.now_ms, Event::Tick).is_empty());
    assert_eq!(world.fleet.next_deadline(), None);
}

const RELOAD: Deed = Deed::Ask(Request::Reload { origin: Origin::Operator, mode: None });

/// Lives that broke a rule once.
#[test]
fn lives_that_ended_badly_once_end_well() {
    long_life(
        1_276_314_998_046_068_020,
        1,
        vec![
            (0, RELOAD),
            (0, Deed::SignalWorker(1)),
            (0, Deed::KillWorker(2, Exit::Signal(9))),
            (9, Deed::Ask(Request::Drain)),
            (0, RELOAD),
            (4, RELOAD),
            (0, Deed::HangWorker(0)),
            (2359, RELOAD),
        ],
    );
    bad_start(10_014_156_598_941_152_146, vec![(85, Deed::FreezeSupervisor(20_263)), (6258, RELOAD)]);
    bad_start(
        17_858_712_784_416_351_108,
        vec![(0, RELOAD), (161, RELOAD), (48, Deed::SignalWorker(1)), (0, Deed::HangWorker(2))],
    );
    stopped_life(
        9_163_129_634_725_098_844,
        vec![
            (0, Deed::KillStore),
            (0, Deed::FreezeSupervisor(100)),
            (5, Deed::HandOver),
            (61_000, RELOAD),
            (61_000, Deed::Ask(Request::Upgrade { path: None })),
            (2091, RELOAD),
        ],
        vec![(16, StopMode::Graceful)],
        Vec::new(),
    );
    stopped_life(
        14_850_179_421_576_077_794,
        vec![(0, Deed::Ask(Request::Rollback)), (0, Deed::FreezeSupervisor(100)), (3, Deed::SignalWorker(1))],
        vec![(61_000, StopMode::Graceful)],
        Vec::new(),
    );
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_rules_hold_and_the_fleet_recovers(
        seed in any::<u64>(),
        workers in 1..5_u32,
        deeds in prop::collection::vec((pause(), deed()), 0..25),
    ) {
        long_life(seed, workers, deeds);
    }

    #[test]
    fn a_host_that_starts_badly_ends_or_recovers(
        seed in any::<u64>(),
        deeds in prop::collection::vec((pause(), deed()), 0..8),
    ) {
        bad_start(seed, deeds);
    }

    #[test]
    fn a_stop_ends_everything_whenever_it_comes(
        seed in any::<u64>(),
        deeds in prop::collection::vec((pause(), deed()), 0..12),
        stops in prop::collection::vec((pause(), stop_mode()), 1..4),
        late in prop::collection::vec((pause(), deed()), 0..4),
    ) {
        stopped_life(seed, deeds, stops, late);
    }
}
