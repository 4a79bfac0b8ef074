//! Who waits for what: numbers of jobs, their askers, their outcome.

use std::collections::{BTreeMap, VecDeque};

use aegis_ipc::operator::{Job, Verdict};
use serde::{Deserialize, Serialize};

use super::{
    action::{Action, Level},
    event::Asker,
};

/// Most askers of one job; a further one is refused.
pub(super) const ASKERS_MAX: usize = 1024;
/// Ended jobs that can still be asked for.
const ENDED_MAX: usize = 64;

/// What a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// The first generation.
    Start,
    /// A new generation.
    Reload,
    /// A new generation with another version of one module.
    Deploy,
    /// Back to the generation before because somebody asked.
    Revert,
    /// A new image.
    Upgrade,
    /// New processes.
    Restart,
    /// Back to the last good generation because the present one does not live.
    Rollback,
    /// Another number of workers.
    Scale,
    /// No workers.
    Drain,
    /// The end.
    Stop,
}

/// All jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Jobs {
    next: u64,
    open: BTreeMap<u64, Open>,
    ended: VecDeque<Ended>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Open {
    kind: Kind,
    step: String,
    generation: u64,
    askers: Vec<Asker>,
}

/// A job that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) kind: Kind,
    pub(super) job: Job,
    pub(super) at_ms: u64,
}

impl Kind {
    /// The word for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Restart => "restart",
            Self::Deploy => "deploy",
            Self::Rollback | Self::Revert => "rollback",
            Self::Scale => "scale",
            Self::Drain => "drain",
            Self::Stop => "stop",
        }
    }
}

impl Jobs {
    pub(super) fn new() -> Self {
        Self { next: 1, open: BTreeMap::new(), ended: VecDeque::new() }
    }

    /// Opens a job that leads to `generation`.
    pub(super) fn open(&mut self, kind: Kind, generation: u64) -> u64 {
        let job = self.next;
        self.next += 1;
        let step = "waiting".to_owned();
        self.open.insert(job, Open { kind, step, generation, askers: Vec::new() });
        job
    }

    /// Adds an asker to an open job.
    pub(super) fn join(&mut self, job: u64, asker: Asker) -> Action {
        match self.open.get_mut(&job) {
            Some(open) if open.askers.len() < ASKERS_MAX => {
                open.askers.push(asker);
                Action::Accepted { asker, job }
            }
            Some(_) => {
                let message = format!("job {job} has {ASKERS_MAX} askers already; ask for its state instead");
                Action::Refused { asker, message }
            }
            None => Action::Refused { asker, message: format!("job {job} has ended") },
        }
    }

    /// Somebody who waited is gone.
    pub(super) fn forget(&mut self, gone: Asker) {
        for open in self.open.values_mut() {
            open.askers.retain(|asker| *asker != gone);
        }
    }

    /// Says where a job leads, once that is known.
    pub(super) fn lead(&mut self, job: u64, generation: u64) {
        if let Some(open) = self.open.get_mut(&job) {
            open.generation = generation;
        }
    }

    /// Notes a step of an open job and tells everybody who waits.
    pub(super) fn step(&mut self, job: u64, step: &str, actions: &mut Vec<Action>) {
        if let Some(open) = self.open.get_mut(&job) {
            step.clone_into(&mut open.step);
            let line = format!("{} (job {job}): {step}", open.kind.name());
            actions.push(Action::Log { level: Level::Info, line });
            actions.extend(open.askers.iter().map(|asker| Action::Progress {
                asker: *asker,
                job,
                step: step.to_owned(),
                is_warning: false,
            }));
        }
    }

    /// Tells everybody who waits for an open job, or asks for it, what the log has already.
    pub(super) fn warn(&mut self, job: u64, warnings: &[String], actions: &mut Vec<Action>) {
        let Some(open) = self.open.get_mut(&job).filter(|_| !warnings.is_empty()) else { return };
        open.step = warnings.join("; ");
        for asker in &open.askers {
            let told =
                |step: &String| Action::Progress { asker: *asker, job, step: step.clone(), is_warning: true };
            actions.extend(warnings.iter().map(told));
        }
    }

    /// Ends an open job: one verdict for everybody who waits.
    pub(super) fn finish(&mut self, job: u64, verdict: &Verdict, now_ms: u64, actions: &mut Vec<Action>) {
        let Some(open) = self.open.remove(&job) else { return };
        let (level, outcome) = describe(open.kind, verdict);
        actions.push(Action::Log { level, line: format!("{} (job {job}): {outcome}", open.kind.name()) });
        actions.extend(open.askers.iter().map(|asker| Action::Verdict {
            asker: *asker,
            job,
            verdict: verdict.clone(),
        }));
        let name = open.kind.name().to_owned();
        let (step, generation) = (open.step, open.generation);
        let job = Job { job, kind: name, step, generation, verdict: Some(verdict.clone()) };
        self.ended.push_front(Ended { kind: open.kind, job, at_ms: now_ms });
        self.ended.truncate(ENDED_MAX);
    }

    /// A job that is open or ended not long ago.
    pub(super) fn get(&self, job: u64) -> Option<Job> {
        let open = self.open.get(&job).map(|open| open.describe(job));
        open.or_else(|| self.ended.iter().find(|ended| ended.job.job == job).map(|ended| ended.job.clone()))
    }

    /// All open jobs, oldest first.
    pub(super) fn open_jobs(&self) -> Vec<Job> {
        self.open.iter().map(|(job, open)| open.describe(*job)).collect()
    }

    /// The job that ended last and is worth telling: not the start.
    pub(super) fn last(&self) -> Option<&Ended> {
        self.ended.iter().find(|ended| ended.kind != Kind::Start)
    }
}

impl Open {
    fn describe(&self, job: u64) -> Job {
        let kind = self.kind.name().to_owned();
        Job { job, kind, step: self.step.clone(), generation: self.generation, verdict: None }
    }
}

/// How loud an outcome is, and its sentence.
fn describe(kind: Kind, verdict: &Verdict) -> (Level, String) {
    match verdict {
        Verdict::Done => (Level::Info, "done".to_owned()),
        Verdict::Unchanged => (Level::Info, "nothing to do".to_owned()),
        // Nobody asked for it, so nobody was turned away.
        Verdict::Rejected { reasons } if kind == Kind::Start => {
            (Level::Error, format!("failed: {}", reasons.join("; ")))
        }
        Verdict::Rejected { reasons } => (Level::Error, format!("rejected: {}", reasons.join("; "))),
        Verdict::Incompatible { reasons } => (Level::Error, format!("incompatible: {}", reasons.join("; "))),
        Verdict::RolledBack { reason } => (Level::Error, format!("rolled back: {reason}")),
        Verdict::Superseded => (Level::Info, "superseded".to_owned()),
    }
}
