//! What must hold after every event, whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use aegis_ipc::operator::Verdict;

use super::{
    super::{
        Action, Asker, ChildId, Phase, Role, Spawn,
        closing::CLOSING_MS,
        lives::DRAIN_GRACE_MS,
        requests::LINE_MAX,
        rollout::{Outset, Stage},
        slots::{FILLS_MAX, REFILLS_MAX},
    },
    world::{Fate, Process, World},
};

/// Time that everybody gets after the supervisor was stopped.
const EXCUSED_MS: u64 = 2_000;
/// Greatest surge of any application in the tests.
pub(crate) const SURGE: usize = 2;

/// What has to be remembered to judge what comes next.
#[derive(Debug)]
pub(crate) struct Checks {
    answers: BTreeMap<Asker, Answers>,
    images: BTreeSet<u64>,
    images_made: u64,
    excused_until_ms: u64,
    /// Generations in the order in which they were committed, the one that has to be in force last. A rollout that fails
    /// leaves the last one where it is; a crash loop goes back by one, or to what was loaded.
    committed: Vec<u64>,
    /// When that was last.
    committed_ms: u64,
    loaded: Option<u64>,
}

#[derive(Debug, Default)]
struct Answers {
    accepted: Option<u64>,
    verdict: Option<Verdict>,
    refused: Option<String>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            answers: BTreeMap::new(),
            images: BTreeSet::from([1]),
            images_made: 1,
            excused_until_ms: 0,
            committed: Vec::new(),
            committed_ms: 0,
            loaded: None,
        }
    }
}

impl Checks {
    pub(crate) fn asked(&mut self, asker: Asker) {
        self.answers.insert(asker, Answers::default());
    }

    pub(crate) fn verdict(&self, asker: Asker) -> Option<&Verdict> {
        self.answers[&asker].verdict.as_ref()
    }

    pub(crate) fn refusal(&self, asker: Asker) -> Option<&str> {
        self.answers[&asker].refused.as_deref()
    }

    pub(crate) fn excuse(&mut self, now_ms: u64) {
        self.excused_until_ms = now_ms + EXCUSED_MS;
    }

    pub(crate) fn next_image(&mut self) -> u64 {
        self.images_made += 1;
        self.images.insert(self.images_made);
        self.images_made
    }

    /// The generation that was committed last: where every rollback has to end.
    pub(crate) fn good(&self) -> Option<u64> {
        self.committed.last().copied()
    }

    fn commit(&mut self, generation: u64) {
        if self.good() != Some(generation) {
            self.committed.push(generation);
        }
    }

    /// Judges that a generation is said to be in force without having been committed just now.
    fn fall_back(&mut self, generation: u64) {
        if self.good().is_some_and(|good| good != generation) {
            self.committed.pop();
            let is_known = self.good() == Some(generation) || self.loaded == Some(generation);
            assert!(is_known, "generation {generation} is in force, after {:?}", self.committed);
        }
        self.commit(generation);
    }

    /// Askers that have not heard the last word yet.
    pub(crate) fn unanswered(&self) -> Vec<Asker> {
        let open = |answers: &Answers| answers.refused.is_none() && answers.verdict.is_none();
        self.answers.iter().filter(|(_, answers)| open(answers)).map(|(asker, _)| *asker).collect()
    }
}

impl<F: Fate> World<F> {
    /// Judges an action before it is carried out.
    pub(crate) fn check_action(&mut self, action: &Action) {
        match action {
            Action::Spawn(spawn) => {
                self.check_spawn(spawn);
                if self.checks.committed.is_empty() && matches!(spawn.role, Role::Worker { .. }) {
                    self.checks.commit(spawn.generation); // a host starts with what it finds
                }
            }
            Action::WriteLastGood { generation } => {
                self.checks.commit(*generation);
                self.checks.committed_ms = self.now_ms;
            }
            Action::LoadLastGood { generation } => self.checks.loaded = Some(*generation),
            Action::CloseListeners { generation } => self.checks.fall_back(*generation),
            Action::Serve { child } => {
                let process = &self.processes[child];
                assert!(process.ready_ms.is_some(), "{child:?} serves before it is ready");
                assert!(!process.is_leaving, "{child:?} serves after it was told to drain");
            }
            Action::Adopt { child, generation } => self.check_adoption(*child, *generation),
            Action::Kill { child } if self.fleet.phase == Phase::Running => {
                let is_well = self.processes.get(child).is_some_and(Process::is_well);
                assert!(!is_well, "{child:?} is killed though it is well");
            }
            Action::Forget { generation } => {
                assert!(self.bundles.contains_key(generation), "generation {generation} is forgotten twice");
            }
            Action::ForgetImage { image } => {
                assert!(self.checks.images.remove(image), "image {image} is forgotten twice");
            }
            Action::Accepted { asker, job } => {
                let answers = self.checks.answers.get_mut(asker).unwrap();
                assert_eq!(
                    (answers.accepted, &answers.refused),
                    (None, &None),
                    "{asker:?} is accepted twice"
                );
                answers.accepted = Some(*job);
            }
            Action::Refused { asker, message } => {
                let answers = self.checks.answers.get_mut(asker).unwrap();
                assert_eq!(
                    (answers.accepted, &answers.refused),
                    (None, &None),
                    "{asker:?} is answered twice"
                );
                answers.refused = Some(message.clone());
            }
            Action::Progress { asker, job, .. } => {
                let answers = &self.checks.answers[asker];
                assert_eq!(
                    (answers.accepted, &answers.verdict),
                    (Some(*job), &None),
                    "{asker:?} hears of another job"
                );
            }
            Action::Verdict { asker, job, verdict } => self.check_verdict(*asker, *job, verdict),
            _ => {}
        }
    }

    fn check_verdict(&mut self, asker: Asker, job: u64, verdict: &Verdict) {
        let answers = self.checks.answers.get_mut(&asker).unwrap();
        assert_eq!(answers.accepted, Some(job), "{asker:?} gets the verdict of another job");
        assert_eq!(answers.verdict, None, "{asker:?} gets a second verdict");
        answers.verdict = Some(verdict.clone());
        let known = self.fleet.job(job).expect("the job can be asked for");
        assert_eq!(known.verdict.as_ref(), Some(verdict));
        if ["rollback", "deploy"].contains(&known.kind.as_str())
            && *verdict == Verdict::Done
            && self.fleet.is_pinned()
        {
            assert_eq!(self.kept, Some(known.generation), "done before it is kept{}", self.lately());
        }
        let is_change = !["scale", "restart", "drain", "stop"].contains(&known.kind.as_str());
        if is_change && *verdict == Verdict::Done && self.fleet.phase == Phase::Running {
            self.check_closed();
        }
    }

    /// Judges when a change is told done: nobody who connects is answered by what was before. Who says nothing is not
    /// waited for without end, nor is anybody once the time of the whole change is up.
    fn check_closed(&self) {
        if self.now_ms >= self.checks.committed_ms + self.fleet.patience_ms() {
            return;
        }
        for (child, process) in self.processes.iter().filter(|(_, process)| process.is_worker()) {
            let is_before = process.spawn.generation != self.fleet.in_force && !process.is_killed;
            let may_accept =
                process.is_open && process.is_leaving && self.now_ms < process.left_ms + CLOSING_MS;
            assert!(!(is_before && may_accept), "{child:?} may accept though all is done{}", self.lately());
        }
    }

    /// Judges who is told to take a generation over: a worker that serves, while no other one does, of a generation that
    /// is held and that the store knows.
    fn check_adoption(&self, child: ChildId, generation: u64) {
        if let Some(process) = self.processes.get(&child) {
            assert!(process.is_worker() && process.is_serving, "{child:?} does not serve");
        }
        assert!(self.bundles.contains_key(&generation), "generation {generation} is not there");
        let store = self.processes.values().find(|process| matches!(process.spawn.role, Role::Store { .. }));
        let is_told = store.is_none_or(|store| store.knows.contains(&generation));
        assert!(is_told, "the store does not know generation {generation}");
        let asked =
            self.fleet.workers.values().filter(|worker| worker.adoption.deadline_ms().is_some()).count();
        assert!(asked <= 1, "{asked} workers take something over at once");
    }

    /// Judges what comes of an upgrade: somebody waits for it, since no other one was told how it ended.
    pub(crate) fn check_awaited(&self) {
        let stage = self.fleet.rollout.as_ref().map(|rollout| &rollout.stage);
        assert_eq!(stage, Some(&Stage::Preflight), "it was called off{}", self.lately());
    }

    fn check_spawn(&self, spawn: &Spawn) {
        assert!(!self.processes.contains_key(&spawn.child), "{:?} is used twice", spawn.child);
        assert!(self.checks.images.contains(&spawn.image), "image {} is not there", spawn.image);
        let alike = |process: &&Process| {
            std::mem::discriminant(&process.spawn.role) == std::mem::discriminant(&spawn.role)
        };
        match spawn.role {
            Role::Compile => assert_eq!(spawn.cell, 0),
            Role::Look => {
                assert_eq!(spawn.cell, 0);
                assert!(self.bundles.contains_key(&spawn.generation));
                assert_eq!(self.processes.values().filter(alike).count(), 0, "two look at the same time");
                assert!(self.fleet.rollout.is_none(), "it looks while a rollout runs");
            }
            Role::Store { epoch } => {
                assert_eq!(spawn.cell, 0);
                assert!(self.bundles.contains_key(&spawn.generation));
                assert_eq!(self.processes.values().filter(alike).count(), 0, "a second store is started");
                assert!(epoch > 0);
            }
            Role::Worker { .. } => {
                let app = self.bundles.get(&spawn.generation);
                let app = app.unwrap_or_else(|| panic!("generation {} is not there", spawn.generation));
                assert!(spawn.cell > 0 && (spawn.cell as usize) < aegis_ipc::board::CELLS);
                let taken = self.processes.values().any(|process| process.spawn.cell == spawn.cell);
                assert!(!taken, "cell {} is taken", spawn.cell);
                assert!(self.bound.is_superset(&app.listeners), "{:?} are bound", self.bound);
                let store =
                    self.processes.values().find(|process| matches!(process.spawn.role, Role::Store { .. }));
                let is_told = store.is_none_or(|store| store.knows.contains(&spawn.generation));
                assert!(is_told, "the store does not know generation {}", spawn.generation);
                self.check_wanted(spawn.generation);
            }
        }
    }

    /// Judges that nobody is started whom a drain was to end.
    fn check_wanted(&self, generation: u64) {
        let Some(rollout) = &self.fleet.rollout else { return };
        if rollout.outset == Outset::Drained && !matches!(rollout.stage, Stage::RollingBack { .. }) {
            assert_eq!(generation, rollout.to, "what was drained is back{}", self.lately());
        }
    }

    /// Judges the state after an event; `before` are the workers that served well when it came, and how many were
    /// wanted then.
    pub(crate) fn check(&self, before: &[ChildId], wanted_before: u32) {
        for (child, process) in &self.processes {
            let Some(leave_by_ms) = process.leave_by_ms.filter(|_| !process.is_killed) else { continue };
            let limit_ms = (leave_by_ms + DRAIN_GRACE_MS).max(self.checks.excused_until_ms);
            assert!(self.now_ms <= limit_ms, "{child:?} still drains {} ms too late", self.now_ms - limit_ms);
        }
        assert!(self.fleet.line.len() <= LINE_MAX, "too many changes wait");
        let is_other = |kind: &str| ["scale", "drain", "stop"].contains(&kind);
        let rollouts = self.fleet.jobs.open_jobs().iter().filter(|job| !is_other(&job.kind)).count();
        assert!(rollouts <= 2 + self.fleet.line.len(), "more than one rollout waits");
        if let Some(good) = self.checks.good() {
            assert_eq!(self.fleet.in_force, good, "not what was committed last: {}", self.lately());
        }
        if self.fleet.phase == Phase::Running {
            self.check_capacity(before, wanted_before);
        }
    }

    fn check_capacity(&self, before: &[ChildId], wanted_before: u32) {
        let (wanted, after) = (self.fleet.wanted as usize, self.serving().len());
        // Whoever fell silent is lost, but not by our action.
        let is_silent = |child: &ChildId| {
            let is_hung = |process: &Process| process.is_hung && process.is_leaving;
            self.is_suspect(*child) || self.processes.get(child).is_some_and(is_hung)
        };
        // A generation that was gone back from is not kept up for the sake of numbers.
        let is_unwanted = |child: &ChildId| {
            let generation = self.processes.get(child).map(|process| process.spawn.generation);
            self.fleet.rollout.is_none() && generation != Some(self.fleet.in_force)
        };
        let before = before.iter().filter(|child| !is_silent(child) && !is_unwanted(child)).count();
        assert!(
            after + self.fleet.written_off() >= before.min(wanted).min(wanted_before as usize),
            "{before} served, {after} serve, {wanted} are wanted: {}{}",
            self.fleet.summary(self.now_ms),
            self.lately()
        );
        let present = self.processes.values().filter(|process| process.is_present()).count();
        assert!(present <= wanted + SURGE, "{present} workers for {wanted} slots");
        let is_starting = |process: &&Process| process.is_present() && process.ready_ms.is_none();
        let starting = self.processes.values().filter(is_starting).count();
        assert!(starting <= REFILLS_MAX + FILLS_MAX + SURGE, "{starting} workers start at once");
    }

    /// Judges a host that had time to recover: N serve the generation in force and nothing is left over.
    pub(crate) fn check_converged(&self) {
        let wanted = self.fleet.wanted as usize;
        assert_eq!(self.serving().len(), wanted);
        let others: Vec<&Process> = self
            .processes
            .values()
            .filter(|process| process.is_worker() && Some(process.spawn.generation) != self.checks.good())
            .collect();
        assert!(others.is_empty(), "workers of another generation are left: {others:?}");
        assert_eq!(self.processes.len(), wanted + 1, "the workers and the store, nobody else");
        assert_eq!(self.bound, self.bundles[&self.fleet.in_force].listeners, "listeners are left over");
        assert_eq!(self.checks.unanswered(), [], "somebody still waits");
        let previous = self.fleet.previous.map(|previous| previous.generation);
        let kept: BTreeSet<u64> = [Some(self.fleet.in_force), previous].into_iter().flatten().collect();
        assert_eq!(self.bundles.keys().copied().collect::<BTreeSet<_>>(), kept, "bundles are left over");
    }

    /// Judges a host that has ended.
    pub(crate) fn check_ended(&self) {
        assert!(self.exit.is_some(), "it has not ended: {}", self.fleet.summary(self.now_ms));
        assert_eq!(self.processes.len(), 0, "processes are left over: {:?}", self.processes);
        assert_eq!(self.checks.unanswered(), [], "somebody still waits");
    }
}
