//! The one thread that writes.
//!
//! ```text
//! links ── writes ──▶ queue ──▶ group ──▶ plan ──▶ feed offered ──▶ synced ──▶ published ──▶ answered
//! control ─ commands ─▶  between two groups: generations, pieces of an index
//! nobody ─────────────▶  when idle: what is no longer needed is removed, a little at a time
//! ```
//!
//! The sync is the batching window: whatever arrives while a group is being synced is the next group, which may wait a
//! little for those who were just answered. A write that fails in the engine is never tried again; the process ends without an answer, and the next one recovers.

mod gather;
mod generations;
mod group;
mod housekeeping;
mod space;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_config::Log;
use aegis_ipc::board::{StoreWord, monotonic_ms};
use crossbeam::channel::{Receiver, Sender, select_biased};

use self::{gather::Gather, generations::Build, housekeeping::Swept, space::Space};
pub(crate) use self::{
    generations::{apply_unique, bytes_max},
    space::{Probe, probe},
};
use crate::{
    catalog::{Generation, Generations, Settings},
    error::StoreError,
    index::{Indexes, Scanned},
    notice::Notifier,
    requests::RecentRequests,
    shared::{Intake, Shared},
};

/// Signs of life are given at least this often.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// What is no longer needed is removed at least this often, also when the writer is never idle.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Commands that may wait. A scan that hands over documents waits for the writer.
pub(crate) const COMMANDS_MAX: usize = 8;

/// What the writer is told to do between two groups.
pub(crate) enum Command {
    /// Make it possible to serve this generation beside the one in force.
    Prepare(Box<Generation>),
    /// The prepared generation is in force.
    Activate(u64),
    /// The prepared generation is not coming.
    Discard(u64),
    /// Documents from before an index that is being built.
    Scanned {
        /// Which build.
        build: u64,
        /// The documents.
        piece: Vec<Scanned>,
    },
    /// A scan has ended.
    ScanEnded {
        /// Which build.
        build: u64,
        /// Whether all documents could be read.
        result: Result<(), String>,
    },
    /// Write what is in the queue, then end.
    Stop,
}

/// The ends of the channels that lead to the writer.
pub(crate) struct Inbox {
    /// Writes.
    pub(crate) intake: Receiver<Intake>,
    /// Commands.
    pub(crate) commands: Receiver<Command>,
    /// For threads that the writer starts.
    pub(crate) to_commands: Sender<Command>,
}

/// What the writer begins with.
pub(crate) struct Memory {
    /// The generation in force.
    pub(crate) generations: Generations,
    /// The unique indexes.
    pub(crate) indexes: Indexes,
    /// Writes that were committed lately.
    pub(crate) requests: RecentRequests,
    /// Numbers up to this one are reserved on disk.
    pub(crate) reserved: u64,
    /// A store of this host had documents in memory that are gone.
    pub(crate) has_forgotten: bool,
}

/// The one thread that writes.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    inbox: Inbox,
    notifier: Notifier,
    settings: Settings,
    generations: Generations,
    indexes: Indexes,
    build: Option<Build>,
    builds: u64,
    requests: RecentRequests,
    reserved: u64,
    has_forgotten: bool,
    gather: Gather,
    swept: Swept,
    space: Space,
    follow_log: fn(&Log),
}

impl Writer {
    /// Puts a writer together. `probe` tells how much space is free.
    pub(crate) fn new(
        shared: Arc<Shared>,
        inbox: Inbox,
        notifier: Notifier,
        memory: Memory,
        probe: Option<Probe>,
    ) -> Self {
        let Memory { generations, indexes, requests, reserved, has_forgotten } = memory;
        Self {
            shared,
            inbox,
            notifier,
            settings: generations.active().settings.clone(),
            generations,
            indexes,
            build: None,
            builds: 0,
            requests,
            reserved,
            has_forgotten,
            gather: Gather::default(),
            swept: Swept::new(Instant::now()),
            space: Space::new(probe),
            follow_log: |_| (),
        }
    }

    /// The same, with what makes log lines be written as a generation says.
    pub(crate) fn with_log(self, follow_log: fn(&Log)) -> Self {
        Self { follow_log, ..self }
    }

    /// Writes until told to stop. Returns which writes were committed lately.
    ///
    /// # Errors
    /// A failure after which nothing may be written or answered any more.
    pub(crate) fn run(mut self) -> Result<RecentRequests, StoreError> {
        let Inbox { intake, commands, .. } = &self.inbox;
        let (intake, commands) = (intake.clone(), commands.clone());
        let mut pause = BEAT_EVERY;
        loop {
            self.beat();
            let mut idle = false;
            select_biased! {
                recv(commands) -> command => match command {
                    Ok(Command::Stop) | Err(_) => break,
                    Ok(command) => {
                        self.obey(command)?;
                        // A scan has the next piece ready at once; writes get their turn in between.
                        if let Ok(first) = intake.try_recv() {
                            self.commit_group(first)?;
                        }
                    }
                },
                recv(intake) -> first => match first {
                    Ok(first) => self.commit_group(first)?,
                    Err(_) => break,
                },
                default(pause) => idle = true,
            }
            let sweeps = idle || self.swept.at.elapsed() >= SWEEP_EVERY;
            let more = sweeps && self.sweep()?;
            pause = if more && idle { Duration::ZERO } else { BEAT_EVERY };
        }
        while let Ok(first) = intake.try_recv() {
            self.beat();
            self.commit_group(first)?;
        }
        Ok(self.requests)
    }

    fn obey(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Prepare(generation) => self.prepare(*generation),
            Command::Activate(generation) => self.activate(generation),
            Command::Discard(generation) => self.discard(generation),
            Command::Scanned { build, piece } => self.scanned(build, piece),
            Command::ScanEnded { build, result } => self.scan_ended(build, result),
            Command::Stop => Ok(()),
        }
    }

    fn beat(&mut self) {
        let board = &self.shared.board;
        board.store(StoreWord::Beat).store(monotonic_ms(), Ordering::Relaxed);
        board.store(StoreWord::Queue).store(self.inbox.intake.len() as u64, Ordering::Relaxed);
        self.space.look(self.shared.storage.engine(crate::storage::Place::File), *board);
    }
}
