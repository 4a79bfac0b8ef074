//! The worker's side of the data: a copy of every model that is a prefix of the store's log, and the way to the store.
//!
//! ```text
//!   requests (N runtimes)                        runtime 0
//!   ┌───────────────────┐   commit, fetch, …   ┌────────────┐   frames   ┌───────┐
//!   │ Engine            │ ───── ledger ──────▶ │ link::run  │ ─────────▶ │ store │
//!   │                   │ ◀──── answers ────── │            │ ◀───────── │       │
//!   │   tables (read)   │                      └─────┬──────┘            └───┬───┘
//!   └────────▲──────────┘                            │ coherence            │
//!            └────────── tables (write) ─────────────┘      board.durable ◀─┘
//! ```
//!
//! The promise: a read that loads the watermark (`board.durable`) and then waits until [`Data::applied`] has reached it
//! sees every write that was answered anywhere on the host before, and all of one log prefix. What was received above
//! the watermark is held back, and any thread that finds the watermark ahead of the tables shows it at once.

mod coherence;
mod exchange;
mod feed;
mod ledger;
mod link;
mod shared;
mod statistics;
mod tables;

use std::{
    convert::Infallible,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_config::Config;
use aegis_domain::{Problem, ProblemCode, catalog::Catalog};
use aegis_ipc::{
    board::{Board, Cell, Counter, StoreWord},
    data::{Change, Idempotency, Operation, Outcome, StoredResponse, ToStore, Version, Write},
};
use bytes::Bytes;
use tokio::time::sleep;

use self::{
    exchange::{Answer, overloaded, too_large, unreachable_store, wrong_answer},
    ledger::Nature,
    shared::{Identity, Shared},
};
pub use self::{
    feed::{Applied, Subscription},
    statistics::{ModelStatistics, Statistics},
    tables::{ModelTable, Seen},
};

/// Bodies of one write and what is different in them, bytes: what the store accepts, so that the changes fit into one frame with their names.
const WRITE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Pause before a write is offered again to a store that takes none at the moment, doubled up to the longest one.
const STORE_BUSY_PAUSE_MIN: Duration = Duration::from_millis(5);
const STORE_BUSY_PAUSE_MAX: Duration = Duration::from_millis(100);

/// A coherent copy of all models and the way to the store. Cheap to clone.
///
/// One `Data` serves the models of one catalog; a catalog with other fields needs another process.
#[derive(Clone)]
pub struct Data {
    shared: Arc<Shared>,
}

/// A part of the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesPage {
    /// Oldest number still in the log; whoever has seen less than `oldest` − 1 has missed something.
    pub oldest: u64,
    /// The same of models that are only in memory, of whose changes some may be missing among those that follow.
    pub memory_oldest: u64,
    /// Durable number when the log was read.
    pub durable: u64,
    /// Changes in log order.
    pub changes: Vec<Change>,
}

impl Data {
    /// A worker that has nothing yet. `cell` is the index of its board cell; `incarnation` is unique per `Data`.
    ///
    /// # Panics
    /// When the board has no cell with this index.
    #[must_use]
    pub fn new(
        config: &Config,
        catalog: &Catalog,
        board: Board,
        cell: u32,
        generation: u64,
        incarnation: u64,
    ) -> Self {
        let identity = Identity { cell, incarnation };
        Self { shared: Arc::new(Shared::new(config, catalog, board, identity, generation)) }
    }

    /// Keeps the worker connected to the store that listens at `store_path`. Runs until it is dropped; exactly one
    /// runs per `Data`.
    pub async fn run(&self, store_path: &Path) -> Infallible {
        link::run(&self.shared, store_path).await
    }

    /// Waits until the copy is loaded and at or above the watermark seen when the worker attached.
    pub async fn ready(&self) {
        let mut became_ready = std::pin::pin!(self.shared.became_ready.notified());
        became_ready.as_mut().enable();
        if !self.is_ready() {
            became_ready.await;
        }
    }

    /// Has [`ready`](Self::ready) been reached? It stays so.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }

    /// Is there a connection that the store has accepted?
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Number up to which the tables show the log; `None` before the first complete copy.
    #[must_use]
    pub fn applied(&self) -> Option<u64> {
        self.shared.visible.load(Ordering::Acquire).checked_sub(1)
    }

    /// Do the tables show everything up to the watermark at this moment? Tries to make it so.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        let watermark = self.shared.board.durable();
        self.shared.shows(watermark) || self.shared.try_show(watermark)
    }

    /// The watermark at this moment: what a read that begins now has to see.
    #[must_use]
    pub fn watermark(&self) -> u64 {
        self.shared.board.durable()
    }

    /// Waits until the tables show the log up to `sequence`, a value of the watermark.
    ///
    /// # Errors
    /// [`ProblemCode::DeadlineExceeded`], or [`ProblemCode::StoreUnavailable`] while the store cannot be reached.
    pub async fn wait_until_applied(&self, sequence: u64, deadline: Instant) -> Result<(), Problem> {
        let shared = &*self.shared;
        if shared.shows(sequence) || shared.try_show(sequence) {
            return Ok(());
        }
        shared.count(Counter::ReadWaits, 1);
        if shared.wait_until_shown(sequence, deadline).await { Ok(()) } else { Err(self.behind(sequence)) }
    }

    /// Waits until the tables show the log up to `sequence`, which need not become a value of the watermark at all, or
    /// until `until`.
    pub async fn wait_for(&self, sequence: u64, until: Instant) {
        self.shared.wait_until_shown(sequence, until).await;
    }

    fn behind(&self, sequence: u64) -> Problem {
        if !self.is_connected() {
            return unreachable_store("a read needs what was written before it");
        }
        let applied = self.applied().map_or_else(|| "nothing".to_owned(), |applied| applied.to_string());
        let detail =
            format!("the answer has to show the log up to {sequence}, this worker had {applied} in time");
        Problem::new(ProblemCode::DeadlineExceeded, detail)
    }

    /// The table of a model of the catalog.
    #[must_use]
    pub fn table(&self, model: &str) -> Option<&Arc<ModelTable>> {
        self.shared.tables.get(model)
    }

    /// Commits operations together or not at all. Waits for at most `limits.write_timeout`.
    ///
    /// # Errors
    /// [`ProblemCode::WriteOutcomeUnknown`] when the store was told but did not answer in time,
    /// [`ProblemCode::StoreUnavailable`] when it could not be told, [`ProblemCode::Overloaded`] when too many writes
    /// wait, [`ProblemCode::BodyTooLarge`] when the operations are too large for one message.
    pub async fn commit(
        &self,
        operations: Vec<Operation>,
        idempotency: Option<Idempotency>,
        deadline: Instant,
    ) -> Result<Outcome, Problem> {
        let shared = &*self.shared;
        let contents = operations.iter().flat_map(|operation| [&operation.body, &operation.changes]);
        let bytes: usize = contents.flatten().map(Bytes::len).sum();
        if bytes > WRITE_BYTES_MAX {
            return Err(too_large(bytes as u64, WRITE_BYTES_MAX as u64));
        }
        if shared.board.store(StoreWord::Queue).load(Ordering::Relaxed) >= shared.queue_writes_max {
            return Err(overloaded());
        }
        let deadline = deadline.min(Instant::now() + shared.write_timeout);
        let mut write = Write { request: 0, operations, idempotency };
        let mut pause = STORE_BUSY_PAUSE_MIN;
        let mut refused = None;
        loop {
            let request = shared.next_request();
            write.request = request;
            let message = ToStore::Write(write);
            let outcome = match shared.ask(Nature::Write, request, &message, deadline).await {
                Ok(Answer::Written(outcome)) => outcome,
                Ok(other) => return Err(wrong_answer("a write", &other)),
                // It was not sent again: what the store said before still holds, and says why.
                Err(problem) if problem.code == ProblemCode::StoreUnavailable => {
                    return refused.ok_or(problem);
                }
                Err(problem) => return Err(problem),
            };
            // A store that is about to stop, or takes nothing at the moment, has changed nothing: the same write under
            // another number may go to its successor. It has to have time for an answer: of one that is cut off nobody
            // knows what became of it. A disk that is full stays so for longer than anybody waits.
            let ToStore::Write(back) = message else { return Ok(outcome) };
            let is_final = !matches!(outcome, Outcome::Unavailable { .. }) || shared.is_disk_full();
            if is_final || Instant::now() + 2 * pause >= deadline {
                return Ok(outcome);
            }
            refused = Some(outcome);
            sleep(pause).await;
            pause = (pause * 2).min(STORE_BUSY_PAUSE_MAX);
            write = back;
        }
    }

    /// Fetches exact versions of documents, in the order asked; `None` for one that the store no longer keeps.
    ///
    /// # Errors
    /// [`ProblemCode::StoreUnavailable`] when the store did not answer in time.
    pub async fn fetch(
        &self,
        mut versions: Vec<Version>,
        deadline: Instant,
    ) -> Result<Vec<Option<Bytes>>, Problem> {
        let shared = &*self.shared;
        let asked = versions.len();
        let mut bodies = Vec::with_capacity(asked);
        while bodies.len() < asked {
            let request = shared.next_request();
            let message = ToStore::Fetch { request, versions };
            match shared.ask(Nature::Question, request, &message, deadline).await? {
                Answer::Fetched(some) if !some.is_empty() && bodies.len() + some.len() <= asked => {
                    // An answer stops before the end when the bodies are large.
                    let ToStore::Fetch { versions: rest, .. } = message else { return Ok(bodies) };
                    versions = rest;
                    versions.drain(..some.len());
                    bodies.extend(some);
                }
                other => return Err(wrong_answer("a fetch", &other)),
            }
        }
        Ok(bodies)
    }

    /// The response stored under an idempotency key. Belongs to a write, and waits as long as one: for at most
    /// `limits.write_timeout`.
    ///
    /// # Errors
    /// [`ProblemCode::StoreUnavailable`] when the store did not answer in time.
    pub async fn recall(&self, key: String, deadline: Instant) -> Result<Option<StoredResponse>, Problem> {
        let deadline = deadline.min(Instant::now() + self.shared.write_timeout);
        match self.shared.question(|request| ToStore::Recall { request, key }, deadline).await? {
            Answer::Recalled(stored) => Ok(stored),
            other => Err(wrong_answer("a recall", &other)),
        }
    }

    /// Reads at most `limit` changes after `after` from the log.
    ///
    /// # Errors
    /// [`ProblemCode::StoreUnavailable`] when the store did not answer in time.
    pub async fn changes(&self, after: u64, limit: u32, deadline: Instant) -> Result<ChangesPage, Problem> {
        let ask = |request| ToStore::Changes { request, after, limit };
        match self.shared.question(ask, deadline).await? {
            Answer::ChangesRead(page) => Ok(page),
            other => Err(wrong_answer("a read of the log", &other)),
        }
    }

    /// Hears of every change that becomes visible from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let core = self.shared.core.lock();
        self.shared.feed.subscribe(core.applied().unwrap_or(0))
    }

    /// The process serves this generation from now on; the store is told when it is attached to again.
    pub(crate) fn serve_generation(&self, generation: u64) {
        self.shared.generation.store(generation, Ordering::Relaxed);
    }

    /// What `/config?details=data` tells.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        Statistics::of(&self.shared)
    }

    /// The board cell of this worker.
    #[must_use]
    pub fn cell(&self) -> Cell {
        self.shared.cell
    }
}

#[cfg(test)]
pub(crate) mod tests;
