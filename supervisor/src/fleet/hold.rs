//! When the generation in force is not that of the app folder: put back by somebody who asked, or taken up at the start
//! because the app has mistakes or does not fit what is stored.
//!
//! ```text
//!              rollback                         reload
//!   app ────────────────────► pinned ───────────────────────────► app
//!    │                          │  ▲
//!    │ start with mistakes      └──┘ deploy, crash loop: the pin moves along
//!    └──────────────► last good ──────────── reload ────────────► app
//! ```

use aegis_ipc::{
    deploy::{Kept, Task},
    operator::Verdict,
};
use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    action::{Action, Level},
    event::{Caller, Origin},
    jobs::Kind,
    rollout::{Rollout, Stage},
};

/// What is said of a generation that was put back.
const ROLLED_BACK: &str = "rolled back on request; it stays until `aegis reload`";

/// What is said of workers that were drained.
const DRAINED: &str = "all workers were drained on request; `aegis reload` brings them back with it";

/// Why the generation in force is not that of the app folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hold {
    /// For people.
    pub(super) reason: String,
    /// The generation that a host that starts anew takes up.
    pub(super) digest: String,
    pub(super) cause: Cause,
}

/// Why something is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// Somebody asked: it stays until somebody asks for something else.
    Pinned,
    /// The app had mistakes: it stays until it has none.
    Mistakes,
    /// The store does not start with the app: it stays until a reload finds one that fits.
    Misfit,
}

impl Hold {
    /// For the line of status.
    pub(super) fn word(&self) -> &'static str {
        match self.cause {
            Cause::Pinned => "PINNED by a rollback",
            Cause::Mistakes => "LAST GOOD generation, the app has mistakes",
            Cause::Misfit => "LAST GOOD generation, the store does not start with the app",
        }
    }
}

impl Fleet {
    /// A fleet that starts with the generation of this digest, which is kept on disk, instead of the app.
    #[must_use]
    pub fn restoring(mut self, digest: String, cause: Cause, reason: String) -> Self {
        self.hold = Some(Hold { reason, digest, cause });
        self
    }

    /// Whether somebody put the generation in force back, and it stays.
    pub(crate) fn is_pinned(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.cause == Cause::Pinned)
    }

    /// Whether the generation in force only stands in for an app with which the host could not start, and nobody has changed
    /// anything since. What was deployed after it had been good is not undone by that.
    pub(crate) fn is_stand_in(&self) -> bool {
        self.hold.as_ref().is_some_and(|hold| hold.cause != Cause::Pinned) && self.before.is_none()
    }

    /// Whether the generation that is made is that of the app folder.
    pub(crate) fn follows_app(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.task == Task::App)
    }

    /// Whether nobody asked for the generation that is made.
    pub(crate) fn is_unasked(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| rollout.origin == Origin::Automatic)
    }

    /// What somebody asked for, if changes that nobody asked for would undo it.
    pub(super) fn stays(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Paused(_) => Some(DRAINED),
            _ => self.is_pinned().then_some(ROLLED_BACK),
        }
    }

    /// Whether somebody asked for something that is about to bring workers back.
    pub(super) fn may_wake(&self) -> bool {
        matches!(self.phase, Phase::Paused(_)) && self.rollout.is_some()
    }

    /// A change that nobody asked for does not undo what somebody asked for. Whoever tells of it has done
    /// nothing wrong, and finds out by the job.
    pub(super) fn stay(&mut self, caller: Option<Caller>) {
        if caller.is_some() {
            let job = self.jobs.open(Kind::Reload, self.in_force);
            self.accept(job, caller);
            self.end_as_it_stays(job);
        } else {
            self.log(Level::Warn, self.why_it_stays());
        }
    }

    /// The same, of a change that had to wait.
    pub(super) fn end_as_it_stays(&mut self, job: u64) {
        let reasons = vec![self.why_it_stays()];
        self.finish(job, &Verdict::Rejected { reasons });
    }

    fn why_it_stays(&self) -> String {
        let why = self.stays().unwrap_or(ROLLED_BACK);
        format!("what changed in the app is not taken up: {why}")
    }

    /// A change is committed: it is kept, so is what it replaced to go back to, and it is known whether the app is in force now.
    pub(super) fn keep_or_let_go(&mut self, kind: Kind, from: u64) {
        if matches!(kind, Kind::Reload | Kind::Deploy | Kind::Revert) {
            self.before = self.generations.get(&from).map(|known| known.digest.clone());
        }
        // What makes room is in its other place before, so that it is found whenever the host ends. Where something was put
        // back, that lies in the other place, and makes room last.
        if matches!(kind, Kind::Reload | Kind::Deploy) {
            self.actions.push(Action::WritePrevious { generation: from });
        }
        self.write_last_good();
        if kind == Kind::Revert {
            self.actions.push(Action::WritePrevious { generation: from });
        }
        match kind {
            Kind::Reload => self.let_go(),
            Kind::Revert => self.pin(),
            Kind::Deploy if self.is_pinned() => self.pin(),
            _ => {}
        }
    }

    /// What a rollback takes up: the generation that was in force before the last change, wherever it is kept. In the place
    /// of the one before there may be an older one, where that could not be written. A host that was just started knows
    /// only what is there.
    pub(super) fn way_back(&self) -> Kept {
        self.before.clone().map_or(Kept::Previous, Kept::Digest)
    }

    /// What is in force stays, whatever the app folder says, also after a restart.
    pub(super) fn pin(&mut self) {
        let (reason, digest) = (ROLLED_BACK.to_owned(), self.digest().to_owned());
        self.hold = Some(Hold { reason, digest, cause: Cause::Pinned });
        self.actions.push(Action::Pin { generation: Some(self.in_force) });
    }

    /// Whether whoever asked for the change that is in force was promised that it outlives a restart, and is told before it is
    /// done if that is not so.
    pub(super) fn has_to_be_kept(&self) -> bool {
        match self.rollout.as_ref().map(|rollout| rollout.kind) {
            Some(Kind::Deploy) => true,
            Some(Kind::Revert) => self.is_pinned(),
            _ => false,
        }
    }

    /// Waits until that is so.
    pub(super) fn await_kept(&mut self) {
        if let Some(rollout) = &mut self.rollout {
            rollout.stage = Stage::Keeping;
            self.actions.push(Action::ReportKept { generation: rollout.to });
            self.turn += 1;
        }
    }

    pub(super) fn kept(&mut self, generation: u64) {
        let is_awaited =
            |rollout: &Rollout| rollout.to == generation && matches!(rollout.stage, Stage::Keeping);
        if self.rollout.as_ref().is_some_and(is_awaited) {
            self.end_in_force();
        }
    }

    /// A host that starts anew does not come up on what is in force.
    pub(super) fn not_pinned(&mut self, generation: u64, reason: &str) {
        let line = format!("a restart may come up on another generation than {generation}: {reason}");
        self.not_noted(generation, &line);
    }

    /// What is deployed is in force, and only there.
    pub(super) fn deployments_not_noted(&mut self, generation: u64, reason: &str) {
        let line =
            format!("a restart or reload may undo what is deployed in generation {generation}: {reason}");
        self.not_noted(generation, &line);
    }

    /// The highest versions of signed modules that were in force are not known to what is checked next.
    pub(super) fn versions_not_noted(&mut self, generation: u64, reason: &str) {
        let line = format!("older versions than those of generation {generation} may be let in: {reason}");
        self.not_noted(generation, &line);
    }

    /// Something about a generation is not on the disk: whoever waits for it is told what may follow.
    fn not_noted(&mut self, generation: u64, line: &str) {
        self.log(Level::Error, line.to_owned());
        if let Some(job) =
            self.rollout.as_ref().filter(|rollout| rollout.to == generation).map(|rollout| rollout.job)
        {
            self.step(job, line);
        }
    }

    /// The app is in force.
    pub(super) fn let_go(&mut self) {
        if let Some(hold) = self.hold.take()
            && hold.cause == Cause::Pinned
        {
            self.actions.push(Action::Pin { generation: None });
        }
    }
}
