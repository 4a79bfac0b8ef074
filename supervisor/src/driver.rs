//! The loop: one thread that waits for events, asks the fleet, and carries out what it answers.
//!
//! ```text
//!   signals ─────────┐                     ┌──────────┐
//!   children ────────┤   epoll    Event    │  fleet   │   Action
//!   operators ───────┼─────────► driver ──►│  (pure)  ├─────────► processes, sockets, files
//!   files, timers ───┘                     └──────────┘
//! ```
//!
//! Nothing in a pass may block: sockets are non-blocking, descriptors are opened, and only generations that are kept and
//! small notes about them are written and synced (once per generation in force, a few megabytes per pass). The longest pass
//! is measured and shown in the status.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    time::Instant,
};

use aegis_config::Config;
use aegis_ipc::{board::Board, board::monotonic_ms, deploy::Task};

use crate::{
    Program, control, exit,
    fleet::{Action, ChildId, Event, Fleet},
    last_good::Writing,
    listen::{Listeners, Origin},
    lock::{DataLock, Predecessor},
    logs,
    notify::Notifier,
    probe::{Generation, Identity},
    process::{Image, MemoryKills},
    relay::Askers,
    signals::Signals,
    watch::Watch,
};

mod actions;
mod begin;
mod children;
mod generations;
mod handover;
mod poller;
mod requests;
mod rhythm;
mod upgrading;
mod vitals;

use children::Child;
use generations::{Awaiting, PendingBind};
use poller::{Interest, Poller, Ready, Source};
use rhythm::Rhythm;
use upgrading::Upgrading;

/// Events that one pass of the loop may bring about before others get their turn again. An answer of the fleet leads to
/// at most a few events each, so this is only reached by a mistake of ours.
const EVENTS_PER_PASS_MAX: usize = 10_000;

/// Panics that are survived within [`MISTAKES_WINDOW_MS`]. One that comes with every pass would otherwise keep a
/// processor busy for ever.
const MISTAKES_MAX: usize = 20;
/// See [`MISTAKES_MAX`].
const MISTAKES_WINDOW_MS: u64 = 600_000;

/// Everything the loop owns.
pub(crate) struct Driver {
    fleet: Fleet,
    /// What happened and was not yet told to the fleet.
    events: VecDeque<Event>,
    /// What the fleet said and was not yet done.
    actions: VecDeque<Action>,
    mistakes: Mistakes,
    poller: Poller,
    signals: Signals,
    notifier: Notifier,
    lock: DataLock,
    predecessor: Predecessor,
    memory_kills: MemoryKills,
    board: Board,
    board_memory: OwnedFd,
    /// Where workers count the requests of clients together.
    tally_memory: OwnedFd,
    /// The image this process runs.
    own_image: Image,
    /// The images that children are started from, by the number the fleet knows them by.
    images: BTreeMap<u64, Image>,
    children: BTreeMap<ChildId, Child>,
    generations: BTreeMap<u64, Generation>,
    listeners: Listeners,
    pending_bind: Option<PendingBind>,
    store: StoreSocket,
    operators: control::Server,
    askers: Askers,
    identity: Identity,
    compile_arguments: Vec<OsString>,
    watch: Option<Watch>,
    upgrading: Option<Upgrading>,
    /// Generations on their way to the disk, with their numbers.
    keeping: VecDeque<(u64, Writing)>,
    /// What waits for them to be there.
    awaiting: Awaiting,
    /// What helpers are to make that are about to be spawned.
    tasks: BTreeMap<ChildId, Task>,
    /// Compatibility tag of the code that images of today make, as far as a helper has told.
    engine: Option<String>,
    log_file: Option<PathBuf>,
    /// Standard error as it was before log lines went to a file, until the host serves: a start that fails is told there.
    stderr_before: Option<OwnedFd>,
    program: Program,
    stage: Stage,
    announcement: Announcement,
    rhythm: Rhythm,
    longest_pass_us: u64,
    exit: Option<u8>,
}

/// The socket that workers find the store behind.
#[derive(Debug)]
struct StoreSocket {
    listener: OwnedFd,
    path: PathBuf,
    /// What the last store process had only in memory, until the next one is ready.
    kept: Option<OwnedFd>,
}

/// Panics that were survived lately.
#[derive(Debug, Default)]
struct Mistakes {
    at_ms: VecDeque<u64>,
}

impl Mistakes {
    /// Notes one; `false` when there were too many within [`MISTAKES_WINDOW_MS`].
    fn allow_another(&mut self, now_ms: u64) -> bool {
        self.at_ms.push_back(now_ms);
        self.at_ms.retain(|at_ms| at_ms + MISTAKES_WINDOW_MS > now_ms);
        self.at_ms.len() <= MISTAKES_MAX
    }
}

/// What the service manager was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Stage {
    /// Not ready yet.
    Starting,
    /// Ready.
    Serving,
    /// A reload runs.
    Reloading,
    /// The host ends.
    Stopping,
}

/// Whether standard output was told where the host listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Announcement {
    /// Not yet: no worker serves.
    Due,
    /// Once.
    Made,
    /// Not yet, and it is told in JSON.
    DueAsJson,
}

impl Driver {
    /// Runs until the host ends. The value is the exit status of the process.
    ///
    /// A mistake of ours in one pass costs what that pass was about, not the host.
    pub(crate) fn run(&mut self) -> u8 {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.pass())) {
                Ok(None) => {}
                Ok(Some(code)) => return code,
                Err(_) => {
                    tracing::error!("a pass of the loop panicked");
                    if !self.mistakes.allow_another(monotonic_ms()) {
                        tracing::error!("too many mistakes: giving up, the workers finish what they have");
                        return exit::BUG;
                    }
                }
            }
        }
    }

    /// Does everything that is to be done, then waits for more. The exit status, when it was the last pass.
    fn pass(&mut self) -> Option<u8> {
        let began = Instant::now();
        self.settle_events();
        // Before anybody is told that it is.
        self.board.publish_in_force(self.fleet.in_force());
        self.answer_operators();
        if let Some(code) = self.exit {
            while !self.keeping.is_empty() {
                self.keep_generations();
            }
            self.leave();
            return Some(code);
        }
        self.continue_elsewhere();
        self.note_pass(began);

        let now_ms = monotonic_ms();
        let ready = self.poller.wait(now_ms, self.deadline_ms(now_ms));
        let began = Instant::now();
        let was_woken = !ready.is_empty();
        for ready in ready {
            self.take(ready);
        }
        self.take_unread_requests();
        let now_ms = monotonic_ms();
        self.rhythm.stirred(was_woken, self.fleet.revision(), now_ms);
        self.take_timers(now_ms);
        self.note_pass(began);
        None
    }

    /// Asks the fleet about everything that happened, and does what it says, until nothing is left to ask.
    fn settle_events(&mut self) {
        for _ in 0..EVENTS_PER_PASS_MAX {
            while let Some(action) = self.actions.pop_front() {
                self.perform(action);
            }
            let Some(event) = self.events.pop_front() else { return };
            self.actions = self.fleet.on(monotonic_ms(), event).into();
        }
        tracing::error!(EVENTS_PER_PASS_MAX, "events bring about events without end");
    }

    fn take(&mut self, ready: Ready) {
        match ready.source {
            Source::Signals => self.take_signals(),
            Source::Process(child) => self.bury(child),
            Source::Control(child) => self.hear(child),
            Source::Door => self.admit_operators(),
            Source::Operator(client) => self.serve_operator(client, ready),
            Source::Files => {
                if let Some(watch) = &mut self.watch {
                    watch.read(monotonic_ms());
                }
            }
            Source::Rehearsal => self.follow_rehearsal(),
        }
    }

    /// The generation in force, if there is one.
    fn in_force(&self) -> Option<&Generation> {
        self.generations.get(&self.fleet.status(monotonic_ms()).generation)
    }

    /// The configuration of the generation in force; that of any held one before there is one.
    fn config(&self) -> Option<&Config> {
        let in_force = self.fleet.status(monotonic_ms()).generation;
        self.generations
            .get(&in_force)
            .or_else(|| self.generations.values().next())
            .map(|generation| &generation.config)
    }

    fn note_pass(&mut self, began: Instant) {
        let elapsed_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.longest_pass_us = self.longest_pass_us.max(elapsed_us);
        self.rhythm.note_pass(elapsed_us);
    }

    /// Tidies up behind the last child.
    fn leave(&mut self) {
        self.call_off_upgrade();
        self.flush_operators();
        self.listeners.remove_files();
        let control = (self.operators.origin() == Origin::Bound).then_some(&self.identity.control_socket);
        for path in control.into_iter().chain([&self.store.path]) {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(%error, path = %path.display(), "removing a socket file failed");
            }
        }
        self.lock.say_goodbye();
    }
}

/// Starts a host and runs it to its end.
pub(crate) fn run(start: crate::Start) -> u8 {
    let log_file = start.config.log.file.clone();
    let mut stderr_before = None;
    match Driver::begin(start, &mut stderr_before) {
        Ok(mut driver) => {
            driver.stderr_before = stderr_before;
            driver.run()
        }
        Err(error) => {
            tracing::error!("{}", crate::with_causes(&error));
            if let (Some(before), Some(log_file)) = (stderr_before, log_file) {
                logs::tell_failed_start(&before, &crate::with_causes(&error), &log_file);
            }
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_survived_unless_they_come_without_end() {
        let mut mistakes = Mistakes::default();
        for number in 0..1000 {
            assert!(mistakes.allow_another(number * MISTAKES_WINDOW_MS / 10), "one a minute");
        }
        let allowed = (0..1000).take_while(|_| mistakes.allow_another(10_000 * MISTAKES_WINDOW_MS)).count();
        assert_eq!(allowed, MISTAKES_MAX);
    }
}
