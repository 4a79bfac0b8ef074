//! A pretended machine: carries out the fleet's actions and reports what comes of them, in pretended time.

mod effects;
mod machine;
mod story;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use aegis_ipc::operator::{StopMode, Verdict};

pub(crate) use machine::{
    Adopts, App, Bind, Closing, Fate, Manner, NewImage, Parting, Probe, Process, StoreSays, nothing_new,
    policy,
};

use super::checks::Checks;
use crate::fleet::{Asker, Caller, ChildId, Event, Exit, Fleet, Origin, Patience, Request, Role, Scale};

/// When the pretended machine was started: nothing may depend on time beginning at zero.
pub(crate) const EPOCH_MS: u64 = 1_000_000;

/// Most events within one millisecond: more, and somebody goes round in circles.
const EVENTS_MAX: u32 = 10_000;

/// Something that will happen.
#[derive(Debug, Clone, PartialEq)]
enum Due {
    Report(Event),
    Die(ChildId, Exit),
    Hang(ChildId),
    Recover(ChildId),
    Exec(NewImage),
}

/// The machine.
pub(crate) struct World<F> {
    pub(crate) now_ms: u64,
    pub(crate) fleet: Fleet,
    pub(crate) fate: F,
    queue: BTreeMap<(u64, u64), Due>,
    queued: u64,
    pub(crate) processes: BTreeMap<ChildId, Process>,
    pub(crate) bundles: BTreeMap<u64, App>,
    compiling: BTreeMap<ChildId, App>,
    pub(crate) last_good: Option<App>,
    /// The generation of which was said last that it is kept.
    pub(crate) kept: Option<u64>,
    pub(crate) bound: BTreeSet<u16>,
    pub(crate) exit: Option<u8>,
    /// Whether generations have code.
    pub(crate) has_code: bool,
    pub(crate) checks: Checks,
    asked: u64,
    /// The present millisecond, and how many events it has seen.
    instant: (u64, u32),
    story: String,
}

impl<F: Fate> World<F> {
    pub(crate) fn new(workers: u32, fate: F) -> Self {
        Self {
            now_ms: EPOCH_MS,
            fleet: Fleet::new(policy(workers), 7, EPOCH_MS),
            fate,
            queue: BTreeMap::new(),
            queued: 0,
            processes: BTreeMap::new(),
            bundles: BTreeMap::new(),
            compiling: BTreeMap::new(),
            last_good: None,
            kept: None,
            bound: BTreeSet::new(),
            exit: None,
            has_code: false,
            checks: Checks::default(),
            asked: 0,
            instant: (0, 0),
            story: String::new(),
        }
    }

    pub(crate) fn start(&mut self) {
        self.report(Event::Start);
    }

    /// Asks for something; the answers are in the story.
    pub(crate) fn ask(&mut self, request: Request) -> Asker {
        self.ask_with(Patience::Verdict, request)
    }

    pub(crate) fn ask_with(&mut self, patience: Patience, request: Request) -> Asker {
        self.asked += 1;
        let asker = Asker(self.asked);
        self.checks.asked(asker);
        self.report(Event::Request { asker: Some(Caller { asker, patience }), request });
        asker
    }

    pub(crate) fn reload(&mut self) -> Asker {
        self.ask(Request::Reload { origin: Origin::Operator, mode: None })
    }

    pub(crate) fn scale(&mut self, workers: u32) -> Asker {
        self.ask(Request::Scale(Scale::To(workers)))
    }

    pub(crate) fn stop(&mut self, mode: StopMode) -> Asker {
        self.ask(Request::Stop { mode })
    }

    pub(crate) fn verdict(&self, asker: Asker) -> Option<&Verdict> {
        self.checks.verdict(asker)
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, for_ms: u64) {
        let until_ms = self.now_ms + for_ms;
        while self.step(until_ms) {}
        self.now_ms = self.now_ms.max(until_ms);
    }

    /// Lets time pass until something holds; panics when it does not within a simulated ten minutes.
    pub(crate) fn run_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let until_ms = self.now_ms + 600_000;
        while !holds(self) {
            assert!(
                self.step(until_ms),
                "not within ten minutes: {what}; {}",
                self.fleet.summary(self.now_ms)
            );
        }
    }

    /// Lets time pass until nothing is under way any more, or it is up.
    pub(crate) fn run_until_converged(&mut self, for_ms: u64) {
        let until_ms = self.now_ms + for_ms;
        let is_busy = |world: &Self| {
            let extra = world.processes.len() != world.fleet.wanted as usize + 1;
            let is_down = world.fleet.store.ready_since_ms().is_none();
            extra
                || is_down
                || world.fleet.rollout.is_some()
                || !world.fleet.is_complete()
                || !world.checks.unanswered().is_empty()
        };
        while is_busy(self) && self.step(until_ms) {}
    }

    /// The supervisor is stopped for a while: time passes, nobody looks at what happens.
    pub(crate) fn freeze_supervisor(&mut self, for_ms: u64) {
        self.now_ms += for_ms;
        self.checks.excuse(self.now_ms);
    }

    /// The whole machine is stopped for a while: heartbeats are missing too.
    pub(crate) fn freeze_machine(&mut self, for_ms: u64) {
        let frozen_ms = self.now_ms;
        self.freeze_supervisor(for_ms);
        for process in self.processes.values_mut().filter(|process| !process.is_hung) {
            process.is_hung = true;
            process.hung_ms = frozen_ms;
        }
        let children: Vec<ChildId> = self.processes.keys().copied().collect();
        for child in children {
            self.after(80, Due::Recover(child));
        }
    }

    /// Dies now.
    pub(crate) fn die(&mut self, child: ChildId, exit: Exit) {
        self.after(0, Due::Die(child, exit));
        self.run(0);
    }

    pub(crate) fn hang(&mut self, child: ChildId) {
        self.after(0, Due::Hang(child));
        self.run(0);
    }

    /// Somebody signals a worker to drain.
    pub(crate) fn signal_to_drain(&mut self, child: ChildId) {
        if self.processes.get(&child).is_some_and(|process| !process.is_leaving && !process.is_ending) {
            self.leave(child, Some(5_000));
            self.report(Event::Draining { child, connections: 1, in_flight: 0, closed: false });
        }
    }

    /// Workers that accept connections, as far as one can know: a silent one is not, once it is suspected.
    pub(crate) fn serving(&self) -> Vec<ChildId> {
        let serving =
            self.processes.iter().filter(|(child, process)| process.is_serving && !self.is_suspect(**child));
        serving.filter(|(_, process)| !process.is_mute).map(|(child, _)| *child).collect()
    }

    pub(crate) fn is_suspect(&self, child: ChildId) -> bool {
        self.fleet.workers.get(&child).is_some_and(|worker| worker.state_name() == "suspect")
    }

    /// The store process.
    pub(crate) fn store(&self) -> ChildId {
        let is_store = |process: &Process| matches!(process.spawn.role, Role::Store { .. });
        *self.processes.iter().find(|(_, process)| is_store(process)).expect("a store runs").0
    }

    fn step(&mut self, until_ms: u64) -> bool {
        if self.exit.is_some() {
            return false;
        }
        let queued = self.queue.first_key_value().map(|((at_ms, _), _)| (*at_ms).max(self.now_ms));
        let tick = self.fleet.next_deadline().map(|at_ms| at_ms.max(self.now_ms));
        match (queued, tick) {
            (Some(at_ms), tick) if at_ms <= until_ms && tick.is_none_or(|tick| at_ms <= tick) => {
                self.now_ms = at_ms;
                if let Some((_, due)) = self.queue.pop_first() {
                    self.happen(due);
                }
                true
            }
            (_, Some(at_ms)) if at_ms <= until_ms => {
                self.now_ms = at_ms;
                self.report(Event::Tick);
                true
            }
            _ => false,
        }
    }

    fn after(&mut self, delay_ms: u64, due: Due) {
        self.queued += 1;
        self.queue.insert((self.now_ms + delay_ms, self.queued), due);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Report(event) => {
                if self.is_current(&event) {
                    self.report(event);
                }
            }
            Due::Die(child, exit) => {
                if self.processes.remove(&child).is_some() {
                    self.report(Event::Exited { child, exit });
                }
            }
            Due::Hang(child) => {
                if let Some(process) = self.processes.get_mut(&child) {
                    process.is_hung = true;
                    process.hung_ms = self.now_ms;
                }
            }
            Due::Recover(child) => {
                if let Some(process) = self.processes.get_mut(&child) {
                    process.is_hung = false;
                }
            }
            Due::Exec(outcome) => {
                self.check_awaited();
                self.check_handover();
                let event = match outcome {
                    NewImage::Works => {
                        Event::Upgraded { image: self.checks.next_image(), has_code: self.has_code }
                    }
                    NewImage::Fails => Event::UpgradeFailed { reasons: vec!["not an executable".to_owned()] },
                    NewImage::Returns => {
                        Event::UpgradeReturned { reason: "it cannot read the state".to_owned() }
                    }
                };
                self.report(event);
            }
        }
    }

    /// A process that is gone, or hangs, says nothing any more.
    fn is_current(&mut self, event: &Event) -> bool {
        let says = |child: &ChildId| self.processes.get(child).is_some_and(|process| !process.is_hung);
        match event {
            Event::Hello { child, .. }
            | Event::Failed { child, .. }
            | Event::Invalid { child, .. }
            | Event::Looked { child, .. } => says(child),
            Event::Compiled { child, .. } => {
                let generation = self.processes.get(child).map(|process| process.spawn.generation);
                let bundle = self.compiling.remove(child).zip(generation);
                bundle.map(|(app, generation)| self.bundles.insert(generation, app)).is_some()
            }
            Event::Unreachable { child, .. } => {
                self.processes.get_mut(child).map(|process| process.is_mute = true).is_some()
            }
            Event::Adopted { child, generation, .. } => {
                let manner = self.bundles.get(generation).map(|app| app.manner);
                let Some(process) = self.processes.get_mut(child).filter(|process| !process.is_hung) else {
                    return false;
                };
                process.adopt(*generation, manner);
                if let Some(Manner::Crashes(after_ms, exit)) = manner {
                    self.after(after_ms, Due::Die(*child, exit));
                }
                true
            }
            Event::Draining { child, closed, .. } => {
                let Some(process) = self.processes.get_mut(child).filter(|process| !process.is_hung) else {
                    return false;
                };
                process.is_open &= !closed;
                true
            }
            Event::NotAdopted { child, .. } | Event::Bye { child } | Event::Refused { child, .. } => {
                says(child)
            }
            Event::Prepared { child, generation } => {
                if let Some(process) = self.processes.get_mut(child) {
                    process.knows.insert(*generation);
                }
                self.processes.contains_key(child)
            }
            Event::Kept { generation } => {
                self.kept = Some(*generation);
                true
            }
            Event::Ready { child } => {
                let now_ms = self.now_ms;
                let process = self.processes.get_mut(child).filter(|process| !process.is_killed);
                process.map(|process| process.ready_ms = Some(now_ms)).is_some()
            }
            _ => true,
        }
    }

    /// The state survives being written down and read back, in the format of the handover and in JSON.
    pub(crate) fn check_handover(&mut self) {
        let bytes = aegis_ipc::codec::encode(&self.fleet).unwrap();
        let restored: Fleet = aegis_ipc::codec::decode(&bytes).unwrap();
        assert_eq!(restored, self.fleet);
        let text = serde_json::to_string(&self.fleet).unwrap();
        self.fleet = serde_json::from_str(&text).unwrap();
        assert_eq!(restored, self.fleet);
    }

    pub(crate) fn report(&mut self, event: Event) {
        let is_later = self.now_ms > self.instant.0;
        self.instant = if is_later { (self.now_ms, 0) } else { (self.now_ms, self.instant.1 + 1) };
        assert!(self.instant.1 < EVENTS_MAX, "time stands still: {event:?}{}", self.lately());
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if self.exit.is_some() {
                return;
            }
            let told = self.tell_event(&event);
            let mut wanted = self.fleet.wanted;
            if let Event::Request { request: Request::Scale(Scale::To(workers)), .. } = &event {
                wanted = wanted.min(*workers);
            } else if matches!(event, Event::Request { request: Request::Scale(Scale::Fewer), .. }) {
                wanted -= 1;
            }
            let before = self.serving();
            let actions = self.fleet.on(self.now_ms, event);
            self.tell_actions(told, &actions);
            for action in &actions {
                self.check_action(action);
                self.carry_out(action, &mut events);
            }
            self.check(&before, wanted);
        }
    }
}
