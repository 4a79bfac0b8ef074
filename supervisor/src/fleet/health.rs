//! Signs of life: who is silent, who has had enough.

use super::{
    Fleet, Phase,
    action::{Action, Level, Vitals},
    event::{ChildId, Vital},
    lives::name_of,
    policy::milliseconds,
    worker::{Replace, State, Worker},
};

/// Shortest and longest time between two looks at the heartbeats, milliseconds.
const INTERVAL_MIN_MS: u64 = 50;
const INTERVAL_MAX_MS: u64 = 1_000;

impl Fleet {
    /// Time between two looks: four before anybody is suspected.
    pub(super) fn vitals_interval_ms(&self) -> u64 {
        (milliseconds(self.policy.hang.suspect_after) / 4).clamp(INTERVAL_MIN_MS, INTERVAL_MAX_MS)
    }

    /// Whether there is anybody to look at.
    pub(super) fn needs_vitals(&self) -> bool {
        self.store.process.is_some() || self.workers.values().any(|worker| worker.ready_ms.is_some())
    }

    pub(super) fn ask_vitals(&mut self) {
        let memory = self.policy.recycle.memory_bytes_max;
        let wanted = if memory.is_some() { Vitals::BoardAndMemory } else { Vitals::Board };
        self.actions.push(Action::ReadVitals(wanted));
        self.vitals_due_ms = self.now_ms + self.vitals_interval_ms();
    }

    pub(super) fn vitals(&mut self, vitals: &[Vital]) {
        for vital in vitals {
            match self.workers.get(&vital.child) {
                Some(worker) if worker.ready_ms.is_some() => self.listen(vital),
                Some(_) => {}
                None => self.store_vital(vital),
            }
        }
        if self.phase == Phase::Running && self.rollout.is_none() {
            self.recycle(vitals);
        }
    }

    fn listen(&mut self, vital: &Vital) {
        let (suspect_ms, kill_ms) =
            (milliseconds(self.policy.hang.suspect_after), milliseconds(self.policy.hang.kill_after));
        let Some(worker) = self.workers.get_mut(&vital.child) else { return };
        // Nobody is blamed for a silence before it was ready, nor for the time in which we could not listen.
        worker.heard_ms = worker.heard_ms.max(vital.beat_ms).max(self.forgiven_ms);
        let silent_ms = self.now_ms.saturating_sub(worker.heard_ms);
        let name = name_of(worker);
        match &worker.state {
            State::Starting | State::Killed { .. } => {}
            State::Draining { .. } if silent_ms >= kill_ms => {
                self.kill(vital.child, "hung while it drained".to_owned());
            }
            State::Draining { .. } => {}
            _ if silent_ms >= kill_ms => {
                self.kill_for_fault(vital.child, &format!("hung: no sign of life for {silent_ms} ms"));
            }
            State::Serving if silent_ms >= suspect_ms => {
                worker.state = State::Suspect;
                self.turn += 1;
                self.log(Level::Warn, format!("{name} shows no sign of life for {silent_ms} ms"));
            }
            State::Suspect if silent_ms < suspect_ms => {
                worker.state = State::Serving;
                self.turn += 1;
                self.log(Level::Info, format!("{name} shows signs of life again"));
            }
            State::Ready | State::Serving | State::Suspect => {}
        }
    }

    /// Marks at most one worker at a time for replacement because it uses too much memory or answered enough.
    fn recycle(&mut self, vitals: &[Vital]) {
        if self.workers.values().any(|worker| worker.is_incumbent() && worker.replace.is_some()) {
            return;
        }
        let memory_max = self.policy.recycle.memory_bytes_max;
        let healthy_ms = milliseconds(self.policy.restart.healthy_after);
        let is_large = |vital: &Vital| memory_max.is_some_and(|max| vital.resident_bytes > max);
        // Its successor would be as large. It is replaced all the same, but no sooner than a worker counts as healthy.
        let is_young = |worker: &Worker| worker.lived_ms(self.now_ms) < healthy_ms;
        let large = vitals.iter().find(|vital| {
            is_large(vital)
                && self
                    .workers
                    .get(&vital.child)
                    .is_some_and(|worker| worker.is_serving() && is_young(worker))
        });
        let resident_bytes = large.map(|vital| vital.resident_bytes);
        let reason = |vital: &Vital, worker: &Worker| {
            if is_large(vital) && !is_young(worker) {
                return Some(format!("{} MiB resident", vital.resident_bytes / (1024 * 1024)));
            }
            let is_spent = worker.requests_max.is_some_and(|max| vital.requests >= max);
            is_spent.then(|| format!("{} requests answered", vital.requests))
        };
        let spent: Option<(ChildId, String)> = vitals.iter().find_map(|vital| {
            let worker = self.workers.get(&vital.child).filter(|worker| worker.is_serving())?;
            Some((vital.child, reason(vital, worker)?))
        });
        if let Some((child, reason)) = spent
            && let Some(worker) = self.workers.get_mut(&child)
        {
            worker.replace = Some(Replace::Recycle);
            let name = name_of(worker);
            self.log(Level::Info, format!("{name} is recycled: {reason}"));
        }
        if let Some(resident_bytes) = resident_bytes {
            self.warn_of_memory_bound(resident_bytes);
        }
    }

    /// Says once for each generation that a worker needs more memory from the beginning than it may have.
    fn warn_of_memory_bound(&mut self, resident_bytes: u64) {
        if std::mem::replace(&mut self.bound_told, self.in_force) == self.in_force {
            return;
        }
        let (mebibytes, healthy_after) = (resident_bytes / (1024 * 1024), self.policy.restart.healthy_after);
        let line = format!(
            "a new worker has {mebibytes} MiB resident, more than recycle.memory_bytes_max: each will be replaced when it \
             has served for {healthy_after:?}"
        );
        self.log(Level::Warn, line);
    }

    /// Takes back every mark for replacement of one kind.
    pub(super) fn unmark(&mut self, kind: Replace) {
        for worker in self.workers.values_mut() {
            worker.replace = worker.replace.filter(|marked| *marked != kind);
        }
    }
}
