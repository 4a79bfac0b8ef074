//! The store process: one at a time, first to come, last to go, started again for ever.

use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    action::{Action, Level, Role, Spawn},
    backoff::{Backoff, Cause},
    event::{ChildId, Exit, Vital},
    lives::{EXIT_CONFIGURATION, KILL_AGAIN_MS},
    policy::milliseconds,
    worker::Doom,
};

/// Time for the store to recover, counted from its last sign of life, milliseconds. Long, because opening much data shows
/// no signs of life, and a kill in the middle of a recovery only makes it start over.
const READY_TIMEOUT_MS: u64 = 600_000;
/// A store may be silent for this many times as long as a worker before that is told, and before it is killed: a sync on a
/// busy disk takes long. Workers tell it after the same time when they are asked whether they are ready.
const SILENCE_FACTOR: u64 = 3;
/// Time for the store to finish queued writes, sync and exit, milliseconds.
pub(super) const STORE_STOP_MS: u64 = 30_000;

/// The store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Store {
    pub(super) process: Option<Process>,
    /// Number of the present or last process.
    pub(super) epoch: u64,
    /// Times it was started again after a death.
    pub(super) restarts: u64,
    backoff: Backoff,
    first_ready_ms: Option<u64>,
}

/// A store process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) child: ChildId,
    pub(super) pid: u32,
    generation: u64,
    pub(super) state: State,
    /// Last known sign of life; at first, when it was spawned.
    heard_ms: u64,
    /// Whether it has shown none for so long that people are told.
    #[serde(default)]
    pub(super) is_silent: bool,
    doom: Option<Doom>,
}

/// State of a store process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Recovering.
    Starting,
    /// Taking writes.
    Ready {
        /// Since when.
        since_ms: u64,
    },
    /// Told to finish.
    Leaving {
        /// When it is killed.
        kill_at_ms: u64,
    },
    /// Sent SIGKILL.
    Killed {
        /// Why.
        why: String,
        /// When it is sent again.
        again_ms: u64,
    },
}

impl Store {
    /// Since when it takes writes; none while it does not.
    pub(super) fn ready_since_ms(&self) -> Option<u64> {
        match self.process.as_ref()?.state {
            State::Ready { since_ms } => Some(since_ms),
            State::Starting | State::Leaving { .. } | State::Killed { .. } => None,
        }
    }

    /// Why no write may get through, for the line of status.
    pub(super) fn trouble(&self) -> Option<&'static str> {
        match self.ready_since_ms() {
            None => Some("store down"),
            Some(_) if self.process.as_ref().is_some_and(|process| process.is_silent) => Some("store silent"),
            Some(_) => None,
        }
    }

    /// Whether the first process of all is still about to become ready. It has a time-out of its own, which is long: an index
    /// that is new is built over all documents before.
    pub(super) fn is_beginning(&self) -> bool {
        let is_starting = self.process.as_ref().is_some_and(|process| process.state == State::Starting);
        is_starting && self.restarts == 0 && self.first_ready_ms.is_none()
    }

    /// The process that takes writes.
    pub(super) fn ready_child(&self) -> Option<ChildId> {
        self.ready_since_ms()?;
        self.process.as_ref().map(|process| process.child)
    }

    /// Gives the process time until `grace_ms` whatever was due before.
    pub(super) fn forgive(&mut self, grace_ms: u64) {
        let Some(process) = &mut self.process else { return };
        if let Some(doom) = &mut process.doom {
            doom.kill_at_ms = doom.kill_at_ms.max(grace_ms);
        }
        if let State::Leaving { kill_at_ms } = &mut process.state {
            *kill_at_ms = (*kill_at_ms).max(grace_ms);
        }
        process.heard_ms = process.heard_ms.max(grace_ms);
    }

    fn process_of(&mut self, child: ChildId) -> Option<&mut Process> {
        self.process.as_mut().filter(|process| process.child == child)
    }
}

impl Fleet {
    /// Starts the store when there is none, there should be one, and the last crash is long enough ago.
    pub(super) fn keep_store(&mut self) {
        let is_wanted = match &self.phase {
            Phase::New | Phase::Starting | Phase::Over => false,
            Phase::Running | Phase::Paused(_) => true,
            // Workers that drain may still have writes to finish.
            Phase::Stopping(stopping) => !self.workers.is_empty() && !stopping.is_immediate(),
        };
        if !is_wanted || self.store.process.is_some() || self.store.backoff.until_ms() > self.now_ms {
            return;
        }
        let (child, generation, image) = (self.new_child(), self.in_force, self.image_of(self.in_force));
        self.store.epoch += 1;
        let (state, heard_ms) = (State::Starting, self.now_ms);
        let (pid, is_silent, doom) = (0, false, None);
        self.store.process = Some(Process { child, pid, generation, state, heard_ms, is_silent, doom });
        let role = Role::Store { epoch: self.store.epoch };
        self.actions.push(Action::Spawn(Spawn { child, role, generation, image, cell: 0, is_canary: false }));
    }

    pub(super) fn store_spawned(&mut self, child: ChildId, pid: u32) {
        if let Some(process) = self.store.process_of(child) {
            process.pid = pid;
        }
    }

    /// What the store process should say about itself: process id and generation.
    pub(super) fn store_identity(&self, child: ChildId) -> Option<(u32, u64)> {
        let process = self.store.process.as_ref().filter(|process| process.child == child);
        process.map(|process| (process.pid, process.generation))
    }

    pub(super) fn store_ready(&mut self, child: ChildId) {
        let now_ms = self.now_ms;
        let Some(process) = self.store.process_of(child) else { return };
        if process.state != State::Starting || process.doom.is_some() {
            return;
        }
        process.state = State::Ready { since_ms: now_ms };
        process.heard_ms = process.heard_ms.max(now_ms);
        self.store.first_ready_ms.get_or_insert(now_ms);
        self.log(Level::Info, format!("the store is ready (epoch {})", self.store.epoch));
        self.prepare_store();
    }

    pub(super) fn doom_store(&mut self, child: ChildId, doom: Doom) {
        if let Some(process) = self.store.process_of(child) {
            process.doom.get_or_insert(doom);
        }
    }

    pub(super) fn store_vital(&mut self, vital: &Vital) {
        let hang = &self.policy.hang;
        let [suspect_ms, kill_ms] = [hang.suspect_after, hang.kill_after]
            .map(milliseconds)
            .map(|silence_ms| silence_ms.saturating_mul(SILENCE_FACTOR));
        let now_ms = self.now_ms;
        let Some(process) = self.store.process_of(vital.child) else { return };
        process.heard_ms = process.heard_ms.max(vital.beat_ms);
        // Without any beat there is nothing to judge by.
        if vital.beat_ms == 0 || !matches!(process.state, State::Ready { .. }) {
            return;
        }
        let silent_ms = now_ms.saturating_sub(process.heard_ms);
        let (pid, is_silent) = (process.pid, silent_ms >= suspect_ms);
        let was_silent = std::mem::replace(&mut process.is_silent, is_silent);
        if silent_ms >= kill_ms {
            self.kill_store(format!("hung: no sign of life for {kill_ms} ms"));
        } else if is_silent && !was_silent {
            self.log(Level::Warn, format!("the store (pid {pid}) shows no sign of life for {silent_ms} ms"));
        } else if was_silent && !is_silent {
            self.log(Level::Info, format!("the store (pid {pid}) shows signs of life again"));
        }
    }

    /// Tells the store to finish and leave, and to hand on what is only in memory: another one follows.
    pub(super) fn replace_store(&mut self) {
        if let Some(process) = &self.store.process {
            let child = process.child;
            self.actions.push(Action::Keep { child });
        }
        self.stop_store();
    }

    /// Tells the store to finish and leave.
    pub(super) fn stop_store(&mut self) {
        let now_ms = self.now_ms;
        let Some(process) = &mut self.store.process else { return };
        if matches!(process.state, State::Starting | State::Ready { .. }) {
            process.state = State::Leaving { kill_at_ms: now_ms + STORE_STOP_MS };
            let child = process.child;
            self.actions.push(Action::Terminate { child });
        }
    }

    pub(super) fn kill_store(&mut self, why: String) {
        let again_ms = self.now_ms + KILL_AGAIN_MS;
        let Some(process) = &mut self.store.process else { return };
        process.state = State::Killed { why, again_ms };
        let child = process.child;
        self.actions.push(Action::Kill { child });
    }

    /// When something happens to the store by itself.
    pub(super) fn store_deadline(&self) -> Option<u64> {
        let Some(process) = &self.store.process else { return Some(self.store.backoff.until_ms()) };
        match &process.state {
            State::Leaving { kill_at_ms } => Some(*kill_at_ms),
            State::Killed { again_ms, .. } => Some(*again_ms),
            State::Starting | State::Ready { .. } => {
                let doom_ms = process.doom.as_ref().map(|doom| doom.kill_at_ms);
                let late_ms =
                    (process.state == State::Starting).then_some(process.heard_ms + READY_TIMEOUT_MS);
                doom_ms.into_iter().chain(late_ms).min()
            }
        }
    }

    pub(super) fn expire_store(&mut self) {
        if self.store_deadline().is_none_or(|at_ms| at_ms > self.now_ms) {
            return;
        }
        let Some(process) = &self.store.process else { return };
        let why = match (&process.state, &process.doom) {
            (State::Killed { why, .. }, _) => why.clone(),
            (State::Leaving { .. }, _) => "did not finish in time".to_owned(),
            (_, Some(doom)) => doom.reason.clone(),
            (_, None) => "did not become ready".to_owned(),
        };
        self.kill_store(why);
    }

    /// The store process is gone, or was never made.
    pub(super) fn store_gone(&mut self, child: ChildId, reason: &str, exit: Option<Exit>) {
        let Some(process) = self.store.process.take_if(|process| process.child == child) else { return };
        let announced = process.doom.as_ref().filter(|doom| doom.code.is_some());
        let reason = match (&process.state, announced) {
            (State::Leaving { .. }, _) if exit == Some(Exit::Code(0)) => "finished".to_owned(),
            (State::Killed { why, .. }, _) => why.clone(),
            (_, Some(doom)) => format!("{reason}: {}", doom.reason),
            (_, None) => reason.to_owned(),
        };
        self.tally("store".to_owned(), process.pid, process.generation, reason.clone());
        let is_over = matches!(self.phase, Phase::Stopping(_)) && self.workers.is_empty();
        if is_over || matches!(process.state, State::Leaving { .. }) {
            self.log(Level::Info, format!("the store (pid {}) is gone: {reason}", process.pid));
            return;
        }
        let is_hopeless = exit == Some(Exit::Code(EXIT_CONFIGURATION.into()))
            || announced.is_some_and(|doom| doom.code == Some(EXIT_CONFIGURATION));
        if is_hopeless && self.store.first_ready_ms.is_none() {
            return self.come_up_on_last_good(format!("the store cannot start: {reason}"));
        }
        let lived_ms = match process.state {
            State::Ready { since_ms } => self.now_ms.saturating_sub(since_ms),
            State::Starting | State::Leaving { .. } | State::Killed { .. } => 0,
        };
        let cause = if is_hopeless { Cause::Hopeless } else { Cause::Fault };
        let delay_ms =
            self.store.backoff.note(self.now_ms, lived_ms, cause, &self.policy.restart, &mut self.chance);
        self.store.restarts += 1;
        self.log(Level::Error, format!("the store (pid {}) {reason}; next in {delay_ms} ms", process.pid));
    }
}
