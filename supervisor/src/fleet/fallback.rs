//! When the generation in force does not live: back to the one before, without being asked.

use aegis_ipc::{
    deploy::{Kept, Task},
    operator::Verdict,
};

use super::{
    Fleet, Phase,
    action::{Action, Level, Notice},
    hold::{Cause, Hold},
    jobs::Kind,
    lives::EXIT_CONFIGURATION,
    rollout::{Rollout, Stage},
};

impl Fleet {
    /// The workers of a generation crash one after the other.
    pub(super) fn crash_loop(&mut self, generation: u64, last: &str) {
        self.log(Level::Error, format!("crash loop of generation {generation}, lately: {last}"));
        if generation != self.in_force {
            return;
        }
        let reason = format!("crash loop of generation {generation}: {last}");
        match self.rollout.as_ref().map(|rollout| (&rollout.stage, rollout.kind)) {
            None => {}
            // A new generation on its way may be the cure; if it is not, the loop will be noticed again.
            Some((stage, _)) if !matches!(stage, Stage::Settling { .. } | Stage::Keeping) => return,
            Some((_, Kind::Start)) => self.end_rollout(&Verdict::Rejected { reasons: vec![reason.clone()] }),
            Some(_) => self.end_rollout(&Verdict::RolledBack { reason: reason.clone() }),
        }
        self.degraded = Some(reason.clone());
        if self.waiting.is_some() || !self.line.is_empty() {
            return;
        }
        match self.previous {
            Some(previous) => self.begin_fallback(previous.generation, &reason, Stage::Binding),
            // Never proved itself, so what is kept on disk may be another one.
            None if self.written_ms.is_none() => {
                let to = self.new_generation();
                self.begin_fallback(to, &reason, Stage::Loading);
            }
            None => {
                self.log(Level::Error, "there is no other generation to go back to; trying on".to_owned())
            }
        }
    }

    fn begin_fallback(&mut self, to: u64, reason: &str, stage: Stage) {
        self.unmark(super::worker::Replace::Recycle);
        self.notify(Notice::Reloading);
        let job = self.jobs.open(Kind::Rollback, to);
        let is_loading = stage == Stage::Loading;
        self.rollout = Some(Rollout::new(job, Kind::Rollback, self.in_force, to, stage));
        self.step(job, &format!("back to the last good generation: {reason}"));
        if is_loading {
            self.actions.push(Action::LoadLastGood { generation: to });
        } else {
            self.bind();
        }
        self.turn += 1;
    }

    /// Takes the last good generation into force at once: what it replaces does not live. Slots converge by themselves,
    /// those that still serve the bad generation after their successors do.
    pub(super) fn fall_back(&mut self) {
        let Some(Rollout { from, to, .. }) = self.rollout else { return };
        let digests =
            [from, to].map(|generation| self.generations.get(&generation).map(|known| known.digest.clone()));
        if let [Some(bad), Some(good)] = digests
            && bad != good
        {
            self.remember_bad(bad, self.degraded.clone().unwrap_or_default());
        }
        self.previous = None;
        let was_scaled = self.wanted != self.policy.workers;
        self.bring_into_force(to);
        // What is held does not come to an end by a generation that does not live: what was there before it is not the app
        // either. What somebody put back has to be found again by a host that starts anew.
        if self.is_pinned() {
            self.pin();
        }
        // What somebody has scaled to is no matter of the generation.
        if !was_scaled && self.wanted != self.policy.workers {
            self.end_scaling(&Verdict::Superseded);
            self.want(self.policy.workers);
        }
        // Written again only when it has proved itself once more.
        self.written_ms = None;
        self.activate();
        self.clear_backoffs();
        self.end_rollout(&Verdict::Done);
    }

    /// The store does not start with the app, and so no worker of it was there yet: as when the app has mistakes, the host
    /// comes up on what was good last, if that is another one.
    pub(super) fn come_up_on_last_good(&mut self, reason: String) {
        let to = self.next_generation;
        let rollout = self
            .rollout
            .as_mut()
            .filter(|rollout| rollout.kind == Kind::Start && matches!(rollout.stage, Stage::Settling { .. }));
        let Some(rollout) = rollout.filter(|_| self.hold.is_none() && self.phase == Phase::Running) else {
            return self.give_up(EXIT_CONFIGURATION, reason);
        };
        (rollout.to, rollout.stage) = (to, Stage::Loading);
        let job = rollout.job;
        self.log(Level::Error, format!("{reason}; trying the last good generation"));
        if let Some(rollout) = &mut self.rollout {
            rollout.misfit = Some(reason);
        }
        self.next_generation += 1;
        self.phase = Phase::Starting;
        self.jobs.lead(job, to);
        self.actions.push(Action::LoadLastGood { generation: to });
        self.turn += 1;
    }

    /// What was good last is known, and takes the place of an app that the store does not start with: it is taken up as a start
    /// with it is, with what the command line says. True if there is nothing else to do with it now.
    pub(super) fn replaces_misfit(&mut self, digest: &str) -> bool {
        let misfit = self.rollout.as_ref().and_then(|rollout| rollout.misfit.clone());
        let Some(misfit) = misfit.filter(|_| self.hold.is_none()) else { return false };
        if digest == self.digest() {
            self.give_up(EXIT_CONFIGURATION, misfit);
            return true;
        }
        let reason = format!("the last good generation, because with the app {misfit}");
        self.log(Level::Warn, format!("the host does not begin with the app folder: {reason}"));
        self.hold = Some(Hold { reason, digest: digest.to_owned(), cause: Cause::Misfit });
        if let Some(rollout) = &mut self.rollout {
            rollout.task = Task::Restore(Kept::Digest(digest.to_owned()));
            rollout.stage = Stage::Probing { failures: 0 };
            let to = rollout.to;
            self.spawn_helper(to);
        }
        true
    }

    /// There is nothing to go back to: the generation in force is tried on, at the pace of its slots.
    pub(super) fn no_way_back(&mut self, reason: &str) {
        self.reject(vec![format!("{reason}; trying on")]);
    }
}
