//! One call of a module's code: who asks, until when, and what became of it.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aegis_domain::{access::Principal, trial::Lot};

use crate::{contract::types, failure::told};

/// Why the code is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client's request.
    Api,
    /// A command.
    Command,
    /// An event.
    Event,
    /// The host's own doing: an instance begins or ends.
    Lifecycle,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request that it belongs to.
    pub request_id: String,
    /// Why.
    pub origin: Origin,
    /// When the answer is not wanted any more, whatever the module's own limit is.
    pub deadline: Instant,
    /// How often the same was tried before, from 1.
    pub attempt: u32,
    /// The key under which the client may repeat the request.
    pub idempotency_key: Option<String>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// What decides which versions carry out what it asks of other models.
    pub lot: Lot,
    /// Who asks, if that is known.
    pub principal: Option<Arc<Principal>>,
}

/// Where a call, or a request that code has made, comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lineage {
    /// Number of the request that it began with, which no other one in this process has: what clients call theirs is
    /// up to them, and may be the same. Nobody's is 0.
    pub root: u64,
    /// How many calls of modules, each made by the one before, led to it: 0 for a client's request.
    pub depth: u32,
}

impl Lineage {
    /// That of what no code has asked for.
    #[must_use]
    pub fn begin() -> Self {
        static NEXT_ROOT: AtomicU64 = AtomicU64::new(1);
        Self { root: NEXT_ROOT.fetch_add(1, Ordering::Relaxed), depth: 0 }
    }

    /// That of a call in which an instance hands its state over or takes some.
    pub(crate) fn of_handover() -> Self {
        Self { root: HANDOVER_ROOT, depth: 0 }
    }

    /// Whether it began with such a call, and is another one.
    pub(crate) fn leads_from_handover(self) -> bool {
        self.root == HANDOVER_ROOT && self.depth > 0
    }

    /// That of what the code asks for that is called with this one.
    #[must_use]
    pub fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

/// The root of all that calls lead to in which state is handed over; no request has this number.
const HANDOVER_ROOT: u64 = u64::MAX;
/// Time after a call's deadline at which it is given up although its code did not stop: it waits for the host.
pub(crate) const HARD_DEADLINE_SLACK: Duration = Duration::from_millis(100);
/// A call that waited for its turn for less than this part of its time had time enough: the way to a thread always takes a
/// moment, and more of it on a busy machine.
const WAITING_SHARE: u32 = 2;
/// Most calls of modules that lead from one to the next. Code that leads to itself takes an instance for each of
/// them, and one more: fewer than it has unless its limits say otherwise, so it is refused before it waits for itself.
pub const DEPTH_MAX: u32 = 8;

/// What the code said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of no.
    pub code: RefusalCode,
    /// In words.
    pub message: String,
    /// Anything more, JSON.
    pub details: Option<String>,
    /// Worth another attempt.
    pub transient: bool,
}

impl Refusal {
    /// A no of one sentence.
    #[must_use]
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None, transient: false }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(RefusalCode::Unavailable, message)
    }
}

/// Kinds of no, as the contract names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCode {
    /// The input is not acceptable.
    Invalid,
    /// What it is about does not exist.
    NotFound,
    /// It contradicts what is stored.
    Conflict,
    /// The caller may not.
    Denied,
    /// Something the code asked did not answer in time.
    Timeout,
    /// Something the code needs is not there.
    Unavailable,
    /// Something the code needs has failed too often of late.
    CircuitOpen,
    /// The input is too large.
    TooLarge,
    /// The caller went away.
    Cancelled,
    /// The code cannot do this.
    Unsupported,
    /// The code has failed.
    Internal,
}

/// What becomes of a call that has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The code answered no. Its instance is well.
    #[error("the module refused: {}", .0.message)]
    Refused(Refusal),
    /// The code did not end in time. Its instance is gone.
    #[error("{entry} of module {module} took longer than {} ms", allowed.as_millis())]
    Deadline {
        /// The module.
        module: String,
        /// What was called.
        entry: Cow<'static, str>,
        /// What it had when its turn had come.
        allowed: Duration,
    },
    /// The code has a defect. Its instance is gone.
    #[error("{entry} of module {module} failed: {reason}")]
    Trapped {
        /// The module.
        module: String,
        /// What was called.
        entry: Cow<'static, str>,
        /// What happened and where, for the operator's log; clients are not told.
        reason: String,
    },
    /// It had its instance together with other requests, and that ended because of one of them, or of what they have in
    /// common.
    #[error("{entry} of module {module} ended with its instance: {reason}")]
    Involved {
        /// The module.
        module: String,
        /// What was called.
        entry: Cow<'static, str>,
        /// What happened, for the operator's log; clients are not told.
        reason: String,
    },
    /// All instances were busy until the deadline, or the queue of the CPU pool is full.
    #[error("module {module} is busy")]
    Busy {
        /// The module.
        module: String,
    },
}

impl CallError {
    /// The module that was called, unless its own answer is all there is.
    #[must_use]
    pub fn module(&self) -> Option<&str> {
        match self {
            Self::Refused(_) => None,
            Self::Deadline { module, .. }
            | Self::Trapped { module, .. }
            | Self::Involved { module, .. }
            | Self::Busy { module } => Some(module),
        }
    }

    /// What an error of the engine means; `output` is what the code wrote of late.
    pub(crate) fn failed(
        module: &str,
        entry: impl Into<Cow<'static, str>>,
        allowed: Duration,
        error: &wasmtime::Error,
        output: &str,
    ) -> Self {
        let (module, entry) = (module.to_owned(), entry.into());
        if error.is::<TimeIsUp>() {
            return Self::Deadline { module, entry, allowed };
        }
        let mut reason = told(error);
        if !output.is_empty() {
            reason.push_str("; it wrote: ");
            reason.push_str(output);
        }
        Self::Trapped { module, entry, reason }
    }
}

impl From<types::Fault> for Refusal {
    fn from(fault: types::Fault) -> Self {
        use types::FaultCode as Theirs;
        let code = match fault.code {
            Theirs::Invalid => RefusalCode::Invalid,
            Theirs::NotFound => RefusalCode::NotFound,
            Theirs::Conflict => RefusalCode::Conflict,
            Theirs::Denied => RefusalCode::Denied,
            Theirs::Timeout => RefusalCode::Timeout,
            Theirs::Unavailable => RefusalCode::Unavailable,
            Theirs::CircuitOpen => RefusalCode::CircuitOpen,
            Theirs::TooLarge => RefusalCode::TooLarge,
            Theirs::Cancelled => RefusalCode::Cancelled,
            Theirs::Unsupported => RefusalCode::Unsupported,
            Theirs::Internal => RefusalCode::Internal,
        };
        Self { code, message: fault.message, details: fault.details, transient: fault.transient }
    }
}

/// What the one who waits for a call and the code that runs for it tell each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    shared: Arc<Flags>,
}

#[derive(Debug, Default)]
struct Flags {
    cancelled: AtomicBool,
    slice_used_up: AtomicBool,
    /// The time that the code had when it began.
    begun: OnceLock<Duration>,
    waits: Mutex<WaitCount>,
}

/// How long a call has waited for its turn since it began.
#[derive(Debug, Default)]
struct WaitCount {
    over: Duration,
    /// When it began to wait, if it does now.
    since: Option<Instant>,
}

/// A call waits for its turn as long as this is held.
pub(crate) struct Waiting<'a>(&'a Flags);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waits = self.0.waits();
        if let Some(since) = waits.since.take() {
            waits.over += since.elapsed();
        }
    }
}

impl Flags {
    fn waits(&self) -> MutexGuard<'_, WaitCount> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signals {
    /// Whether nobody waits any longer, so that the code stops.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::Relaxed)
    }

    /// The time that was the code's own; nothing when it has not begun, and only waited.
    pub(crate) fn begun(&self) -> Option<Duration> {
        self.shared.begun.get().map(|allowed| self.without_waits(*allowed))
    }

    /// What of the time that it was allowed the code did not wait for its turn.
    pub(crate) fn without_waits(&self, allowed: Duration) -> Duration {
        let waits = self.shared.waits();
        let waited = waits.over + waits.since.map_or(Duration::ZERO, |since| since.elapsed());
        if waited > allowed / WAITING_SHARE { allowed.saturating_sub(waited) } else { allowed }
    }

    /// The call waits for its turn.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.shared.waits().since = Some(Instant::now());
        Waiting(&self.shared)
    }

    /// What it has waited so far does not count.
    pub(crate) fn forget_waits(&self) {
        *self.shared.waits() = WaitCount::default();
    }

    /// Cancels when it is dropped.
    pub(crate) fn cancel_on_drop(&self) -> CancelOnDrop {
        CancelOnDrop(self.clone())
    }

    /// The code has run for a whole slice and lets others run.
    pub(crate) fn use_up_slice(&self) {
        self.shared.slice_used_up.store(true, Ordering::Relaxed);
    }

    /// Whether the code has used a slice up since this was asked before.
    pub(crate) fn slice_was_used_up(&self) -> bool {
        self.shared.slice_used_up.swap(false, Ordering::Relaxed)
    }
}

/// The end of a call that the caller holds.
#[derive(Debug)]
pub(crate) struct CancelOnDrop(Signals);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.shared.cancelled.store(true, Ordering::Relaxed);
    }
}

/// What running code can learn about the call it serves, and what ends it.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) until: Instant,
    /// How long that was when it was asked for, or, if it had to wait for its turn, when that had come.
    pub(crate) allowed: Duration,
    pub(crate) signals: Signals,
}

impl Budget {
    pub(crate) fn new(allowed: Duration) -> Self {
        Self { until: Instant::now() + allowed, allowed, signals: Signals::default() }
    }

    /// The same once more.
    pub(crate) fn again(&self) -> Self {
        Self { signals: self.signals.clone(), ..*self }
    }

    /// The caller does not wait beyond `deadline`.
    pub(crate) fn end_by(&mut self, deadline: Instant) {
        if deadline < self.until {
            self.until = deadline;
            self.allowed = self.remaining();
        }
    }

    /// The turn of the code has come. Time that it has waited for that is not its own.
    pub(crate) fn begin(&mut self) {
        let remaining = self.remaining();
        if remaining < self.allowed - self.allowed / WAITING_SHARE {
            self.allowed = remaining;
        }
        self.signals.forget_waits();
        self.signals.shared.begun.get_or_init(|| self.allowed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.signals.is_cancelled() || Instant::now() >= self.until
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// Ends code whose time is up.
#[derive(Debug, thiserror::Error)]
#[error("its time is up")]
pub(crate) struct TimeIsUp;

pub(crate) fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

impl Call {
    /// As the code sees it.
    pub(crate) fn context(&self, budget: &Budget) -> types::Context {
        types::Context {
            request_id: self.request_id.clone(),
            traceparent: None,
            tenant: None,
            principal: self.principal.as_deref().map(principal),
            origin: match self.origin {
                Origin::Api => types::Origin::Api,
                Origin::Command => types::Origin::Command,
                Origin::Event => types::Origin::Event,
                Origin::Lifecycle => types::Origin::Lifecycle,
            },
            budget_ms: milliseconds(budget.remaining()),
            attempt: self.attempt,
            idempotency_key: self.idempotency_key.clone(),
        }
    }
}

/// As the code sees it.
fn principal(known: &Principal) -> types::Principal {
    types::Principal {
        subject: known.subject.clone(),
        roles: known.roles.clone(),
        claims: Some(known.claims.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_was_spent_waiting_is_not_the_codes_own() {
        let after = |waited: u64| {
            let mut budget = Budget::new(Duration::from_secs(100));
            budget.until -= Duration::from_secs(waited);
            assert_eq!(budget.signals.begun(), None);
            budget.begin();
            assert_eq!(budget.signals.begun(), Some(budget.allowed));
            budget.allowed
        };
        assert_eq!(after(1), Duration::from_secs(100), "a moment is no wait");
        assert!(after(60) <= Duration::from_secs(40));
        assert_eq!(after(200), Duration::ZERO);
    }

    #[test]
    fn the_code_is_told_who_asks() {
        let known = Principal {
            subject: "ada".to_owned(),
            roles: vec!["editor".to_owned(), "auditor".to_owned()],
            claims: serde_json::json!({"sub": "ada", "team": ["post"]}),
        };
        let call = Call {
            request_id: "r1".to_owned(),
            origin: Origin::Api,
            deadline: Instant::now(),
            attempt: 1,
            idempotency_key: None,
            lineage: Lineage::default(),
            lot: Lot::current(),
            principal: Some(Arc::new(known)),
        };
        let budget = Budget::new(Duration::from_secs(1));
        let told = call.context(&budget).principal.expect("somebody");
        assert_eq!(
            (told.subject.as_str(), told.roles),
            ("ada", vec!["editor".to_owned(), "auditor".to_owned()])
        );
        assert_eq!(told.claims.as_deref(), Some(r#"{"sub":"ada","team":["post"]}"#));
        let nobody = Call { principal: None, ..call };
        assert!(nobody.context(&budget).principal.is_none());
    }
}
