//! Removes what is no longer needed: old log rows, expired responses, forgotten requests, rows of dropped indexes.
//!
//! A little at a time: with a group when there is much to do, so that it costs no sync of its own; alone when idle.

use std::{sync::atomic::Ordering, time::Instant};

use aegis_ipc::board::StoreWord;

use super::Writer;
use crate::{
    engine::{Batch, EngineResult, Forget, MetaEdit, UniqueKey},
    error::StoreError,
    storage::Place,
};

/// Rows of one kind removed at once when idle: about a millisecond of work.
const ROWS_AT_ONCE: usize = 512;
/// Log rows removed with a group, beside twice as many as the group adds.
const LOG_ROWS_WITH_GROUP: usize = 16;
/// Request rows removed with a group, which adds one.
const REQUEST_ROWS_WITH_GROUP: usize = 4;
/// The log may hold this many times the promised number of changes for a worker that is just being sent them.
const LOG_PATIENCE: u64 = 4;

/// How far the removal has come.
#[derive(Debug)]
pub(super) struct Swept {
    /// When something was removed last, or could have been.
    pub(super) at: Instant,
    /// Last row removed of the dropped index at hand.
    index_row: Option<UniqueKey>,
}

impl Swept {
    /// Nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, index_row: None }
    }
}

impl Writer {
    /// Adds to a group what is to be removed when there is so much that idle moments are not enough.
    pub(super) fn forget_with_group(&mut self, file: &mut Batch<'_>) -> EngineResult<()> {
        let storage = &self.shared.storage;
        let promised = self.settings.store.log_changes_min;
        let kept = storage.committed().saturating_sub(storage.engine(Place::File).log_oldest());
        if kept > promised.saturating_add(promised / 4) {
            let rows_max = 2 * file.changes.len() + LOG_ROWS_WITH_GROUP;
            let (before, log) = self.old_log(Place::File, rows_max)?;
            file.forget = Forget { log_before: before, log, ..Forget::default() };
        }
        if !file.responses.is_empty() {
            let expired_ms = self.shared.expired_ms();
            let engine = self.shared.storage.engine(Place::File);
            file.forget.responses = engine.responses_before(expired_ms, 2 * file.responses.len())?;
        }
        file.forget.requests = self.requests.expire(self.shared.aged_ms(), REQUEST_ROWS_WITH_GROUP);
        Ok(())
    }

    /// Removes a little. Returns whether there is more to do at once.
    pub(super) fn sweep(&mut self) -> Result<bool, StoreError> {
        self.swept.at = Instant::now();
        if self.space.is_cramped() {
            return Ok(false); // removing writes as well
        }
        let failed = |source| StoreError::engine("removing what is no longer needed", source);
        let more = self.sweep_engines().map_err(failed)?;
        // With little room left there is a look at it every few steps.
        Ok(more && self.space.refusal().is_none())
    }

    fn sweep_engines(&mut self) -> EngineResult<bool> {
        let (aged_ms, expired_ms) = (self.shared.aged_ms(), self.shared.expired_ms());
        let (mut file, mut memory) = (Batch::default(), Batch::default());
        let mut more = false;
        for (place, batch) in [(Place::File, &mut file), (Place::Memory, &mut memory)] {
            let (log_before, log) = self.old_log(place, ROWS_AT_ONCE)?;
            let responses = self.shared.storage.engine(place).responses_before(expired_ms, ROWS_AT_ONCE)?;
            more |= log.len() == ROWS_AT_ONCE || responses.len() == ROWS_AT_ONCE;
            batch.forget = Forget { log_before, log, responses, ..Forget::default() };
        }
        file.forget.requests = self.requests.expire(aged_ms, ROWS_AT_ONCE);
        more |= file.forget.requests.len() == ROWS_AT_ONCE;
        if let Some((place, number)) = self.indexes.dropped() {
            let after = self.swept.index_row.take();
            let rows = self.shared.storage.engine(place).index_rows(number, after.as_ref(), ROWS_AT_ONCE)?;
            let batch = if place == Place::File { &mut file } else { &mut memory };
            if rows.is_empty() {
                batch.meta.push(MetaEdit::IndexGone(number));
                self.indexes.dropped_is_gone();
            }
            batch.forget.unique = rows.into_iter().map(|row| row.key).collect();
            self.swept.index_row = batch.forget.unique.last().cloned();
            more = true;
        }
        let storage = &self.shared.storage;
        if !file.is_empty() || !memory.is_empty() {
            storage.apply(&file, &memory, storage.committed())?;
        }
        self.shared.board.store(StoreWord::LogOldest).store(storage.log_oldest(), Ordering::Relaxed);
        Ok(more)
    }

    /// Log rows that can go: the number from which on all are promised then, and the rows.
    fn old_log(&self, place: Place, rows_max: usize) -> EngineResult<(Option<u64>, Vec<u64>)> {
        let storage = &self.shared.storage;
        let engine = storage.engine(place);
        let promised = self.settings.store.log_changes_min;
        let committed = storage.committed();
        let mut before = (committed + 1).saturating_sub(promised);
        if let Some(needed) = self.shared.registry.needs_log_after() {
            let patience = (committed + 1).saturating_sub(promised.saturating_mul(LOG_PATIENCE));
            before = before.min((needed + 1).max(patience));
        }
        // The newest row stays: it tells the last number after a restart.
        before = before.min(engine.last());
        if before <= engine.log_oldest() {
            return Ok((None, Vec::new()));
        }
        let rows = engine.log_rows(before, rows_max)?;
        if rows.is_empty() {
            return Ok((None, rows)); // the numbers belong to the other engine
        }
        let reached =
            if rows.len() < rows_max { before } else { rows.last().map_or(before, |last| last + 1) };
        Ok((Some(reached), rows))
    }
}
