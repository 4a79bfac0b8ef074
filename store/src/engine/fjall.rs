//! Documents on disk, in the log-structured engine `fjall`.
//!
//! Everything a group commit writes goes into one engine batch, which is one record of the engine's journal, synced
//! before [`Engine::apply`] returns. The rows are described in [`super::records`].

mod audit;
mod end;
mod files;
mod ground;
mod journal;
mod open;
mod snapshot;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use aegis_ipc::data::{Change, ChangeKind, Stored, Version};
use bytes::Bytes;
use fjall::{Database, Keyspace, PersistMode, Readable, Slice};
use parking_lot::Mutex;

use self::{end::End, ground::Ground};
use super::{
    Batch, Engine, EngineResult, Head, IndexRow, KeptAge, KeptResponse, LogBudget, LogPage, MetaEdit,
    Recovered, Snapshot, UniqueEdit, UniqueKey,
    records::{self, Flaw},
};
use crate::error::EngineError;

pub(crate) use audit::{Audited, Sink};
pub(crate) use open::{Opened, Options};

/// Documents on disk.
pub(crate) struct FjallEngine {
    folder: String,
    database: Database,
    documents: Keyspace,
    log: Keyspace,
    unique: Keyspace,
    responses: Keyspace,
    requests: Keyspace,
    meta: Keyspace,
    last: AtomicU64,
    log_oldest: AtomicU64,
    /// Log rows below are gone; a range begins here so as not to walk over what compaction has not swept yet.
    log_swept: AtomicU64,
    /// Ages below are gone, likewise.
    responses_swept_ms: AtomicU64,
    /// Held while a group is committed, too: nothing else may be written to the journal while room is made in it.
    ground: Mutex<Ground>,
}

impl FjallEngine {
    /// Files in its folder that are none of its own.
    pub(crate) fn foreign_files(&self) -> EngineResult<Vec<PathBuf>> {
        files::foreign(Path::new(&self.folder))
    }

    /// Writes what waits in memory into tables.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        self.documents.rotate_memtable_and_wait().unwrap();
    }

    fn failed(&self, operation: &str, error: fjall::Error) -> EngineError {
        EngineError::from_fjall(operation, &self.folder, error)
    }

    fn flawed(&self, partition: &str, key: &[u8], flaw: &Flaw) -> EngineError {
        let object = format!("row {} of partition {partition} in {}", key.escape_ascii(), self.folder);
        EngineError::damaged(object, flaw.to_string())
    }

    fn get(&self, keyspace: &Keyspace, key: &[u8], operation: &str) -> EngineResult<Option<Slice>> {
        keyspace.get(key).map_err(|error| self.failed(operation, error))
    }

    fn read_stored(&self, partition: &str, key: &[u8], record: Slice) -> EngineResult<Change> {
        records::read_change(&Bytes::from_owner(record)).map_err(|flaw| self.flawed(partition, key, &flaw))
    }

    /// The rows of a document batch: every change goes to the log, the last one of each document to the documents.
    fn put_changes(&self, changes: &[&Change], batch: &mut fjall::OwnedWriteBatch) -> EngineResult<()> {
        let (mut settled, mut truncated) = (HashSet::with_capacity(changes.len()), HashSet::new());
        let (mut key, mut record) = (Vec::new(), Vec::new());
        // Two rows with one key in one batch are in no order for the engine: newest first, and each key once.
        for change in changes.iter().rev() {
            records::write_change(change, &mut record);
            let value = Slice::new(&record);
            batch.insert(&self.log, records::number_key(change.sequence), value.clone());
            if truncated.contains(change.model.as_str()) {
                continue;
            }
            match &change.kind {
                ChangeKind::Put { id, .. } => {
                    records::document_key(&change.model, id, &mut key);
                    if settled.insert(key.clone()) {
                        batch.insert(&self.documents, key.as_slice(), value);
                    }
                }
                ChangeKind::Remove { id, .. } => {
                    records::document_key(&change.model, id, &mut key);
                    if settled.insert(key.clone()) {
                        batch.remove(&self.documents, key.as_slice());
                    }
                }
                ChangeKind::Truncate => {
                    truncated.insert(change.model.as_str());
                    records::model_prefix(&change.model, &mut key);
                    for row in self.documents.prefix(key.as_slice()) {
                        let key = row.key().map_err(|error| self.failed("listing documents", error))?;
                        if settled.insert(key.to_vec()) {
                            batch.remove(&self.documents, key);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The last edit of a row counts: two rows with one key in one batch are in no order for the engine.
    fn put_meta(&self, edits: &[MetaEdit], batch: &mut fjall::OwnedWriteBatch) {
        let mut rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        for edit in edits {
            match edit {
                MetaEdit::Catalog(bytes) => {
                    rows.insert(records::META_DECLARED.to_vec(), None);
                    rows.insert(records::META_CATALOG.to_vec(), Some(bytes.clone()))
                }
                MetaEdit::Declared(bytes) => {
                    rows.insert(records::META_DECLARED.to_vec(), Some(bytes.clone()))
                }
                MetaEdit::Reserved(number) => {
                    rows.insert(records::META_RESERVED.to_vec(), Some(number.to_le_bytes().to_vec()))
                }
                MetaEdit::Index(row) => {
                    rows.insert(records::index_key(&row.name), Some(records::write_index(row)))
                }
                MetaEdit::DropIndex(row) => {
                    rows.insert(records::dropped_key(row.number), Some(Vec::new()));
                    rows.insert(records::index_key(&row.name), None)
                }
                MetaEdit::IndexGone(number) => rows.insert(records::dropped_key(*number), None),
            };
        }
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&self.meta, key, value),
                None => batch.remove(&self.meta, key),
            }
        }
    }

    fn forget(&self, whole: &Batch<'_>, batch: &mut fjall::OwnedWriteBatch) -> EngineResult<()> {
        let forget = &whole.forget;
        if let Some(before) = forget.log_before {
            batch.insert(&self.meta, records::META_LOG_OLDEST, before.to_le_bytes());
        }
        for sequence in &forget.log {
            batch.remove(&self.log, records::number_key(*sequence));
        }
        for number in &forget.requests {
            batch.remove(&self.requests, records::number_key(*number));
        }
        for age in &forget.responses {
            batch.remove(&self.responses, records::age_key(age));
            if whole.responses.iter().any(|kept| records::bounded(kept.key.as_bytes()) == age.key) {
                continue;
            }
            let key = records::response_key(&age.key);
            if let Some(record) = self.get(&self.responses, &key, "reading a kept response")? {
                let kept = records::read_response(&Bytes::from_owner(record))
                    .map_err(|flaw| self.flawed("responses", &key, &flaw))?;
                if (kept.time_ms, kept.sequence) == (age.time_ms, age.sequence) {
                    batch.remove(&self.responses, key);
                }
            }
        }
        for key in &forget.unique {
            batch.remove(&self.unique, records::unique_key(key));
        }
        Ok(())
    }
}

impl Engine for FjallEngine {
    fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    fn log_oldest(&self) -> u64 {
        self.log_oldest.load(Ordering::Acquire)
    }

    fn head(&self, model: &str, id: &str) -> EngineResult<Option<Head>> {
        let mut key = Vec::with_capacity(1 + model.len() + id.len());
        records::document_key(model, id, &mut key);
        let Some(record) = self.get(&self.documents, &key, "reading a document")? else { return Ok(None) };
        records::read_head(&record).map(Some).map_err(|flaw| self.flawed("documents", &key, &flaw))
    }

    fn document(&self, model: &str, id: &str) -> EngineResult<Option<Stored>> {
        let mut key = Vec::with_capacity(1 + model.len() + id.len());
        records::document_key(model, id, &mut key);
        let Some(record) = self.get(&self.documents, &key, "reading a document")? else { return Ok(None) };
        let change = self.read_stored("documents", &key, record)?;
        let stored = into_stored(change).map_err(|flaw| self.flawed("documents", &key, &flaw))?;
        Ok(Some(stored))
    }

    fn version(&self, version: &Version) -> EngineResult<Option<Bytes>> {
        if let Some(stored) = self.document(&version.model, &version.id)?
            && stored.sequence == version.sequence
        {
            return Ok(Some(stored.body));
        }
        let key = records::number_key(version.sequence);
        let Some(record) = self.get(&self.log, &key, "reading the log")? else { return Ok(None) };
        let change = self.read_stored("log", &key, record)?;
        Ok(match change.kind {
            ChangeKind::Put { id, body, .. } if change.model == version.model && id == version.id => {
                Some(body)
            }
            ChangeKind::Put { .. } | ChangeKind::Remove { .. } | ChangeKind::Truncate => None,
        })
    }

    fn unique_owner(&self, key: &UniqueKey) -> EngineResult<Option<String>> {
        let key = records::unique_key(key);
        let Some(owner) = self.get(&self.unique, &key, "reading a unique index")? else { return Ok(None) };
        read_owner(&owner).map(Some).map_err(|flaw| self.flawed("unique", &key, &flaw))
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        let row = records::response_key(&records::bounded(key.as_bytes()));
        let Some(record) = self.get(&self.responses, &row, "reading a kept response")? else {
            return Ok(None);
        };
        let kept = records::read_response(&Bytes::from_owner(record))
            .map_err(|flaw| self.flawed("responses", &row, &flaw))?;
        Ok((kept.key == key).then_some(kept))
    }

    fn log(&self, after: u64, up_to: u64, budget: LogBudget) -> EngineResult<LogPage> {
        let mut page = LogPage { changes: Vec::new(), reached: up_to.max(after) };
        if up_to <= after {
            return Ok(page);
        }
        let mut bytes = 0;
        let range = records::number_key(after.saturating_add(1))..=records::number_key(up_to);
        for row in self.database.snapshot().range(&self.log, range) {
            if page.changes.len() >= budget.changes_max.max(1) || bytes > budget.bytes_max {
                page.reached = page.changes.last().map_or(up_to, |change| change.sequence);
                return Ok(page);
            }
            let (key, record) = row.into_inner().map_err(|error| self.failed("reading the log", error))?;
            bytes += record.len();
            page.changes.push(self.read_stored("log", &key, record)?);
        }
        Ok(page)
    }

    fn snapshot(&self) -> EngineResult<Box<dyn Snapshot>> {
        let snapshot = self.database.snapshot();
        let last = match snapshot.last_key_value(&self.log) {
            None => 0,
            Some(row) => {
                let key = row.key().map_err(|error| self.failed("reading the log", error))?;
                records::read_number_key(&key).map_err(|flaw| self.flawed("log", &key, &flaw))?
            }
        };
        let (folder, documents) = (self.folder.clone(), self.documents.clone());
        Ok(Box::new(snapshot::FjallSnapshot { folder, documents, snapshot, last }))
    }

    fn apply(&self, batch: &Batch<'_>) -> EngineResult<()> {
        if batch.is_empty() {
            return Ok(());
        }
        // `fdatasync` writes all that is needed to read the group again, and leaves the file's times for later.
        let mut rows = self.database.batch().durability(Some(PersistMode::SyncData));
        self.put_changes(&batch.changes, &mut rows)?;
        for UniqueEdit { key, owner } in &batch.unique {
            let key = records::unique_key(key);
            match owner {
                Some(owner) => rows.insert(&self.unique, key, owner.as_bytes()),
                None => rows.remove(&self.unique, key),
            }
        }
        for kept in &batch.responses {
            let key = records::bounded(kept.key.as_bytes());
            rows.insert(&self.responses, records::response_key(&key), records::write_response(kept));
            let age = KeptAge { time_ms: kept.time_ms, sequence: kept.sequence, key };
            rows.insert(&self.responses, records::age_key(&age), []);
        }
        if let Some(group) = &batch.requests {
            rows.insert(&self.requests, records::number_key(group.number), records::write_requests(group));
        }
        self.put_meta(&batch.meta, &mut rows);
        self.forget(batch, &mut rows)?;
        if let Some(before) = batch.forget.log_before {
            // Before the rows go: who has read them and still finds its number here has read all of them.
            self.log_oldest.fetch_max(before, Ordering::AcqRel);
        }
        let mut ground = self.ground.lock();
        if let Err(error) = ground.prepare() {
            tracing::debug!(folder = self.folder, %error, "no room was made in the journal");
        }
        rows.commit().map_err(|error| self.failed("committing a group", error))?;
        drop(ground);
        if let Some(change) = batch.changes.last() {
            self.last.fetch_max(change.sequence, Ordering::AcqRel);
        }
        if let Some(sequence) = batch.forget.log.last() {
            self.log_swept.fetch_max(sequence + 1, Ordering::AcqRel);
        }
        if let Some(age) = batch.forget.responses.last() {
            self.responses_swept_ms.fetch_max(age.time_ms, Ordering::AcqRel);
        }
        if let Some(earliest_ms) = batch.responses.iter().map(|kept| kept.time_ms).min() {
            // The clock may have been set back to before the last sweep.
            self.responses_swept_ms.fetch_min(earliest_ms, Ordering::AcqRel);
        }
        Ok(())
    }

    fn ended(&self) -> EngineResult<()> {
        // Nobody makes room meanwhile, either.
        let _ground = self.ground.lock();
        End::mark(Path::new(&self.folder))
    }

    fn unsettled_bytes(&self) -> u64 {
        self.database.write_buffer_size()
    }

    fn log_rows(&self, before: u64, rows_max: usize) -> EngineResult<Vec<u64>> {
        let from = self.log_swept.load(Ordering::Acquire);
        let range = records::number_key(from.min(before))..records::number_key(before);
        let mut numbers = Vec::new();
        for row in self.log.range(range).take(rows_max) {
            let key = row.key().map_err(|error| self.failed("listing the log", error))?;
            numbers.push(records::read_number_key(&key).map_err(|flaw| self.flawed("log", &key, &flaw))?);
        }
        Ok(numbers)
    }

    fn responses_before(&self, before_ms: u64, rows_max: usize) -> EngineResult<Vec<KeptAge>> {
        let from_ms = self.responses_swept_ms.load(Ordering::Acquire).min(before_ms);
        let bound = |time_ms| records::age_key(&KeptAge { time_ms, sequence: 0, key: Vec::new() });
        let mut ages = Vec::new();
        for row in self.responses.range(bound(from_ms)..bound(before_ms)).take(rows_max) {
            let key = row.key().map_err(|error| self.failed("listing kept responses", error))?;
            ages.push(records::read_age_key(&key).map_err(|flaw| self.flawed("responses", &key, &flaw))?);
        }
        Ok(ages)
    }

    fn index_rows(
        &self,
        number: u32,
        after: Option<&UniqueKey>,
        rows_max: usize,
    ) -> EngineResult<Vec<UniqueEdit>> {
        use std::ops::Bound::{Excluded, Included};
        let prefix = number.to_be_bytes().to_vec();
        let from = after.map_or_else(|| Included(prefix.clone()), |key| Excluded(records::unique_key(key)));
        let mut edits = Vec::new();
        for row in self.unique.range((from, std::ops::Bound::Unbounded)).take(rows_max) {
            let (key, owner) =
                row.into_inner().map_err(|error| self.failed("listing a unique index", error))?;
            if !key.starts_with(&prefix) {
                break;
            }
            let flawed = |flaw: Flaw| self.flawed("unique", &key, &flaw);
            let owner = read_owner(&owner).map_err(flawed)?;
            edits.push(UniqueEdit {
                key: records::read_unique_key(&key).map_err(flawed)?,
                owner: Some(owner),
            });
        }
        Ok(edits)
    }

    fn recover(&self) -> EngineResult<Recovered> {
        let mut recovered = Recovered::default();
        for row in self.requests.iter() {
            let (key, record) =
                row.into_inner().map_err(|error| self.failed("reading the requests", error))?;
            let group = records::read_number_key(&key)
                .and_then(|number| records::read_requests(number, &record))
                .map_err(|flaw| self.flawed("requests", &key, &flaw))?;
            recovered.requests.push(group);
        }
        for row in self.meta.iter() {
            let (key, value) =
                row.into_inner().map_err(|error| self.failed("reading the meta data", error))?;
            let flawed = |flaw: Flaw| self.flawed("meta", &key, &flaw);
            if key.starts_with(records::META_INDEX) {
                recovered.indexes.push(records::read_index(&key, &value).map_err(flawed)?);
            } else if key.starts_with(records::META_DROPPED) {
                recovered.dropped.push(records::read_dropped_key(&key).map_err(flawed)?);
            } else if *key == *records::META_CATALOG {
                recovered.catalog = Some(value.to_vec());
            } else if *key == *records::META_DECLARED {
                recovered.declared = Some(value.to_vec());
            } else if *key == *records::META_RESERVED {
                recovered.reserved = open::read_number(&value).map_err(flawed)?;
            }
        }
        recovered.indexes.sort_by_key(|row: &IndexRow| row.number);
        Ok(recovered)
    }
}

/// The document that a record in `documents` holds.
pub(crate) fn into_stored(change: Change) -> Result<Stored, Flaw> {
    let Change { sequence, model, kind, .. } = change;
    match kind {
        ChangeKind::Put { id, revision, body, .. } => Ok(Stored { model, id, revision, sequence, body }),
        ChangeKind::Remove { .. } => Err(Flaw::Unknown { field: "kind", found: "a removal".to_owned() }),
        ChangeKind::Truncate => Err(Flaw::Unknown { field: "kind", found: "a truncation".to_owned() }),
    }
}

fn read_owner(owner: &[u8]) -> Result<String, Flaw> {
    String::from_utf8(owner.to_vec())
        .map_err(|error| Flaw::Unknown { field: "id", found: format!("bytes that are not UTF-8 ({error})") })
}
