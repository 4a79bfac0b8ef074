//! The end, and the pause.
//!
//! A stop drains or kills all workers, then lets the store finish, then exits. Each further stop request takes the next
//! harder mode: patient, graceful, immediate.

use aegis_ipc::operator::{StopMode, Verdict};
use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    action::{Action, Level, Notice},
    event::{Asker, ChildId},
    jobs::Kind,
    policy::milliseconds,
    rollout::Stage,
    worker::{Leave, State},
};

/// What is told with a change that had to give way.
const DRAINED: &str = "all workers were drained on request";
/// What is told with a change that did not come about while all workers are drained.
const STILL_DRAINED: &str = "all workers stay drained, as was asked for before";

/// A stop that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stopping {
    job: u64,
    mode: StopMode,
    code: u8,
    reason: Option<String>,
}

impl Stopping {
    pub(super) fn is_immediate(&self) -> bool {
        self.mode == StopMode::Immediate
    }
}

fn hardness(mode: StopMode) -> u8 {
    match mode {
        StopMode::Patient => 0,
        StopMode::Graceful => 1,
        StopMode::Immediate => 2,
    }
}

fn harder(mode: StopMode) -> StopMode {
    match mode {
        StopMode::Patient => StopMode::Graceful,
        StopMode::Graceful | StopMode::Immediate => StopMode::Immediate,
    }
}

impl Fleet {
    pub(super) fn stop(&mut self, asker: Option<Asker>, mode: StopMode) {
        let Phase::Stopping(stopping) = &mut self.phase else {
            return self.begin_stop(asker, mode, 0, None);
        };
        let (job, was_immediate) = (stopping.job, stopping.is_immediate());
        let next = harder(stopping.mode);
        stopping.mode = if hardness(mode) > hardness(next) { mode } else { next };
        let mode = stopping.mode;
        self.accept(job, asker);
        self.step(job, &format!("stopping harder: {mode:?}"));
        self.send_away(mode);
        if was_immediate {
            self.kill_store("killed: stop was asked for again".to_owned());
        }
    }

    /// Ends the host for a reason of its own.
    pub(super) fn give_up(&mut self, code: u8, reason: String) {
        self.log(Level::Error, format!("cannot go on: {reason}"));
        if !matches!(self.phase, Phase::Stopping(_) | Phase::Over) {
            if self.rollout.as_ref().is_some_and(|rollout| rollout.kind == Kind::Start) {
                // It may be in force already, but nothing has come of it.
                self.take_back();
                self.end_rollout(&Verdict::Rejected { reasons: vec![reason.clone()] });
            }
            self.begin_stop(None, StopMode::Immediate, code, Some(reason));
        }
    }

    fn begin_stop(&mut self, asker: Option<Asker>, mode: StopMode, code: u8, reason: Option<String>) {
        let job = self.jobs.open(Kind::Stop, self.in_force);
        self.accept(job, asker);
        self.abandon(&Verdict::Superseded);
        self.end_pause(&Verdict::Superseded);
        self.actions.push(Action::Notify(Notice::Stopping));
        self.phase = Phase::Stopping(Stopping { job, mode, code, reason });
        let how = match mode {
            StopMode::Graceful => "what is in flight is finished within the drain timeout",
            StopMode::Patient => "what is in flight is finished however long it takes",
            StopMode::Immediate => "at once",
        };
        self.step(job, &format!("stopping: {how}"));
        self.send_away(mode);
        self.turn += 1;
    }

    /// Tells all workers to leave.
    fn send_away(&mut self, mode: StopMode) {
        let timeout_ms = milliseconds(self.policy.drain.timeout);
        let deadline_ms = (mode == StopMode::Graceful).then_some(timeout_ms);
        let workers: Vec<(ChildId, State)> =
            self.workers.iter().map(|(child, worker)| (*child, worker.state.clone())).collect();
        for (child, state) in workers {
            match (state, mode) {
                (State::Killed { .. }, _) => {}
                (State::Starting, _) => self.kill(child, "stopped before it was ready".to_owned()),
                (_, StopMode::Immediate) => self.kill(child, "killed: the host ends at once".to_owned()),
                // It has a deadline already, or is to have none.
                (State::Draining { kill_at_ms: Some(_), .. }, _)
                | (State::Draining { .. }, StopMode::Patient) => {}
                (State::Draining { .. } | State::Ready | State::Serving | State::Suspect, _) => {
                    self.drain(child, Leave::Stopped, deadline_ms);
                }
            }
        }
    }

    pub(super) fn advance_stop(&mut self) {
        let Phase::Stopping(stopping) = &self.phase else { return };
        if !self.workers.is_empty() || !self.helpers.is_empty() {
            return;
        }
        if self.store.process.is_some() {
            return self.stop_store();
        }
        // Somebody waits until what was put back is on the disk.
        if self.rollout.is_some() {
            return;
        }
        let Stopping { job, code, reason, .. } = stopping.clone();
        self.finish(job, &Verdict::Done);
        self.actions.push(Action::Exit { code, reason });
        self.phase = Phase::Over;
    }

    /// Drains all workers and starts no new ones.
    pub(super) fn pause(&mut self, asker: Option<Asker>) {
        if let Phase::Paused(job) = self.phase {
            // A change that was about to bring workers back.
            self.abandon(&Verdict::RolledBack { reason: DRAINED.to_owned() });
            let ended = job.is_none();
            let job = job.unwrap_or_else(|| self.jobs.open(Kind::Drain, self.in_force));
            self.accept(job, asker);
            if ended {
                self.finish(job, &Verdict::Unchanged);
            }
            return;
        }
        let job = self.jobs.open(Kind::Drain, self.in_force);
        self.accept(job, asker);
        self.abandon(&Verdict::RolledBack { reason: DRAINED.to_owned() });
        self.step(job, "draining all workers");
        self.send_to_rest(Some(job));
    }

    /// What was to end a pause has failed: nobody wants those workers back that were drained before.
    pub(super) fn pause_again(&mut self) {
        self.take_back_scaling(STILL_DRAINED);
        self.send_to_rest(None);
    }

    fn send_to_rest(&mut self, job: Option<u64>) {
        self.phase = Phase::Paused(job);
        let workers: Vec<ChildId> = self.workers.keys().copied().collect();
        for child in workers {
            self.dismiss(child, Leave::Paused);
        }
        self.turn += 1;
    }

    pub(super) fn advance_pause(&mut self) {
        if self.workers.is_empty() {
            self.end_pause(&Verdict::Done);
        }
    }

    fn end_pause(&mut self, verdict: &Verdict) {
        if let Phase::Paused(job) = &mut self.phase
            && let Some(job) = job.take()
        {
            self.finish(job, verdict);
        }
    }

    /// What to tell when a change does not come about: that it did not end the pause either.
    pub(super) fn still_drained(&self) -> Option<&'static str> {
        matches!(self.phase, Phase::Paused(_)).then_some(STILL_DRAINED)
    }

    /// Wants workers of the generation in force again: what was asked for is no other one. It is done when they serve.
    pub(super) fn wake_unchanged(&mut self, job: u64) {
        let deadline_ms = self.now_ms + self.patience_ms();
        let in_force = self.in_force;
        self.resume();
        self.jobs.lead(job, in_force);
        if let Some(rollout) = &mut self.rollout {
            (rollout.to, rollout.stage) = (in_force, Stage::Settling { deadline_ms });
        }
        self.step(job, &format!("nothing has changed in the app; starting {} workers again", self.wanted));
    }

    /// Whether all that the rollout is to bring are workers of the generation in force.
    pub(super) fn only_wakes(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.from == rollout.to)
    }

    /// Wants workers again, whatever it was that asked for something that needs them.
    pub(super) fn resume(&mut self) {
        if !matches!(self.phase, Phase::Paused(_)) {
            return;
        }
        self.end_pause(&Verdict::Superseded);
        self.log(Level::Info, "workers are wanted again".to_owned());
        self.phase = Phase::Running;
        self.grow_from(0);
        self.clear_backoffs();
        self.turn += 1;
    }
}
