//! Whatever has to happen by itself at some time, and when that is next.

use super::{
    Fleet, Phase,
    action::{Action, Level},
    lives::KILL_AGAIN_MS,
    policy::milliseconds,
    requests::Scaling,
    rollout::Stage,
    worker::{State, Worker},
};

/// Lateness of the driver that means that our own process was stopped (SIGSTOP, a paused virtual machine, a machine out
/// of breath), milliseconds.
const STOPPED_AFTER_MS: u64 = 1_000;
/// Time everybody gets after such a stop, milliseconds.
const FORGIVEN_FOR_MS: u64 = 2_000;

impl Fleet {
    /// When to send [`Event::Tick`](super::Event::Tick) if nothing else happens before, milliseconds of the monotonic
    /// clock.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        // Whatever was due has been dealt with, or waits for something that will be an event of its own.
        self.deadlines().into_iter().filter(|at_ms| *at_ms > self.now_ms).min()
    }

    fn deadlines(&self) -> Vec<u64> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        let mut at: Vec<u64> =
            self.workers.values().filter_map(|worker| self.worker_deadline(worker)).collect();
        at.extend(self.workers.values().filter_map(|worker| worker.adoption.deadline_ms()));
        at.extend(self.workers.values().filter_map(Worker::accepts_until_ms));
        at.extend(self.helpers.values().map(|helper| helper.kill_at_ms));
        at.extend(self.store_deadline());
        at.extend(self.rollout.iter().filter_map(|rollout| rollout.stage.deadline_ms()));
        if self.needs_vitals() {
            at.push(self.vitals_due_ms);
        }
        if self.phase == Phase::Running {
            at.extend(self.slots.values().map(super::backoff::Backoff::until_ms));
            at.extend(self.scaling.as_ref().map(Scaling::deadline_ms));
            at.extend(self.poll.due_ms());
            at.extend(self.proven_at_ms());
            at.extend(self.previous.map(|previous| previous.until_ms));
        }
        at
    }

    fn worker_deadline(&self, worker: &Worker) -> Option<u64> {
        match &worker.state {
            State::Draining { kill_at_ms, .. } => *kill_at_ms,
            State::Killed { again_ms, .. } => Some(*again_ms),
            State::Starting | State::Ready | State::Serving | State::Suspect => {
                let doom_ms = worker.doom.as_ref().map(|doom| doom.kill_at_ms);
                let late_ms = (worker.state == State::Starting).then(|| self.ready_by_ms(worker)).flatten();
                doom_ms.into_iter().chain(late_ms).min()
            }
        }
    }

    /// When a starting worker has to be ready. It cannot be while the store is not, so that time does not count.
    fn ready_by_ms(&self, worker: &Worker) -> Option<u64> {
        let since_ms = self.store.ready_since_ms()?.max(worker.spawned_ms).max(self.forgiven_ms);
        Some(since_ms + milliseconds(self.policy_of(worker.generation).ready_timeout))
    }

    /// Carries out what is due.
    pub(super) fn expire(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, worker)| self.worker_deadline(worker).is_some_and(|at_ms| at_ms <= now_ms))
            .map(|(child, worker)| (*child, worker.clone()))
            .collect();
        for (child, worker) in due {
            match worker.state {
                State::Draining { .. } => self.kill(child, "killed at the drain deadline".to_owned()),
                State::Killed { why, .. } => self.kill(child, why),
                State::Starting | State::Ready | State::Serving | State::Suspect => {
                    let why = worker.doom.map_or_else(
                        || {
                            let timeout = self.policy_of(worker.generation).ready_timeout;
                            format!("was not ready within {timeout:?}")
                        },
                        |doom| doom.reason,
                    );
                    self.kill_for_fault(child, &why);
                }
            }
        }
        self.end_growth();
        self.expire_adoptions();
        self.expire_helpers();
        self.expire_store();
        if self.needs_vitals() && self.vitals_due_ms <= now_ms {
            self.ask_vitals();
        }
        if self.previous.is_some_and(|previous| previous.until_ms <= now_ms) {
            self.previous = None;
        }
    }

    /// Notices that our own process was stopped: then nobody was late but us.
    pub(super) fn forgive_after_a_stop(&mut self) {
        let now_ms = self.now_ms;
        let Some(due_ms) = self.due_ms.filter(|due_ms| now_ms > due_ms + STOPPED_AFTER_MS) else { return };
        self.log(
            Level::Warn,
            format!(
                "the supervisor itself was stopped for {} ms; nobody is blamed for that time",
                now_ms - due_ms
            ),
        );
        self.forgiven_ms = now_ms;
        self.vitals_due_ms = now_ms + self.vitals_interval_ms();
        let grace_ms = now_ms + FORGIVEN_FOR_MS;
        for worker in self.workers.values_mut() {
            worker.adoption.forgive(grace_ms);
            if let Some(doom) = &mut worker.doom {
                doom.kill_at_ms = doom.kill_at_ms.max(grace_ms);
            }
            if let State::Draining { kill_at_ms, accepts_until_ms, .. } = &mut worker.state {
                for at_ms in [kill_at_ms, accepts_until_ms].into_iter().flatten() {
                    *at_ms = (*at_ms).max(grace_ms);
                }
            }
        }
        for helper in self.helpers.values_mut() {
            helper.kill_at_ms = helper.kill_at_ms.max(grace_ms);
        }
        if let Some(deadline_ms) = self.rollout.as_mut().and_then(|rollout| rollout.stage.deadline_mut()) {
            *deadline_ms = (*deadline_ms).max(grace_ms);
        }
        self.store.forgive(grace_ms);
    }

    /// Sends SIGKILL, again and again until the process is gone.
    pub(super) fn kill(&mut self, child: super::ChildId, why: String) {
        let Some(worker) = self.workers.get_mut(&child) else { return };
        self.departures += u32::from(matches!(worker.state, State::Serving | State::Suspect));
        worker.state = State::Killed { why, again_ms: self.now_ms + KILL_AGAIN_MS };
        self.actions.push(Action::Kill { child });
    }
}

impl Stage {
    /// When the stage ends at the latest, or changes by itself.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Preflight | Self::Probing { .. } | Self::Loading | Self::Binding | Self::Keeping => None,
            Self::Canary(canary) => Some(canary.deadline_ms()),
            Self::Preparing { deadline_ms }
            | Self::Wave { deadline_ms, .. }
            | Self::RollingBack { deadline_ms, .. }
            | Self::Settling { deadline_ms }
            | Self::StoreRestart { deadline_ms } => Some(*deadline_ms),
        }
    }

    fn deadline_mut(&mut self) -> Option<&mut u64> {
        match self {
            Self::Preflight | Self::Probing { .. } | Self::Loading | Self::Binding | Self::Keeping => None,
            Self::Canary(canary) => Some(canary.deadline_mut()),
            Self::Preparing { deadline_ms }
            | Self::Wave { deadline_ms, .. }
            | Self::RollingBack { deadline_ms, .. }
            | Self::Settling { deadline_ms }
            | Self::StoreRestart { deadline_ms } => Some(deadline_ms),
        }
    }
}
