//! Who calls code asks here first: code that keeps failing is not called for a while.
//!
//! ```text
//!   enter ─▶ Pass ─▶ the call ─▶ end: what it came to ─▶ log, counters
//!     └────▶ Shut: no instance is made
//! ```
//!
//! [`Breaker`] decides; there is one for each module in each worker, which stays with the instances when another generation
//! takes the code along. A version that is tried has its own, so that neither it nor the one beside it is refused for what
//! the other does. What counts against code is what it does by itself: a trap, a limit, its own deadline. Refusals, a
//! deadline that the caller has set, what waiting for an instance or a thread has left of its time, and waiting for a store
//! that is away do not.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aegis_config::Config;
use aegis_domain::{
    Problem, ProblemCode,
    breaker::{Breaker, Change, Outcome, Stand, Turn},
    code::{CodeLimits, CommandPlace, OnFailure},
    trial::Variant,
};
use aegis_ipc::board::{Board, ModuleCounter, ModuleEntry, monotonic_ms};
use aegis_wasm::{CallError, Lineage};
use parking_lot::Mutex;

use super::Counted;
use crate::{data::Data, host::Host};

/// Code is not called any more: in the log.
const OPENED: &str = "AEGIS-M200";
/// Code is called again: in the log.
const CLOSED: &str = "AEGIS-M201";

/// Stands before the code of one module.
pub(crate) struct Guard {
    module: String,
    variant: Variant,
    limits: CodeLimits,
    /// Time in which a generation is on trial.
    trial_ms: u64,
    board: Board,
    entry: Option<ModuleEntry>,
    data: Data,
    /// Of the code, whatever it is called for.
    state: Arc<Mutex<GuardState>>,
}

#[derive(Default)]
struct GuardState {
    breaker: Breaker,
    /// Number of the request whose call decides how it goes on.
    trial: Option<u64>,
    first_call_ms: Option<u64>,
}

/// The code is not called for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shut {
    /// It is worth asking again after this time.
    pub(crate) retry_after: Duration,
}

/// The right to one call. What is dropped before the call has ended was not waited for.
pub(super) struct Pass<'a> {
    guard: &'a Guard,
    /// None for a call that another one on trial leads to.
    turn: Option<Turn>,
}

impl Guard {
    /// For code that has not been called.
    pub(super) fn of_host(host: &Host, counted: Counted<'_>, limits: CodeLimits) -> Arc<Self> {
        Arc::new(Self::new(counted, limits, host.board, (host.engine.data().clone(), &host.config)))
    }

    fn new(counted: Counted<'_>, limits: CodeLimits, board: Board, (data, config): (Data, &Config)) -> Self {
        Self {
            module: counted.module.to_owned(),
            variant: counted.variant,
            limits,
            trial_ms: u64::try_from(config.reload.canary_time.as_millis()).unwrap_or(u64::MAX),
            board,
            entry: counted.entry(board),
            data,
            state: Arc::default(),
        }
    }

    /// That of the same instances, which go on as this variant: what they have done is known.
    pub(super) fn of_variant(self: &Arc<Self>, variant: Variant) -> Arc<Self> {
        if variant == self.variant {
            return Arc::clone(self);
        }
        let entry = Counted { module: &self.module, variant }.entry(self.board);
        Arc::new(Self {
            module: self.module.clone(),
            variant,
            entry,
            data: self.data.clone(),
            state: Arc::clone(&self.state),
            ..**self
        })
    }

    /// May this request call the code?
    pub(super) fn enter(&self, lineage: Lineage) -> Result<Pass<'_>, Shut> {
        let now_ms = monotonic_ms();
        let mut state = self.state.lock();
        state.first_call_ms.get_or_insert(now_ms);
        match state.breaker.ask(now_ms) {
            Ok(turn) => {
                if turn.is_trial() {
                    state.trial = Some(lineage.root);
                }
                Ok(Pass { guard: self, turn: Some(turn) })
            }
            // Code on trial may lead to itself, by way of the host.
            Err(_) if lineage.depth > 0 && state.trial == Some(lineage.root) => {
                Ok(Pass { guard: self, turn: None })
            }
            Err(retry_ms) => {
                drop(state);
                self.count(ModuleCounter::Denials);
                Err(Shut { retry_after: Duration::from_millis(retry_ms) })
            }
        }
    }

    /// Whether what only shapes what clients see is left out while the code is not called. Not while the generation is on
    /// trial: then it has to be seen that the code fails.
    pub(super) fn may_skip(&self) -> bool {
        let begun_ms = self.state.lock().first_call_ms;
        self.limits.on_failure == OnFailure::Skip
            && begun_ms.is_some_and(|begun_ms| begun_ms + self.trial_ms <= monotonic_ms())
    }

    /// Where it stands.
    pub(super) fn stand(&self) -> Stand {
        self.state.lock().breaker.stand(monotonic_ms())
    }

    /// What had begun well has failed after all.
    pub(super) fn note_broken_off(&self, error: &CallError) {
        if matches!(error, CallError::Trapped { .. }) && self.stand() == Stand::Closed {
            let pass = self.enter(Lineage::begin());
            if let Ok(pass) = pass {
                pass.end(Outcome::Fault);
            }
        }
    }

    /// What the call of a model's code came to.
    pub(super) fn outcome<T>(&self, called: &Result<T, CallError>, place: CommandPlace) -> Outcome {
        match called {
            Err(CallError::Deadline { .. }) => {
                let is_own = !self.is_cut_short(called, place);
                if is_own && self.data.is_connected() { Outcome::Fault } else { Outcome::Unknown }
            }
            other => outcome_of_service(other),
        }
    }

    /// Whether its time was up before the code had all that it may have: its caller had no more, or it waited for its turn.
    pub(super) fn is_cut_short<T>(&self, called: &Result<T, CallError>, place: CommandPlace) -> bool {
        let own_ms = match place {
            CommandPlace::Io => self.limits.call_ms_max,
            CommandPlace::Cpu => self.limits.cpu_call_ms_max,
        };
        let own = Duration::from_millis(u64::from(own_ms));
        matches!(called, Err(CallError::Deadline { allowed, .. }) if *allowed < own)
    }

    fn end(&self, turn: Turn, outcome: Outcome) {
        let now_ms = monotonic_ms();
        let change = {
            let mut state = self.state.lock();
            if turn.is_trial() {
                state.trial = None;
            }
            state.breaker.end(turn, outcome, now_ms)
        };
        let (module, variant) = (self.module.as_str(), self.variant.as_str());
        match change {
            None => {}
            Some(Change::Opened { faults, calls, pause_ms }) => {
                self.count(ModuleCounter::Openings);
                if let Some(entry) = &self.entry {
                    entry.counter(ModuleCounter::OpenUntil).fetch_max(now_ms + pause_ms, Ordering::Relaxed);
                }
                tracing::error!(
                    target: "aegis::module",
                    code = OPENED, module, variant, faults, calls, pause_ms,
                    "the code keeps failing and is not called for a while"
                );
            }
            Some(Change::Closed) => {
                tracing::warn!(target: "aegis::module", code = CLOSED, module, variant, "the code is called again");
            }
        }
    }

    fn count(&self, counter: ModuleCounter) {
        if let Some(entry) = &self.entry {
            entry.counter(counter).fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a request to a service came to. Its time also passes while its client sends or reads slowly.
pub(super) fn outcome_of_service<T>(called: &Result<T, CallError>) -> Outcome {
    match called {
        Ok(_) | Err(CallError::Refused(_)) => Outcome::Well,
        Err(CallError::Trapped { .. }) => Outcome::Fault,
        Err(CallError::Deadline { .. } | CallError::Involved { .. } | CallError::Busy { .. }) => {
            Outcome::Unknown
        }
    }
}

impl Pass<'_> {
    /// The call has come to this.
    pub(super) fn end(mut self, outcome: Outcome) {
        if let Some(turn) = self.turn.take() {
            self.guard.end(turn, outcome);
        }
    }

    /// As [`end`](Self::end), for a call that repeats another: what fails again for the same reason counts once.
    pub(super) fn end_repeated(self, outcome: Outcome) {
        let decides = self.turn.is_some_and(Turn::is_trial);
        self.end(if outcome == Outcome::Fault && !decides { Outcome::Unknown } else { outcome });
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.guard.end(turn, Outcome::Unknown);
        }
    }
}

impl Shut {
    /// As the client reads it.
    pub(super) fn problem(self, module: &str) -> Problem {
        let seconds = self.retry_after.as_millis().div_ceil(1000);
        let detail =
            format!("the code of module {module} keeps failing and is not called, for {seconds} s or less");
        Problem::new(ProblemCode::ModuleUnavailable, detail)
            .worth_trying_after(u32::try_from(seconds).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::data::tests::{catalog, config};

    fn guard() -> Guard {
        let (board, _memory) = Board::create().unwrap();
        let (config, catalog) = (config(), catalog(&["name = \"todo\"\n"]));
        let data = Data::new(&config, &catalog, board, 0, 1, 1);
        Guard::new(Counted::in_force("todo"), CodeLimits::default(), board, (data, &config))
    }

    /// The pass of a trial, once its time has come.
    fn trial(guard: &Guard, lineage: Lineage) -> Pass<'_> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            match guard.enter(lineage) {
                Ok(pass) => return pass,
                Err(_) => assert!(Instant::now() < end, "it never comes"),
            }
            std::thread::yield_now();
        }
    }

    fn fail(guard: &Guard) {
        while let Ok(pass) = guard.enter(Lineage::begin()) {
            pass.end(Outcome::Fault);
        }
    }

    #[test]
    fn code_on_trial_may_lead_to_itself_and_nobody_else_is_let_in() {
        let guard = guard();
        fail(&guard);
        let (mine, other) = (Lineage::begin(), Lineage::begin().deeper());
        let pass = trial(&guard, mine);
        assert!(guard.enter(mine.deeper()).is_ok());
        assert!(guard.enter(mine).is_err(), "it does not begin twice");
        assert!(guard.enter(other).is_err(), "whatever its client calls it");
        pass.end(Outcome::Well);
        assert!(guard.enter(other).is_ok());
    }

    #[test]
    fn a_trial_that_nobody_waits_for_leaves_room_for_another() {
        let guard = guard();
        fail(&guard);
        drop(trial(&guard, Lineage::begin()));
        assert!(guard.enter(Lineage::begin()).is_ok());
    }

    #[test]
    fn an_event_that_is_tried_again_counts_once_unless_it_is_the_trial() {
        let guard = guard();
        for _ in 0..50 {
            guard.enter(Lineage::begin()).unwrap().end_repeated(Outcome::Fault);
        }
        fail(&guard);
        trial(&guard, Lineage::begin()).end_repeated(Outcome::Fault);
        assert!(guard.enter(Lineage::begin()).is_err());
    }

    #[test]
    fn a_deadline_counts_when_it_is_the_codes_own_and_the_store_is_there() {
        let guard = guard();
        let late = |milliseconds| -> Result<(), CallError> {
            let allowed = Duration::from_millis(milliseconds);
            Err(CallError::Deadline { module: "todo".to_owned(), entry: "validate".into(), allowed })
        };
        assert_eq!(guard.outcome(&late(1_000), CommandPlace::Io), Outcome::Unknown, "there is no store");
        assert_eq!(guard.outcome(&late(999), CommandPlace::Io), Outcome::Unknown);
        assert!(guard.is_cut_short(&late(999), CommandPlace::Io));
        assert!(!guard.is_cut_short(&late(1_000), CommandPlace::Io));
        assert!(guard.is_cut_short(&late(1_000), CommandPlace::Cpu), "there it may have more");
        assert_eq!(guard.outcome(&Ok(()), CommandPlace::Io), Outcome::Well);
    }
}
