//! Children: how they are started, heard, steered and buried.

use std::{
    ffi::OsString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

use aegis_ipc::{
    IpcError,
    board::StoreWord,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    deploy::Task,
    handoff::{HANDOFF_VARIABLE, Handoff},
};
use rustix::process::Signal;

use super::{Driver, Interest, Source, vitals};
use crate::{
    Newborn, SupervisorError,
    fleet::{ChildId, Event, Exit, Look, Role, Spawn},
    probe::Generation,
    process::{Ending, Environment, Launch, Process},
    with_causes,
};

/// Most messages taken from one child in one pass of the loop.
const MESSAGES_MAX: usize = 64;

/// Messages of one child that may be incomprehensible before it counts as out of its mind.
const NONSENSE_MAX: u32 = 16;
/// How often the socket of a dead child is looked at, [`MESSAGES_MAX`] messages each.
const LAST_WORDS_MAX: usize = 32;

/// A child process.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) role: Role,
    pub(super) generation: u64,
    pub(super) process: Process,
    pub(super) control: ControlSocket,
    pub(super) line: Line,
    /// Cell of the board it writes, for a worker.
    pub(super) cell: Option<u32>,
    /// Requests that the cell had counted before this process.
    pub(super) counted_before: u64,
    /// Messages it sent that we do not understand.
    pub(super) nonsense: u32,
}

/// Whether a child can be spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Line {
    /// Yes.
    Open,
    /// Its end of the control socket is closed, or brought nonsense.
    Lost,
}

/// What a child had to say.
enum Heard {
    /// All there was for now, or as much as one pass takes.
    Everything,
    /// It will say no more, for this reason.
    End(String),
}

impl Driver {
    /// Starts a process, and reports the outcome.
    pub(super) fn start_child(&mut self, spawn: Spawn) {
        let child = spawn.child;
        let event = match self.try_start(spawn) {
            Ok(pid) => Event::Spawned { child, pid },
            Err(error) => Event::SpawnFailed { child, reason: with_causes(&error) },
        };
        self.events.push_back(event);
    }

    fn try_start(&mut self, spawn: Spawn) -> Result<u32, SupervisorError> {
        let Spawn { child, role, generation, cell, .. } = spawn;
        let task = self.tasks.remove(&child).unwrap_or_default();
        let (ours, theirs) = ControlSocket::pair()?;
        let process = self.launch(spawn, task, &theirs)?;
        let pid = process.pid();
        let cell = matches!(role, Role::Worker { .. }).then_some(cell);
        let counted_before = cell.map_or(0, |cell| vitals::requests(&self.board, cell));
        let entry = Child {
            role,
            generation,
            process,
            control: ours,
            line: Line::Open,
            cell,
            counted_before,
            nonsense: 0,
        };
        let watched = self
            .poller
            .add(&entry.process, Source::Process(child), Interest::Read)
            .and_then(|()| self.poller.add(&entry.control, Source::Control(child), Interest::Read));
        if let Err(error) = watched {
            // A child that we would never hear the end of must not run on.
            entry.process.put_down();
            return Err(error);
        }
        self.children.insert(child, entry);
        Ok(pid)
    }

    fn launch(&self, spawn: Spawn, task: Task, control: &ControlSocket) -> Result<Process, SupervisorError> {
        let Spawn { role, generation, image, .. } = spawn;
        let missing = |what: String| SupervisorError::State { found: "nothing".to_owned(), expected: what };
        let image = self.images.get(&image).ok_or_else(|| missing(format!("image {image}")))?;
        let held = match role {
            // Held already when it is only its code that may have to be made anew.
            Role::Compile if task == Task::App => self.generations.get(&generation),
            Role::Compile => self.in_force(),
            Role::Look => self.generations.get(&generation),
            Role::Store { .. } | Role::Worker { .. } => {
                let held = self.generations.get(&generation);
                Some(held.ok_or_else(|| missing(format!("the bundle of generation {generation}")))?)
            }
        };
        let mut keep = vec![control.as_fd(), self.board_memory.as_fd()];
        keep.extend(held.map(|held| held.bundle.as_fd()));
        let mut handoff = self.handoff(spawn, held, control, &mut keep);
        handoff.task = task;
        let arguments = self.arguments(role);
        if image.is(&self.own_image) {
            let be_child = self.program.be_child;
            let newborn = Newborn { arguments: arguments.clone(), handoff };
            return Process::fork(&keep, &arguments, move || be_child(newborn));
        }
        let announcement = serde_json::to_string(&handoff).map_err(|error| {
            SupervisorError::os("writing the announcement for a child", std::io::Error::other(error))
        })?;
        Process::spawn(&Launch {
            image,
            arguments: &arguments,
            environment: Environment::Child(&[(HANDOFF_VARIABLE, announcement)]),
            keep: &keep,
        })
    }

    fn handoff<'a>(
        &'a self,
        spawn: Spawn,
        held: Option<&'a Generation>,
        control: &ControlSocket,
        keep: &mut Vec<BorrowedFd<'a>>,
    ) -> Handoff {
        let Spawn { role, generation, cell, is_canary, .. } = spawn;
        let mut handoff = Handoff {
            slot: 0,
            cell,
            generation,
            epoch: 0,
            control: control.as_raw_fd(),
            board: self.board_memory.as_raw_fd(),
            bundle: held.map(|held| held.bundle.as_raw_fd()),
            listeners: Vec::new(),
            store_listener: None,
            store_path: self.store.path.clone(),
            kept: None,
            tally: None,
            is_canary,
            task: Task::App,
            digest_in_force: None,
            in_force: None,
        };
        match role {
            Role::Store { epoch } => {
                handoff.epoch = epoch;
                handoff.store_listener = Some(self.store.listener.as_raw_fd());
                keep.push(self.store.listener.as_fd());
                handoff.kept = self.store.kept.as_ref().map(AsRawFd::as_raw_fd);
                keep.extend(self.store.kept.as_ref().map(AsFd::as_fd));
            }
            Role::Worker { slot } => {
                handoff.slot = slot;
                handoff.tally = Some(self.tally_memory.as_raw_fd());
                keep.push(self.tally_memory.as_fd());
                if let Some(held) = held {
                    handoff.listeners = self.listeners.announce(&held.bindings);
                    keep.extend(self.listeners.descriptors(&held.bindings));
                }
            }
            Role::Compile => {
                let in_force = self.in_force();
                handoff.digest_in_force = in_force.map(|in_force| in_force.digest.clone());
                let untouched = in_force.filter(|_| self.fleet.is_unasked());
                handoff.in_force = untouched.map(|in_force| in_force.bundle.as_raw_fd());
                keep.extend(untouched.map(|in_force| in_force.bundle.as_fd()));
            }
            Role::Look => {}
        }
        handoff
    }

    fn arguments(&self, role: Role) -> Vec<OsString> {
        match role {
            Role::Store { .. } => vec!["store".into()],
            Role::Worker { .. } => vec!["worker".into()],
            Role::Look => vec!["look".into()],
            Role::Compile => {
                let mut arguments: Vec<OsString> = vec!["compile".into()];
                arguments.extend(self.compile_arguments.iter().cloned());
                arguments
            }
        }
    }

    /// Takes what a child says.
    pub(super) fn hear(&mut self, id: ChildId) {
        match self.listen_to(id) {
            Heard::Everything => {}
            Heard::End(reason) => {
                // A child that ends closes its socket just before it can be reaped.
                self.bury(id);
                self.lose(id, reason);
            }
        }
    }

    fn listen_to(&mut self, id: ChildId) -> Heard {
        for _ in 0..MESSAGES_MAX {
            let child = self.children.get_mut(&id).filter(|child| child.line == Line::Open);
            let Some(child) = child else { return Heard::Everything };
            match child.control.receive::<ToSupervisor>() {
                Ok(Received::Message(message, descriptors)) => self.heard(id, message, descriptors),
                Ok(Received::Empty) => return Heard::Everything,
                Ok(Received::Closed) => return Heard::End("its control socket is closed".to_owned()),
                // A neighbouring version may know more kinds of messages than this one.
                Err(error @ IpcError::Decode { .. }) if child.nonsense < NONSENSE_MAX => {
                    tracing::warn!(pid = child.process.pid(), "message ignored: {}", with_causes(&error));
                    child.nonsense += 1;
                }
                Err(error) => return Heard::End(with_causes(&error)),
            }
        }
        Heard::Everything
    }

    fn heard(&mut self, child: ChildId, message: ToSupervisor, descriptors: Vec<OwnedFd>) {
        let event = match message {
            ToSupervisor::Hello { protocol, pid, generation } => {
                Event::Hello { child, protocol, pid, generation }
            }
            ToSupervisor::Ready => {
                if self.is_store(child) {
                    self.store.kept = None; // what it has done since then is not in there
                }
                Event::Ready { child }
            }
            ToSupervisor::Failed { code, reason } => Event::Failed { child, code, reason },
            ToSupervisor::Draining { connections, in_flight, closed } => {
                Event::Draining { child, connections, in_flight, closed }
            }
            ToSupervisor::Ask { request, ask } => return self.relay(child, request, ask),
            ToSupervisor::Prepared { generation } => Event::Prepared { child, generation },
            ToSupervisor::Refused { generation, reasons } => Event::Refused { child, generation, reasons },
            ToSupervisor::Adopted { generation, prepare_microseconds, switch_microseconds } => {
                if let Some(child) = self.children.get_mut(&child) {
                    child.generation = generation;
                }
                let (prepare_us, switch_us) = (prepare_microseconds, switch_microseconds);
                Event::Adopted { child, generation, prepare_us, switch_us }
            }
            ToSupervisor::NotAdopted { generation, reason, loses_state } => {
                Event::NotAdopted { child, generation, reason, loses_state }
            }
            ToSupervisor::Kept => {
                if self.is_store(child) {
                    self.store.kept = descriptors.into_iter().next();
                }
                return;
            }
            ToSupervisor::Working { on, engine } => {
                self.engine = Some(engine);
                Event::Working { child, on }
            }
            ToSupervisor::Warned { warnings } => Event::Warned { child, warnings },
            ToSupervisor::Compiled => self.compiled(child, descriptors),
            ToSupervisor::Invalid { reasons } => Event::Invalid { child, reasons },
            ToSupervisor::Incompatible { reasons } => Event::Incompatible { child, reasons },
            ToSupervisor::Looked { asked, changed, away, absent } => {
                Event::Looked { child, look: Look { asked, changed, away, absent } }
            }
            ToSupervisor::Bye => Event::Bye { child },
        };
        self.events.push_back(event);
    }

    fn is_store(&self, child: ChildId) -> bool {
        self.children.get(&child).is_some_and(|child| matches!(child.role, Role::Store { .. }))
    }

    fn lose(&mut self, id: ChildId, reason: String) {
        let Some(child) = self.children.get_mut(&id).filter(|child| child.line == Line::Open) else { return };
        child.line = Line::Lost;
        self.poller.remove(&child.control);
        self.events.push_back(Event::Unreachable { child: id, reason });
    }

    /// Says something to a child. `false`: it does not take it.
    pub(super) fn tell(&self, id: ChildId, message: &ToChild, descriptors: &[BorrowedFd<'_>]) -> bool {
        let Some(child) = self.children.get(&id).filter(|child| child.line == Line::Open) else {
            return false;
        };
        match child.control.send(message, descriptors) {
            Ok(sent) => sent,
            Err(error) => {
                tracing::error!(pid = child.process.pid(), "{}", with_causes(&error));
                false
            }
        }
    }

    /// Says something that must arrive; a child that does not take it is reported.
    pub(super) fn insist(&mut self, id: ChildId, message: &ToChild, descriptors: &[BorrowedFd<'_>]) {
        let known = self.children.contains_key(&id);
        if known && !self.tell(id, message, descriptors) {
            self.lose(id, "its control socket takes nothing more".to_owned());
        }
    }

    /// Sends a signal to a child.
    pub(super) fn signal_child(&self, id: ChildId, signal: Signal) {
        if let Some(child) = self.children.get(&id) {
            child.process.signal(signal);
        }
    }

    /// A child ended: takes its last words, its exit status and its place.
    pub(super) fn bury(&mut self, id: ChildId) {
        let Some(child) = self.children.get(&id) else { return };
        let exit = match child.process.reap() {
            Ok(Some(ending)) => self.exit_of(ending),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(pid = child.process.pid(), "{}", with_causes(&error));
                Exit::Code(-1)
            }
        };
        for _ in 0..LAST_WORDS_MAX {
            if let Heard::End(_) = self.listen_to(id) {
                break;
            }
        }
        let Some(child) = self.children.remove(&id) else { return };
        self.poller.remove(&child.process);
        if child.line == Line::Open {
            self.poller.remove(&child.control);
        }
        for asker in self.askers.forget_worker(id) {
            self.events.push_back(Event::Left { asker });
        }
        match child.role {
            Role::Store { .. } => {
                for word in [StoreWord::Pid, StoreWord::Beat, StoreWord::Queue, StoreWord::DiskFullSince] {
                    self.board.store(word).store(0, Ordering::Relaxed);
                }
            }
            Role::Worker { .. } => {
                if let Some(cell) = child.cell {
                    self.board.cell(cell as usize).clear_gauges();
                }
            }
            Role::Compile | Role::Look => {}
        }
        self.events.push_back(Event::Exited { child: id, exit });
    }

    fn exit_of(&mut self, ending: Ending) -> Exit {
        match ending {
            Ending::Exited(code) => Exit::Code(i32::from(code)),
            Ending::Killed(signal) if signal == Signal::KILL.as_raw() && self.memory_kills.take_one() => {
                Exit::OutOfMemory
            }
            Ending::Killed(signal) => Exit::Signal(signal),
        }
    }
}
