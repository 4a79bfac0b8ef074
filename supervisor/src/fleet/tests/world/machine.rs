//! What the pretended machine is made of: applications, processes, and the fate that decides over both.

use std::{collections::BTreeSet, time::Duration};

use aegis_config::{Drain, Hang, Recycle, Reload, ReloadMode, Restart};

use crate::fleet::{Exit, Look, Policy, Role, Spawn};

/// How a process behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Becomes ready after this long.
    Slow(u64),
    /// The system does not start it.
    Unborn,
    /// Exits after this long without having been ready.
    DiesEarly(u64, Exit),
    /// Says that it cannot become ready and exits with this status.
    Fails(u8),
    /// Says who it is, wrongly.
    Impostor,
    /// Never becomes ready.
    NeverReady,
    /// Dies this long after it was ready.
    Crashes(u64, Exit),
    /// Shows no sign of life from this long after it was ready on, and then again after the second time.
    Hangs(u64, u64),
    /// Closes its control socket and stays.
    Mute(u64),
    /// Answers this share of requests with 5xx, per cent.
    Errs(u64),
}

/// What becomes of a probe.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Probe {
    Valid(Box<App>),
    Invalid,
    Dies(Exit),
    Hangs,
}

/// An application in a certain version.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct App {
    pub(crate) digest: String,
    pub(crate) policy: Policy,
    pub(crate) listeners: BTreeSet<u16>,
    /// How its workers behave unless the world says otherwise.
    pub(crate) manner: Manner,
    pub(crate) store: StoreSays,
    pub(crate) bind: Bind,
}

/// What the store answers to a new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreSays {
    Yes,
    No,
    Nothing,
}

/// Whether its listeners can be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    Works,
    Fails,
}

/// What becomes of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewImage {
    Works,
    /// Refused by the rehearsal.
    Fails,
    /// Went back to the old image.
    Returns,
}

/// How a process leaves when it is told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// After this long.
    After(u64),
    /// Not at all.
    Never,
}

/// When a worker that is told to leave says that it accepts no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// After this long, unless it is gone by then.
    After(u64),
    /// Not at all, as workers of the version before.
    Unsaid,
}

/// What a worker does that is told to take a generation over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adopts {
    /// It does, after this long.
    After(u64),
    /// It says that it cannot.
    Not,
    /// It says that what its code remembers would be lost.
    LosesState,
    /// It says nothing, and does nothing.
    Silently,
    /// It dies of it.
    Dying(Exit),
}

/// A pretended process.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) spawn: Spawn,
    pub(crate) ready_ms: Option<u64>,
    pub(crate) is_serving: bool,
    /// Whether a client that connects may come to it: from when it is told to serve until it says that it stopped.
    pub(crate) is_open: bool,
    pub(crate) is_hung: bool,
    pub(crate) hung_ms: u64,
    pub(crate) leave_by_ms: Option<u64>,
    pub(crate) is_leaving: bool,
    /// When it was told to leave first.
    pub(crate) left_ms: u64,
    pub(crate) is_killed: bool,
    pub(crate) is_ending: bool,
    pub(crate) is_mute: bool,
    pub(crate) errs_percent: u64,
    pub(crate) resident_bytes: u64,
    pub(crate) requests: u64,
    pub(crate) knows: BTreeSet<u64>,
}

/// How things go on this machine.
pub(crate) trait Fate {
    /// How a new process behaves; none for what its application says.
    fn manner(&mut self, role: Role) -> Option<Manner>;
    /// How a process leaves.
    fn parting(&mut self) -> Parting;
    /// When a process that leaves says that it accepts no more.
    fn closing(&mut self) -> Closing {
        Closing::After(1)
    }
    /// How long a process takes to die of SIGKILL.
    fn dying(&mut self) -> u64;
    /// What a worker does that is told to take a generation over.
    fn adopts(&mut self) -> Adopts;
    /// What the next probe finds.
    fn probe(&mut self) -> Probe;
    /// What the next look at the sources finds; nothing when the helper dies.
    fn look(&mut self) -> Option<Look> {
        Some(nothing_new())
    }
    /// How long it takes until everything is on the disk.
    fn keeping(&mut self) -> u64 {
        0
    }
    /// What becomes of the next upgrade.
    fn upgrade(&mut self) -> NewImage;
    /// A delay of at most so many milliseconds.
    fn delay(&mut self, most_ms: u64) -> u64;
}

/// One source was asked, and has what it had before.
pub(crate) fn nothing_new() -> Look {
    Look { asked: 1, changed: Vec::new(), away: Vec::new(), absent: 0 }
}

pub(crate) fn policy(workers: u32) -> Policy {
    Policy {
        workers,
        surge: 1,
        ready_timeout: Duration::from_secs(10),
        reload: Reload {
            mode: ReloadMode::Rolling,
            watch: false,
            poll: None,
            webhook_secret_file: None,
            webhook_secret: None,
            canary_time: Duration::from_secs(2),
            canary_requests_min: 100,
            error_rate_margin: 0.01,
            latency_factor_max: 1.5,
            probe_timeout: Duration::from_secs(20),
        },
        drain: Drain { timeout: Duration::from_secs(5), spread: Duration::from_secs(1) },
        restart: Restart {
            delay_min: Duration::from_millis(50),
            delay_max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(10),
            reset_after: Duration::from_secs(60),
            crash_loop_count: 5,
            crash_loop_window: Duration::from_secs(30),
        },
        recycle: Recycle { memory_bytes_max: None, requests_max: None },
        hang: Hang { suspect_after: Duration::from_secs(2), kill_after: Duration::from_secs(10) },
    }
}

impl App {
    pub(crate) fn new(digest: &str, workers: u32) -> Self {
        Self {
            digest: digest.to_owned(),
            policy: policy(workers),
            listeners: BTreeSet::from([80]),
            manner: Manner::Good,
            store: StoreSays::Yes,
            bind: Bind::Works,
        }
    }

    /// What a probe finds when everything is well.
    pub(crate) fn found(self) -> Probe {
        Probe::Valid(Box::new(self))
    }

    pub(crate) fn manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
    }

    /// The same, configured to be taken over by the workers that run.
    pub(crate) fn swapped(mut self) -> Self {
        self.policy.reload.mode = ReloadMode::Swap;
        self
    }
}

impl Process {
    pub(super) fn new(spawn: Spawn) -> Self {
        Self {
            spawn,
            ready_ms: None,
            is_serving: false,
            is_open: false,
            is_hung: false,
            hung_ms: 0,
            leave_by_ms: None,
            is_leaving: false,
            left_ms: 0,
            is_killed: false,
            is_ending: false,
            is_mute: false,
            errs_percent: 0,
            resident_bytes: 0,
            requests: 0,
            knows: BTreeSet::from([spawn.generation]),
        }
    }

    /// Answers as another generation does.
    pub(super) fn adopt(&mut self, generation: u64, manner: Option<Manner>) {
        self.spawn.generation = generation;
        self.errs_percent = match manner {
            Some(Manner::Errs(percent)) => percent,
            _ => 0,
        };
    }

    /// Whether it accepts connections and answers them.
    pub(crate) fn is_well(&self) -> bool {
        self.is_serving && !self.is_hung && !self.is_killed && !self.is_mute
    }

    pub(crate) fn is_worker(&self) -> bool {
        matches!(self.spawn.role, Role::Worker { .. })
    }

    /// Whether it counts against N + surge.
    pub(crate) fn is_present(&self) -> bool {
        self.is_worker() && !self.is_leaving && !self.is_killed
    }
}
