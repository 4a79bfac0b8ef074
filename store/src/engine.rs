//! What the store needs from the thing that keeps documents, and the laws every such thing obeys.
//!
//! * [`Engine::apply`] is atomic and, for an engine that keeps anything beyond the process, durable on return.
//! * Readers on other threads see whole batches only, through [`Engine::snapshot`] or a single call.
//! * The log holds every change from [`Engine::log_oldest`] on, in order.
//!
//! One thread applies batches; any thread reads.

pub(crate) mod fjall;
#[cfg(test)]
mod laws;
pub(crate) mod memory;
pub(crate) mod records;

use std::fmt;

use aegis_ipc::data::{Change, Stored, Version};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;

pub(crate) type EngineResult<T> = Result<T, EngineError>;

/// What a compare-and-set needs to know about a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Number of the change that wrote it.
    pub(crate) sequence: u64,
    /// Its revision.
    pub(crate) revision: u64,
}

/// A value of a unique field, in the index with this number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct UniqueKey {
    /// Number of the index; never given twice.
    pub(crate) index: u32,
    /// The value, of bounded length.
    pub(crate) value: Vec<u8>,
}

impl UniqueKey {
    /// Makes the key of a value from its canonical bytes.
    pub(crate) fn new(index: u32, canonical: &[u8]) -> Self {
        Self { index, value: records::bounded(canonical) }
    }
}

/// A change of a unique index: who has the value from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UniqueEdit {
    /// The value.
    pub(crate) key: UniqueKey,
    /// Id of the document that has it, `None` when nobody does.
    pub(crate) owner: Option<String>,
}

/// A response kept under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptResponse {
    /// The key.
    pub(crate) key: String,
    /// See [`aegis_ipc::data::StoredResponse::fingerprint`].
    pub(crate) fingerprint: Bytes,
    /// See [`aegis_ipc::data::StoredResponse::response`].
    pub(crate) response: Bytes,
    /// Number of the last change of the write it was kept with.
    pub(crate) sequence: u64,
    /// When it was kept, milliseconds since 1970 UTC.
    pub(crate) time_ms: u64,
}

/// Where a kept response is found in order of age.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptAge {
    /// See [`KeptResponse::time_ms`].
    pub(crate) time_ms: u64,
    /// See [`KeptResponse::sequence`].
    pub(crate) sequence: u64,
    /// The key, of bounded length.
    pub(crate) key: Vec<u8>,
}

/// A write of a group: who asked for it and which numbers its changes got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommittedWrite {
    /// Process number of the worker.
    pub(crate) incarnation: u64,
    /// Number the worker gave the write.
    pub(crate) request: u64,
    /// Number of its first change.
    pub(crate) first: u64,
    /// Number of its last change, `first - 1` when it had none.
    pub(crate) last: u64,
}

/// The writes of one group commit, to recognise those that are sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestGroup {
    /// Number of the group; grows.
    pub(crate) number: u64,
    /// When it was committed, milliseconds since 1970 UTC.
    pub(crate) time_ms: u64,
    /// Its writes.
    pub(crate) writes: Vec<CommittedWrite>,
}

/// The writes of one group commit that are only in memory, for the store that follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptRequests {
    /// See [`RequestGroup::time_ms`].
    pub(crate) time_ms: u64,
    /// The writes.
    pub(crate) writes: Vec<CommittedWrite>,
}

/// Whether a unique index can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexState {
    /// Documents from before the index may be missing in it.
    Building,
    /// Every document is in it.
    Complete,
}

/// Name of a unique index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct IndexName {
    /// Model, upper case.
    pub(crate) model: String,
    /// Name of the field.
    pub(crate) field: String,
}

impl fmt::Display for IndexName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unique field {} of model {}", self.field, self.model)
    }
}

/// A unique index that the engine knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexRow {
    /// What it indexes.
    pub(crate) name: IndexName,
    /// Its number.
    pub(crate) number: u32,
    /// Whether it can be relied on.
    pub(crate) state: IndexState,
}

/// A change of what the engine knows about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MetaEdit {
    /// The models whose documents are kept, encoded, for tools that work while the host is down. What was declared before
    /// is forgotten.
    Catalog(Vec<u8>),
    /// The same as an app declared them to an import, while no host has used the store.
    Declared(Vec<u8>),
    /// Numbers up to this one may have been given to changes that are not kept.
    Reserved(u64),
    /// An index exists, in this state.
    Index(IndexRow),
    /// An index is no longer kept up to date; its rows are still to be removed.
    DropIndex(IndexRow),
    /// The rows of a dropped index are gone.
    IndexGone(u32),
}

/// What is no longer needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forget {
    /// Log rows below this number are no longer promised.
    pub(crate) log_before: Option<u64>,
    /// Log rows to remove, all below `log_before`.
    pub(crate) log: Vec<u64>,
    /// Numbers of request groups to remove.
    pub(crate) requests: Vec<u64>,
    /// Responses to remove, if they are still the ones of that age.
    pub(crate) responses: Vec<KeptAge>,
    /// Rows of dropped indexes to remove.
    pub(crate) unique: Vec<UniqueKey>,
}

/// Everything that is written together or not at all.
#[derive(Debug, Default)]
pub(crate) struct Batch<'a> {
    /// Changes in log order; the last one of a document decides what it is afterwards.
    pub(crate) changes: Vec<&'a Change>,
    /// At most one edit for each key.
    pub(crate) unique: Vec<UniqueEdit>,
    /// At most one response for each key.
    pub(crate) responses: Vec<KeptResponse>,
    /// The writes that the changes came from.
    pub(crate) requests: Option<RequestGroup>,
    /// What the engine knows about itself.
    pub(crate) meta: Vec<MetaEdit>,
    /// What is no longer needed.
    pub(crate) forget: Forget,
}

impl Batch<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.unique.is_empty()
            && self.responses.is_empty()
            && self.requests.is_none()
            && self.meta.is_empty()
            && self.forget == Forget::default()
    }
}

/// How much of the log is read at once. At least one change is returned, however large.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogBudget {
    /// Most changes.
    pub(crate) changes_max: usize,
    /// Bytes after which an engine takes no further change. What is read of both engines together does not exceed them,
    /// unless it is one change.
    pub(crate) bytes_max: usize,
}

/// Part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogPage {
    /// Changes in order.
    pub(crate) changes: Vec<Change>,
    /// Everything up to this number is in `changes`.
    pub(crate) reached: u64,
}

/// What an engine remembers from the process before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// Groups of writes, oldest first.
    pub(crate) requests: Vec<RequestGroup>,
    /// Unique indexes, in order of their number.
    pub(crate) indexes: Vec<IndexRow>,
    /// Dropped indexes whose rows are still there.
    pub(crate) dropped: Vec<u32>,
    /// See [`MetaEdit::Catalog`].
    pub(crate) catalog: Option<Vec<u8>>,
    /// See [`MetaEdit::Declared`].
    pub(crate) declared: Option<Vec<u8>>,
    /// See [`MetaEdit::Reserved`].
    pub(crate) reserved: u64,
}

/// Keeps documents.
pub(crate) trait Engine: Send + Sync {
    /// Number of the last change in the log, 0 when it has none.
    fn last(&self) -> u64;

    /// Number from which on the log is complete.
    fn log_oldest(&self) -> u64;

    /// Revision and number of a document.
    fn head(&self, model: &str, id: &str) -> EngineResult<Option<Head>>;

    /// A document as it is now.
    fn document(&self, model: &str, id: &str) -> EngineResult<Option<Stored>>;

    /// The body of a document as the change with that number wrote it, if it is still kept anywhere.
    fn version(&self, version: &Version) -> EngineResult<Option<Bytes>>;

    /// Id of the document that has this value.
    fn unique_owner(&self, key: &UniqueKey) -> EngineResult<Option<String>>;

    /// The response kept under an idempotency key, however old.
    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>>;

    /// Changes after `after` up to `up_to`, as many as the budget allows.
    fn log(&self, after: u64, up_to: u64, budget: LogBudget) -> EngineResult<LogPage>;

    /// All documents at one moment.
    fn snapshot(&self) -> EngineResult<Box<dyn Snapshot>>;

    /// Writes everything in the batch, or nothing.
    fn apply(&self, batch: &Batch<'_>) -> EngineResult<()>;

    /// Everything that was applied is acknowledged, and nothing will be applied any more: what is missing at the next
    /// start was lost.
    fn ended(&self) -> EngineResult<()> {
        Ok(())
    }

    /// Bytes that are written in the log but wait to be sorted into their final place.
    fn unsettled_bytes(&self) -> u64;

    /// Numbers of the oldest log rows below `before`.
    fn log_rows(&self, before: u64, rows_max: usize) -> EngineResult<Vec<u64>>;

    /// The oldest responses kept before `before_ms`.
    fn responses_before(&self, before_ms: u64, rows_max: usize) -> EngineResult<Vec<KeptAge>>;

    /// Some rows of a unique index, in order, after `after`.
    fn index_rows(
        &self,
        number: u32,
        after: Option<&UniqueKey>,
        rows_max: usize,
    ) -> EngineResult<Vec<UniqueEdit>>;

    /// What is remembered from the process before.
    fn recover(&self) -> EngineResult<Recovered>;
}

/// All documents at one moment. Later changes do not show.
pub(crate) trait Snapshot: Send {
    /// Number of the last change in the log at that moment.
    fn last(&self) -> u64;

    /// Models that have documents.
    fn models(&self) -> EngineResult<Vec<String>>;

    /// The documents of a model, in order of their ids.
    fn documents<'a>(&'a self, model: &str) -> Box<dyn Iterator<Item = EngineResult<Stored>> + 'a>;
}
