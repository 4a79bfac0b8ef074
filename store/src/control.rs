//! The life of the store process: what the supervisor and signals tell it, and in which order it starts and ends.

mod accept;
mod keep;
mod signals;

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_config::Log;
use aegis_ipc::{
    IpcError, PROTOCOL_VERSION,
    board::{Board, StoreWord, monotonic_ms},
    bundle::Bundle,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    handoff::{Handoff, adopt},
    slice,
};
use crossbeam::channel::{Receiver, Sender, TrySendError};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use self::{accept::accept_workers, keep::Succession, signals::Signals};
use crate::{
    catalog::{Generation, Settings},
    error::{StoreError, chain},
    link::Registry,
    lock::StoreLock,
    lookup::{self, Lookup, Lookups},
    notice::{self, Notice, Notices, Notifier},
    recover::{self, Published, Recovery},
    shared::{Intake, Shared},
    storage::Place,
    writer::{COMMANDS_MAX, Command, Inbox, Memory, Writer, bytes_max, probe},
};

/// Folder of the store inside the data folder.
const STORE_FOLDER: &str = "store";
/// The main thread looks around at least this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time for the last answers to reach the workers when the store ends.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Time for the writer to empty its queue when the store ends. Then the supervisor's patience is at its end, too.
const EMPTYING_MAX: Duration = Duration::from_secs(20);

/// What the store inherits.
struct Inheritance {
    control: ControlSocket,
    board: Board,
    bundle: OwnedFd,
    listener: UnixListener,
    kept: Option<OwnedFd>,
    epoch: u64,
    generation: u64,
}

impl Inheritance {
    fn take(handoff: &Handoff) -> Result<Self, StoreError> {
        let adopted = |descriptor, object: &str| {
            adopt(descriptor, object)
                .map_err(|error| StoreError::handoff(format!("taking over the {object}"), error))
        };
        let bundle = handoff.bundle.ok_or(StoreError::Missing { object: "bundle" })?;
        let listener = handoff.store_listener.ok_or(StoreError::Missing { object: "listening socket" })?;
        let board = Board::open(&adopted(handoff.board, "board")?);
        Ok(Self {
            control: ControlSocket::from_descriptor(adopted(handoff.control, "control socket")?),
            board: board.map_err(|error| StoreError::handoff("opening the board", error))?,
            bundle: adopted(bundle, "bundle")?,
            listener: UnixListener::from(adopted(listener, "listening socket")?),
            kept: handoff.kept.map(|kept| adopted(kept, "memory file of the store before")).transpose()?,
            epoch: handoff.epoch,
            generation: handoff.generation,
        })
    }
}

/// Runs the store until it is told to end.
///
/// # Errors
/// Why it cannot start or go on.
pub(crate) fn run(handoff: &Handoff, follow_log: fn(&Log)) -> Result<(), StoreError> {
    let signals = Signals::install()?;
    let inheritance = Inheritance::take(handoff)?;
    let Inheritance { control, board, bundle, listener, kept, epoch, generation } = inheritance;
    let hello = ToSupervisor::Hello { protocol: PROTOCOL_VERSION, pid: std::process::id(), generation };
    tell(&control, &hello);
    board.store(StoreWord::Beat).store(monotonic_ms(), Ordering::Relaxed);
    let started = start(&bundle, (generation, follow_log), kept, board, epoch);
    let store = match started {
        Ok(store) => store,
        Err(error) => {
            tell(&control, &ToSupervisor::Failed { code: error.exit_code(), reason: error.report() });
            return Err(error);
        }
    };
    accept_workers(listener, &store.shared)?;
    tell(&control, &ToSupervisor::Ready);
    tracing::info!(epoch, generation, durable = board.durable(), "the store is ready");
    let ended = store.attend(&control, &signals);
    board.store(StoreWord::Pid).store(0, Ordering::Relaxed);
    if ended.is_ok() {
        tell(&control, &ToSupervisor::Bye);
        tracing::info!("the store has ended");
    }
    ended
}

/// A store that serves.
struct Store {
    shared: Arc<Shared>,
    commands: Sender<Command>,
    notices: Notices,
    orphan_grace: Duration,
    succession: Succession,
    _lock: StoreLock,
}

fn start(
    bundle: &OwnedFd,
    (number, follow_log): (u64, fn(&Log)),
    kept: Option<OwnedFd>,
    board: Board,
    epoch: u64,
) -> Result<Store, StoreError> {
    let bundle = Bundle::read(bundle).map_err(|error| StoreError::handoff("reading the bundle", error))?;
    let config: aegis_config::Config = aegis_ipc::codec::decode(&bundle.config)
        .map_err(|error| StoreError::handoff("reading the configuration in the bundle", error))?;
    let unusable = |reasons| StoreError::Generation { generation: number, reasons };
    let generation = Generation::read(number, bundle).map_err(unusable)?;
    let folder = store_folder(&config.data_dir);
    // Before the lock makes the folder.
    recover::expect_engine(&folder, board.durable())?;
    let lock = StoreLock::take(&folder)?;
    let settings = generation.settings.clone();
    let file = recover::open_engine(&folder, settings.store.engine_cache_bytes, Published::on(board))?;
    let recovery = recover::recover(file, generation, kept.and_then(keep::take_up), board, epoch)?;
    let (notifier, notices) = notice::pair().map_err(|error| StoreError::os("making a pipe", error))?;
    let parts = assemble(recovery, &settings, (board, epoch), notifier.clone());
    lookup::start(&parts.shared, &parts.questions)
        .map_err(|error| StoreError::os("starting the lookup threads", error))?;
    let (shared, commands) = (parts.shared, parts.inbox.to_commands.clone());
    let writer =
        Writer::new(Arc::clone(&shared), parts.inbox, notifier.clone(), parts.memory, Some(probe(folder)))
            .with_log(follow_log);
    let work = move || {
        slice::ask_for_short();
        // A panic must end the process as well: without a writer nothing is answered any more.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run()));
        notifier.tell(match ended {
            Ok(Ok(requests)) => Notice::Stopped { requests },
            Ok(Err(error)) => Notice::Failed(error),
            Err(_) => Notice::Failed(StoreError::ThreadLost { thread: "writer" }),
        });
    };
    std::thread::Builder::new()
        .name("writer".to_owned())
        .spawn(work)
        .map_err(|error| StoreError::os("starting the writer thread", error))?;
    let orphan_grace = settings.orphan_grace;
    Ok(Store { shared, commands, notices, orphan_grace, succession: Succession::None, _lock: lock })
}

/// Everything that the threads of a store share or are given.
pub(crate) struct Parts {
    /// What they share.
    pub(crate) shared: Arc<Shared>,
    /// What the writer listens to.
    pub(crate) inbox: Inbox,
    /// What the writer begins with.
    pub(crate) memory: Memory,
    /// What the lookup threads listen to.
    pub(crate) questions: Receiver<Lookup>,
}

/// Puts a recovered store together.
pub(crate) fn assemble(
    recovery: Recovery,
    settings: &Settings,
    (board, epoch): (Board, u64),
    notifier: Notifier,
) -> Parts {
    let Recovery { storage, memory, rules } = recovery;
    let queue_max = settings.store.queue_writes_max.max(1) as usize;
    let (to_intake, intake): (Sender<Intake>, _) = crossbeam::channel::bounded(queue_max);
    let (to_commands, commands) = crossbeam::channel::bounded(COMMANDS_MAX);
    let (lookups, questions) = Lookups::new();
    let registry = Registry::new(storage.committed(), bytes_max(settings.store.feed_bytes_max));
    let shared = Shared::new(storage, registry, (board, epoch), lookups, to_intake, notifier, rules);
    shared.set_idempotency_time_ms(
        u64::try_from(settings.store.idempotency_time.as_millis()).unwrap_or(u64::MAX),
    );
    Parts { shared: Arc::new(shared), inbox: Inbox { intake, commands, to_commands }, memory, questions }
}

/// Why the main thread stops attending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// Asked to.
    Asked,
    /// The supervisor is gone, and so are the workers, or their time is up.
    Orphaned,
}

impl Store {
    /// Does what the supervisor says until the store is to end, and ends it.
    fn attend(mut self, control: &ControlSocket, signals: &Signals) -> Result<(), StoreError> {
        let mut orphaned_since: Option<Instant> = None;
        let leaving = loop {
            let control = orphaned_since.is_none().then_some(control);
            wait_for_any(control, signals, &self.notices)?;
            if signals.asked_to_end() {
                break Leaving::Asked;
            }
            for notice in self.notices.take() {
                match notice {
                    Notice::Prepared { generation } => {
                        self.report(control, &ToSupervisor::Prepared { generation })
                    }
                    Notice::Refused { generation, reasons } => {
                        self.report(
                            control,
                            &ToSupervisor::Refused { generation, reasons: shorten(reasons) },
                        );
                    }
                    Notice::Stopped { .. } => return Err(StoreError::ThreadLost { thread: "writer" }),
                    Notice::Failed(error) => return Err(self.fail(error)),
                }
            }
            if let Some(control) = control
                && !self.obey_all(control)?
            {
                tracing::warn!("the supervisor is gone");
                orphaned_since = Some(Instant::now());
            }
            if let Some(since) = orphaned_since
                && (self.shared.registry.attached() == 0 || since.elapsed() >= self.orphan_grace)
            {
                break Leaving::Orphaned;
            }
        };
        if leaving == Leaving::Asked && orphaned_since.is_none() {
            // What was said before the signal was sent.
            if let Err(error) = self.obey_all(control) {
                tracing::error!(error = chain(&error), "the last words of the supervisor are lost");
            }
        }
        tracing::info!(?leaving, succession = ?self.succession, "the store finishes what is queued");
        self.end(control)
    }

    fn report(&self, control: Option<&ControlSocket>, message: &ToSupervisor) {
        if let Some(control) = control {
            tell(control, message);
        }
    }

    /// Does everything that the supervisor has said. Returns false when it is gone.
    fn obey_all(&mut self, control: &ControlSocket) -> Result<bool, StoreError> {
        loop {
            match control.receive::<ToChild>() {
                Ok(Received::Message(message, descriptors)) => self.obey(control, &message, descriptors)?,
                Ok(Received::Empty) => return Ok(true),
                Ok(Received::Closed) => return Ok(false),
                Err(error @ IpcError::Decode { .. }) => {
                    tracing::error!(error = chain(&error), "a message of the supervisor is not understood");
                }
                Err(error) => return Err(StoreError::handoff("reading the control socket", error)),
            }
        }
    }

    fn obey(
        &mut self,
        control: &ControlSocket,
        message: &ToChild,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), StoreError> {
        let descriptor = descriptors.into_iter().next();
        match message {
            &ToChild::Prepare { generation } => {
                let read = descriptor.ok_or_else(|| vec!["the message brought no bundle".to_owned()]);
                let read = read
                    .and_then(|bundle| Bundle::read(&bundle).map_err(|error| vec![chain(&error)]))
                    .and_then(|bundle| Generation::read(generation, bundle));
                match read {
                    Ok(next) => self.command(Command::Prepare(Box::new(next)))?,
                    Err(reasons) => {
                        tell(control, &ToSupervisor::Refused { generation, reasons: shorten(reasons) })
                    }
                }
            }
            &ToChild::Activate { generation } => self.command(Command::Activate(generation))?,
            &ToChild::Discard { generation } => self.command(Command::Discard(generation))?,
            ToChild::Keep => self.succession = Succession::Announced,
            ToChild::ReopenLogs => match descriptor {
                Some(file) => match nix::unistd::dup2_stderr(&file) {
                    Ok(()) => tracing::info!("the log file is a new one"),
                    Err(error) => tracing::error!(error = chain(&error), "the new log file cannot be used"),
                },
                None => tracing::error!("told to use a new log file, but none came along"),
            },
            ToChild::Serve
            | ToChild::Drain { .. }
            | ToChild::Adopt { .. }
            | ToChild::Poke
            | ToChild::Answer { .. } => {
                tracing::warn!(?message, "the supervisor sent a message that is meant for a worker");
            }
        }
        Ok(())
    }

    fn command(&self, command: Command) -> Result<(), StoreError> {
        // The writer takes commands between two groups, so the wait is short.
        self.commands.send(command).map_err(|_| StoreError::ThreadLost { thread: "writer" })
    }

    /// The process ends at once: the engine stays open, because closing it would sync again what has failed to sync.
    fn fail(&self, error: StoreError) -> StoreError {
        Box::leak(Box::new(Arc::clone(&self.shared)));
        error
    }

    /// Writes what is queued, answers it, says farewell to the workers, and leaves what is in memory to the next store.
    fn end(mut self, control: &ControlSocket) -> Result<(), StoreError> {
        self.shared.stop();
        let deadline = Instant::now() + EMPTYING_MAX;
        let mut stop = Some(Command::Stop);
        loop {
            if let Some(command) = stop.take()
                && let Err(TrySendError::Full(command)) = self.commands.try_send(command)
            {
                stop = Some(command);
            }
            for notice in self.notices.take() {
                match notice {
                    Notice::Stopped { requests } => {
                        self.say_farewell();
                        if self.succession == Succession::Announced {
                            keep::hand_over(&self.shared.storage, &requests, control);
                        }
                        self.mark_end();
                        self.shared.storage.leave_memory();
                        return Ok(());
                    }
                    Notice::Failed(error) => return Err(self.fail(error)),
                    Notice::Prepared { .. } | Notice::Refused { .. } => {}
                }
            }
            if Instant::now() >= deadline {
                return Err(StoreError::ThreadLost { thread: "writer" });
            }
            wait_for(&mut [PollFd::new(self.notices.as_fd(), PollFlags::POLLIN)])?;
        }
    }

    /// Makes sure that the next store notices what is lost of what was acknowledged.
    fn mark_end(&self) {
        if let Err(error) = self.shared.storage.engine(Place::File).ended() {
            tracing::warn!(error = chain(&error), "the orderly end of the store was not marked");
        }
    }

    fn say_farewell(&self) {
        let deadline = Instant::now() + FAREWELL_MAX;
        for link in self.shared.registry.links() {
            link.wait_until_answered(deadline);
            link.close();
        }
    }
}

fn wait_for_any(
    control: Option<&ControlSocket>,
    signals: &Signals,
    notices: &Notices,
) -> Result<(), StoreError> {
    let mut descriptors = vec![
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        PollFd::new(notices.as_fd(), PollFlags::POLLIN),
    ];
    descriptors.extend(control.map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN)));
    wait_for(&mut descriptors).map(|_| ())
}

/// Waits a little for one of the descriptors. Returns whether one is ready.
fn wait_for(descriptors: &mut [PollFd<'_>]) -> Result<bool, StoreError> {
    let timeout = PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::ZERO);
    match poll(descriptors, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(StoreError::os("waiting for messages", error)),
    }
}

/// Tells the supervisor. It notices by itself when the store is gone, so a message that cannot be sent is only noted.
fn tell(control: &ControlSocket, message: &ToSupervisor) {
    match control.send(message, &[]) {
        Ok(true) => {}
        Ok(false) => tracing::warn!(?message, "the supervisor does not take a message"),
        Err(error) => tracing::error!(error = chain(&error), "a message to the supervisor was not sent"),
    }
}

/// Keeps reasons small enough for a control message.
fn shorten(mut reasons: Vec<String>) -> Vec<String> {
    const REASONS_MAX: usize = 64;
    const REASON_CHARS_MAX: usize = 1024;
    let more = reasons.len().saturating_sub(REASONS_MAX);
    reasons.truncate(REASONS_MAX);
    for reason in &mut reasons {
        if let Some((at, _)) = reason.char_indices().nth(REASON_CHARS_MAX) {
            reason.truncate(at);
            reason.push('…');
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} more reasons"));
    }
    reasons
}

/// Folder of the store inside a data folder.
pub(crate) fn store_folder(data_folder: &Path) -> std::path::PathBuf {
    data_folder.join(STORE_FOLDER)
}
