//! What the threads of the store share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use aegis_ipc::board::Board;
use crossbeam::channel::{Sender, TrySendError};
use parking_lot::RwLock;

use crate::{
    catalog::Rules,
    clock::Aging,
    commit::Requested,
    error::{EXIT_CONFIGURATION, EngineError, StoreError},
    link::{Link, Registry},
    lookup::Lookups,
    notice::{Notice, Notifier},
    requests,
    storage::Storage,
};

/// Bytes of writes that may wait, beside the number of writes that the configuration allows.
const QUEUED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A write on its way to the writer.
pub(crate) struct Intake {
    /// Where the answer goes.
    pub(crate) link: Arc<Link>,
    /// The write.
    pub(crate) requested: Requested,
    /// Length of the message it came in.
    pub(crate) bytes: usize,
}

/// What became of a write that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// The writer will answer it.
    Queued,
    /// Too many wait already.
    Full,
    /// The store takes no more writes.
    Stopping,
}

/// What the threads of the store share.
pub(crate) struct Shared {
    /// The engines.
    pub(crate) storage: Storage,
    /// The workers.
    pub(crate) registry: Registry,
    /// The words that other processes read.
    pub(crate) board: Board,
    /// Process number of this store.
    pub(crate) epoch: u64,
    /// Threads that answer questions.
    pub(crate) lookups: Lookups,
    intake: Sender<Intake>,
    queued_bytes: AtomicUsize,
    notifier: Notifier,
    rules: RwLock<Arc<Rules>>,
    idempotency_time_ms: AtomicU64,
    aging: Aging,
    stopping: AtomicBool,
}

impl Shared {
    /// Puts everything together.
    pub(crate) fn new(
        storage: Storage,
        registry: Registry,
        (board, epoch): (Board, u64),
        lookups: Lookups,
        intake: Sender<Intake>,
        notifier: Notifier,
        rules: Arc<Rules>,
    ) -> Self {
        Self {
            storage,
            registry,
            board,
            epoch,
            lookups,
            intake,
            queued_bytes: AtomicUsize::new(0),
            notifier,
            rules: RwLock::new(rules),
            idempotency_time_ms: AtomicU64::new(0),
            aging: Aging::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Hands a write to the writer.
    pub(crate) fn submit(&self, intake: Intake) -> Submitted {
        if self.is_stopping() {
            return Submitted::Stopping;
        }
        let bytes = intake.bytes;
        let waiting = self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One write always fits, however large.
        let refused = if waiting > 0 && waiting.saturating_add(bytes) > QUEUED_BYTES_MAX {
            Submitted::Full
        } else {
            match self.intake.try_send(intake) {
                Ok(()) => return Submitted::Queued,
                Err(TrySendError::Full(_)) => Submitted::Full,
                Err(TrySendError::Disconnected(_)) => Submitted::Stopping,
            }
        };
        self.taken(bytes);
        refused
    }

    /// The writer has taken a write of this length.
    pub(crate) fn taken(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Reading from an engine failed. Damage does not go away by itself, so it ends the store.
    pub(crate) fn engine_failed(&self, operation: &str, error: EngineError) {
        if error.exit_code() == EXIT_CONFIGURATION {
            self.notifier.tell(Notice::Failed(StoreError::engine(operation, error)));
        }
    }

    /// What writes have to keep to.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    /// Writes have to keep to this from now on.
    pub(crate) fn set_rules(&self, rules: Arc<Rules>) {
        *self.rules.write() = rules;
    }

    /// Responses kept under a key before this have expired, milliseconds since 1970 UTC.
    pub(crate) fn expired_ms(&self) -> u64 {
        self.aged_ms().saturating_sub(self.idempotency_time_ms.load(Ordering::Relaxed))
    }

    /// The time by which responses and requests grow old, milliseconds since 1970 UTC.
    pub(crate) fn aged_ms(&self) -> u64 {
        self.aging.now_ms(self.idempotency_time_ms.load(Ordering::Relaxed).max(requests::KEPT_MS))
    }

    /// The time by which things grow old, for tests that set the clock.
    #[cfg(test)]
    pub(crate) fn aging(&self) -> &Aging {
        &self.aging
    }

    /// Responses are kept this long from now on.
    pub(crate) fn set_idempotency_time_ms(&self, milliseconds: u64) {
        self.idempotency_time_ms.store(milliseconds, Ordering::Relaxed);
    }

    /// Takes no more writes and workers.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Does the store take no more writes and workers?
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
