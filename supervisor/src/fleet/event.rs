//! What happens to the fleet: everything the driver may report to [`Fleet::on`](super::Fleet::on).
//!
//! The driver reports facts and decides nothing. It may report them in any order the world produces them in; an event
//! about a child that is gone, or about a generation nobody waits for, is ignored.

use aegis_config::ReloadMode;
use aegis_ipc::{deploy::Order, operator::StopMode};
use serde::{Deserialize, Serialize};

use super::policy::Policy;

/// A process the fleet asked for. Never used twice, so an answer can never be taken for that of a predecessor, as a
/// process id could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChildId(pub u64);

/// Somebody who waits for an answer: a connection to the control socket, a request that a worker relayed. The driver
/// chooses the number, the fleet only gives it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Asker(pub u64);

/// How much of the story an asker wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Patience {
    /// Only that its request was taken.
    Accepted,
    /// Every step, to the verdict.
    Verdict,
}

/// Somebody who asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub asker: Asker,
    /// How much it wants to hear.
    pub patience: Patience,
}

impl From<Asker> for Caller {
    fn from(asker: Asker) -> Self {
        Self { asker, patience: Patience::Verdict }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The driver is ready to carry out actions. Exactly once, first of all; not after an upgrade in place, whose new
    /// image goes on with [`Event::Upgraded`].
    Start,
    /// The time [`Fleet::next_deadline`](super::Fleet::next_deadline) named has come. A tick too many does no harm;
    /// one that comes late tells the fleet that its own process was stopped.
    Tick,

    /// [`Action::Spawn`](super::Action::Spawn) made a process.
    Spawned {
        /// As given.
        child: ChildId,
        /// Its process id.
        pid: u32,
    },
    /// [`Action::Spawn`](super::Action::Spawn) made no process. Nothing else will be reported about this child.
    SpawnFailed {
        /// As given.
        child: ChildId,
        /// Why.
        reason: String,
    },
    /// First message of a child. The fleet compares it with what it asked for.
    Hello {
        /// Who.
        child: ChildId,
        /// Version of the messages it speaks.
        protocol: u32,
        /// Process id it claims.
        pid: u32,
        /// Generation it was started for.
        generation: u64,
    },
    /// Worker: configured, cache filled, self-test passed. Store: recovered, listening.
    Ready {
        /// Who.
        child: ChildId,
    },
    /// It cannot become ready and will exit by itself.
    Failed {
        /// Who.
        child: ChildId,
        /// Exit status that follows.
        code: u8,
        /// Why.
        reason: String,
    },
    /// Worker: a drain makes progress, whether we asked for it or a person's `kill`.
    Draining {
        /// Who.
        child: ChildId,
        /// Connections still open.
        connections: u64,
        /// Requests still being answered.
        in_flight: u64,
        /// Whether it accepts no more. A worker of the version before never says so.
        closed: bool,
    },
    /// It leaves by its own will, with nothing left to do.
    Bye {
        /// Who.
        child: ChildId,
    },
    /// The control socket is closed or full, or brought nonsense: the child can no longer be steered. It may be about
    /// to exit, so the fleet gives it a moment.
    Unreachable {
        /// Who.
        child: ChildId,
        /// What was found.
        reason: String,
    },
    /// It is gone and reaped. Exactly once per child that was reported as spawned; nothing follows.
    Exited {
        /// Who.
        child: ChildId,
        /// How.
        exit: Exit,
    },

    /// Worker: outcome of [`Action::Adopt`](super::Action::Adopt): it answers every new request with this generation.
    Adopted {
        /// Who.
        child: ChildId,
        /// The generation.
        generation: u64,
        /// Time to prepare it, microseconds.
        prepare_us: u64,
        /// Time of the exchange itself, microseconds.
        switch_us: u64,
    },
    /// Worker: outcome of [`Action::Adopt`](super::Action::Adopt): it goes on with the generation it had.
    NotAdopted {
        /// Who.
        child: ChildId,
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
        /// A new process would come without what this one remembers.
        loses_state: bool,
    },

    /// Compile helper: it compiles a component now.
    Working {
        /// The helper.
        child: ChildId,
        /// The file of the component.
        on: String,
    },
    /// Compile helper: what is worth knowing beside the bundle, which comes next.
    Warned {
        /// The helper.
        child: ChildId,
        /// What there is to say.
        warnings: Vec<String>,
    },
    /// Compile helper: the bundle is there. The driver keeps it under the generation the helper was spawned for until
    /// [`Action::Forget`](super::Action::Forget).
    Compiled {
        /// The helper.
        child: ChildId,
        /// Digest of the bundle.
        digest: String,
        /// What its configuration says about processes.
        policy: Box<Policy>,
    },
    /// Compile helper: the application is not valid.
    Invalid {
        /// The helper.
        child: ChildId,
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Compile helper: clients or documents would notice the module that was to be deployed.
    Incompatible {
        /// The helper.
        child: ChildId,
        /// What they would notice, all at once.
        reasons: Vec<String>,
    },
    /// Look helper: it has asked the sources of modules.
    Looked {
        /// The helper.
        child: ChildId,
        /// What it found.
        look: Look,
    },
    /// Outcome of [`Action::BindListeners`](super::Action::BindListeners): all listeners of the generation are bound.
    ListenersBound {
        /// The generation.
        generation: u64,
    },
    /// Outcome of [`Action::BindListeners`](super::Action::BindListeners): some could not be bound; those bound on the
    /// way are closed again.
    ListenersFailed {
        /// The generation.
        generation: u64,
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Store: the generation can start.
    Prepared {
        /// The store process that says so.
        child: ChildId,
        /// The generation.
        generation: u64,
    },
    /// Store: the generation cannot start with the data there is.
    Refused {
        /// The store process that says so.
        child: ChildId,
        /// The generation.
        generation: u64,
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Outcome of [`Action::LoadLastGood`](super::Action::LoadLastGood): the driver holds the bundle under the
    /// generation that was given.
    LastGoodLoaded {
        /// As given.
        generation: u64,
        /// Digest of the bundle.
        digest: String,
        /// What its configuration says about processes.
        policy: Box<Policy>,
    },
    /// Outcome of [`Action::LoadLastGood`](super::Action::LoadLastGood): there is none, or it cannot be read.
    LastGoodMissing {
        /// As given.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// [`Action::WriteLastGood`](super::Action::WriteLastGood) did not succeed. (Success needs no report.)
    LastGoodNotWritten {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// [`Action::WritePrevious`](super::Action::WritePrevious) did not succeed, and what was there before is gone, unless it is
    /// the generation in force. (Success needs no report.)
    PreviousNotWritten {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// [`Action::Pin`](super::Action::Pin) did not succeed: what was noted before is noted still. (Success needs no report.)
    NotPinned {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// Part of [`Action::CloseListeners`](super::Action::CloseListeners) did not succeed: what is deployed in the generation is
    /// not noted. It is tried again. (Success needs no report.)
    DeploymentsNotNoted {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// Part of [`Action::CloseListeners`](super::Action::CloseListeners) did not succeed: the versions of signed modules are
    /// not noted. It is tried again. (Success needs no report.)
    VersionsNotNoted {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
    },
    /// Answer to [`Action::ReportKept`](super::Action::ReportKept): what a host that starts anew comes up on is on the disk, as
    /// far as it goes by that.
    Kept {
        /// As given.
        generation: u64,
    },

    /// Answer to [`Action::ReadVitals`](super::Action::ReadVitals): one entry for each worker that has a cell, and one
    /// for the store if it publishes a sign of life.
    Vitals(Vec<Vital>),
    /// Answer to [`Action::ReadTraffic`](super::Action::ReadTraffic): one entry for each worker that has a cell.
    Traffic(Vec<Traffic>),
    /// What the versions that are tried in [`Fleet::generation_of_trials`](super::Fleet::generation_of_trials), and those
    /// beside them, have done so far. Reported now and then while there are any, and once when there are none any more.
    Trials(Vec<TrialReading>),

    /// Outcome of [`Action::Upgrade`](super::Action::Upgrade): this is the new image, and the state is restored. The
    /// driver knows the images by number and starts processes from the one that [`Spawn`](super::Spawn) names.
    Upgraded {
        /// Number of the new image, greater than all before.
        image: u64,
        /// Whether the generation in force has code, which the new image may have to compile anew.
        has_code: bool,
    },
    /// Outcome of [`Action::Upgrade`](super::Action::Upgrade): the old image runs on.
    UpgradeFailed {
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Outcome of [`Action::Upgrade`](super::Action::Upgrade): the new image ran, could not go on, and became the old
    /// one again.
    UpgradeReturned {
        /// Why.
        reason: String,
    },

    /// Somebody wants something.
    Request {
        /// Who waits for the answer; nobody for a signal.
        asker: Option<Caller>,
        /// What.
        request: Request,
    },
    /// Somebody who waited for an answer is gone.
    Left {
        /// Who.
        asker: Asker,
    },
}

/// What the sources of modules have, compared with what they had when the app was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// How many were asked.
    pub asked: u32,
    /// Modules whose source has something else; some of them, if there are many.
    pub changed: Vec<String>,
    /// Why sources could not be asked; some of the reasons, if there are many.
    pub away: Vec<String>,
    /// How many could not be asked.
    pub absent: u32,
}

/// What may be asked of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Go to the next generation.
    Reload {
        /// Whose idea it was.
        origin: Origin,
        /// How it comes into force; as its configuration says when absent.
        mode: Option<ReloadMode>,
    },
    /// Go to a generation in which one module is another version.
    Deploy(Order),
    /// Go back to the generation that was in force before the last change.
    Rollback,
    /// Change the number of workers until a reload brings another generation.
    Scale(Scale),
    /// Replace one worker, or all one by one, without a new generation.
    Restart {
        /// The slot, or all.
        slot: Option<u32>,
    },
    /// Drain all workers, keep the supervisor, the store and the sockets.
    Drain,
    /// Replace the running executable in place, then roll all workers and the store to it.
    Upgrade {
        /// The new executable; the path the supervisor was started from when absent.
        path: Option<String>,
    },
    /// End the host. A second one escalates.
    Stop {
        /// How.
        mode: StopMode,
    },
}

/// Whose idea a reload was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Origin {
    /// Nobody's: a watched file changed, a source has something else, or a webhook says so. A set of modules
    /// that was found bad before is not tried again.
    Automatic,
    /// A person's or a program's that asked for it.
    Operator,
}

/// Change of the number of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// To this many.
    To(u32),
    /// One more.
    More,
    /// One fewer, not below one.
    Fewer,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel's out-of-memory killer (a SIGKILL that is known to come from there).
    OutOfMemory,
}

/// Signs of life of a child, as its cell of the board and the process table show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vital {
    /// Who.
    pub child: ChildId,
    /// The oldest of its heartbeats, milliseconds of the monotonic clock; 0 when there is none yet.
    pub beat_ms: u64,
    /// Requests answered by this process.
    pub requests: u64,
    /// Resident memory, bytes; 0 when it was not asked for.
    pub resident_bytes: u64,
}

/// What a worker answered: totals of its cell, so that only differences between two readings mean anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Who.
    pub child: ChildId,
    /// Requests answered.
    pub requests: u64,
    /// Those answered with a 5xx.
    pub errors: u64,
    /// Latency histogram, in the buckets of [`aegis_ipc::board::bucket_bound`].
    pub latency: Vec<u64>,
}

/// What a version that is tried and the one in force were called for: totals of the board, so that only differences
/// between two readings mean anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialReading {
    /// Name of the module.
    pub module: String,
    /// SHA-256 of the component that is tried, hexadecimal.
    pub digest: String,
    /// Of the version in force.
    pub current: Calls,
    /// Of the one that is tried.
    pub trial: Calls,
}

/// Calls of code, and those that were not made because it kept failing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// All of them.
    pub calls: u64,
    /// Those that ended with a fault, or were not made: no refusals.
    pub faults: u64,
}

impl Exit {
    /// The sentence for the death tally: `exited with 78`, `crashed by SIGSEGV`, `out of memory`.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Code(code) => format!("exited with {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(known) => format!("crashed by {known}"),
                Err(_) => format!("crashed by signal {signal}"),
            },
            Self::OutOfMemory => "out of memory".to_owned(),
        }
    }
}
