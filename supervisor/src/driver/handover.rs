//! The whole state of a running host, for the next image, and a host from such a state.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use aegis_ipc::{
    board::{Board, monotonic_ms},
    codec,
    control::ControlSocket,
    tally::Tally,
};
use serde::{Deserialize, Serialize};

use super::{
    Announcement, Awaiting, Driver, Interest, Mistakes, Poller, Rhythm, Source, Stage, StoreSocket,
    children::{Child, Line},
};
use crate::{
    Program, SupervisorError,
    control::{self, ClientRecord},
    fleet::{ChildId, Event, Fleet, Role},
    listen::{Binding, ListenerRecord, Listeners, Origin},
    lock::{DataLock, Predecessor},
    notify::Notifier,
    probe::{Generation, Identity},
    process::{Image, MemoryKills, Process},
    relay::Askers,
    signals::{Signals, Terminal},
    upgrade::Adopter,
    with_causes,
};

/// Version of [`State`]. Fields may be added with a default; anything else needs a new number.
const STATE_FORMAT: u32 = 1;

/// Everything that the next image must know. Descriptors are given by number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct State {
    format: u32,
    fleet: Fleet,
    lock: RawFd,
    board: RawFd,
    #[serde(default)]
    tally: Option<RawFd>,
    store_listener: RawFd,
    store_path: PathBuf,
    #[serde(default)]
    store_kept: Option<RawFd>,
    operator_listener: RawFd,
    #[serde(default)]
    operator_origin: Origin,
    identity: Identity,
    compile_arguments: Vec<OsString>,
    images: Vec<ImageRecord>,
    listeners: Vec<ListenerRecord>,
    generations: Vec<GenerationRecord>,
    children: Vec<ChildRecord>,
    clients: Vec<ClientRecord>,
    askers: Askers,
    #[serde(default)]
    log_file: Option<PathBuf>,
    stage: Stage,
    announcement: Announcement,
    #[serde(default)]
    longest_pass_us: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ImageRecord {
    number: u64,
    descriptor: RawFd,
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct GenerationRecord {
    number: u64,
    bundle: RawFd,
    #[serde(default)]
    bindings: Vec<Binding>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChildRecord {
    child: ChildId,
    role: Role,
    generation: u64,
    pid: u32,
    process: RawFd,
    control: RawFd,
    line: Line,
    cell: Option<u32>,
    #[serde(default)]
    counted_before: u64,
}

impl Driver {
    /// The state as it is now, encoded, and every descriptor it names.
    pub(super) fn state(&self) -> Result<(Vec<u8>, Vec<BorrowedFd<'_>>), SupervisorError> {
        let mut kept = vec![
            self.lock.file().as_fd(),
            self.board_memory.as_fd(),
            self.tally_memory.as_fd(),
            self.store.listener.as_fd(),
            self.operators.as_fd(),
        ];
        let mut keep = |descriptor| {
            kept.push(descriptor);
            AsRawFd::as_raw_fd(&descriptor)
        };
        let store_kept = self.store.kept.as_ref().map(|kept| keep(kept.as_fd()));
        let images = self.images.iter().map(|(number, image)| ImageRecord {
            number: *number,
            descriptor: keep(image.as_fd()),
            path: image.path().to_owned(),
        });
        let images = images.collect();
        let generations = self.generations.iter().map(|(number, generation)| GenerationRecord {
            number: *number,
            bundle: keep(generation.bundle.as_fd()),
            bindings: generation.bindings.clone(),
        });
        let generations = generations.collect();
        let children = self.children.iter().map(|(id, child)| ChildRecord {
            child: *id,
            role: child.role,
            generation: child.generation,
            pid: child.process.pid(),
            process: keep(child.process.as_fd()),
            control: keep(child.control.as_fd()),
            line: child.line,
            cell: child.cell,
            counted_before: child.counted_before,
        });
        let children = children.collect();
        let (listeners, sockets): (Vec<_>, Vec<_>) = self.listeners.records().unzip();
        let (clients, connections): (Vec<_>, Vec<_>) = self.operators.records().unzip();
        kept.extend(sockets.into_iter().chain(connections));
        let state = State {
            format: STATE_FORMAT,
            fleet: self.fleet.clone(),
            lock: self.lock.file().as_raw_fd(),
            board: self.board_memory.as_raw_fd(),
            tally: Some(self.tally_memory.as_raw_fd()),
            store_listener: self.store.listener.as_raw_fd(),
            store_path: self.store.path.clone(),
            store_kept,
            operator_listener: self.operators.as_fd().as_raw_fd(),
            operator_origin: self.operators.origin(),
            identity: self.identity.clone(),
            compile_arguments: self.compile_arguments.clone(),
            images,
            listeners,
            generations,
            children,
            clients,
            askers: self.askers.clone(),
            log_file: self.log_file.clone(),
            stage: self.stage,
            announcement: self.announcement,
            longest_pass_us: self.longest_pass_us,
        };
        Ok((codec::encode(&state)?, kept))
    }

    /// A host from the state that a predecessor left. Takes possession of every descriptor it names and touches nothing
    /// else in the world: no message is sent or taken, no signal, no file. So a rehearsal can do all of it.
    pub(crate) fn restore(body: &[u8], adopter: &mut Adopter) -> Result<Self, SupervisorError> {
        let state: State = codec::decode(body)?;
        if state.format != STATE_FORMAT {
            let found = format!("state format {}", state.format);
            return Err(SupervisorError::State { found, expected: STATE_FORMAT.to_string() });
        }
        let board_memory = adopter.take(state.board, "the board")?;
        let board = Board::open(&board_memory)?;
        let tally_memory = restore_tally(state.tally, adopter)?;
        let mut listeners = Listeners::default();
        for record in state.listeners {
            let socket = adopter.take(record.descriptor, "a listening socket")?;
            listeners.restore(record, socket);
        }
        let operator_listener = adopter.take(state.operator_listener, "the operators' socket")?;
        let mut operators = control::Server::new(operator_listener, state.operator_origin);
        for record in state.clients {
            let connection = adopter.take(record.descriptor, "an operator's connection")?;
            operators.restore(record, connection);
        }
        let kept = state.store_kept.map(|kept| adopter.take(kept, "what the store kept")).transpose()?;
        let notifier = Notifier::from_environment();
        let driver = Self {
            fleet: state.fleet,
            events: [].into(),
            actions: [].into(),
            mistakes: Mistakes::default(),
            poller: Poller::new()?,
            signals: Signals::install(Terminal::detect())?,
            rhythm: Rhythm::new(&notifier, monotonic_ms()),
            notifier,
            lock: DataLock::from_descriptor(adopter.take(state.lock, "the lock of the data directory")?),
            predecessor: Predecessor::Gone,
            memory_kills: MemoryKills::new(),
            board,
            board_memory,
            tally_memory,
            own_image: Image::running()?,
            images: restore_images(state.images, adopter)?,
            children: restore_children(state.children, adopter)?,
            generations: restore_generations(state.generations, &state.identity, adopter)?,
            listeners,
            pending_bind: None,
            store: StoreSocket {
                listener: adopter.take(state.store_listener, "the store's socket")?,
                path: state.store_path,
                kept,
            },
            operators,
            askers: state.askers,
            identity: state.identity,
            compile_arguments: state.compile_arguments,
            watch: None,
            upgrading: None,
            keeping: VecDeque::new(),
            awaiting: Awaiting::default(),
            tasks: BTreeMap::new(),
            engine: None,
            log_file: state.log_file,
            stderr_before: None,
            program: Program::IDLE,
            stage: state.stage,
            announcement: state.announcement,
            longest_pass_us: state.longest_pass_us,
            exit: None,
        };
        driver.poll_everything()?;
        Ok(driver)
    }

    fn poll_everything(&self) -> Result<(), SupervisorError> {
        self.poller.add(&self.signals, Source::Signals, Interest::Read)?;
        self.poller.add(&self.operators, Source::Door, Interest::Read)?;
        for client in self.operators.ids() {
            if let Some(socket) = self.operators.client(client) {
                self.poller.add(socket, Source::Operator(client), Interest::Read)?;
            }
        }
        for (id, child) in &self.children {
            self.poller.add(&child.process, Source::Process(*id), Interest::Read)?;
            if child.line == Line::Open {
                self.poller.add(&child.control, Source::Control(*id), Interest::Read)?;
            }
        }
        Ok(())
    }

    /// Adds the image that this process runs. The value is its number.
    pub(crate) fn add_own_image(&mut self) -> Result<u64, SupervisorError> {
        let number = self.images.keys().next_back().map_or(1, |newest| newest + 1);
        self.images.insert(number, Image::running()?);
        Ok(number)
    }

    /// This image runs again after another one that could not: `path` is where it was known to be before, although that may
    /// lead to the other one by now.
    pub(crate) fn keep_name(&mut self, path: PathBuf) {
        self.own_image.rename(path);
    }

    /// Whether the generation in force has code.
    pub(crate) fn has_code(&self) -> bool {
        let in_force = self.fleet.status(monotonic_ms()).generation;
        self.generations.get(&in_force).is_some_and(Generation::has_code)
    }

    /// Takes up what only a process that really continues may touch, and tells the fleet what became of the upgrade.
    pub(crate) fn take_over(&mut self, event: Event, program: Program) {
        self.program = program;
        self.events.push_back(event);
        // There is no way back from here, so a mistake of ours may cost no more than the watch.
        let adjusted = catch_unwind(AssertUnwindSafe(|| self.watch_again()));
        if adjusted.is_err() {
            tracing::error!("watching the files of the app panicked; a reload tries again");
        }
    }
}

/// The tally of the predecessor, or a new one where it had none that this image understands: then clients begin anew, and
/// workers that run go on with theirs.
fn restore_tally(descriptor: Option<RawFd>, adopter: &mut Adopter) -> Result<OwnedFd, SupervisorError> {
    if let Some(descriptor) = descriptor {
        let memory = adopter.take(descriptor, "the tally")?;
        match Tally::open(&memory) {
            Ok(_) => return Ok(memory),
            Err(error) => tracing::info!("clients are counted anew: {}", with_causes(&error)),
        }
    }
    Ok(Tally::create()?.1)
}

fn restore_images(
    records: Vec<ImageRecord>,
    adopter: &mut Adopter,
) -> Result<BTreeMap<u64, Image>, SupervisorError> {
    let image = |ImageRecord { number, descriptor, path }| {
        let file: OwnedFd = adopter.take(descriptor, "an image of the executable")?;
        Ok((number, Image::from_descriptor(file, path)))
    };
    records.into_iter().map(image).collect()
}

fn restore_generations(
    records: Vec<GenerationRecord>,
    identity: &Identity,
    adopter: &mut Adopter,
) -> Result<BTreeMap<u64, Generation>, SupervisorError> {
    let generation = |GenerationRecord { number, bundle, bindings }| {
        let bundle = adopter.take(bundle, "the bundle of a generation")?;
        let opened = Generation::open(bundle, identity).map_err(|reasons| SupervisorError::State {
            found: format!("generation {number}: {}", reasons.join("; ")),
            expected: "one that this image understands".to_owned(),
        })?;
        Ok((number, Generation { bindings, ..opened }))
    };
    records.into_iter().map(generation).collect()
}

fn restore_children(
    records: Vec<ChildRecord>,
    adopter: &mut Adopter,
) -> Result<BTreeMap<ChildId, Child>, SupervisorError> {
    let child = |record: ChildRecord| {
        let process = adopter.take(record.process, "a child process")?;
        let control = adopter.take(record.control, "the control socket of a child")?;
        let child = Child {
            role: record.role,
            generation: record.generation,
            process: Process::from_descriptor(record.pid, process),
            control: ControlSocket::from_descriptor(control),
            line: record.line,
            cell: record.cell,
            counted_before: record.counted_before,
            nonsense: 0,
        };
        Ok((record.child, child))
    };
    records.into_iter().map(child).collect()
}

#[cfg(test)]
mod tests;
