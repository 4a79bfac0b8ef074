//! The state behind a [`Data`](super::Data), and how what the store says becomes visible in it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aegis_config::Config;
use aegis_domain::catalog::Catalog;
use aegis_ipc::{
    IpcError,
    board::{Board, Cell, Counter, Gauge, StoreWord},
    data::ToStore,
    frame,
};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout_at,
};

use super::{
    coherence::{Action, Coherence, Watermark},
    exchange::Answer,
    feed::{Applied, Feed},
    ledger::Ledger,
    tables::{Copy, Tables},
};

/// Who the worker is for the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) cell: u32,
    pub(super) incarnation: u64,
}

/// Everything that a worker knows about its data.
pub(super) struct Shared {
    pub(super) board: Board,
    pub(super) cell: Cell,
    pub(super) identity: Identity,
    /// What the process serves; for people.
    pub(super) generation: AtomicU64,
    pub(super) write_timeout: Duration,
    pub(super) queue_writes_max: u64,
    pub(super) tables: Tables,
    /// Held while changes become visible, so that they do in order.
    pub(super) core: Mutex<Coherence>,
    /// The complete copy that is being loaded.
    pub(super) copy: Mutex<Option<Copy>>,
    /// One more than the number up to which the tables show the log; 0 before the first complete copy.
    pub(super) visible: AtomicU64,
    pub(super) became_visible: Notify,
    pub(super) ready: AtomicBool,
    pub(super) became_ready: Notify,
    pub(super) connected: AtomicBool,
    pub(super) ledger: Mutex<Ledger<oneshot::Sender<Answer>>>,
    pub(super) next_request: AtomicU64,
    pub(super) outgoing: Notify,
    pub(super) held_back: Notify,
    pub(super) feed: Feed,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        catalog: &Catalog,
        board: Board,
        identity: Identity,
        generation: u64,
    ) -> Self {
        let queue_writes_max = config.store.queue_writes_max;
        Self {
            board,
            cell: board.cell(identity.cell as usize),
            identity,
            generation: AtomicU64::new(generation),
            write_timeout: config.limits.write_timeout,
            queue_writes_max: u64::from(queue_writes_max),
            tables: Tables::new(&config.cache, catalog, board),
            core: Mutex::new(Coherence::new(Instant::now())),
            copy: Mutex::new(None),
            visible: AtomicU64::new(0),
            became_visible: Notify::new(),
            ready: AtomicBool::new(false),
            became_ready: Notify::new(),
            connected: AtomicBool::new(false),
            ledger: Mutex::new(Ledger::new(queue_writes_max as usize)),
            next_request: AtomicU64::new(1),
            outgoing: Notify::new(),
            held_back: Notify::new(),
            feed: Feed::new(),
        }
    }

    /// Durable first, then the epoch: a store publishes its epoch before its first durable number.
    pub(super) fn watermark(&self) -> Watermark {
        let durable = self.board.durable();
        Watermark { durable, epoch: self.board.store(StoreWord::Epoch).load(Ordering::Acquire) }
    }

    pub(super) fn shows(&self, sequence: u64) -> bool {
        self.visible.load(Ordering::Acquire) > sequence
    }

    /// Waits until the tables show the log up to `sequence`; false when they do not in time.
    pub(super) async fn wait_until_shown(&self, sequence: u64, until: Instant) -> bool {
        loop {
            let mut became_visible = std::pin::pin!(self.became_visible.notified());
            became_visible.as_mut().enable();
            if self.shows(sequence) || self.try_show(sequence) {
                return true;
            }
            if timeout_at(until.into(), became_visible).await.is_err() {
                return self.shows(sequence);
            }
        }
    }

    /// Shows what is held back, if the changes up to the watermark have been received and nobody else is at it.
    pub(super) fn try_show(&self, sequence: u64) -> bool {
        if let Some(mut core) = self.core.try_lock()
            && core.is_following()
        {
            let mut actions = Vec::new();
            core.look(self.watermark(), &mut actions);
            self.show(actions);
        }
        self.shows(sequence)
    }

    /// Lets the core decide, makes visible what became visible, and returns what remains to be done.
    pub(super) fn step(
        &self,
        event: impl FnOnce(&mut Coherence, &mut Vec<Action>),
    ) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        let mut core = self.core.lock();
        event(&mut core, &mut actions);
        let rest = self.show(actions);
        if core.wants_watermark() {
            self.held_back.notify_one();
        }
        Ok(rest)
    }

    /// Carries out what changes the tables in use. The caller holds the lock on the core.
    pub(super) fn show(&self, actions: Vec<Action>) -> Vec<Action> {
        let mut rest = Vec::new();
        for action in actions {
            match action {
                Action::Apply { changes, through } => {
                    self.tables.apply(&changes, through);
                    self.make_visible(through);
                    self.count(Counter::ChangesApplied, changes.len() as u64);
                    if !changes.is_empty() {
                        self.feed.tell(|| Applied::Changes(changes.into()));
                    }
                }
                Action::AdoptCopy { at } => {
                    let copy = self.copy.lock().take();
                    let before = copy.map(|copy| self.tables.adopt(copy, at));
                    self.make_visible(at);
                    // Dropping millions of documents takes a while. Only the link adopts, on a runtime.
                    tokio::task::spawn_blocking(move || drop(before));
                    self.feed.tell(|| Applied::Skipped);
                }
                Action::BecomeReady => {
                    self.ready.store(true, Ordering::Release);
                    self.became_ready.notify_waiters();
                }
                other => rest.push(other),
            }
        }
        rest
    }

    pub(super) fn make_visible(&self, through: u64) {
        self.visible.store(through + 1, Ordering::Release);
        self.became_visible.notify_waiters();
        self.cell.gauge(Gauge::Applied).store(through, Ordering::Relaxed);
    }

    /// Carries out what does not change the tables in use.
    ///
    /// # Errors
    /// Why the connection has to be closed.
    pub(super) fn finish(&self, actions: Vec<Action>) -> Result<(), String> {
        for action in actions {
            match action {
                Action::BeginCopy => *self.copy.lock() = Some(self.tables.new_copy()),
                Action::FillCopy(documents) => {
                    if let Some(copy) = &mut *self.copy.lock() {
                        copy.fill(documents);
                    }
                }
                Action::DropCopy => *self.copy.lock() = None,
                Action::Resync { applied } => {
                    self.count(Counter::FeedGaps, 1);
                    tracing::warn!(applied, "the feed has a gap, asking for what is missing");
                    self.send_first(&ToStore::Resync { applied }).map_err(|error| error.to_string())?;
                }
                Action::Resend => {
                    self.connected.store(true, Ordering::Relaxed);
                    self.ledger.lock().opened();
                    self.outgoing.notify_one();
                }
                Action::Disconnect { reason } => return Err(reason),
                Action::Apply { .. } | Action::AdoptCopy { .. } | Action::BecomeReady => {}
            }
        }
        Ok(())
    }

    pub(super) fn send_first(&self, message: &ToStore) -> Result<(), IpcError> {
        let mut encoded = Vec::new();
        frame::write_message(message, &mut encoded)?;
        self.ledger.lock().send_first(&encoded);
        self.outgoing.notify_one();
        Ok(())
    }

    /// The connection is gone. Tells whether the store had accepted it.
    pub(super) fn disconnected(&self) -> bool {
        let rest = self.step(|core, actions| {
            core.look(self.watermark(), actions);
            core.disconnected(actions);
        });
        // A core that is detached asks for nothing but to drop a copy.
        let _ = rest.and_then(|rest| self.finish(rest));
        // Dropping the senders tells those who wait that the outcome is unknown.
        drop(self.ledger.lock().closed(Instant::now(), self.write_timeout));
        self.connected.swap(false, Ordering::Relaxed)
    }

    pub(super) fn answered(&self, request: u64, answer: Answer) {
        if let Some(waiting) = self.ledger.lock().answered(request) {
            // Fails when the client left at this moment.
            let _ = waiting.send(answer);
        }
    }

    /// Whether the store refuses writes because its disk is full.
    pub(super) fn is_disk_full(&self) -> bool {
        self.board.store(StoreWord::DiskFullSince).load(Ordering::Relaxed) != 0
    }

    pub(super) fn count(&self, counter: Counter, amount: u64) {
        self.cell.counter(counter).fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn write_gauges(&self) {
        self.tables.share_budget();
        let totals = self.tables.totals();
        self.cell.gauge(Gauge::Documents).store(totals.documents, Ordering::Relaxed);
        self.cell.gauge(Gauge::CachedDocuments).store(totals.cached_documents, Ordering::Relaxed);
        self.cell.gauge(Gauge::CachedBytes).store(totals.cached_bytes, Ordering::Relaxed);
    }
}
