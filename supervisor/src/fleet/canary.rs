//! The one worker of a new generation that is tried before the others follow.

use aegis_ipc::operator::Verdict;
use serde::{Deserialize, Serialize};

use super::{
    Fleet,
    action::Action,
    event::{ChildId, Traffic},
    judge::{Judgement, is_plainly_bad, judge},
    policy::milliseconds,
    rollout::{Outset, Rollout, Stage},
    worker::{Purpose, State},
};

/// Time for the driver to read the counters, milliseconds. Without an answer nothing is held against the canary.
const READING_MS: u64 = 1_000;
/// Time between two looks at a canary that serves, milliseconds. One that fails at once has few connections open, so it
/// is given most of the new ones: it must not keep them until its time is over.
const LOOK_MS: u64 = 100;

/// The canary of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Canary {
    /// The worker and its slot, once it was started.
    worker: Option<(ChildId, u32)>,
    step: Step,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Step {
    /// Not ready yet: nobody sees it.
    Dark { deadline_ms: u64 },
    /// It serves, beside the worker it would replace.
    Soaking {
        until_ms: u64,
        #[serde(default)]
        look_ms: u64,
        before: Option<Vec<Traffic>>,
    },
    /// The counters are read once more.
    Judging { deadline_ms: u64, before: Vec<Traffic> },
}

impl Canary {
    pub(super) fn new(deadline_ms: u64) -> Self {
        Self { worker: None, step: Step::Dark { deadline_ms } }
    }

    /// The process.
    pub(super) fn child(&self) -> Option<ChildId> {
        self.worker.map(|(child, _)| child)
    }

    /// When the step ends at the latest.
    pub(super) fn deadline_ms(&self) -> u64 {
        match &self.step {
            Step::Dark { deadline_ms } | Step::Judging { deadline_ms, .. } => *deadline_ms,
            Step::Soaking { until_ms, look_ms, .. } => *until_ms.min(look_ms),
        }
    }

    pub(super) fn deadline_mut(&mut self) -> &mut u64 {
        match &mut self.step {
            Step::Dark { deadline_ms } | Step::Judging { deadline_ms, .. } => deadline_ms,
            Step::Soaking { until_ms, .. } => until_ms,
        }
    }
}

impl Fleet {
    fn canary(&self) -> Option<&Canary> {
        match &self.rollout.as_ref()?.stage {
            Stage::Canary(canary) => Some(canary),
            _ => None,
        }
    }

    fn canary_mut(&mut self) -> Option<&mut Canary> {
        match &mut self.rollout.as_mut()?.stage {
            Stage::Canary(canary) => Some(canary),
            _ => None,
        }
    }

    /// The process on trial.
    pub(super) fn canary_child(&self) -> Option<ChildId> {
        self.canary()?.child()
    }

    /// The slot it stands beside.
    pub(super) fn canary_slot(&self) -> Option<u32> {
        self.canary()?.worker.map(|(_, slot)| slot)
    }

    /// Whether there is to be no other worker beside it: all were drained, and nobody asked for those of before.
    pub(super) fn is_tried_alone(&self) -> bool {
        self.is_from_drained() && self.canary().is_some()
    }

    fn is_from_drained(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.outset == Outset::Drained)
    }

    /// When a canary must be ready: besides its own time it may have to wait for room, or for the store.
    pub(super) fn canary_deadline_ms(&self, generation: u64) -> u64 {
        let policy = self.policy_of(generation);
        self.now_ms + milliseconds(policy.ready_timeout) + milliseconds(policy.reload.probe_timeout)
    }

    /// Tries another canary, beside another slot, when the slot of this one is given up.
    pub(super) fn move_canary(&mut self, gone: ChildId) {
        if let Some(canary) = self.canary_mut()
            && canary.child() == Some(gone)
        {
            canary.worker = None;
        }
    }

    /// Starts the canary when there is room for it, and lets it serve when it is ready.
    pub(super) fn start_canary(&mut self) {
        let Some(canary) = self.canary() else { return };
        let Some(rollout) = &self.rollout else { return };
        let generation = rollout.to;
        match canary.worker {
            None if self.swaps() => self.choose_canary(generation),
            None if self.has_surge() => {
                // Beside a worker that serves if there is one, so that it takes over from it later.
                let serves = |slot: &&u32| {
                    self.workers.values().any(|worker| worker.slot == **slot && worker.is_serving())
                };
                let slot = self.slots.keys().find(serves).or_else(|| self.slots.keys().next()).copied();
                let started =
                    slot.and_then(|slot| Some((self.spawn_worker(slot, generation, Purpose::Canary)?, slot)));
                if let Some(canary) = self.canary_mut() {
                    canary.worker = started;
                }
            }
            Some((child, _))
                if self.workers.get(&child).is_some_and(|worker| worker.state == State::Ready) =>
            {
                self.begin_trial(|fleet| fleet.serve(child));
            }
            _ => {}
        }
    }

    /// The canary serves from now on: what it answers is compared with what it and the others had answered before.
    pub(super) fn begin_trial(&mut self, begin: impl FnOnce(&mut Self)) {
        let Some(Rollout { job, to: generation, task, .. }) = &self.rollout else { return };
        let (job, generation) = (*job, *generation);
        let soak_ms = if task.brings_no_code() { 0 } else { milliseconds(self.policy.reload.canary_time) };
        let (until_ms, look_ms) = (self.now_ms + soak_ms, self.now_ms + LOOK_MS);
        let Some(canary) = self.canary_mut() else { return };
        canary.step = Step::Soaking { until_ms, look_ms, before: None };
        self.actions.push(Action::ReadTraffic);
        begin(self);
        self.step(job, &format!("generation {generation}: one worker serves, to be judged in {soak_ms} ms"));
    }

    /// Makes a worker that serves the canary.
    pub(super) fn try_with(&mut self, child: ChildId, slot: u32) {
        if let Some(canary) = self.canary_mut() {
            canary.worker = Some((child, slot));
        }
    }

    /// Begins anew with a canary.
    pub(super) fn restart_canary(&mut self, generation: u64) {
        let deadline_ms = self.canary_deadline_ms(generation);
        if let Some(canary) = self.canary_mut() {
            *canary = Canary::new(deadline_ms);
        }
    }

    pub(super) fn traffic(&mut self, traffic: Vec<Traffic>) {
        let reload = self.policy.reload.clone();
        let Some(canary) = self.canary_mut() else { return };
        match &mut canary.step {
            Step::Dark { .. } => {}
            Step::Soaking { before: before @ None, .. } => *before = Some(traffic),
            Step::Soaking { before: Some(before), .. } => {
                let child = canary.worker.map(|(child, _)| child);
                let bad = child.and_then(|child| is_plainly_bad(child, before, &traffic, &reload));
                if let Some(reason) = bad {
                    self.roll_back(reason);
                }
            }
            Step::Judging { before, .. } => {
                let before = std::mem::take(before);
                self.judge_canary(&before, &traffic);
            }
        }
    }

    pub(super) fn advance_canary(&mut self) {
        let now_ms = self.now_ms;
        let is_hushed = self.is_canary_hushed();
        let recheck_ms = now_ms + self.vitals_interval_ms();
        let Some(canary) = self.canary_mut().filter(|canary| canary.deadline_ms() <= now_ms) else { return };
        match &mut canary.step {
            Step::Dark { .. } => {
                self.roll_back("no worker of the new generation became ready in time".to_owned())
            }
            Step::Soaking { until_ms, look_ms, .. } if now_ms < *until_ms => {
                *look_ms = now_ms + LOOK_MS;
                self.actions.push(Action::ReadTraffic);
            }
            // It will be heard again soon, or be suspected soon; neither is known yet.
            Step::Soaking { until_ms, look_ms, .. } if is_hushed => {
                (*until_ms, *look_ms) = (recheck_ms, recheck_ms);
            }
            Step::Soaking { before, .. } => {
                let before = before.take().unwrap_or_default();
                canary.step = Step::Judging { deadline_ms: now_ms + READING_MS, before };
                self.actions.push(Action::ReadTraffic);
            }
            Step::Judging { .. } => self.judge_canary(&[], &[]),
        }
    }

    /// Whether the canary has not been heard lately, but not for so long that it is suspected.
    fn is_canary_hushed(&self) -> bool {
        let worker = self.canary_child().and_then(|child| self.workers.get(&child));
        worker.is_some_and(|worker| {
            worker.is_serving() && worker.heard_ms + 2 * self.vitals_interval_ms() < self.now_ms
        })
    }

    fn judge_canary(&mut self, before: &[Traffic], after: &[Traffic]) {
        let Some(child) = self.canary_child() else { return };
        let is_alive = self.workers.get(&child).is_some_and(|worker| worker.is_serving());
        let judgement = if is_alive {
            judge(child, before, after, &self.policy.reload)
        } else {
            Judgement::Bad("the canary shows no sign of life".to_owned())
        };
        match judgement {
            Judgement::Bad(reason) => self.roll_back(reason),
            Judgement::Good(finding) => self.start_wave(&finding),
        }
    }

    fn start_wave(&mut self, finding: &str) {
        let deadline_ms = self.wave_deadline_ms();
        let Some(rollout) = &mut self.rollout else { return };
        rollout.stage = Stage::Wave { deadline_ms, told: 0 };
        let (job, generation) = (rollout.job, rollout.to);
        self.step(
            job,
            &format!("generation {generation}: the canary is good ({finding}); the others follow"),
        );
        if self.is_from_drained() {
            self.grow_from(0);
        }
        // Slots whose old worker kept failing get a fresh chance with the new generation.
        self.clear_backoffs();
        self.turn += 1;
    }

    /// Goes back to the generation in force: by the same steps, the old ones first.
    pub(super) fn roll_back(&mut self, reason: String) {
        let Some(Rollout { job, from, to, .. }) = self.rollout else { return };
        if from == to {
            self.unmark(super::worker::Replace::Restart);
            return self.end_rollout(&Verdict::RolledBack { reason });
        }
        let digest = self.generations.get(&to).map(|generation| generation.digest.clone());
        // With the same digest it was not the set of modules that was bad, but the image.
        if let Some(digest) = digest.filter(|digest| digest != self.digest()) {
            self.remember_bad(digest, reason.clone());
        }
        let is_from_drained = self.is_from_drained();
        let step = match is_from_drained {
            true => format!("all workers are drained again: {reason}"),
            false => format!("back to generation {from}: {reason}"),
        };
        self.step(job, &step);
        let deadline_ms = self.wave_deadline_ms();
        if let Some(rollout) = &mut self.rollout {
            rollout.stage = Stage::RollingBack { reason, deadline_ms };
        }
        if is_from_drained {
            self.pause_again();
        }
        self.clear_backoffs();
        self.turn += 1;
    }
}
