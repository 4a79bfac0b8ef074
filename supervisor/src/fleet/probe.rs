//! Before anything is touched: the helper that makes a generation, the listeners, the question to the store.

use aegis_ipc::{
    deploy::{Kept, Task},
    operator::Verdict,
};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    action::{Action, Level, Role, Spawn},
    event::{ChildId, Exit, Origin},
    generation::Generation,
    jobs::Kind,
    lives::{EXIT_CONFIGURATION, EXIT_GRACE_MS, KILL_AGAIN_MS},
    policy::{Policy, milliseconds},
    rollout::{Rollout, Stage},
    worker::Doom,
};

/// Helpers that are tried at the very first start, when there is nothing to fall back to.
const FIRST_PROBES_MAX: u32 = 3;
/// Exit status for an error of the operating system (sysexits.h).
const EXIT_SYSTEM: u8 = 71;
/// Exit status for something that may work another time (sysexits.h).
const EXIT_TRANSIENT: u8 = 75;

/// What is said of a component that no helper survives. The number is one of those that helpers give to what they refuse
/// (`aegis_wasm::Code`); here nobody is left to give it.
const BEYOND_LIMITS: &str = "AEGIS-M172 compiling the component";

/// What is said of a helper that has not answered when its time was over.
pub const LATE: &str = "did not end in time";

/// A helper: it makes a generation, or asks the sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Helper {
    pub(super) generation: u64,
    pub(super) pid: u32,
    /// When it is killed.
    pub(super) kill_at_ms: u64,
    /// The component that it compiles.
    #[serde(default)]
    pub(super) working_on: Option<String>,
    /// Whether it only asks the sources, and makes nothing.
    #[serde(default)]
    pub(super) looks: bool,
    pub(super) state: State,
}

/// State of a helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Its answer is awaited.
    Working,
    /// It announced its end, or cannot be understood.
    Doomed(String),
    /// It has answered, or its answer is not needed any more.
    Finished,
}

/// What a helper that ended like this had used up: what it is refused beyond its limits, it cannot go on without.
fn used_up(exit: Exit) -> Option<&'static str> {
    let Exit::Signal(signal) = exit else { return None };
    match Signal::try_from(signal) {
        // How this program ends when it is given no memory, or has come to the end of its stack. A panic exits.
        Ok(Signal::SIGABRT) => Some("memory"),
        Ok(Signal::SIGXCPU) => Some("computing time"),
        _ => None,
    }
}

/// What is said of a helper that is gone without an answer, while it worked on this: to those who wait for the answer, and
/// about the helper. A component that it could not compile within its limits is to blame.
#[must_use]
pub fn unanswered(working_on: Option<&str>, exit: Option<Exit>, reason: String) -> (String, String) {
    // Whatever it was taken for meanwhile, because its socket is closed: it is never ended like this by us.
    let told = match (working_on, exit, exit.and_then(used_up)) {
        (Some(on), Some(exit), Some(limit)) => Some(format!(
            "{on}: {BEYOND_LIMITS}: found that it takes more {limit} than the compile helper may have (which {}), expected less",
            exit.describe()
        )),
        _ => None,
    };
    let reason = match working_on {
        Some(on) => format!("{reason} while it compiled {on}"),
        None => reason,
    };
    (told.unwrap_or_else(|| format!("the compile helper gave no answer: {reason}")), reason)
}

impl Fleet {
    pub(super) fn start(&mut self) {
        if self.phase != Phase::New {
            return;
        }
        self.phase = Phase::Starting;
        let to = self.new_generation();
        let job = self.jobs.open(Kind::Start, to);
        let mut rollout = Rollout::new(job, Kind::Start, 0, to, Stage::Probing { failures: 0 });
        let mut words = "validating the application".to_owned();
        if let Some(hold) = &self.hold {
            rollout.task = Task::Restore(Kept::Digest(hold.digest.clone()));
            words = format!("taking up what was in force: {}", hold.reason);
            let line = format!("the host does not begin with the app folder: {}", hold.reason);
            self.actions.push(Action::Log { level: Level::Warn, line });
            // It was written as last good already.
            self.written_ms = Some(self.now_ms);
        }
        self.rollout = Some(rollout);
        self.step(job, &format!("generation {to}: {words}"));
        self.spawn_helper(to);
    }

    pub(super) fn spawn_helper(&mut self, generation: u64) {
        let child = self.new_child();
        let kill_at_ms = self.now_ms + milliseconds(self.policy.reload.probe_timeout);
        let helper =
            Helper { generation, pid: 0, kill_at_ms, working_on: None, looks: false, state: State::Working };
        self.helpers.insert(child, helper);
        let image = self.image_for(generation);
        if let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.task != Task::App) {
            self.actions.push(Action::Instruct { child, task: rollout.task.clone() });
        }
        self.actions.push(Action::Spawn(Spawn {
            child,
            role: Role::Compile,
            generation,
            image,
            cell: 0,
            is_canary: false,
        }));
    }

    /// Image that makes a generation: the helper's bundle must be understood by the workers that will read it.
    fn image_for(&self, generation: u64) -> u64 {
        let is_known = self.generations.contains_key(&generation);
        self.image_of(if is_known { generation } else { self.in_force })
    }

    /// After an upgrade: the helper of the new image is given the bundle of the generation in force, and makes it anew
    /// from the files of the app if its code does not fit any more.
    pub(super) fn compile_anew(&mut self, generation: u64) {
        let Some(rollout) = &mut self.rollout else { return };
        rollout.stage = Stage::Probing { failures: 0 };
        let job = rollout.job;
        self.step(
            job,
            &format!("generation {generation}: compiling what the new executable cannot run as it is"),
        );
        self.spawn_helper(generation);
    }

    /// A helper has come to the next component: it has all its time again.
    pub(super) fn working(&mut self, child: ChildId, on: String) {
        let kill_at_ms = self.now_ms + milliseconds(self.policy.reload.probe_timeout);
        if let Some(helper) = self.helpers.get_mut(&child)
            && helper.state == State::Working
        {
            helper.kill_at_ms = kill_at_ms;
            helper.working_on = Some(on);
        }
    }

    pub(super) fn doom_helper(&mut self, child: ChildId, doom: Doom) {
        if let Some(helper) = self.helpers.get_mut(&child)
            && helper.state == State::Working
        {
            helper.state = State::Doomed(doom.reason);
            helper.kill_at_ms = helper.kill_at_ms.min(doom.kill_at_ms);
        }
    }

    pub(super) fn expire_helpers(&mut self) {
        let now_ms = self.now_ms;
        for (child, helper) in self.helpers.iter_mut().filter(|(_, helper)| helper.kill_at_ms <= now_ms) {
            if helper.state == State::Working {
                helper.state = State::Doomed(LATE.to_owned());
            }
            helper.kill_at_ms = now_ms + KILL_AGAIN_MS;
            self.actions.push(Action::Kill { child: *child });
        }
    }

    /// Nobody waits for the helpers' answers any more.
    pub(super) fn dismiss_helpers(&mut self) {
        let again_ms = self.now_ms + KILL_AGAIN_MS;
        for (child, helper) in &mut self.helpers {
            helper.state = State::Finished;
            helper.kill_at_ms = again_ms;
            self.actions.push(Action::Kill { child: *child });
        }
    }

    /// A helper has answered. None when nobody waits for the answer any more.
    fn answered(&mut self, child: ChildId) -> Option<u64> {
        let kill_at_ms = self.now_ms + EXIT_GRACE_MS;
        let helper = self.helpers.get_mut(&child)?;
        let is_awaited = helper.state == State::Working;
        helper.state = State::Finished;
        helper.kill_at_ms = kill_at_ms;
        let generation = helper.generation;
        (is_awaited && self.is_probing(generation)).then_some(generation)
    }

    fn is_probing(&self, generation: u64) -> bool {
        let rollout = self.rollout.as_ref();
        rollout
            .is_some_and(|rollout| rollout.to == generation && matches!(rollout.stage, Stage::Probing { .. }))
    }

    /// What a helper has found worth knowing is told to whoever waits for its answer.
    pub(super) fn warned(&mut self, child: ChildId, warnings: &[String]) {
        let helper = self.helpers.get(&child).filter(|helper| helper.state == State::Working);
        if helper.is_some_and(|helper| self.is_probing(helper.generation))
            && let Some(rollout) = &self.rollout
        {
            self.jobs.warn(rollout.job, warnings, &mut self.actions);
        }
    }

    pub(super) fn compiled(&mut self, child: ChildId, digest: &str, policy: Policy) {
        let Some(helper) = self.helpers.get(&child) else { return };
        // Whatever becomes of it, the driver holds the bundle until it is told to let go.
        let (generation, image) = (helper.generation, self.image_for(helper.generation));
        self.generations.insert(generation, Generation::new(digest.to_owned(), policy, image));
        if self.answered(child).is_none() {
            return;
        }
        let Some(rollout) = &self.rollout else { return };
        if matches!(rollout.kind, Kind::Reload | Kind::Deploy | Kind::Revert) && digest == self.digest() {
            let (job, kind) = (rollout.job, rollout.kind);
            if kind == Kind::Reload {
                self.let_go();
            }
            match self.still_drained() {
                // It was about one module, and there is nothing new of it.
                Some(told) if kind == Kind::Deploy => self.step(job, told),
                Some(_) => return self.wake_unchanged(job),
                None => {}
            }
            return self.end_rollout(&Verdict::Unchanged);
        }
        if let Some(reason) = self.found_bad(digest).filter(|_| rollout.origin == Origin::Automatic) {
            let reason =
                format!("this very set was found bad before ({reason}); change it, or ask for a reload");
            return self.reject(vec![reason]);
        }
        self.bind();
    }

    pub(super) fn invalid(&mut self, child: ChildId, reasons: Vec<String>) {
        if self.answered(child).is_some() {
            self.reject_or_give_up(EXIT_CONFIGURATION, reasons);
        }
    }

    pub(super) fn incompatible(&mut self, child: ChildId, mut reasons: Vec<String>) {
        if self.answered(child).is_some() {
            reasons.extend(self.still_drained().map(str::to_owned));
            self.end_rollout(&Verdict::Incompatible { reasons });
        }
    }

    /// A helper is gone. If it has not answered, the application is not to blame for sure, but cannot be taken either. A
    /// component that it could not compile within its limits is to blame.
    pub(super) fn helper_gone(&mut self, child: ChildId, reason: &str, exit: Option<Exit>) {
        let Some(helper) = self.helpers.remove(&child) else { return };
        let reason = match &helper.state {
            State::Finished => return,
            State::Doomed(words) => format!("{reason} ({words})"),
            State::Working => reason.to_owned(),
        };
        if helper.looks {
            return self.look_failed(&helper, reason);
        }
        let (told, reason) = unanswered(helper.working_on.as_deref(), exit, reason);
        self.tally("compile".to_owned(), helper.pid, helper.generation, reason);
        if !self.is_probing(helper.generation) {
            return;
        }
        let Some(rollout) = &mut self.rollout else { return };
        let Stage::Probing { failures } = &mut rollout.stage else { return };
        *failures += 1;
        let is_last = *failures >= FIRST_PROBES_MAX;
        if rollout.kind != Kind::Start {
            return self.reject(vec![told]);
        }
        if is_last {
            // What was good last time is better than nothing.
            rollout.stage = Stage::Loading;
            self.actions.push(Action::LoadLastGood { generation: helper.generation });
            self.log(Level::Error, format!("{told}; trying the last good generation"));
        } else {
            self.spawn_helper(helper.generation);
            self.log(Level::Warn, format!("{told}; trying again"));
        }
    }

    /// Asks for the listeners of the new generation.
    pub(super) fn bind(&mut self) {
        let Some(rollout) = &mut self.rollout else { return };
        rollout.stage = Stage::Binding;
        let generation = rollout.to;
        self.actions.push(Action::BindListeners { generation });
    }

    fn is_binding(&self, generation: u64) -> bool {
        let rollout = self.rollout.as_ref();
        rollout.is_some_and(|rollout| rollout.to == generation && matches!(rollout.stage, Stage::Binding))
    }

    pub(super) fn listeners_failed(&mut self, generation: u64, reasons: Vec<String>) {
        if self.is_binding(generation) {
            self.reject_or_give_up(EXIT_SYSTEM, reasons);
        }
    }

    pub(super) fn listeners_bound(&mut self, generation: u64) {
        if !self.is_binding(generation) {
            // Called off meanwhile. Another rollout may have bound its own by now; then its end closes these too.
            if self.rollout.is_none() && self.in_force > 0 {
                self.actions.push(Action::CloseListeners { generation: self.in_force });
            }
            return;
        }
        let is_start = self.phase == Phase::Starting;
        let deadline_ms = if is_start {
            self.bring_into_force(generation);
            self.wanted = self.policy.workers;
            self.phase = Phase::Running;
            self.now_ms + self.patience_ms()
        } else {
            self.now_ms + milliseconds(self.policy.reload.probe_timeout)
        };
        let Some(rollout) = &mut self.rollout else { return };
        let job = rollout.job;
        if is_start {
            rollout.stage = Stage::Settling { deadline_ms };
            self.actions.push(Action::CloseListeners { generation });
            self.step(
                job,
                &format!("generation {generation}: starting the store and {} workers", self.wanted),
            );
        } else {
            rollout.stage = Stage::Preparing { deadline_ms };
            self.step(job, &format!("generation {generation}: preparing the store"));
            self.prepare_store();
        }
    }

    /// Prepares a generation whose listeners are bound already.
    pub(super) fn prepare(&mut self) {
        let deadline_ms = self.now_ms + milliseconds(self.policy.reload.probe_timeout);
        if let Some(rollout) = &mut self.rollout {
            rollout.stage = Stage::Preparing { deadline_ms };
            self.prepare_store();
        }
    }

    fn reject_or_give_up(&mut self, code: u8, reasons: Vec<String>) {
        if self.phase == Phase::Starting {
            self.give_up(code, reasons.join("; "));
        } else {
            self.reject(reasons);
        }
    }

    pub(super) fn last_good_loaded(&mut self, generation: u64, digest: &str, policy: Policy) {
        let image = self.image_of(self.in_force);
        self.generations.insert(generation, Generation::new(digest.to_owned(), policy, image));
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.to == generation) else { return };
        if !matches!(rollout.stage, Stage::Loading) {
            return;
        }
        if rollout.kind == Kind::Rollback && (digest == self.digest() || self.found_bad(digest).is_some()) {
            return self.no_way_back("the last good generation on disk is the one that fails");
        }
        if !self.replaces_misfit(digest) {
            self.bind();
        }
    }

    pub(super) fn last_good_missing(&mut self, generation: u64, reason: &str) {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.to == generation) else { return };
        if !matches!(rollout.stage, Stage::Loading) {
            return;
        }
        if self.phase == Phase::Starting {
            if let Some(misfit) = &rollout.misfit {
                let reason = format!("{misfit}; there is no last good generation: {reason}");
                return self.give_up(EXIT_CONFIGURATION, reason);
            }
            let reason =
                format!("the application cannot be compiled, and there is no last good generation: {reason}");
            return self.give_up(EXIT_TRANSIENT, reason);
        }
        self.no_way_back(&format!("there is no last good generation: {reason}"));
    }
}
