//! When the generation in force does not live: back to the one before, without being asked.

use aegis_ipc::operator::Verdict;

use super::{
    Fleet,
    action::{Action, Level, Notice},
    jobs::Kind,
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
        self.let_go();
        self.bring_into_force(to);
        self.want(self.policy.workers);
        // Written again only when it has proved itself once more.
        self.written_ms = None;
        self.activate();
        self.clear_backoffs();
        self.end_rollout(&Verdict::Done);
    }

    /// There is nothing to go back to: the generation in force is tried on, at the pace of its slots.
    pub(super) fn no_way_back(&mut self, reason: &str) {
        self.reject(vec![format!("{reason}; trying on")]);
    }
}
