//! What a worker tells about its data.

use std::sync::atomic::Ordering;

use serde::Serialize;

use super::shared::Shared;

/// State of the copy and of the way to the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Number up to which the tables show the log; absent before the first complete copy.
    pub applied: Option<u64>,
    /// The watermark.
    pub durable: u64,
    /// Process number of the store that the worker attached to last.
    pub epoch: u64,
    /// Is there a connection that the store has accepted?
    pub connected: bool,
    /// Changes received that may not be shown yet.
    pub changes_held_back: usize,
    /// Writes that wait for the store.
    pub writes_waiting: usize,
    /// Open subscriptions to applied changes.
    pub subscribers: usize,
    /// Each model.
    pub models: Vec<ModelStatistics>,
}

/// State of the copy of one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatistics {
    /// Name, upper case.
    pub model_name: String,
    /// Segment of the path.
    pub endpoint: String,
    /// Documents.
    pub documents: u64,
    /// Bytes of all their bodies, cached or not.
    pub bytes: u64,
    /// Documents whose body is cached.
    pub cached_documents: u64,
    /// Bytes of cached bodies.
    pub cached_bytes: u64,
}

impl Statistics {
    pub(super) fn of(shared: &Shared) -> Self {
        let (applied, epoch, changes_held_back) = {
            let core = shared.core.lock();
            (core.applied(), core.epoch(), core.held_back())
        };
        Self {
            applied,
            durable: shared.board.durable(),
            epoch,
            connected: shared.connected.load(Ordering::Relaxed),
            changes_held_back,
            writes_waiting: shared.ledger.lock().writes_waiting(),
            subscribers: shared.feed.subscribers(),
            models: shared.tables.statistics(),
        }
    }
}
