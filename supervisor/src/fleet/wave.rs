//! Slot after slot goes over, and then the new generation is in force.

use aegis_ipc::operator::Verdict;

use super::{
    Fleet,
    action::{Action, Level},
    generation::{Generation, PROBATION_MS, Previous},
    jobs::Kind,
    policy::milliseconds,
    rollout::{Rollout, Stage},
    store,
    worker::Replace,
};

impl Fleet {
    pub(super) fn advance_wave(&mut self, is_due: bool) {
        let (right, slots, is_complete) = (self.right_slots(), self.slots.len(), self.is_complete());
        let is_prepared = self.is_prepared(self.target());
        let Some(rollout) = &mut self.rollout else { return };
        let (kind, job) = (rollout.kind, rollout.job);
        if let Stage::Wave { told, .. } = &mut rollout.stage
            && kind != Kind::Restart
            && right > *told
        {
            *told = right;
            let what = if self.swaps() { "answer with it" } else { "replaced" };
            self.step(job, &format!("{right} of {slots} workers {what}"));
        }
        let marked = self
            .workers
            .values()
            .any(|worker| worker.is_incumbent() && worker.replace == Some(Replace::Restart));
        if kind == Kind::Restart && !marked {
            if is_due || !self.may_accept(|worker| worker.replace == Some(Replace::Restart)) {
                self.end_rollout(&Verdict::Done);
            }
        } else if kind != Kind::Restart && is_complete && is_prepared {
            self.commit();
        } else if is_due {
            self.roll_back("the workers could not be replaced in time".to_owned());
        }
    }

    /// The point of no return: the new generation is in force and will be the one to go back to.
    fn commit(&mut self) {
        let Some(Rollout { job, kind, from, to: generation, is_scaled, .. }) = self.rollout else { return };
        let until_ms = self.now_ms + PROBATION_MS;
        self.previous = Some(Previous { generation: from, until_ms });
        let was_scaled = self.wanted != self.policy.workers;
        self.bring_into_force(generation);
        self.keep_or_let_go(kind, from);
        self.activate();
        // Who goes back needs what serves now, and has not read anything new; who has scaled meanwhile wants that.
        let follows = kind == Kind::Reload && !is_scaled || kind == Kind::Revert && !was_scaled;
        if follows && self.wanted != self.policy.workers {
            self.end_scaling(&Verdict::Superseded);
            self.want(self.policy.workers);
        }
        let deadline_ms = self.now_ms + self.patience_ms();
        if let Some(rollout) = &mut self.rollout {
            rollout.stage = Stage::Settling { deadline_ms };
        }
        self.degraded = None;
        self.step(job, &format!("generation {generation} is in force"));
    }

    /// Tells the store and the listeners which generation is in force.
    pub(super) fn activate(&mut self) {
        let generation = self.in_force;
        if let Some(child) = self.store.ready_child() {
            self.actions.push(Action::Activate { child, generation });
        }
        self.actions.push(Action::CloseListeners { generation });
    }

    pub(super) fn write_last_good(&mut self) {
        self.written_ms = Some(self.now_ms);
        self.has_written = true;
        self.actions.push(Action::WriteLastGood { generation: self.in_force });
    }

    /// When the generation in force, if it came in without a trial, has lived long enough to be called good.
    pub(super) fn proven_at_ms(&self) -> Option<u64> {
        if self.written_ms.is_some() || self.target() != self.in_force || !self.is_complete() {
            return None;
        }
        let youngest = self
            .workers
            .values()
            .filter(|worker| worker.is_serving())
            .filter_map(|worker| worker.ready_ms)
            .max()?;
        Some(youngest + milliseconds(self.policy.restart.healthy_after))
    }

    /// Keeps the generation in force as last good once it has proved itself.
    pub(super) fn prove(&mut self) {
        if self.proven_at_ms().is_some_and(|at_ms| at_ms <= self.now_ms) {
            // The host may have been started with another app than it was stopped with.
            if !self.has_written {
                self.actions.push(Action::KeepLastGoodBefore { generation: self.in_force });
            }
            self.write_last_good();
            self.degraded = None;
        }
    }

    pub(super) fn advance_settling(&mut self, is_due: bool) {
        if !is_due && !self.is_handed_over() {
            return;
        }
        let Some(Rollout { job, kind, .. }) = self.rollout else { return };
        let (serving, wanted) = (self.serving(), self.wanted);
        let deadline_ms = self.now_ms + self.patience_ms();
        match kind {
            Kind::Start if is_due && self.store.is_beginning() => {
                // Whether the app fits the data is not known yet; when it does not, there is the last good generation.
                if let Some(rollout) = &mut self.rollout {
                    rollout.stage = Stage::Settling { deadline_ms };
                }
                self.step(job, "the store is not ready yet; waiting for it");
            }
            Kind::Upgrade => {
                self.step(job, "starting the store from the new executable");
                let deadline_ms = deadline_ms + store::STORE_STOP_MS;
                if let Some(rollout) = &mut self.rollout {
                    // The store that is there now is not the one that will have prepared anything.
                    rollout.prepared_by = self.store.process.as_ref().map(|process| process.child);
                    rollout.stage = Stage::StoreRestart { deadline_ms };
                }
                self.replace_store();
                self.turn += 1;
            }
            _ if serving == 0 && (kind == Kind::Start || self.only_wakes()) => {
                let reason = format!("none of {wanted} workers serves yet; trying on");
                if kind == Kind::Start {
                    self.degraded = Some(reason.clone());
                }
                self.end_rollout(&Verdict::Rejected { reasons: vec![reason] });
            }
            _ if self.has_to_be_kept() => self.await_kept(),
            _ => self.end_in_force(),
        }
    }

    pub(super) fn advance_store_restart(&mut self, is_due: bool) {
        let Some(rollout) = &self.rollout else { return };
        let ready = self.store.ready_child();
        if ready.is_some() && ready != rollout.prepared_by {
            self.end_rollout(&Verdict::Done);
        } else if is_due {
            let reason = "all workers run the new executable, but the store does not become ready with it";
            self.degraded = Some(reason.to_owned());
            self.end_rollout(&Verdict::RolledBack { reason: reason.to_owned() });
        }
    }

    /// The new image runs: the workers follow, canary first.
    pub(super) fn upgraded(&mut self, image: u64, has_code: bool) {
        self.image = self.image.max(image);
        self.images.insert(image);
        let is_awaited =
            self.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Preflight));
        if !is_awaited {
            // An image of before that could not call it off was already on its way: whatever starts next is new.
            self.log(Level::Warn, "the new executable runs, though nobody waits for it any more".to_owned());
            // Code runs only in the image that compiled it.
            if let Some(generation) = self.generations.get_mut(&self.in_force).filter(|_| !has_code) {
                generation.image = image;
            }
            return;
        }
        let (from, to) = (self.in_force, self.new_generation());
        let policy = self.policy.clone();
        let digest = self.digest().to_owned();
        self.generations.insert(to, Generation::new(digest, policy, image));
        self.actions.push(Action::CopyGeneration { from, to });
        let Some(rollout) = &mut self.rollout else { return };
        rollout.to = to;
        let job = rollout.job;
        self.jobs.lead(job, to);
        self.step(
            job,
            &format!("the supervisor runs the new executable; the workers follow as generation {to}"),
        );
        if has_code {
            self.compile_anew(to);
        } else {
            self.prepare();
        }
    }

    pub(super) fn upgrade_failed(&mut self, reasons: Vec<String>) {
        if self.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Preflight)) {
            self.reject(reasons);
        }
    }

    /// The new image could not go on after all.
    pub(super) fn upgrade_returned(&mut self, reason: String) {
        if self.rollout.as_ref().is_some_and(|rollout| matches!(rollout.stage, Stage::Preflight)) {
            self.end_rollout(&Verdict::RolledBack { reason });
        }
    }
}
