//! The fleet: which processes there should be, as a pure decision core.
//!
//! [`Fleet::on`] takes one [`Event`] and the time and returns the [`Action`]s that follow. It has no clock, file, socket,
//! process or log of its own, so every story of a host's life can be told to it in a test within microseconds. The
//! driver around it reports and obeys (see [`event`] and [`action`]).
//!
//! ```text
//!             Start         bound        no workers wanted
//!      New ─────────► Starting ───► Running ◄──────────► Paused
//!                        │             │                    │
//!                        └─────────────┴──────┬─────────────┘
//!                                             ▼
//!                                         Stopping ───► Over
//! ```
//!
//! While it runs, three things are decided after every event, until nothing changes any more:
//!
//! 1. *timers* (`lives`): whoever had to be ready, gone or alive by now and is not, is killed;
//! 2. *slots* (`slots`): each of the N wanted slots has a generation it should serve. An empty slot is filled, a wrong
//!    worker is replaced, the new one first. This alone makes the fleet converge from any state whatsoever;
//!    A worker that can take the wanted generation over by itself is not replaced, but told to (`adoption`);
//! 3. *rollout* (`rollout`, `probe`, `canary`, `wave`, `hold`, `fallback`): decides which generation that is.
//!
//! What always holds, and is checked after every event by the simulation in the tests:
//!
//! * A serving worker is told to drain only when another one serves in its slot and N serve without it, when its slot is
//!   not wanted any more, or when all are to leave. So our own action never takes fewer than N to serve. (Two exceptions:
//!   a slot that failed more than three times in a row is not waited for, and a generation that was gone back from is not
//!   kept up beyond the deadline of its rollback.)
//! * Never more than N + surge worker processes that are neither draining nor killed. A crashed or killed worker's
//!   replacement fills its place among the N and needs no surge.
//! * At most two workers at a time start because of crashes, at most eight by plan, beyond a rollout.
//! * One rollout runs, at most one request waits, and beside it a bounded line of deployments, and of reloads
//!   that found something else waiting. Whoever asked first comes first. Requests of its kind join the waiting
//!   one and share its verdict, a request of another kind supersedes it; deployments and reloads supersede
//!   nothing. Every asker that waits for a verdict gets exactly one.
//! * Nobody is told that something was put back before a host that starts anew would come up on it (`hold`).
//! * Nobody is told that a change is done while a worker of before may still take a connection, as far as that worker says
//!   so in time (`closing`).
//! * A version that is tried and clearly faults more often than the one beside it is taken back, as if somebody had asked.
//! * The store is told about a generation before any worker of it starts.
//! * It gives up on nothing while anything serves or could: exit happens on request, or when the very first start fails
//!   for a reason that will not go away, and the last good generation does not do either.

pub mod action;
mod adoption;
mod backoff;
mod canary;
mod chance;
mod closing;
pub mod event;
mod fallback;
mod generation;
mod health;
pub mod hold;
mod jobs;
mod judge;
mod lives;
pub mod policy;
mod poll;
mod probe;
mod quorum;
mod requests;
mod rollout;
mod slots;
mod status;
mod stop;
mod store;
#[cfg(test)]
mod tests;
mod timers;
mod trials;
mod wave;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

pub(crate) use self::requests::reload_mode;
pub use self::{
    action::{Action, Level, Notice, Role, Spawn, Vitals},
    event::{
        Asker, Caller, Calls, ChildId, Event, Exit, Look, Origin, Patience, Request, Scale, Traffic,
        TrialReading, Vital,
    },
    policy::Policy,
    probe::{LATE, unanswered},
};
use self::{
    backoff::Backoff,
    chance::Chance,
    generation::{Bad, Generation, Previous},
    hold::Hold,
    jobs::Jobs,
    poll::Poll,
    probe::Helper,
    quorum::Growth,
    requests::{Scaling, Waiting},
    rollout::Rollout,
    status::Gone,
    stop::Stopping,
    store::Store,
    trials::Trials,
    worker::Worker,
};

/// Most passes over timers, slots and rollout after one event. Each pass but the last takes a rollout a stage further,
/// and no rollout has that many stages.
const PASSES_MAX: u32 = 16;

/// The processes of one host, present and wanted.
///
/// All of it is plain data, so that an upgrade in place hands it to the new image. Times are milliseconds of the monotonic
/// clock, which goes on across `exec`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    now_ms: u64,
    started_ms: u64,
    /// When the driver was asked to call at the latest.
    due_ms: Option<u64>,
    /// When our own process was last found to have been stopped; nobody's silence counts from before.
    forgiven_ms: u64,
    revision: u64,
    /// Counts changes that make another pass necessary.
    turn: u64,
    chance: Chance,
    phase: Phase,
    /// When the service manager was told that we are ready.
    announced_ms: Option<u64>,

    policy: Policy,
    generations: BTreeMap<u64, Generation>,
    next_generation: u64,
    in_force: u64,
    previous: Option<Previous>,
    /// Digest of the generation that was in force before the last change: what a rollback leads to.
    #[serde(default)]
    before: Option<String>,
    /// When the generation in force was written as last good.
    written_ms: Option<u64>,
    /// Whether any was since the host was started.
    #[serde(default)]
    has_written: bool,
    bad: VecDeque<Bad>,
    /// Why the fleet is not what it should be and cannot help itself.
    degraded: Option<String>,
    image: u64,
    images: BTreeSet<u64>,

    wanted: u32,
    /// More of them than before, until they serve.
    #[serde(default)]
    growth: Option<Growth>,
    slots: BTreeMap<u32, Backoff>,
    workers: BTreeMap<ChildId, Worker>,
    helpers: BTreeMap<ChildId, Helper>,
    #[serde(default)]
    poll: Poll,
    store: Store,
    /// Generation of which was said that its workers need more memory from the beginning than they may have.
    #[serde(default)]
    bound_told: u64,
    next_child: u64,
    vitals_due_ms: u64,
    /// Workers that stopped accepting during this event.
    departures: u32,
    tally: VecDeque<Gone>,

    jobs: Jobs,
    rollout: Option<Rollout>,
    waiting: Option<Waiting>,
    /// Deployments and reloads that wait, oldest first.
    #[serde(default)]
    line: VecDeque<Waiting>,
    /// Why the generation in force is not that of the app folder.
    #[serde(default)]
    hold: Option<Hold>,
    /// Versions that are tried in the generation in force.
    #[serde(default)]
    trials: Trials,
    scaling: Option<Scaling>,
    #[serde(skip)]
    actions: Vec<Action>,
}

/// Phase of the host's life.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Phase {
    /// Nothing happened yet.
    New,
    /// The first generation is being made.
    Starting,
    /// Workers are wanted.
    Running,
    /// No workers are wanted for now; the job that asked for it, until all are gone.
    Paused(Option<u64>),
    /// No process is wanted any more.
    Stopping(Stopping),
    /// Exit was ordered.
    Over,
}

impl Fleet {
    /// A fleet before [`Event::Start`]. `policy` is that of the configuration the host was started with, `seed` feeds
    /// jitter, `now_ms` is the monotonic clock ([`aegis_ipc::board::monotonic_ms`]), as everywhere here.
    #[must_use]
    pub fn new(policy: Policy, seed: u64, now_ms: u64) -> Self {
        Self {
            now_ms,
            started_ms: now_ms,
            due_ms: None,
            forgiven_ms: now_ms,
            revision: 0,
            turn: 0,
            chance: Chance::new(seed),
            phase: Phase::New,
            announced_ms: None,
            wanted: policy.workers,
            growth: None,
            policy,
            generations: BTreeMap::new(),
            next_generation: 1,
            in_force: 0,
            previous: None,
            before: None,
            written_ms: None,
            has_written: false,
            bad: VecDeque::new(),
            degraded: None,
            image: 1,
            images: BTreeSet::from([1]),
            slots: BTreeMap::new(),
            workers: BTreeMap::new(),
            helpers: BTreeMap::new(),
            poll: Poll::default(),
            store: Store::default(),
            bound_told: 0,
            next_child: 1,
            vitals_due_ms: now_ms,
            departures: 0,
            tally: VecDeque::new(),
            jobs: Jobs::new(),
            rollout: None,
            waiting: None,
            line: VecDeque::new(),
            hold: None,
            trials: Trials::default(),
            scaling: None,
            actions: Vec::new(),
        }
    }

    /// Takes an event and says what to do, in order.
    #[must_use]
    pub fn on(&mut self, now_ms: u64, event: Event) -> Vec<Action> {
        if self.phase == Phase::Over {
            return Vec::new();
        }
        self.now_ms = self.now_ms.max(now_ms);
        self.forgive_after_a_stop();
        if !matches!(event, Event::Tick | Event::Vitals(_) | Event::Traffic(_) | Event::Trials(_)) {
            self.revision += 1;
        }
        self.take(event);
        let is_settled = (0..PASSES_MAX).any(|_| {
            let turn = self.turn;
            self.expire();
            self.reconcile();
            self.advance();
            self.turn == turn
        });
        debug_assert!(is_settled, "the fleet does not come to rest: {self:?}");
        self.poke_siblings();
        self.forget_unneeded();
        self.due_ms = self.next_deadline();
        let actions = std::mem::take(&mut self.actions);
        if actions.iter().any(|action| !matches!(action, Action::ReadVitals(_) | Action::ReadTraffic)) {
            self.revision += 1;
        }
        actions
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Start => self.start(),
            Event::Tick => {}
            Event::Spawned { child, pid } => self.spawned(child, pid),
            Event::SpawnFailed { child, reason } => self.spawn_failed(child, &reason),
            Event::Hello { child, protocol, pid, generation } => self.hello(child, protocol, pid, generation),
            Event::Ready { child } => self.ready(child),
            Event::Failed { child, code, reason } => self.doom(child, reason, Some(code)),
            Event::Draining { child, closed, .. } => self.draining(child, closed),
            Event::Bye { child } => {
                self.closed(child);
                self.doom(child, "left by its own will".to_owned(), None);
            }
            Event::Unreachable { child, reason } => self.doom(child, reason, None),
            Event::Exited { child, exit } => self.exited(child, exit),
            Event::Adopted { child, generation, prepare_us, switch_us } => {
                self.adopted(child, generation, prepare_us, switch_us);
            }
            Event::NotAdopted { child, generation, reason, loses_state } => {
                self.not_adopted(child, generation, &reason, loses_state);
            }
            Event::Working { child, on } => self.working(child, on),
            Event::Warned { child, warnings } => self.warned(child, &warnings),
            Event::Compiled { child, digest, policy } => self.compiled(child, &digest, *policy),
            Event::Invalid { child, reasons } => self.invalid(child, reasons),
            Event::Incompatible { child, reasons } => self.incompatible(child, reasons),
            Event::Looked { child, look } => self.looked(child, &look),
            Event::ListenersBound { generation } => self.listeners_bound(generation),
            Event::ListenersFailed { generation, reasons } => self.listeners_failed(generation, reasons),
            Event::Prepared { child, generation } => self.prepared(child, generation),
            Event::Refused { child, generation, reasons } => self.refused(child, generation, reasons),
            Event::LastGoodLoaded { generation, digest, policy } => {
                self.last_good_loaded(generation, &digest, *policy);
            }
            Event::LastGoodMissing { generation, reason } => self.last_good_missing(generation, &reason),
            Event::LastGoodNotWritten { generation, reason } => {
                self.log(
                    Level::Error,
                    format!("generation {generation} could not be kept as last good: {reason}"),
                );
            }
            Event::PreviousNotWritten { generation, reason } => {
                self.log(
                    Level::Error,
                    format!("generation {generation} could not be kept for a rollback to it: {reason}"),
                );
            }
            Event::Kept { generation } => self.kept(generation),
            Event::NotPinned { generation, reason } => self.not_pinned(generation, &reason),
            Event::DeploymentsNotNoted { generation, reason } => {
                self.deployments_not_noted(generation, &reason);
            }
            Event::VersionsNotNoted { generation, reason } => self.versions_not_noted(generation, &reason),
            Event::Vitals(vitals) => self.vitals(&vitals),
            Event::Traffic(traffic) => self.traffic(traffic),
            Event::Trials(readings) => self.trials(readings),
            Event::Upgraded { image, has_code } => self.upgraded(image, has_code),
            Event::UpgradeFailed { reasons } => self.upgrade_failed(reasons),
            Event::UpgradeReturned { reason } => self.upgrade_returned(reason),
            Event::Request { asker, request } => self.request(asker, request),
            Event::Left { asker } => self.jobs.forget(asker),
        }
    }

    fn log(&mut self, level: Level, line: String) {
        self.actions.push(Action::Log { level, line });
    }

    fn new_child(&mut self) -> ChildId {
        let child = ChildId(self.next_child);
        self.next_child += 1;
        child
    }
}
