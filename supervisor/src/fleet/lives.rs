//! How workers come and go: what their events mean, and what the end of one sets in motion.

use aegis_ipc::PROTOCOL_VERSION;

use super::{
    Fleet, Phase,
    action::{Action, Level},
    backoff::Cause,
    event::{ChildId, Exit},
    policy::milliseconds,
    worker::{Doom, Leave, State, Worker},
};

/// Time to exit for a process that announced its end or cannot be steered any more, milliseconds.
pub(super) const EXIT_GRACE_MS: u64 = 1_000;
/// Time beyond its drain deadline until a worker is killed, milliseconds. The worker knows the deadline itself.
pub(super) const DRAIN_GRACE_MS: u64 = 2_000;
/// A process that survives SIGKILL for this long (it hangs in the kernel) is sent another one, milliseconds.
pub(super) const KILL_AGAIN_MS: u64 = 5_000;
/// Exit status for a configuration error (sysexits.h).
pub(super) const EXIT_CONFIGURATION: u8 = 78;
/// The only signal that says nothing about the process that died of it.
const SIGKILL: i32 = 9;

impl Fleet {
    pub(super) fn spawned(&mut self, child: ChildId, pid: u32) {
        if let Some(worker) = self.workers.get_mut(&child) {
            worker.pid = pid;
        } else if let Some(helper) = self.helpers.get_mut(&child) {
            helper.pid = pid;
        } else {
            self.store_spawned(child, pid);
        }
    }

    pub(super) fn spawn_failed(&mut self, child: ChildId, reason: &str) {
        let reason = format!("could not be started: {reason}");
        if let Some(worker) = self.workers.remove(&child) {
            if worker.is_incumbent() {
                self.trouble(child, &worker, Cause::Fault, &reason);
            }
        } else if self.helpers.contains_key(&child) {
            self.helper_gone(child, &reason, None);
        } else {
            self.store_gone(child, &reason, None);
        }
    }

    pub(super) fn hello(&mut self, child: ChildId, protocol: u32, pid: u32, generation: u64) {
        let expected = if let Some(worker) = self.workers.get(&child) {
            (worker.pid, worker.generation)
        } else if let Some(helper) = self.helpers.get(&child) {
            (helper.pid, helper.generation)
        } else if let Some(expected) = self.store_identity(child) {
            expected
        } else {
            return;
        };
        if aegis_ipc::speaks_with(protocol) && (pid, generation) == expected {
            return;
        }
        let reason = format!(
            "introduced itself as pid {pid} of generation {generation} with protocol {protocol}, expected pid {} of \
             generation {} with protocol {PROTOCOL_VERSION}",
            expected.0, expected.1
        );
        if self.workers.get(&child).is_some_and(Worker::is_incumbent) {
            self.kill_for_fault(child, &reason);
        } else {
            self.doom(child, reason, None);
        }
    }

    pub(super) fn ready(&mut self, child: ChildId) {
        let now_ms = self.now_ms;
        if let Some(worker) = self.workers.get_mut(&child) {
            if worker.state == State::Starting && worker.doom.is_none() {
                worker.state = State::Ready;
                worker.ready_ms = Some(now_ms);
                worker.heard_ms = now_ms;
            }
        } else {
            self.store_ready(child);
        }
    }

    /// Notes that a process will end by itself, or must be assumed to; it is given a moment.
    pub(super) fn doom(&mut self, child: ChildId, reason: String, code: Option<u8>) {
        let doom = Doom { reason, code, kill_at_ms: self.now_ms + EXIT_GRACE_MS };
        if let Some(worker) = self.workers.get_mut(&child) {
            // The first word counts: a closed socket after a `Failed` says nothing new.
            worker.doom.get_or_insert(doom);
        } else if self.helpers.contains_key(&child) {
            self.doom_helper(child, doom);
        } else {
            self.doom_store(child, doom);
        }
    }

    /// A worker drains. When we did not ask for it, somebody signalled it: it is replaced as if it were gone.
    pub(super) fn draining(&mut self, child: ChildId, closed: bool) {
        self.draining_by_itself(child);
        if closed {
            self.closed(child);
        }
    }

    fn draining_by_itself(&mut self, child: ChildId) {
        let Some(worker) = self.workers.get(&child).filter(|worker| worker.is_incumbent()).cloned() else {
            return;
        };
        self.note_drain(child, Leave::OwnWill, Some(milliseconds(self.policy.drain.timeout)));
        self.trouble(child, &worker, Cause::OwnWill, "drains by its own will");
    }

    pub(super) fn exited(&mut self, child: ChildId, exit: Exit) {
        if self.workers.contains_key(&child) {
            self.worker_exited(child, exit);
        } else if self.helpers.contains_key(&child) {
            self.helper_gone(child, &exit.describe(), Some(exit));
        } else {
            self.store_gone(child, &exit.describe(), Some(exit));
        }
    }

    fn worker_exited(&mut self, child: ChildId, exit: Exit) {
        let Some(worker) = self.workers.remove(&child) else { return };
        let who = format!("worker {}", worker.slot);
        let reason = match &worker.state {
            State::Draining { why, .. } if exit == Exit::Code(0) => why.describe().to_owned(),
            State::Draining { .. } => format!("{} while it drained", exit.describe()),
            State::Killed { why, .. } => why.clone(),
            State::Starting | State::Ready | State::Serving | State::Suspect => {
                let words = worker.doom.as_ref().filter(|doom| doom.code.is_some());
                words.map_or_else(|| exit.describe(), |doom| format!("{}: {}", exit.describe(), doom.reason))
            }
        };
        self.tally(who, worker.pid, worker.generation, reason.clone());
        if worker.is_incumbent() {
            self.departures += u32::from(matches!(worker.state, State::Serving | State::Suspect));
            let cause = self.cause_of(&worker, exit);
            self.trouble(child, &worker, cause, &reason);
        } else {
            self.log(Level::Info, format!("{} is gone: {reason}", name_of(&worker)));
        }
    }

    fn cause_of(&self, worker: &Worker, exit: Exit) -> Cause {
        let announced = worker.doom.as_ref().and_then(|doom| doom.code);
        let healthy_ms = milliseconds(self.policy.restart.healthy_after);
        match exit {
            Exit::Code(code) if code == i32::from(EXIT_CONFIGURATION) => Cause::Hopeless,
            _ if announced == Some(EXIT_CONFIGURATION) => Cause::Hopeless,
            Exit::Signal(SIGKILL) if matches!(worker.state, State::Serving | State::Suspect) => {
                Cause::Outside
            }
            Exit::Code(0) if worker.lived_ms(self.now_ms) >= healthy_ms => Cause::OwnWill,
            Exit::Code(_) | Exit::Signal(_) | Exit::OutOfMemory => Cause::Fault,
        }
    }

    /// Kills a worker because something is wrong with it; its place is free from now on.
    pub(super) fn kill_for_fault(&mut self, child: ChildId, why: &str) {
        let Some(worker) = self.workers.get(&child).cloned() else { return };
        self.kill(child, why.to_owned());
        let hopeless = worker.doom.as_ref().is_some_and(|doom| doom.code == Some(EXIT_CONFIGURATION));
        self.trouble(child, &worker, if hopeless { Cause::Hopeless } else { Cause::Fault }, why);
    }

    /// A worker that filled its slot does not any more, against our will.
    fn trouble(&mut self, child: ChildId, worker: &Worker, cause: Cause, reason: &str) {
        let lived_ms = worker.lived_ms(self.now_ms);
        let slot = self.slots.get_mut(&worker.slot);
        let delay_ms = slot
            .map(|slot| slot.note(self.now_ms, lived_ms, cause, &self.policy.restart, &mut self.chance))
            .unwrap_or_default();
        let level = if cause == Cause::OwnWill { Level::Info } else { Level::Warn };
        let when = worker.ready_ms.map_or_else(
            || "before it was ready".to_owned(),
            |_| format!("{lived_ms} ms after it was ready"),
        );
        let name = name_of(worker);
        self.log(level, format!("{name} {reason}, {when}; its slot waits {delay_ms} ms"));
        if self.phase != Phase::Running {
            return;
        }
        let rolled_back = self.blame(child, worker, cause, reason);
        let is_fault = matches!(cause, Cause::Fault | Cause::Hopeless);
        if rolled_back || !is_fault {
            return;
        }
        let generation = self.generations.get_mut(&worker.generation);
        if generation.is_some_and(|generation| generation.note_crash(self.now_ms)) {
            self.crash_loop(worker.generation, reason);
        }
    }

    /// Sends a worker away that is not needed any more: those that never served at once, the others in good order.
    pub(super) fn dismiss(&mut self, child: ChildId, why: Leave) {
        let Some(worker) = self.workers.get(&child) else { return };
        match worker.state {
            State::Starting => self.kill(child, "dismissed before it was ready".to_owned()),
            State::Ready | State::Serving | State::Suspect => {
                self.drain(child, why, Some(milliseconds(self.policy.drain.timeout)));
            }
            State::Draining { .. } | State::Killed { .. } => {}
        }
    }

    /// Whether workers that leave are followed by others.
    pub(crate) fn is_followed(&self) -> bool {
        !matches!(self.phase, Phase::Paused(_) | Phase::Stopping(_) | Phase::Over)
    }

    /// Tells a worker to finish and leave.
    pub(super) fn drain(&mut self, child: ChildId, why: Leave, deadline_ms: Option<u64>) {
        self.note_drain(child, why, deadline_ms);
        self.actions.push(Action::Drain { child, deadline_ms });
    }

    fn note_drain(&mut self, child: ChildId, why: Leave, deadline_ms: Option<u64>) {
        let kill_at_ms = deadline_ms.map(|deadline_ms| self.now_ms + deadline_ms + DRAIN_GRACE_MS);
        let Some(worker) = self.workers.get(&child) else { return };
        self.departures += u32::from(matches!(worker.state, State::Serving | State::Suspect));
        let accepts_until_ms = self.closing_until_ms(&worker.state);
        if let Some(worker) = self.workers.get_mut(&child) {
            worker.state = State::Draining { kill_at_ms, why, accepts_until_ms };
        }
    }

    /// Makes all acceptors look at their queue once more when one of them left: it may have been woken for a connection
    /// that it did not take, with all others asleep.
    pub(super) fn poke_siblings(&mut self) {
        if std::mem::take(&mut self.departures) == 0 {
            return;
        }
        let serving = self.workers.iter().filter(|(_, worker)| worker.is_serving());
        self.actions.extend(serving.map(|(child, _)| Action::Poke { child: *child }));
    }
}

/// How log lines call a worker.
pub(super) fn name_of(worker: &Worker) -> String {
    format!("worker {} (pid {}, generation {})", worker.slot, worker.pid, worker.generation)
}
