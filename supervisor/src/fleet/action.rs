//! What the driver must do: everything [`Fleet::on`](super::Fleet::on) may return.
//!
//! The driver carries the actions of one answer out in order, without deciding anything, and reports what comes of them
//! as events afterwards. An action about a child that has gone meanwhile does nothing.

use aegis_ipc::{deploy::Task, operator::Verdict};
use serde::{Deserialize, Serialize};

use super::event::{Asker, ChildId};

/// Something to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start a process; answered with [`Event::Spawned`](super::Event::Spawned) or
    /// [`Event::SpawnFailed`](super::Event::SpawnFailed).
    Spawn(Spawn),
    /// Compile helper that is about to be spawned: what it is to make, when that is not the app as it is now.
    Instruct {
        /// The helper.
        child: ChildId,
        /// What it is to make.
        task: Task,
    },
    /// Worker: send `Serve`. What cannot be sent is reported as [`Event::Unreachable`](super::Event::Unreachable).
    Serve {
        /// Who.
        child: ChildId,
    },
    /// Worker: send `Drain`. When the control socket does not take it, SIGTERM means the same to a worker (SIGQUIT
    /// without a deadline).
    Drain {
        /// Who.
        child: ChildId,
        /// Time to finish, milliseconds from now; none means however long it takes.
        deadline_ms: Option<u64>,
    },
    /// Worker: send `Adopt` with the bundle of the generation. Answered with
    /// [`Event::Adopted`](super::Event::Adopted) or [`Event::NotAdopted`](super::Event::NotAdopted).
    Adopt {
        /// Who.
        child: ChildId,
        /// The generation.
        generation: u64,
    },
    /// Worker: send `Poke`: a sibling has left or stopped accepting, look at the accept queue. May be lost.
    Poke {
        /// Who.
        child: ChildId,
    },
    /// Store: send `Keep`: another process follows it, which is handed what this one has only in memory. Sent before
    /// [`Action::Terminate`]; may be lost.
    Keep {
        /// The store process.
        child: ChildId,
    },
    /// Send SIGTERM. The store finishes queued writes, syncs and exits.
    Terminate {
        /// Who.
        child: ChildId,
    },
    /// Send SIGKILL.
    Kill {
        /// Who.
        child: ChildId,
    },

    /// Bind what the configuration of this generation listens on and is not bound yet. Listeners that are already bound
    /// stay as they are. Answered with [`Event::ListenersBound`](super::Event::ListenersBound) or
    /// [`Event::ListenersFailed`](super::Event::ListenersFailed).
    BindListeners {
        /// The generation.
        generation: u64,
    },
    /// This generation is in force now, or again after another was tried: close every listener that its configuration does
    /// not name. Workers of another generation that still drain have inherited such a socket, so it must be shut down, not
    /// only closed. Whatever else the driver takes from the configuration in force, it takes from this one.
    CloseListeners {
        /// The generation whose listeners stay.
        generation: u64,
    },
    /// Store: send `Prepare` with the bundle of the generation. Answered with
    /// [`Event::Prepared`](super::Event::Prepared) or [`Event::Refused`](super::Event::Refused).
    Prepare {
        /// The store process.
        child: ChildId,
        /// The generation.
        generation: u64,
    },
    /// Store: send `Activate`.
    Activate {
        /// The store process.
        child: ChildId,
        /// The generation.
        generation: u64,
    },
    /// Store: send `Discard`.
    Discard {
        /// The store process.
        child: ChildId,
        /// The generation.
        generation: u64,
    },
    /// Write the bundle of the generation to `data_dir/generations/last-good`, so that it survives everything. Failure is
    /// reported as [`Event::LastGoodNotWritten`](super::Event::LastGoodNotWritten).
    WriteLastGood {
        /// The generation.
        generation: u64,
    },
    /// What is in `data_dir/generations/last-good` becomes `data_dir/generations/previous`, unless it is the app of
    /// this generation.
    KeepLastGoodBefore {
        /// The generation.
        generation: u64,
    },
    /// Write the bundle of the generation to `data_dir/generations/previous`: the one to go back to when somebody asks.
    /// When that fails, none is there, as far as that can be helped, and
    /// [`Event::PreviousNotWritten`](super::Event::PreviousNotWritten) reports it. What is in force, pinned and nowhere else
    /// stays there.
    WritePrevious {
        /// The generation.
        generation: u64,
    },
    /// Note in `data_dir/generations/pinned` that a host that starts anew is to come up on this generation, if it is kept; or
    /// take the note away. Failure is reported as [`Event::NotPinned`](super::Event::NotPinned).
    Pin {
        /// The generation.
        generation: Option<u64>,
    },
    /// Answer with [`Event::Kept`](super::Event::Kept) as soon as everything that was to be written is on the disk, the note
    /// about a pin included, or was reported as not written. On a host that is not pinned, at once: what is deployed was noted
    /// before, or reported as not noted.
    ReportKept {
        /// The generation in force.
        generation: u64,
    },
    /// Read `data_dir/generations/last-good` and hold it as the bundle of this new generation. Answered with
    /// [`Event::LastGoodLoaded`](super::Event::LastGoodLoaded) or
    /// [`Event::LastGoodMissing`](super::Event::LastGoodMissing).
    LoadLastGood {
        /// The new generation.
        generation: u64,
    },
    /// Hold the bundle of one generation also under the number of another, new one.
    CopyGeneration {
        /// The generation whose bundle it is.
        from: u64,
        /// The new generation.
        to: u64,
    },
    /// The bundle of this generation is not needed any more.
    Forget {
        /// The generation.
        generation: u64,
    },
    /// No process will be started from this image any more.
    ForgetImage {
        /// The image.
        image: u64,
    },

    /// Read the heartbeats, now; answered with [`Event::Vitals`](super::Event::Vitals).
    ReadVitals(Vitals),
    /// Read what the workers answered so far, now; answered with [`Event::Traffic`](super::Event::Traffic).
    ReadTraffic,

    /// Check the new executable and continue in it (see the module about upgrades): answered with
    /// [`Event::Upgraded`](super::Event::Upgraded) by the new image, or with
    /// [`Event::UpgradeFailed`](super::Event::UpgradeFailed). The state to hand over is this fleet, serialised after the
    /// actions of this answer were carried out.
    Upgrade {
        /// The new executable; the path the supervisor was started from when absent.
        path: Option<String>,
    },
    /// Do not continue in the new executable after all. No outcome of the last [`Action::Upgrade`] is reported any more.
    CallOffUpgrade,

    /// To an asker: the request was taken. First answer.
    Accepted {
        /// To whom.
        asker: Asker,
        /// Number of the job.
        job: u64,
    },
    /// To an asker: the request was refused. The only answer.
    Refused {
        /// To whom.
        asker: Asker,
        /// What was wrong and what was expected.
        message: String,
    },
    /// To an asker: a step of its job.
    Progress {
        /// To whom.
        asker: Asker,
        /// The job.
        job: u64,
        /// One line for people.
        step: String,
        /// Whether it is worth knowing when the job has ended.
        is_warning: bool,
    },
    /// To an asker: the outcome of its job. The last answer, exactly one for each [`Action::Accepted`].
    Verdict {
        /// To whom.
        asker: Asker,
        /// The job.
        job: u64,
        /// The outcome.
        verdict: Verdict,
    },

    /// Tell the service manager.
    Notify(Notice),
    /// Write a line to the log.
    Log {
        /// How loud.
        level: Level,
        /// One line for people.
        line: String,
    },
    /// All children are gone: leave. The last action of all.
    Exit {
        /// Exit status.
        code: u8,
        /// Why, when it is not 0; already logged.
        reason: Option<String>,
    },
}

/// A process to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spawn {
    /// How the fleet calls it from now on.
    pub child: ChildId,
    /// What it is.
    pub role: Role,
    /// Generation whose bundle it gets (the compile helper: the generation it makes; the look helper:
    /// the one in force).
    pub generation: u64,
    /// Image of the executable to start it from; 1 is the one the first supervisor ran.
    pub image: u64,
    /// Cell of the board it writes. Free, its gauges zero. 0 for the store and the helpers; workers never get 0.
    pub cell: u32,
    /// Whether it is a worker by which its generation is judged.
    pub is_canary: bool,
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The one writer.
    Store {
        /// One more than that of its predecessor.
        epoch: u64,
    },
    /// Serves requests.
    Worker {
        /// The slot it fills.
        slot: u32,
    },
    /// Makes a generation.
    Compile,
    /// Asks the sources of modules whether something was published.
    Look,
}

/// Which signs of life are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vitals {
    /// Heartbeats and request counts; costs no system call.
    Board,
    /// Resident memory too.
    BoardAndMemory,
}

/// What the service manager is told. The status line is [`Fleet::summary`](super::Fleet::summary): the driver sends it
/// whenever it reads differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// `READY=1`: start-up or a reload is over.
    Ready,
    /// `RELOADING=1` with the time.
    Reloading,
    /// `STOPPING=1`.
    Stopping,
}

/// How loud a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Somebody has to act.
    Error,
    /// Something is wrong and was answered.
    Warn,
    /// A step in the life of the host.
    Info,
}
