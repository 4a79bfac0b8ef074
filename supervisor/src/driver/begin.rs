//! The cold start: what must be there before the first event.

use std::{
    collections::{BTreeMap, VecDeque},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::Path,
};

use aegis_ipc::{
    board::{Board, monotonic_ms},
    tally::Tally,
};

use super::{Announcement, Awaiting, Driver, Interest, Mistakes, Poller, Rhythm, Source, Stage, StoreSocket};
use crate::{
    Instead, Start, SupervisorError, control,
    fleet::{Event, Fleet, Policy},
    listen::{Listeners, Occupant, Origin, activation::Activation, bind_unix},
    lock::DataLock,
    logs,
    notify::Notifier,
    probe::Identity,
    process::{self, Image, MemoryKills},
    relay::Askers,
    signals::{self, Signals, Terminal},
};

/// Name of the store's socket inside the data directory.
const STORE_SOCKET: &str = "store.sock";
/// Number of the image that the first supervisor runs.
const FIRST_IMAGE: u64 = 1;

impl Driver {
    /// Takes what a host needs to itself. Nothing is started yet, and clients' addresses are bound later, when the first
    /// generation is known to be valid.
    pub(super) fn begin(start: Start, stderr_before: &mut Option<OwnedFd>) -> Result<Self, SupervisorError> {
        let Start { config, compile_arguments, instead, as_json, program } = start;
        let activation = Activation::from_environment()?;
        let signals = Signals::install(Terminal::detect())?;
        signals::unblock()?;
        if let Err(error) = process::raise_descriptor_limit() {
            tracing::warn!("{}", crate::with_causes(&error));
        }
        make_data_directory(&config.data_dir)?;
        let (lock, predecessor) = DataLock::take(&config.data_dir)?;
        *stderr_before = logs::redirect_first(config.log.file.as_deref())?;
        let mut listeners = Listeners::default();
        for socket in activation.clients {
            listeners.add_activated(socket);
        }
        let (control, origin) = match activation.control {
            Some(given) => (given.socket, Origin::Activated),
            None => (bind_unix(&config.control_socket, Occupant::Ask)?, Origin::Bound),
        };
        let store = bind_store(&config.data_dir)?;
        let (board, board_memory) = Board::create()?;
        let images = BTreeMap::from([(FIRST_IMAGE, Image::running()?)]);
        let now_ms = monotonic_ms();
        let mut fleet = Fleet::new(Policy::new(&config), seed(), now_ms);
        if let Some(Instead { digest, cause, reason }) = instead {
            fleet = fleet.restoring(digest, cause, reason);
        }
        let notifier = Notifier::from_environment();
        let driver = Self {
            fleet,
            events: [Event::Start].into(),
            actions: [].into(),
            mistakes: Mistakes::default(),
            poller: Poller::new()?,
            signals,
            rhythm: Rhythm::new(&notifier, now_ms),
            notifier,
            lock,
            predecessor,
            memory_kills: MemoryKills::new(),
            board,
            board_memory,
            tally_memory: Tally::create()?.1,
            own_image: Image::running()?,
            images,
            children: BTreeMap::new(),
            generations: BTreeMap::new(),
            listeners,
            pending_bind: None,
            store,
            operators: control::Server::new(control, origin),
            askers: Askers::default(),
            identity: Identity::of(&config),
            compile_arguments,
            watch: None,
            upgrading: None,
            keeping: VecDeque::new(),
            awaiting: Awaiting::default(),
            tasks: BTreeMap::new(),
            engine: None,
            log_file: config.log.file,
            stderr_before: None,
            program,
            stage: Stage::Starting,
            announcement: if as_json { Announcement::DueAsJson } else { Announcement::Due },
            longest_pass_us: 0,
            exit: None,
        };
        driver.take_hold()?;
        Ok(driver)
    }

    /// What can fail last: from then on the data directory is ours.
    fn take_hold(&self) -> Result<(), SupervisorError> {
        self.poller.add(&self.signals, Source::Signals, Interest::Read)?;
        self.poller.add(&self.operators, Source::Door, Interest::Read)?;
        self.lock.say_hello()
    }
}

/// Where workers find the store.
fn bind_store(data_dir: &Path) -> Result<StoreSocket, SupervisorError> {
    let path = data_dir.join(STORE_SOCKET);
    let listener = bind_unix(&path, Occupant::Replace)?;
    Ok(StoreSocket { listener, path, kept: None })
}

fn make_data_directory(path: &Path) -> Result<(), SupervisorError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        SupervisorError::os(format!("creating the data directory {}", path.display()), error)
    })
}

/// Different for hosts that start together, so that their retries do not fall together.
fn seed() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    u64::from(std::process::id()).rotate_left(32) ^ now.tv_nsec.unsigned_abs() ^ now.tv_sec.unsigned_abs()
}
