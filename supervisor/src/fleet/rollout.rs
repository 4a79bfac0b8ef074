//! From one generation to the next.
//!
//! ```text
//!  upgrade: Preflight ─ (Probing, with code) ─┐                               (store last)
//!  reload:  Probing ─ Binding ─ Preparing ─ Canary ─ Wave ─ commit ─ Settling ─ StoreRestart ─ done
//!  put back:     (the same)                                                  └─ Keeping ─ done
//!  rollback: Loading ─┘    │         │         │       │
//!                          └─rejected┘         └───────┴─► RollingBack ─► rolled back
//!  restart:                                          Wave ─► done
//! ```
//!
//! A reload may go by replacing workers or by telling them to take the new generation over (see `adoption`); the stages
//! are the same.
//!
//! Up to `Preparing` nothing that serves is touched, so the verdict on failure is `Rejected`, and workers that were drained
//! stay so. From `Canary` on workers of
//! the new generation exist, and failure means to go back by the same steps. Where all were drained, the canary is the only
//! worker until it is judged, and failure means that all are drained again: nobody asked for those of before. `Settling` comes
//! after the commit: the new generation is in force whatever happens, and all that is waited for is workers that its
//! configuration adds, and that the old ones accept no more (see `closing`).

use aegis_config::ReloadMode;
use aegis_ipc::{
    deploy::{Order, Task, TrialStep},
    operator::Verdict,
};
use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    action::{Action, Level, Notice},
    backoff::Cause,
    canary::Canary,
    event::{ChildId, Origin},
    jobs::Kind,
    policy::milliseconds,
    requests::{Scope, Wish, reload_mode},
    worker::{Purpose, Replace, State, Worker},
};

/// A rollout that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollout {
    pub(super) job: u64,
    pub(super) kind: Kind,
    pub(super) origin: Origin,
    /// What the helper is to make.
    #[serde(default)]
    pub(super) task: Task,
    /// Generation that was in force when it began.
    pub(super) from: u64,
    /// Generation it leads to.
    pub(super) to: u64,
    pub(super) stage: Stage,
    /// The store process that said that the new generation can start.
    pub(super) prepared_by: Option<ChildId>,
    /// How workers come to the new generation; until it is known, what was asked for.
    #[serde(default)]
    pub(super) mode: Option<ReloadMode>,
    /// What it found when it came to workers.
    #[serde(default)]
    pub(super) outset: Outset,
    /// Why the store does not start with the app of a host that is started.
    #[serde(default)]
    pub(super) misfit: Option<String>,
    /// Somebody has asked for a number of workers since it began.
    #[serde(default)]
    pub(super) is_scaled: bool,
}

/// What there is beside the first worker of a new generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outset {
    /// Workers of the generation before.
    #[default]
    Serving,
    /// Nobody: all were drained on request.
    Drained,
}

/// Stage of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// The driver checks and enters the new image.
    Preflight,
    /// A helper makes the generation.
    Probing {
        /// Helpers that died over it.
        failures: u32,
    },
    /// The driver reads the last good generation from disk.
    Loading,
    /// The driver binds listeners.
    Binding,
    /// The store is asked whether its data allow the generation.
    Preparing { deadline_ms: u64 },
    /// One worker of the new generation is tried.
    Canary(Canary),
    /// Slot after slot goes over.
    Wave {
        deadline_ms: u64,
        /// Slots that had gone over when that was last told.
        told: usize,
    },
    /// Slot after slot goes back.
    RollingBack { reason: String, deadline_ms: u64 },
    /// In force; workers that were added are on their way.
    Settling { deadline_ms: u64 },
    /// In force; what a host that starts anew comes up on is on its way to the disk.
    Keeping,
    /// In force; the store is started from the new image.
    StoreRestart { deadline_ms: u64 },
}

impl Rollout {
    pub(super) fn new(job: u64, kind: Kind, from: u64, to: u64, stage: Stage) -> Self {
        let (origin, task) = (Origin::Operator, Task::App);
        let outset = Outset::Serving;
        let (prepared_by, mode, misfit, is_scaled) = (None, None, None, false);
        Self { job, kind, origin, task, from, to, stage, prepared_by, mode, outset, misfit, is_scaled }
    }

    /// The generation that all slots should go over to, once they should.
    pub(super) fn wave_target(&self) -> Option<u64> {
        matches!(self.stage, Stage::Wave { .. }).then_some(self.to)
    }

    /// Whether the store was told of the new generation and the outcome is open.
    fn concerns_store(&self) -> bool {
        self.from != self.to
            && matches!(self.stage, Stage::Preparing { .. } | Stage::Canary(_) | Stage::Wave { .. })
    }
}

/// What a deployment begins with, for people.
fn words_for(Order { module, trial, .. }: &Order) -> String {
    match trial {
        None => format!("preparing module {module}"),
        Some(TrialStep::Share(share)) => format!("preparing a trial of module {module} with {share} %"),
        Some(TrialStep::Promote) => format!("preparing what is tried of module {module} as the only version"),
        Some(TrialStep::Abort { reason: None }) => format!("ending the trial of module {module}"),
        Some(TrialStep::Abort { reason: Some(reason) }) => {
            format!("taking back what is tried of module {module}: {reason}")
        }
    }
}

impl Fleet {
    /// Begins a rollout that was asked for.
    pub(super) fn begin(&mut self, job: u64, wish: Wish) {
        self.unmark(Replace::Recycle);
        self.forgive_unable();
        self.notify(Notice::Reloading);
        let from = self.in_force;
        match wish {
            Wish::Reload { origin, mode } => {
                self.begin_making(job, (Kind::Reload, origin, mode), Task::App);
            }
            Wish::Deploy(order) => {
                // One module is exchanged where it can be, whatever the configuration says of reloads.
                let mode = order.mode.map_or(ReloadMode::Swap, reload_mode);
                let how = (Kind::Deploy, Origin::Operator, Some(mode));
                self.begin_making(job, how, Task::Deploy(order));
            }
            Wish::Rollback => {
                let how = (Kind::Revert, Origin::Operator, None);
                self.begin_making(job, how, Task::Restore(self.way_back()));
            }
            Wish::Upgrade(path) => {
                self.rollout = Some(Rollout::new(job, Kind::Upgrade, from, from, Stage::Preflight));
                self.step(job, "trying the new executable");
                self.actions.push(Action::Upgrade { path });
            }
            Wish::Restart(scope) => {
                self.mark_for_restart(&scope);
                let stage = Stage::Wave { deadline_ms: self.wave_deadline_ms(), told: 0 };
                self.rollout = Some(Rollout::new(job, Kind::Restart, from, from, stage));
                self.step(job, "replacing workers");
            }
        }
        self.turn += 1;
    }

    /// Has a helper make another generation.
    fn begin_making(
        &mut self,
        job: u64,
        (kind, origin, mode): (Kind, Origin, Option<ReloadMode>),
        task: Task,
    ) {
        let to = self.new_generation();
        let words = match &task {
            Task::App => "validating the application".to_owned(),
            Task::Deploy(order) => words_for(order),
            Task::Restore(_) => "taking up the generation before".to_owned(),
        };
        let rollout = Rollout::new(job, kind, self.in_force, to, Stage::Probing { failures: 0 });
        self.rollout = Some(Rollout { origin, mode, task, ..rollout });
        self.jobs.lead(job, to);
        self.step(job, &format!("generation {to}: {words}"));
        self.spawn_helper(to);
    }

    fn mark_for_restart(&mut self, scope: &Scope) {
        let is_meant = |slot: u32| match scope {
            Scope::All => true,
            Scope::Slots(slots) => slots.contains(&slot),
        };
        for worker in self.workers.values_mut().filter(|worker| is_meant(worker.slot)) {
            if matches!(worker.state, State::Ready | State::Serving | State::Suspect) {
                worker.replace = Some(Replace::Restart);
            }
        }
        for (_, slot) in self.slots.iter_mut().filter(|(slot, _)| is_meant(**slot)) {
            slot.clear();
        }
    }

    pub(super) fn new_generation(&mut self) -> u64 {
        let generation = self.next_generation;
        self.next_generation += 1;
        generation
    }

    /// When a wave that still runs must be stuck: every slot took all the time there is, one after the other.
    pub(super) fn wave_deadline_ms(&self) -> u64 {
        let rounds = u64::from(self.wanted.div_ceil(self.policy.surge)) + 1;
        let round_ms = milliseconds(self.policy.ready_timeout) + milliseconds(self.policy.drain.timeout);
        self.now_ms + rounds.saturating_mul(round_ms) + super::lives::DRAIN_GRACE_MS
    }

    /// Asks the store whether the new generation can start. It is asked when the stage is reached, and each store process
    /// that comes up before the outcome is known is asked again.
    pub(super) fn prepare_store(&mut self) {
        let Some(child) = self.store.ready_child() else { return };
        if let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.concerns_store()) {
            let generation = rollout.to;
            self.actions.push(Action::Prepare { child, generation });
        }
    }

    /// Whether workers of a generation may start: the store that runs now knows it.
    pub(super) fn is_prepared(&self, generation: u64) -> bool {
        let prepared_by = self
            .rollout
            .as_ref()
            .filter(|rollout| rollout.to == generation)
            .and_then(|rollout| rollout.prepared_by);
        generation == self.in_force || (prepared_by.is_some() && prepared_by == self.store.ready_child())
    }

    pub(super) fn prepared(&mut self, child: ChildId, generation: u64) {
        let is_current = self.store.ready_child() == Some(child);
        let deadline_ms = self.canary_deadline_ms(generation);
        let configured = self.policy_of(generation).reload.mode;
        let Some(rollout) = self.rollout.as_mut().filter(|rollout| rollout.to == generation) else { return };
        if !is_current || !rollout.concerns_store() {
            return;
        }
        rollout.prepared_by = Some(child);
        self.turn += 1;
        if !matches!(rollout.stage, Stage::Preparing { .. }) {
            return;
        }
        if rollout.kind == Kind::Rollback {
            return self.fall_back();
        }
        let is_paused = matches!(self.phase, Phase::Paused(_));
        self.resume();
        let Some(rollout) = &mut self.rollout else { return };
        rollout.stage = Stage::Canary(Canary::new(deadline_ms));
        if is_paused {
            // Nobody is there to take it over.
            (rollout.outset, rollout.mode) = (Outset::Drained, Some(ReloadMode::Rolling));
        }
        let (job, mode) = (rollout.job, *rollout.mode.get_or_insert(configured));
        let step = match mode {
            ReloadMode::Swap if self.swaps() => "one worker takes it over",
            ReloadMode::Swap | ReloadMode::Rolling => "starting one worker",
        };
        self.step(job, &format!("generation {generation}: {step}"));
    }

    pub(super) fn refused(&mut self, child: ChildId, generation: u64, reasons: Vec<String>) {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.to == generation) else { return };
        if self.store.ready_child() != Some(child) || !rollout.concerns_store() {
            return;
        }
        match rollout.stage {
            Stage::Preparing { .. } => self.reject(reasons),
            _ => self.roll_back(format!("the store refuses the generation: {}", reasons.join("; "))),
        }
    }

    /// Ends a rollout that has touched nothing.
    pub(super) fn reject(&mut self, mut reasons: Vec<String>) {
        self.take_back();
        reasons.extend(self.still_drained().map(str::to_owned));
        self.end_rollout(&Verdict::Rejected { reasons });
    }

    /// Undoes what a rollout did outside of workers.
    pub(super) fn take_back(&mut self) {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.from != rollout.to) else {
            return;
        };
        let (from, generation) = (rollout.from, rollout.to);
        if matches!(
            rollout.stage,
            Stage::Preparing { .. } | Stage::Canary(_) | Stage::Wave { .. } | Stage::RollingBack { .. }
        ) {
            if let Some(child) = self.store.ready_child() {
                self.actions.push(Action::Discard { child, generation });
            }
            self.actions.push(Action::CloseListeners { generation: from });
        }
    }

    /// Ends a rollout whose generation is in force.
    pub(super) fn end_in_force(&mut self) {
        let reason = self.rollout.as_ref().and_then(|rollout| rollout.task.takes_back());
        let reason = reason.map(str::to_owned);
        self.end_rollout(&reason.map_or(Verdict::Done, |reason| Verdict::RolledBack { reason }));
    }

    pub(super) fn end_rollout(&mut self, verdict: &Verdict) {
        if let Some(rollout) = self.rollout.take() {
            self.finish(rollout.job, verdict);
            self.notify(Notice::Ready);
            self.turn += 1;
        }
    }

    /// Takes a rollout and everything that waits away: something else was asked for that leaves no room for them.
    pub(super) fn abandon(&mut self, verdict: &Verdict) {
        match self.rollout.as_ref().map(|rollout| &rollout.stage) {
            None => {}
            // In force already, only not complete yet; whoever put it back is told when it is kept, whatever comes next.
            Some(Stage::Settling { .. }) if self.has_to_be_kept() => self.await_kept(),
            Some(Stage::Keeping) => {}
            // Nothing came into force by it, and nobody serves.
            Some(Stage::Settling { .. }) if self.only_wakes() && self.serving() == 0 => {
                self.end_rollout(verdict)
            }
            Some(Stage::Settling { .. } | Stage::StoreRestart { .. }) => self.end_in_force(),
            Some(Stage::RollingBack { reason, .. }) => {
                let reason = reason.clone();
                self.take_back();
                self.end_rollout(&Verdict::RolledBack { reason });
            }
            Some(Stage::Preflight) => {
                self.actions.push(Action::CallOffUpgrade);
                self.end_rollout(verdict);
            }
            Some(_) => {
                self.take_back();
                self.end_rollout(verdict);
            }
        }
        self.unmark(Replace::Restart);
        self.dismiss_helpers();
        let waiting: Vec<_> = self.waiting.take().into_iter().chain(self.line.drain(..)).collect();
        for waiting in waiting {
            self.finish(waiting.job, &Verdict::Superseded);
        }
        self.end_scaling(&Verdict::Superseded);
    }

    /// Draws the consequence for a rollout when a worker failed. True when it led to a rollback.
    pub(super) fn blame(&mut self, child: ChildId, worker: &Worker, cause: Cause, reason: &str) -> bool {
        let Some(rollout) = &self.rollout else { return false };
        let healthy_ms = milliseconds(self.policy_of(rollout.to).restart.healthy_after);
        // Somebody may `kill` a worker at any time without harm; only for a canary there is no second one to judge.
        let is_young = worker.proven_ms(self.now_ms) < healthy_ms && cause != Cause::OwnWill;
        let is_guilty = match &rollout.stage {
            Stage::Canary(canary) => canary.child() == Some(child),
            Stage::Wave { .. } if rollout.kind == Kind::Restart => {
                is_young && worker.purpose == Purpose::Replacement
            }
            Stage::Wave { .. } => is_young && worker.generation == rollout.to,
            _ => false,
        };
        if is_guilty {
            let generation = worker.generation;
            self.roll_back(format!("worker {} of generation {generation} {reason}", worker.slot));
        }
        is_guilty
    }

    /// Decides what is due once slots are as they can be now.
    pub(super) fn advance(&mut self) {
        match self.phase {
            Phase::New | Phase::Starting | Phase::Over => {}
            Phase::Running => {
                self.advance_rollout();
                self.prove();
                self.announce();
                self.advance_scaling();
                self.begin_waiting();
                self.advance_poll();
            }
            Phase::Paused(_) => {
                // What makes another generation, as far as that goes without workers.
                self.advance_rollout();
                self.advance_pause();
                self.begin_waiting();
            }
            Phase::Stopping(_) => self.advance_stop(),
        }
    }

    fn advance_rollout(&mut self) {
        let Some(rollout) = &self.rollout else { return };
        let is_due = rollout.stage.deadline_ms().is_some_and(|at_ms| at_ms <= self.now_ms);
        match &rollout.stage {
            Stage::Preflight | Stage::Probing { .. } | Stage::Loading | Stage::Binding | Stage::Keeping => {}
            Stage::Preparing { .. } if is_due => {
                let patience_s = self.policy.reload.probe_timeout.as_secs();
                self.reject(vec![format!(
                    "the store did not answer within {patience_s} s (reload.probe_timeout) whether the generation can \
                     start; a field that becomes unique needs longer the more documents its model has"
                )]);
            }
            Stage::Preparing { .. } => {}
            Stage::Canary(_) => self.advance_canary(),
            Stage::Wave { .. } => self.advance_wave(is_due),
            Stage::RollingBack { reason, .. } => {
                if is_due || self.is_undone() {
                    let told = [Some(reason.as_str()), self.still_drained()];
                    let reason = told.into_iter().flatten().collect::<Vec<_>>().join("; ");
                    self.take_back();
                    self.end_rollout(&Verdict::RolledBack { reason });
                }
            }
            Stage::Settling { .. } => self.advance_settling(is_due),
            Stage::StoreRestart { .. } => self.advance_store_restart(is_due),
        }
    }

    /// Tells the service manager something, once it has heard that we are ready.
    pub(super) fn notify(&mut self, notice: Notice) {
        if self.announced_ms.is_some() {
            self.actions.push(Action::Notify(notice));
        }
    }

    /// Tells the service manager that we are ready: all serve, or the start is over and somebody does.
    fn announce(&mut self) {
        let is_starting = self.rollout.as_ref().is_some_and(|rollout| rollout.kind == Kind::Start);
        if self.announced_ms.is_none() && self.serving() > 0 && (!is_starting || self.is_complete()) {
            self.announced_ms = Some(self.now_ms);
            self.actions.push(Action::Notify(Notice::Ready));
            let (serving, wanted) = (self.serving(), self.wanted);
            self.log(Level::Info, format!("ready: {serving} of {wanted} workers serve"));
        }
    }
}
