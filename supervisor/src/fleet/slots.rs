//! The N wanted places and who fills them.
//!
//! Each slot should have exactly one serving worker of the target generation. Whatever else is there is served, replaced
//! (new first) or sent away; whatever is missing is started, within the limits on how many start at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Fleet, Phase,
    action::{Action, Role, Spawn},
    adoption::Adoption,
    backoff::Backoff,
    event::ChildId,
    worker::{Leave, Purpose, State, Worker},
};

/// Workers that start at once because their predecessor crashed: no fork storms.
pub(super) const REFILLS_MAX: usize = 2;
/// Workers that start at once because slots are empty by plan.
pub(super) const FILLS_MAX: usize = 8;
/// Draining workers beyond which no healthy worker is replaced, unless more are wanted than this.
pub(super) const DRAINING_MIN: usize = 4;
/// Failures in a row after which nothing waits for a slot any more.
const FAILURES_HOPEFUL_MAX: u32 = 3;
/// Share by which the requests of a worker's life vary, so that workers that started together do not end together,
/// percent.
const REQUESTS_JITTER_PERCENT: u64 = 10;

/// What a slot lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lack {
    /// Nothing, or nothing that can be helped now.
    Nothing,
    /// Anybody.
    Worker,
    /// Somebody to take over from one that does not answer.
    Rescue,
    /// Somebody to take over from one that is to go.
    Successor,
}

impl Fleet {
    /// Generation that slots should serve now.
    pub(super) fn target(&self) -> u64 {
        self.rollout.as_ref().and_then(super::Rollout::wave_target).unwrap_or(self.in_force)
    }

    /// Brings every slot closer to what it should be.
    pub(super) fn reconcile(&mut self) {
        self.keep_store();
        if self.phase != Phase::Running {
            return;
        }
        self.resize();
        let members = self.members();
        let slots: Vec<u32> = self.slots.keys().copied().collect();
        // A canary that took the new generation over is all that its slot needs until it is judged.
        let on_trial = self.canary_slot().filter(|_| self.swaps());
        let settle = |slot: u32| match on_trial {
            Some(kept) if kept == slot => (Lack::Nothing, slot),
            _ => (self.settle(members.get(&slot).map_or(&[], Vec::as_slice)), slot),
        };
        let lacks: Vec<(Lack, u32)> = slots.into_iter().map(settle).collect();
        if !self.is_tried_alone() {
            let is_empty = |(lack, _): &&(Lack, u32)| *lack == Lack::Worker;
            self.fill(lacks.iter().filter(is_empty).map(|(_, slot)| *slot).collect());
        }
        self.start_canary();
        let mut successors: Vec<(Lack, u32)> = lacks;
        successors.retain(|(lack, _)| matches!(lack, Lack::Rescue | Lack::Successor));
        successors.retain(|(lack, slot)| *lack != Lack::Successor || !self.takes_over(*slot));
        successors.sort_unstable();
        self.replace(&successors);
    }

    /// Adds or removes slots until there are as many as wanted.
    fn resize(&mut self) {
        while self.slots.len() < self.wanted as usize {
            let free = (0..).find(|slot| !self.slots.contains_key(slot)).unwrap_or_default();
            self.slots.insert(free, Backoff::default());
        }
        while self.slots.len() > self.wanted as usize {
            let Some(slot) = self.slot_to_cull() else { return };
            self.slots.remove(&slot);
            for child in self.members().remove(&slot).unwrap_or_default() {
                self.dismiss(child, Leave::ScaledDown);
                self.move_canary(child);
            }
        }
    }

    /// The slots that there are. While all are drained, those that there are as soon as workers are wanted again.
    pub(super) fn known_slots(&self) -> BTreeSet<u32> {
        let mut known: BTreeSet<u32> = self.slots.keys().copied().collect();
        if matches!(self.phase, Phase::Paused(_)) {
            let wanted = self.wanted as usize;
            let missing = wanted.saturating_sub(known.len());
            known.extend((0_u32..).filter(|slot| !self.slots.contains_key(slot)).take(missing));
            // Nobody serves in any of them, so that the last ones are given up.
            while known.len() > wanted {
                known.pop_last();
            }
        }
        known
    }

    /// The slot to give up: one where nobody serves, else the youngest, that of the canary last.
    fn slot_to_cull(&self) -> Option<u32> {
        let kept = self.canary_slot();
        let mut since_ms: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for worker in self.workers.values().filter(|worker| worker.is_serving()) {
            let oldest = since_ms.entry(worker.slot).or_insert(worker.ready_ms);
            *oldest = worker.ready_ms.min(*oldest);
        }
        self.slots.keys().copied().max_by_key(|slot| {
            let since_ms = since_ms.get(slot);
            (since_ms.is_none(), Some(*slot) != kept, since_ms, *slot)
        })
    }

    /// Who fills each slot, oldest first.
    fn members(&self) -> BTreeMap<u32, Vec<ChildId>> {
        let mut members: BTreeMap<u32, Vec<ChildId>> = BTreeMap::new();
        for (child, worker) in self.workers.iter().filter(|(_, worker)| worker.is_incumbent()) {
            members.entry(worker.slot).or_default().push(*child);
        }
        members
    }

    /// Lets the right worker of a slot serve, sends away whom it does not need, and says what it lacks.
    fn settle(&mut self, members: &[ChildId]) -> Lack {
        let (target, canary) = (self.target(), self.canary_child());
        let mut members: Vec<(ChildId, Worker)> = members
            .iter()
            .filter(|child| Some(**child) != canary)
            .filter_map(|child| Some((*child, self.workers.get(child)?.clone())))
            .collect();
        for (child, worker) in &mut members {
            if worker.state == State::Ready && worker.is_right(target) {
                self.serve(*child);
                worker.state = State::Serving;
            }
        }
        let serving = members.iter().filter(|(_, worker)| worker.is_right(target) && worker.is_serving());
        // Those that are ready already are right and serve by now, so the oldest right one is the one to keep.
        let right = members.iter().filter(|(_, worker)| worker.is_right(target));
        if let Some(keeper) = serving.min_by_key(|(_, worker)| worker.ready_ms).map(|(child, _)| *child) {
            for (child, worker) in &members {
                if *child != keeper && worker.doom.is_none() && !self.is_needed(worker) {
                    let why = if worker.is_serving() { Leave::Replaced } else { Leave::Dismissed };
                    self.dismiss(*child, why);
                }
            }
            return Lack::Nothing;
        }
        let coming = right.map(|(child, _)| *child).min();
        members.retain(|(child, worker)| {
            let is_dark = matches!(worker.state, State::Starting | State::Ready) && worker.doom.is_none();
            if is_dark && Some(*child) != coming {
                self.dismiss(*child, Leave::Dismissed);
            }
            !is_dark
        });
        if coming.is_some() || members.iter().any(|(_, worker)| worker.doom.is_some()) {
            return Lack::Nothing;
        }
        match members.first() {
            None => Lack::Worker,
            Some(_) if members.iter().any(|(_, worker)| worker.state == State::Suspect) => Lack::Rescue,
            Some(_) => Lack::Successor,
        }
    }

    /// Whether a worker that is not needed in its own slot makes up for another slot in which nobody serves. Slots that
    /// failed again and again are not waited for, nor is a generation kept for it that was found bad.
    fn is_needed(&self, worker: &Worker) -> bool {
        let is_unwanted = self.rollout.is_none() && worker.generation != self.in_force;
        worker.is_serving() && !is_unwanted && self.serving() <= self.slots.len() - self.written_off()
    }

    /// Slots in which nobody serves and nobody is expected to any time soon.
    pub(super) fn written_off(&self) -> usize {
        let served = self.slots_of(Worker::is_serving);
        let hopeless = self.slots.iter().filter(|(_, slot)| slot.failures() > FAILURES_HOPEFUL_MAX);
        hopeless.filter(|(slot, _)| !served.contains(slot)).count()
    }

    /// Tells a ready worker to accept connections.
    pub(super) fn serve(&mut self, child: ChildId) {
        if let Some(worker) = self.workers.get_mut(&child) {
            worker.state = State::Serving;
            self.actions.push(Action::Serve { child });
            self.turn += 1;
        }
    }

    /// Starts workers in empty slots.
    fn fill(&mut self, mut slots: Vec<u32>) {
        let troubles = |fleet: &Self, slot: &u32| fleet.slots.get(slot).map_or(0, Backoff::failures);
        slots.sort_by_key(|slot| (troubles(self, slot), *slot));
        let (mut fills, mut refills) = (self.starting(Purpose::Fill), self.starting(Purpose::Refill));
        for slot in slots {
            let (purpose, count, limit) = match troubles(self, &slot) {
                0 => (Purpose::Fill, &mut fills, FILLS_MAX),
                _ => (Purpose::Refill, &mut refills, REFILLS_MAX),
            };
            if *count < limit
                && self.may_start(slot)
                && self.spawn_worker(slot, self.target(), purpose).is_some()
            {
                *count += 1;
            }
        }
    }

    /// Starts successors in slots whose worker is to go, as far as the surge allows.
    fn replace(&mut self, slots: &[(Lack, u32)]) {
        if slots.is_empty() {
            return;
        }
        let draining = self.workers.values().filter(|worker| worker.is_draining()).count();
        let mut extras = self.extras();
        for (lack, slot) in slots {
            if extras >= self.policy.surge as usize {
                return;
            }
            let is_crowded = draining + extras >= DRAINING_MIN.max(self.wanted as usize);
            let may_start = self.may_start(*slot) && (*lack == Lack::Rescue || !is_crowded);
            if may_start && self.spawn_worker(*slot, self.target(), Purpose::Replacement).is_some() {
                extras += 1;
            }
        }
    }

    fn may_start(&self, slot: u32) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.until_ms() <= self.now_ms)
    }

    fn starting(&self, purpose: Purpose) -> usize {
        self.workers
            .values()
            .filter(|worker| worker.state == State::Starting && worker.purpose == purpose)
            .count()
    }

    /// Whether one more worker may be started beyond one per slot.
    pub(super) fn has_surge(&self) -> bool {
        self.extras() < self.policy.surge as usize
    }

    /// Workers beyond one per slot.
    fn extras(&self) -> usize {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for worker in self.workers.values().filter(|worker| worker.is_incumbent()) {
            *counts.entry(worker.slot).or_default() += 1;
        }
        counts.values().map(|count| count - 1).sum()
    }

    /// Starts a worker, unless the store is not ready for it or all cells of the board are taken.
    pub(super) fn spawn_worker(&mut self, slot: u32, generation: u64, purpose: Purpose) -> Option<ChildId> {
        if self.store.ready_since_ms().is_none() || !self.is_prepared(generation) {
            return None;
        }
        let taken: BTreeSet<u32> = self.workers.values().map(|worker| worker.cell).collect();
        let cell = (1..aegis_ipc::board::CELLS as u32).find(|cell| !taken.contains(cell))?;
        let child = self.new_child();
        let requests_max = self.policy_of(generation).recycle.requests_max;
        let requests_max = requests_max.map(|requests| self.chance.around(requests, REQUESTS_JITTER_PERCENT));
        let worker = Worker {
            slot,
            generation,
            cell,
            pid: 0,
            purpose,
            state: State::Starting,
            spawned_ms: self.now_ms,
            ready_ms: None,
            heard_ms: 0,
            replace: None,
            doom: None,
            requests_max,
            adoption: Adoption::Able,
            adopted_ms: None,
        };
        self.workers.insert(child, worker);
        let image = self.image_of(generation);
        self.actions.push(Action::Spawn(Spawn {
            child,
            role: Role::Worker { slot },
            generation,
            image,
            cell,
            is_canary: purpose == Purpose::Canary,
        }));
        Some(child)
    }

    /// Slots in which a worker of the target generation serves and nothing is against it.
    pub(super) fn right_slots(&self) -> usize {
        let target = self.target();
        self.slots_of(|worker| worker.is_right(target) && worker.is_serving()).len()
    }

    /// Slots in which anybody serves.
    pub(super) fn served_slots(&self) -> usize {
        self.slots_of(Worker::is_serving).len()
    }

    /// Wanted slots that have a worker of which something holds.
    fn slots_of(&self, holds: impl Fn(&Worker) -> bool) -> BTreeSet<u32> {
        let workers = self.workers.values().filter(|worker| holds(worker));
        workers.map(|worker| worker.slot).filter(|slot| self.slots.contains_key(slot)).collect()
    }

    /// Whether every wanted slot has what it should have.
    pub(super) fn is_complete(&self) -> bool {
        self.slots.len() == self.wanted as usize && self.right_slots() == self.slots.len()
    }

    /// Workers that take connections and show signs of life.
    pub(super) fn serving(&self) -> usize {
        self.workers.values().filter(|worker| worker.is_serving()).count()
    }

    /// Lets every slot start afresh: what comes now is something else than what failed there.
    pub(super) fn clear_backoffs(&mut self) {
        for slot in self.slots.values_mut() {
            slot.clear();
        }
    }
}
