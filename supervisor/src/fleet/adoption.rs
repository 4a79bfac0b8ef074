//! A new generation inside workers that run: they exchange what has changed, and nobody is replaced.
//!
//! ```text
//!            Adopt               Adopted
//!    Able ─────────► Asked ─────────────────► Able, of the new generation
//!                      │ NotAdopted, or nothing in time
//!                      ▼
//!                   Unable: it is replaced like any worker of another generation
//! ```
//!
//! Who says no because what its code remembers would be lost ends the rollout: what nobody asked for is not done to state.
//! To go back, and to do what was asked for by name, it is lost all the same.
//!
//! One worker at a time is asked. The first is the canary; if that one cannot, the whole rollout goes by replacing. What a
//! worker says about itself is believed whenever it comes: an answer that is late only makes another turn necessary.

use aegis_config::ReloadMode;
use serde::{Deserialize, Serialize};

use super::{
    Fleet,
    action::{Action, Level},
    event::ChildId,
    jobs::Kind,
    lives::name_of,
    policy::milliseconds,
    rollout::Stage,
    worker::Worker,
};

/// How it is done all the same.
const WITHOUT_STATE: &str = "to go on without it: `aegis reload --mode rolling`";
/// How a deployment is.
const DEPLOYED_WITHOUT_STATE: &str = "to go on without it: deploy it with `--mode rolling`";

/// Whether a worker can take another generation over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Adoption {
    /// Nothing is known against it.
    #[default]
    Able,
    /// It was told to.
    Asked {
        /// What it should serve.
        generation: u64,
        /// When it is not waited for any longer.
        until_ms: u64,
    },
    /// It said no, or nothing.
    Unable,
}

impl Adoption {
    /// When its answer is not waited for any longer.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Asked { until_ms, .. } => Some(*until_ms),
            Self::Able | Self::Unable => None,
        }
    }

    /// Whether a worker of this generation will be of it when it has answered.
    pub(super) fn stays(&self, generation: u64) -> bool {
        match self {
            Self::Asked { generation: asked, .. } => *asked == generation,
            Self::Able | Self::Unable => true,
        }
    }

    /// Gives it time until `grace_ms` whatever was due before.
    pub(super) fn forgive(&mut self, grace_ms: u64) {
        if let Self::Asked { until_ms, .. } = self {
            *until_ms = (*until_ms).max(grace_ms);
        }
    }
}

impl Worker {
    /// Whether it can be told to take another generation over.
    fn may_adopt(&self) -> bool {
        self.is_serving() && self.replace.is_none() && self.adoption == Adoption::Able
    }

    fn is_asked(&self) -> bool {
        matches!(self.adoption, Adoption::Asked { .. })
    }
}

impl Fleet {
    /// Whether workers are to take over what the rollout wants them to serve.
    pub(super) fn swaps(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| {
            matches!(rollout.kind, Kind::Reload | Kind::Deploy | Kind::Revert)
                && rollout.mode == Some(ReloadMode::Swap)
                && matches!(rollout.stage, Stage::Canary(_) | Stage::Wave { .. } | Stage::RollingBack { .. })
        })
    }

    /// Another rollout begins: who could not take over what the last one wanted may be able to now.
    pub(super) fn forgive_unable(&mut self) {
        for worker in self.workers.values_mut().filter(|worker| worker.adoption == Adoption::Unable) {
            worker.adoption = Adoption::Able;
        }
    }

    /// Asks the first worker that could be the canary of a generation.
    pub(super) fn choose_canary(&mut self, generation: u64) {
        if !self.is_prepared(generation) || self.workers.values().any(Worker::is_asked) {
            return;
        }
        let chosen = self.workers.iter().filter(|(_, worker)| worker.may_adopt());
        let chosen = chosen.filter(|(_, worker)| self.slots.contains_key(&worker.slot));
        match chosen.min_by_key(|(_, worker)| worker.slot).map(|(child, worker)| (*child, worker.slot)) {
            Some((child, slot)) => {
                self.try_with(child, slot);
                self.adopt(child, generation);
            }
            None => self.replace_instead("no worker serves that could take it over"),
        }
    }

    /// Whether the worker of a slot takes over what the slot should serve, so that it needs no successor.
    pub(super) fn takes_over(&mut self, slot: u32) -> bool {
        if !self.swaps() {
            return false;
        }
        let target = self.target();
        let in_slot = |(_, worker): &(&ChildId, &Worker)| worker.slot == slot && worker.is_serving();
        let serving: Vec<_> = self.workers.iter().filter(in_slot).collect();
        if serving.iter().any(|(_, worker)| worker.is_asked()) {
            return true;
        }
        let Some(child) = serving.iter().find(|(_, worker)| worker.may_adopt()).map(|(child, _)| **child)
        else {
            return false;
        };
        // One after the other, as long as the store knows what is to be served.
        if self.is_prepared(target) && !self.workers.values().any(Worker::is_asked) {
            self.adopt(child, target);
        }
        true
    }

    /// A worker that takes a generation over has the time of one that starts with it.
    fn adopt(&mut self, child: ChildId, generation: u64) {
        let until_ms = self.now_ms + milliseconds(self.policy_of(generation).ready_timeout);
        if let Some(worker) = self.workers.get_mut(&child) {
            worker.adoption = Adoption::Asked { generation, until_ms };
            self.actions.push(Action::Adopt { child, generation });
            self.turn += 1;
        }
    }

    pub(super) fn adopted(&mut self, child: ChildId, generation: u64, prepare_us: u64, switch_us: u64) {
        let now_ms = self.now_ms;
        let Some(worker) = self.workers.get_mut(&child) else { return };
        worker.generation = generation;
        worker.adopted_ms = Some(now_ms);
        let is_answer =
            matches!(worker.adoption, Adoption::Asked { generation: asked, .. } if asked == generation);
        if is_answer {
            worker.adoption = Adoption::Able;
        }
        let slot = worker.slot;
        self.turn += 1;
        let Some(rollout) = &self.rollout else { return };
        let (job, leads_here) = (rollout.job, rollout.to == generation);
        let prepared_ms = prepare_us.div_ceil(1000);
        self.step(
            job,
            &format!(
                "worker {slot} answers with generation {generation}: prepared in {prepared_ms} ms, exchanged in {switch_us} µs"
            ),
        );
        if is_answer && leads_here && self.canary_child() == Some(child) {
            self.begin_trial(|_| ());
        }
    }

    pub(super) fn not_adopted(&mut self, child: ChildId, generation: u64, reason: &str, loses_state: bool) {
        let is_answer = |worker: &&mut Worker| matches!(worker.adoption, Adoption::Asked { generation: asked, .. } if asked == generation);
        if let Some(worker) = self.workers.get_mut(&child).filter(is_answer) {
            worker.adoption = Adoption::Unable;
            if loses_state && self.spares_state() {
                self.end_for_state(reason);
            } else {
                self.cannot_adopt(child, generation, reason);
            }
        }
    }

    /// Whether the rollout is given up rather than that state is lost.
    fn spares_state(&self) -> bool {
        self.swaps()
            && self.rollout.as_ref().is_some_and(|rollout| {
                matches!(rollout.kind, Kind::Reload | Kind::Deploy)
                    && matches!(rollout.stage, Stage::Canary(_) | Stage::Wave { .. })
            })
    }

    fn end_for_state(&mut self, reason: &str) {
        self.turn += 1;
        let is_deployment = self.rollout.as_ref().is_some_and(|rollout| rollout.kind == Kind::Deploy);
        let advice = if is_deployment { DEPLOYED_WITHOUT_STATE } else { WITHOUT_STATE };
        let reason = format!("{reason}; {advice}");
        match self.canary_child() {
            // Nobody has taken anything over yet.
            Some(_) => self.reject(vec![reason]),
            None => self.roll_back(reason),
        }
    }

    pub(super) fn expire_adoptions(&mut self) {
        let now_ms = self.now_ms;
        let mut late = Vec::new();
        for (child, worker) in &mut self.workers {
            if let Adoption::Asked { generation, until_ms } = worker.adoption
                && until_ms <= now_ms
            {
                worker.adoption = Adoption::Unable;
                late.push((*child, generation));
            }
        }
        for (child, generation) in late {
            self.cannot_adopt(child, generation, "it gave no answer in time");
        }
    }

    fn cannot_adopt(&mut self, child: ChildId, generation: u64, reason: &str) {
        self.turn += 1;
        if self.swaps() && self.canary_child() == Some(child) {
            return self.replace_instead(reason);
        }
        if let Some(worker) = self.workers.get(&child) {
            let name = name_of(worker);
            self.log(
                Level::Warn,
                format!("{name} does not take generation {generation} over, and is replaced: {reason}"),
            );
        }
    }

    /// The rollout goes on by replacing workers.
    fn replace_instead(&mut self, reason: &str) {
        let Some(rollout) = &mut self.rollout else { return };
        rollout.mode = Some(ReloadMode::Rolling);
        let (job, generation) = (rollout.job, rollout.to);
        self.step(job, &format!("generation {generation} needs new workers: {reason}"));
        self.restart_canary(generation);
        self.turn += 1;
    }
}
