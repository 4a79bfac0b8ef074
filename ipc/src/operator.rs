//! What a person's command and the supervisor say to each other: one JSON object per line, over the control socket.
//!
//! A worker relays the same requests for `POST /reload` and its kin (see [`crate::control`]).

use serde::{Deserialize, Serialize};

use crate::deploy::{Deployed, Order, Tried};

/// Longest request that the supervisor accepts, bytes.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Longest answer, bytes: there may be much to tell of a host.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// A request to the supervisor.
///
/// Everything that takes time ([`Reload`](Self::Reload), [`Deploy`](Self::Deploy), [`Rollback`](Self::Rollback),
/// [`Scale`](Self::Scale), [`Restart`](Self::Restart),
/// [`Drain`](Self::Drain), [`Upgrade`](Self::Upgrade), [`Stop`](Self::Stop)) is answered with [`Reply::Accepted`], then
/// [`Reply::Progress`] per step, then [`Reply::Job`] with a verdict, or with a single [`Reply::Error`]. Who is not
/// interested closes the connection; the job goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Request {
    /// Answered with [`Reply::Status`].
    Status,
    /// Like [`Request::Status`], repeated on every change and at least once a second until the caller leaves.
    Watch,
    /// Go to the next generation.
    Reload {
        /// Also answer with progress and the verdict; otherwise only with [`Reply::Accepted`].
        #[serde(default)]
        wait: bool,
        /// How, this time; as the configuration says when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<ReloadMode>,
        /// Nobody decided it just now: something was published. It does not undo what somebody asked for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        automatic: bool,
    },
    /// Go to a generation in which one module is another version, and everything else as it is.
    Deploy {
        /// Which, and from where.
        order: Order,
        /// As with [`Request::Reload`].
        #[serde(default)]
        wait: bool,
    },
    /// Go to the generation that was in force before the last change, and stay there until somebody asks for another.
    Rollback,
    /// Change the number of workers until a reload brings another generation.
    Scale {
        /// New count, at least 1.
        workers: u32,
    },
    /// Replace one worker, or all one by one, without a new generation.
    Restart {
        /// The slot, or all.
        #[serde(default)]
        slot: Option<u32>,
    },
    /// Stop serving: drain all workers, keep the supervisor, the store and the sockets. A reload or scale resumes.
    Drain,
    /// Replace the running executable in place.
    Upgrade {
        /// The new executable; the path the supervisor was started from when absent.
        #[serde(default)]
        path: Option<String>,
    },
    /// Open the log file anew everywhere. Answered with [`Reply::Done`].
    LogsReopen,
    /// End the host.
    Stop {
        /// How.
        mode: StopMode,
    },
    /// State of a job that [`Reply::Accepted`] named. Answered with [`Reply::Job`].
    Job {
        /// The job.
        job: u64,
    },
}

/// How a new generation comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadMode {
    /// New workers replace old ones.
    Rolling,
    /// Running workers exchange what has changed, if that is possible.
    Swap,
}

/// How to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopMode {
    /// Finish what is in flight, at most for the drain timeout.
    Graceful,
    /// Finish what is in flight, however long it takes.
    Patient,
    /// At once.
    Immediate,
}

/// An answer of the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Reply {
    /// The state of the host.
    Status(Box<Status>),
    /// The request was taken; its outcome can be asked for.
    Accepted {
        /// Number of the job.
        job: u64,
    },
    /// A step of a running job, for people.
    Progress {
        /// The job.
        job: u64,
        /// One line.
        step: String,
        /// Whether it is worth knowing when the job has ended.
        #[serde(default)]
        is_warning: bool,
    },
    /// State of a job; final when `verdict` is set.
    Job(Job),
    /// Done, with nothing to say.
    Done,
    /// Refused.
    Error {
        /// One sentence: what was wrong and what was expected.
        message: String,
    },
}

/// A reload, restart, scale or upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Number of the job.
    pub job: u64,
    /// `reload`, `deploy`, `rollback`, `restart`, `scale` or `upgrade`.
    pub kind: String,
    /// The step it is in, or ended in.
    pub step: String,
    /// Generation it leads to.
    pub generation: u64,
    /// Outcome, once there is one.
    pub verdict: Option<Verdict>,
}

/// Outcome of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum Verdict {
    /// In force.
    Done,
    /// The new generation equals the running one; nothing was touched.
    Unchanged,
    /// Found bad before anything was touched.
    Rejected {
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Clients or documents would notice, and nobody said that they may; nothing was touched.
    Incompatible {
        /// What they would notice, all at once.
        reasons: Vec<String>,
    },
    /// Found bad on the way; the old generation serves.
    RolledBack {
        /// Why.
        reason: String,
    },
    /// Ended by a stop or a newer request before it began.
    Superseded,
}

impl Verdict {
    /// Exit status of the command that asked: 0 in force, 3 rejected, 4 rolled back, 5 superseded.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done | Self::Unchanged => 0,
            Self::Rejected { .. } | Self::Incompatible { .. } => 3,
            Self::RolledBack { .. } => 4,
            Self::Superseded => 5,
        }
    }
}

/// The state of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Process id of the supervisor.
    pub pid: u32,
    /// Version of the running executable.
    pub version: String,
    /// Milliseconds since the supervisor started (upgrades in place do not reset it).
    pub uptime_ms: u64,
    /// One line for people.
    pub summary: String,
    /// Where clients connect.
    pub listen: Vec<String>,
    /// Generation in force.
    pub generation: u64,
    /// Digest of that generation.
    pub digest: String,
    /// Why the generation in force is not that of the app folder, when it was put back.
    #[serde(default)]
    pub notice: Option<String>,
    /// Modules that were deployed in place of what the app folder says.
    #[serde(default)]
    pub deployed: Vec<DeployedModule>,
    /// Modules that a worker does not call at the moment, because they keep failing; by the names that they give themselves.
    #[serde(default)]
    pub failing: Vec<String>,
    /// Versions that are tried beside those in force.
    #[serde(default)]
    pub trials: Vec<TriedModule>,
    /// Workers wanted.
    pub workers_wanted: u32,
    /// Every worker process, draining ones included.
    pub workers: Vec<WorkerStatus>,
    /// The store process.
    pub store: StoreStatus,
    /// The job that runs, and the one that waits.
    pub jobs: Vec<Job>,
    /// The last job that ended.
    pub last_job: Option<Job>,
    /// Last deaths, newest first, at most 100.
    pub deaths: Vec<Death>,
    /// Longest single pass of the supervisor's loop, microseconds.
    pub loop_longest_us: u64,
}

/// A module that is not what the app folder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedModule {
    /// Its name.
    pub module: String,
    /// What it is instead.
    #[serde(flatten)]
    pub deployed: Deployed,
}

/// A module of which another version is tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriedModule {
    /// Its name.
    pub module: String,
    /// Whether a worker does not call what is tried at the moment, because it keeps failing.
    #[serde(default)]
    pub failing: bool,
    /// What is tried, and beside what.
    #[serde(flatten)]
    pub tried: Tried,
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Slot it fills.
    pub slot: u32,
    /// Generation it serves.
    pub generation: u64,
    /// Process id.
    pub pid: u32,
    /// `starting`, `ready`, `serving`, `suspect`, `draining`, `killed`.
    pub state: String,
    /// Milliseconds since it was spawned.
    pub uptime_ms: u64,
    /// Open client connections.
    pub connections: u64,
    /// Requests being answered.
    pub in_flight: u64,
    /// Requests answered.
    pub requests: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Changes behind the durable watermark.
    pub lag: u64,
}

/// The store process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Process id, 0 while it is down.
    pub pid: u32,
    /// `starting`, `ready`, `silent`, `down`.
    pub state: String,
    /// Durable sequence number.
    pub durable: u64,
    /// Store process number.
    pub epoch: u64,
    /// Times it was started again after a death.
    pub restarts: u64,
    /// Its disk, while writes are refused because that is nearly full.
    #[serde(default)]
    pub disk_full: Option<DiskFull>,
}

/// A disk on which there is too little room for writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFull {
    /// For how long writes have been refused, milliseconds.
    pub for_ms: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that must be free for writes to be taken again.
    pub needed_bytes: u64,
}

/// One child that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Death {
    /// `worker 3`, `store`, `compile`.
    pub who: String,
    /// Its process id.
    pub pid: u32,
    /// Its generation.
    pub generation: u64,
    /// `drained`, `crashed by SIGKILL`, `exited with 78`, `hung`, …
    pub reason: String,
    /// How long ago, milliseconds.
    pub ago_ms: u64,
}
