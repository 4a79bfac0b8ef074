//! What people ask for, and the order in which they get it: one rollout runs, one waits, others are in line.

use std::collections::BTreeSet;

use aegis_config::{ReloadMode, WORKERS_MAX};
use aegis_ipc::{
    deploy::Order,
    operator::{self, Verdict},
};
use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    action::{Action, Level},
    event::{Caller, Origin, Patience, Request, Scale},
    jobs::Kind,
    policy::milliseconds,
    worker::{Leave, State, Worker},
};

/// Deployments and reloads that wait in line beside the one that waits.
pub(super) const LINE_MAX: usize = 16;

/// A rollout that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wish {
    Reload {
        origin: Origin,
        #[serde(default)]
        mode: Option<ReloadMode>,
    },
    Restart(Scope),
    Upgrade(Option<String>),
    Deploy(Order),
    Rollback,
}

/// Which workers to restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Scope {
    All,
    Slots(BTreeSet<u32>),
}

/// How a generation comes into force, in the words of the configuration.
pub(crate) fn reload_mode(mode: operator::ReloadMode) -> ReloadMode {
    match mode {
        operator::ReloadMode::Rolling => ReloadMode::Rolling,
        operator::ReloadMode::Swap => ReloadMode::Swap,
    }
}

/// The rollout that waits for the running one to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) job: u64,
    pub(super) wish: Wish,
}

/// A change of the number of workers that is not there yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scaling {
    job: u64,
    /// How many were wanted before.
    before: u32,
    deadline_ms: u64,
}

impl Scaling {
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
}

impl Wish {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Reload { .. } => Kind::Reload,
            Self::Restart(_) => Kind::Restart,
            Self::Upgrade(_) => Kind::Upgrade,
            Self::Deploy(_) => Kind::Deploy,
            Self::Rollback => Kind::Revert,
        }
    }

    /// Takes in another wish that comes to the same; false when it is a different one.
    fn absorb(&mut self, other: &Self) -> bool {
        match (self, other) {
            (Self::Reload { origin, mode }, Self::Reload { origin: other, mode: wanted }) => {
                // The last word counts, but not that of nobody.
                *mode = if *other < *origin { mode.or(*wanted) } else { wanted.or(*mode) };
                *origin = (*origin).max(*other);
            }
            (Self::Upgrade(path), Self::Upgrade(other)) => return path == other,
            (Self::Restart(scope), Self::Restart(other)) => match (&mut *scope, other) {
                (Scope::Slots(slots), Scope::Slots(others)) => slots.extend(others),
                (Scope::Slots(_), Scope::All) => *scope = Scope::All,
                (Scope::All, _) => {}
            },
            (Self::Rollback, Self::Rollback) => {}
            _ => return false,
        }
        true
    }
}

impl Fleet {
    pub(super) fn request(&mut self, caller: Option<Caller>, request: Request) {
        let asker = caller.map(|caller| caller.asker);
        if let Request::Stop { mode } = request {
            return self.stop(asker, mode);
        }
        match self.phase {
            Phase::Running | Phase::Paused(_) => {}
            Phase::Starting if matches!(request, Request::Reload { .. }) => {}
            Phase::New | Phase::Starting => {
                return self.refuse(caller, "the host is still starting; ask again".to_owned());
            }
            Phase::Stopping(_) | Phase::Over => {
                return self.refuse(caller, "the host is stopping".to_owned());
            }
        }
        match request {
            Request::Reload { origin: Origin::Automatic, .. }
                if self.stays().is_some() && !self.may_wake() =>
            {
                self.stay(caller);
            }
            Request::Reload { origin, mode } => self.wish(caller, Wish::Reload { origin, mode }),
            Request::Upgrade { path } => self.wish(caller, Wish::Upgrade(path)),
            Request::Deploy(order) => self.line_up(caller, Wish::Deploy(order)),
            Request::Rollback => self.wish(caller, Wish::Rollback),
            Request::Restart { slot: None } => self.wish(caller, Wish::Restart(Scope::All)),
            Request::Restart { slot: Some(slot) } => self.restart_slot(caller, slot),
            Request::Scale(scale) => self.scale(caller, scale),
            Request::Drain => self.pause(asker),
            Request::Stop { .. } => {}
        }
    }

    fn restart_slot(&mut self, caller: Option<Caller>, slot: u32) {
        let known = self.known_slots();
        if known.contains(&slot) {
            return self.wish(caller, Wish::Restart(Scope::Slots(BTreeSet::from([slot]))));
        }
        let known: Vec<String> = known.iter().map(u32::to_string).collect();
        self.refuse(caller, format!("there is no slot {slot}, only {}", known.join(", ")));
    }

    fn refuse(&mut self, caller: Option<Caller>, message: String) {
        match caller {
            Some(Caller { asker, .. }) => self.actions.push(Action::Refused { asker, message }),
            None => self.log(Level::Warn, format!("a signal was refused: {message}")),
        }
    }

    /// Tells whoever asks which job it is. Who waits for no verdict takes no place among those who do.
    pub(super) fn accept(&mut self, job: u64, caller: Option<impl Into<Caller>>) {
        let Some(Caller { asker, patience }) = caller.map(Into::into) else { return };
        let answer = match patience {
            Patience::Accepted => Action::Accepted { asker, job },
            Patience::Verdict => self.jobs.join(job, asker),
        };
        self.actions.push(answer);
    }

    pub(super) fn step(&mut self, job: u64, step: &str) {
        self.jobs.step(job, step, &mut self.actions);
    }

    pub(super) fn finish(&mut self, job: u64, verdict: &Verdict) {
        self.jobs.finish(job, verdict, self.now_ms, &mut self.actions);
    }

    fn wish(&mut self, caller: Option<Caller>, wish: Wish) {
        // Whatever makes another generation needs workers only when there is one: a rejection touches nothing.
        if matches!(wish, Wish::Restart(_)) {
            self.resume();
        }
        if let Some(waiting) = &mut self.waiting {
            if waiting.wish.absorb(&wish) {
                let job = waiting.job;
                return self.accept(job, caller);
            }
            if matches!(wish, Wish::Reload { .. }) {
                // It does not undo what somebody asked for, a rollback or another executable; nor is it lost.
                return self.line_up(caller, wish);
            }
            let job = waiting.job;
            self.waiting = None;
            self.finish(job, &Verdict::Superseded);
        }
        let job = self.jobs.open(wish.kind(), self.in_force);
        self.accept(job, caller);
        self.waiting = Some(Waiting { job, wish });
        if let Some(running) = &self.rollout {
            let step = format!("waits for job {} to end", running.job);
            self.step(job, &step);
        }
    }

    /// Puts a wish behind all others. Deployments of different modules are different people's: none of them takes the place
    /// of another. One joins an equal one only if nothing was asked for in between that decides about its module as well.
    fn line_up(&mut self, caller: Option<Caller>, wish: Wish) {
        let known = match &wish {
            Wish::Deploy(order) => {
                let last = self.last_about(&order.module).filter(|waiting| waiting.wish == wish);
                last.map(|waiting| waiting.job)
            }
            _ => self.line.iter_mut().find_map(|waiting| waiting.wish.absorb(&wish).then_some(waiting.job)),
        };
        if let Some(job) = known {
            return self.accept(job, caller);
        }
        if self.line.len() >= LINE_MAX {
            return self.refuse(caller, format!("{LINE_MAX} changes wait already, try again later"));
        }
        let job = self.jobs.open(wish.kind(), self.in_force);
        self.accept(job, caller);
        self.line.push_back(Waiting { job, wish });
        if let Some(running) = &self.rollout {
            let step = format!("waits for job {} to end", running.job);
            self.step(job, &step);
        }
    }

    /// The last one in line that decides about a module: all behind it are about others.
    fn last_about(&self, module: &str) -> Option<&Waiting> {
        let decides = |wish: &Wish| match wish {
            Wish::Deploy(order) => order.module == module,
            _ => true,
        };
        self.line.iter().rev().find(|waiting| decides(&waiting.wish))
    }

    /// Takes out what begins next: a rollback, which is wanted at once, or else what was asked for first. Reloads that are asked
    /// for again and again would have deployments wait without end otherwise.
    fn next_waiting(&mut self) -> Option<Waiting> {
        let first_in_line = self.line.front().map_or(u64::MAX, |first| first.job);
        let is_next = |waiting: &mut Waiting| waiting.wish == Wish::Rollback || waiting.job < first_in_line;
        self.waiting.take_if(is_next).or_else(|| self.line.pop_front())
    }

    /// Begins the rollout that waits, if none runs.
    pub(super) fn begin_waiting(&mut self) {
        if matches!(self.phase, Phase::Running | Phase::Paused(_))
            && self.rollout.is_none()
            && let Some(waiting) = self.next_waiting()
        {
            match waiting.wish {
                // It came before what was to end a drain had failed; to restart those of before would end it.
                Wish::Restart(_) if matches!(self.phase, Phase::Paused(_)) => {
                    self.finish(waiting.job, &Verdict::Superseded);
                    self.turn += 1;
                }
                // It came before the rollback was through, or before the reload that was to end a drain was rejected.
                Wish::Reload { origin: Origin::Automatic, .. } if self.stays().is_some() => {
                    self.end_as_it_stays(waiting.job);
                    self.turn += 1;
                }
                wish => self.begin(waiting.job, wish),
            }
        }
    }

    fn scale(&mut self, caller: Option<Caller>, scale: Scale) {
        let wanted = match scale {
            Scale::To(workers) if (1..=WORKERS_MAX).contains(&workers) => workers,
            Scale::To(workers) => {
                return self.refuse(caller, format!("workers: found {workers}, expected 1 to {WORKERS_MAX}"));
            }
            Scale::More => (self.wanted + 1).min(WORKERS_MAX),
            Scale::Fewer => self.wanted.saturating_sub(1).max(1),
        };
        self.resume();
        let before = self.scaling.as_ref().map_or(self.wanted, |scaling| scaling.before);
        self.end_scaling(&Verdict::Superseded);
        let job = self.jobs.open(Kind::Scale, self.in_force);
        self.accept(job, caller);
        if let Some(rollout) = &mut self.rollout {
            rollout.is_scaled = true;
        }
        if wanted == self.wanted && self.is_complete() {
            return self.finish(job, &Verdict::Unchanged);
        }
        let step = format!("from {} to {wanted} workers", self.wanted);
        self.step(job, &step);
        self.want(wanted);
        let deadline_ms = self.now_ms + self.patience_ms();
        self.scaling = Some(Scaling { job, before, deadline_ms });
        self.turn += 1;
    }

    /// Time that starting workers may take all together before somebody who waits is told that they do not come.
    pub(super) fn patience_ms(&self) -> u64 {
        2 * milliseconds(self.policy.ready_timeout)
    }

    /// Ends a change of the number of workers, well or badly.
    pub(super) fn advance_scaling(&mut self) {
        let Some(Scaling { before, deadline_ms, .. }) = self.scaling else { return };
        // During a rollout a slot may serve a generation that is not the one in force, but it serves.
        let (serving, wanted) = (self.served_slots(), self.wanted);
        let is_late = deadline_ms <= self.now_ms;
        if self.slots.len() == wanted as usize && serving == self.slots.len() {
            let is_spare =
                |worker: &Worker| matches!(worker.state, State::Draining { why: Leave::ScaledDown, .. });
            if is_late || !self.may_accept(is_spare) {
                self.end_scaling(&Verdict::Done);
            }
        } else if is_late && self.rollout.is_none() {
            // A rollout may yet bring the missing ones.
            self.want(before.min(wanted));
            self.turn += 1;
            let reason = format!("{serving} of {wanted} workers serve in time; back to {}", self.wanted);
            self.end_scaling(&Verdict::RolledBack { reason });
        }
    }

    /// As many workers are wanted as before.
    pub(super) fn take_back_scaling(&mut self, reason: &str) {
        if let Some(Scaling { before, .. }) = self.scaling {
            self.want(before);
            self.end_scaling(&Verdict::RolledBack { reason: reason.to_owned() });
        }
    }

    pub(super) fn end_scaling(&mut self, verdict: &Verdict) {
        if let Some(scaling) = self.scaling.take() {
            self.finish(scaling.job, verdict);
        }
    }
}
