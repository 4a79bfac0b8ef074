//! Documents in the memory of the store process.
//!
//! Used for models that are declared so, and in tests in place of the disk. A snapshot costs a reference per
//! shard: documents are spread over shards that are copied when they are written while a snapshot holds them.

pub(crate) mod kept;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use aegis_ipc::data::{Change, ChangeKind, Stored, Version};
use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    Batch, Engine, EngineResult, Forget, Head, IndexRow, KeptAge, KeptResponse, LogBudget, LogPage, MetaEdit,
    Recovered, RequestGroup, Snapshot, UniqueEdit, UniqueKey, records,
};

/// Parts of a model's documents. With a million documents, a write beside a snapshot copies a few thousand references.
const SHARDS: usize = 256;
/// The log drops its oldest changes beyond this, bytes. A worker that is further behind gets a complete copy.
const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The oldest kept responses go beyond this, bytes, however young they are.
const RESPONSES_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that are counted for each kept response, besides what it holds: it is found by its key and by its age.
const RESPONSE_OVERHEAD_BYTES: usize = 512;

/// Documents in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryEngine {
    state: RwLock<State>,
}

type Shard = BTreeMap<Arc<str>, Arc<Stored>>;
type Documents = HashMap<String, Vec<Arc<Shard>>>;

#[derive(Debug, Default)]
struct State {
    documents: Documents,
    log: VecDeque<Change>,
    log_bytes: usize,
    log_oldest: u64,
    last: u64,
    unique: BTreeMap<UniqueKey, String>,
    responses: HashMap<Vec<u8>, KeptResponse>,
    response_bytes: usize,
    response_ages: BTreeMap<(u64, u64, Vec<u8>), ()>,
    requests: BTreeMap<u64, RequestGroup>,
    indexes: BTreeMap<u32, IndexRow>,
    dropped: Vec<u32>,
    catalog: Option<Vec<u8>>,
    declared: Option<Vec<u8>>,
    reserved: u64,
}

impl MemoryEngine {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        let state = State { log_oldest: 1, ..State::default() };
        Self { state: RwLock::new(state) }
    }

    /// Leaves everything to the end of the process, which frees it at once: one by one, millions of documents take seconds,
    /// and the next store begins only then. The engine is empty afterwards.
    pub(crate) fn leave(&self) {
        Box::leak(Box::new(std::mem::take(&mut *self.state.write())));
    }
}

impl State {
    fn document(&self, model: &str, id: &str) -> Option<&Arc<Stored>> {
        self.documents.get(model)?[shard_of(id)].get(id)
    }

    fn change(&mut self, change: &Change) {
        match &change.kind {
            ChangeKind::Put { id, revision, body, .. } => {
                let stored = Stored {
                    model: change.model.clone(),
                    id: id.clone(),
                    revision: *revision,
                    sequence: change.sequence,
                    body: body.clone(),
                };
                let shards = match self.documents.get_mut(&change.model) {
                    Some(shards) => shards,
                    None => self.documents.entry(change.model.clone()).or_insert_with(empty_shards),
                };
                Arc::make_mut(&mut shards[shard_of(id)]).insert(Arc::from(id.as_str()), Arc::new(stored));
            }
            ChangeKind::Remove { id, .. } => {
                if let Some(shards) = self.documents.get_mut(&change.model) {
                    Arc::make_mut(&mut shards[shard_of(id)]).remove(id.as_str());
                }
            }
            ChangeKind::Truncate => {
                self.documents.remove(&change.model);
            }
        }
        self.last = self.last.max(change.sequence);
        self.log_bytes += change_bytes(change);
        self.log.push_back(change.clone());
        while self.log_bytes > LOG_BYTES_MAX {
            self.forget_oldest_change();
        }
    }

    fn forget_oldest_change(&mut self) {
        if let Some(change) = self.log.pop_front() {
            self.log_bytes -= change_bytes(&change);
            self.log_oldest = self.log_oldest.max(change.sequence + 1);
        }
    }

    fn respond(&mut self, kept: KeptResponse) {
        let key = records::bounded(kept.key.as_bytes());
        self.response_ages.insert((kept.time_ms, kept.sequence, key.clone()), ());
        self.response_bytes += response_bytes(&kept);
        if let Some(before) = self.responses.insert(key, kept) {
            self.response_bytes -= response_bytes(&before);
        }
        while self.response_bytes > RESPONSES_BYTES_MAX {
            let Some(((time_ms, sequence, key), ())) = self.response_ages.pop_first() else { break };
            self.forget_response(&key, (time_ms, sequence));
        }
    }

    /// Forgets the response under a key, if it still is the one of that age.
    fn forget_response(&mut self, key: &[u8], age: (u64, u64)) {
        if self.responses.get(key).is_some_and(|kept| (kept.time_ms, kept.sequence) == age)
            && let Some(gone) = self.responses.remove(key)
        {
            self.response_bytes -= response_bytes(&gone);
        }
    }

    fn meta(&mut self, edit: &MetaEdit) {
        match edit {
            MetaEdit::Catalog(bytes) => (self.catalog, self.declared) = (Some(bytes.clone()), None),
            MetaEdit::Declared(bytes) => self.declared = Some(bytes.clone()),
            MetaEdit::Reserved(number) => self.reserved = *number,
            MetaEdit::Index(row) => {
                self.indexes.retain(|_, known| known.name != row.name);
                self.indexes.insert(row.number, row.clone());
            }
            MetaEdit::DropIndex(row) => {
                self.indexes.retain(|_, known| known.name != row.name);
                self.dropped.push(row.number);
            }
            MetaEdit::IndexGone(number) => self.dropped.retain(|dropped| dropped != number),
        }
    }

    fn forget(&mut self, forget: &Forget) {
        if let Some(before) = forget.log_before {
            self.log_oldest = self.log_oldest.max(before);
        }
        let last = forget.log.last().copied().unwrap_or(0);
        while self.log.front().is_some_and(|change| change.sequence <= last) {
            self.forget_oldest_change();
        }
        for number in &forget.requests {
            self.requests.remove(number);
        }
        for age in &forget.responses {
            self.response_ages.remove(&(age.time_ms, age.sequence, age.key.clone()));
            self.forget_response(&age.key, (age.time_ms, age.sequence));
        }
        for key in &forget.unique {
            self.unique.remove(key);
        }
    }
}

impl Engine for MemoryEngine {
    fn last(&self) -> u64 {
        self.state.read().last
    }

    fn log_oldest(&self) -> u64 {
        self.state.read().log_oldest
    }

    fn head(&self, model: &str, id: &str) -> EngineResult<Option<Head>> {
        let state = self.state.read();
        let head = |stored: &Arc<Stored>| Head { sequence: stored.sequence, revision: stored.revision };
        Ok(state.document(model, id).map(head))
    }

    fn document(&self, model: &str, id: &str) -> EngineResult<Option<Stored>> {
        Ok(self.state.read().document(model, id).map(|stored| Stored::clone(stored)))
    }

    fn version(&self, version: &Version) -> EngineResult<Option<Bytes>> {
        let state = self.state.read();
        if let Some(stored) = state.document(&version.model, &version.id)
            && stored.sequence == version.sequence
        {
            return Ok(Some(stored.body.clone()));
        }
        let Ok(at) = state.log.binary_search_by_key(&version.sequence, |change| change.sequence) else {
            return Ok(None);
        };
        let change = &state.log[at];
        Ok(match &change.kind {
            ChangeKind::Put { id, body, .. } if change.model == version.model && *id == version.id => {
                Some(body.clone())
            }
            ChangeKind::Put { .. } | ChangeKind::Remove { .. } | ChangeKind::Truncate => None,
        })
    }

    fn unique_owner(&self, key: &UniqueKey) -> EngineResult<Option<String>> {
        Ok(self.state.read().unique.get(key).cloned())
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        Ok(self.state.read().responses.get(&records::bounded(key.as_bytes())).cloned())
    }

    fn log(&self, after: u64, up_to: u64, budget: LogBudget) -> EngineResult<LogPage> {
        let state = self.state.read();
        let mut page = LogPage { changes: Vec::new(), reached: up_to.max(after) };
        let mut bytes = 0;
        let start = state.log.partition_point(|change| change.sequence <= after);
        for change in state.log.range(start..).take_while(|change| change.sequence <= up_to) {
            if page.changes.len() >= budget.changes_max.max(1) || bytes > budget.bytes_max {
                page.reached = page.changes.last().map_or(up_to, |change| change.sequence);
                break;
            }
            bytes += change_bytes(change);
            page.changes.push(change.clone());
        }
        Ok(page)
    }

    fn snapshot(&self) -> EngineResult<Box<dyn Snapshot>> {
        let state = self.state.read();
        Ok(Box::new(MemorySnapshot { last: state.last, documents: state.documents.clone() }))
    }

    fn apply(&self, batch: &Batch<'_>) -> EngineResult<()> {
        let mut state = self.state.write();
        for change in &batch.changes {
            state.change(change);
        }
        for UniqueEdit { key, owner } in &batch.unique {
            match owner {
                Some(owner) => state.unique.insert(key.clone(), owner.clone()),
                None => state.unique.remove(key),
            };
        }
        state.forget(&batch.forget);
        for kept in &batch.responses {
            state.respond(kept.clone());
        }
        if let Some(group) = &batch.requests {
            state.requests.insert(group.number, group.clone());
        }
        for edit in &batch.meta {
            state.meta(edit);
        }
        Ok(())
    }

    fn unsettled_bytes(&self) -> u64 {
        0
    }

    fn log_rows(&self, before: u64, rows_max: usize) -> EngineResult<Vec<u64>> {
        let state = self.state.read();
        let below = state.log.iter().map(|change| change.sequence).take_while(|sequence| *sequence < before);
        Ok(below.take(rows_max).collect())
    }

    fn responses_before(&self, before_ms: u64, rows_max: usize) -> EngineResult<Vec<KeptAge>> {
        let state = self.state.read();
        let ages = state.response_ages.range(..(before_ms, 0, Vec::new())).take(rows_max);
        Ok(ages
            .map(|((time_ms, sequence, key), ())| KeptAge {
                time_ms: *time_ms,
                sequence: *sequence,
                key: key.clone(),
            })
            .collect())
    }

    fn index_rows(
        &self,
        number: u32,
        after: Option<&UniqueKey>,
        rows_max: usize,
    ) -> EngineResult<Vec<UniqueEdit>> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from =
            after.cloned().map_or_else(|| Included(UniqueKey { index: number, value: Vec::new() }), Excluded);
        let state = self.state.read();
        let rows =
            state.unique.range((from, Unbounded)).take_while(|(key, _)| key.index == number).take(rows_max);
        Ok(rows.map(|(key, owner)| UniqueEdit { key: key.clone(), owner: Some(owner.clone()) }).collect())
    }

    fn recover(&self) -> EngineResult<Recovered> {
        let state = self.state.read();
        Ok(Recovered {
            requests: state.requests.values().cloned().collect(),
            indexes: state.indexes.values().cloned().collect(),
            dropped: state.dropped.clone(),
            catalog: state.catalog.clone(),
            declared: state.declared.clone(),
            reserved: state.reserved,
        })
    }
}

struct MemorySnapshot {
    last: u64,
    documents: Documents,
}

impl Snapshot for MemorySnapshot {
    fn last(&self) -> u64 {
        self.last
    }

    fn models(&self) -> EngineResult<Vec<String>> {
        let filled = self.documents.iter().filter(|(_, shards)| shards.iter().any(|shard| !shard.is_empty()));
        let mut models: Vec<String> = filled.map(|(model, _)| model.clone()).collect();
        models.sort();
        Ok(models)
    }

    fn documents<'a>(&'a self, model: &str) -> Box<dyn Iterator<Item = EngineResult<Stored>> + 'a> {
        let Some(shards) = self.documents.get(model) else { return Box::new(std::iter::empty()) };
        let mut all: Vec<&Arc<Stored>> = shards.iter().flat_map(|shard| shard.values()).collect();
        all.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        Box::new(all.into_iter().map(|stored| Ok(Stored::clone(stored))))
    }
}

fn empty_shards() -> Vec<Arc<Shard>> {
    (0..SHARDS).map(|_| Arc::default()).collect()
}

fn shard_of(id: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    (hasher.finish() % SHARDS as u64) as usize
}

/// Bytes that a change takes, in memory and at most in a frame.
pub(crate) fn change_bytes(change: &Change) -> usize {
    let content = match &change.kind {
        ChangeKind::Put { id, body, changes, .. } => {
            id.len() + body.len() + changes.as_ref().map_or(0, Bytes::len)
        }
        ChangeKind::Remove { id, .. } => id.len(),
        ChangeKind::Truncate => 0,
    };
    std::mem::size_of::<Change>() + change.model.len() + content
}

fn response_bytes(kept: &KeptResponse) -> usize {
    RESPONSE_OVERHEAD_BYTES + kept.key.len() + kept.fingerprint.len() + kept.response.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_the_end_of_the_process_is_not_freed_with_the_engine() {
        let engine = MemoryEngine::new();
        let kind =
            ChangeKind::Put { id: "a".into(), revision: 1, body: Bytes::from_static(b"{}"), changes: None };
        let change = Change { sequence: 1, model: "M".into(), kind, time_ms: 0 };
        engine.apply(&Batch { changes: vec![&change], ..Batch::default() }).unwrap();
        let stored = engine.state.read().document("M", "a").map(Arc::downgrade).unwrap();
        engine.leave();
        drop(engine);
        assert!(stored.upgrade().is_some());
    }

    #[test]
    fn kept_responses_are_bounded_and_the_oldest_go_first() {
        let engine = MemoryEngine::new();
        let mebibyte = Bytes::from(vec![b'x'; 1024 * 1024]);
        let keep = |key: u64, time_ms: u64| {
            let kept = KeptResponse {
                key: key.to_string(),
                fingerprint: Bytes::new(),
                response: mebibyte.clone(),
                sequence: time_ms,
                time_ms,
            };
            engine.apply(&Batch { responses: vec![kept], ..Batch::default() }).unwrap();
        };
        let has = |key: u64| engine.response(&key.to_string()).unwrap().is_some();
        (1..=200).for_each(|number| keep(number, number));
        assert_eq!((1..=200).filter(|key| has(*key)).count(), 63);
        assert!(!has(137) && has(138) && has(200));
        // One that is replaced counts once, and is as young as it is now.
        (201..=300).for_each(|time_ms| keep(138, time_ms));
        assert!(has(138) && has(139) && has(200));
        keep(301, 301);
        assert!(has(138) && !has(139) && has(140));

        let responses = engine.responses_before(u64::MAX, usize::MAX).unwrap();
        engine
            .apply(&Batch { forget: Forget { responses, ..Forget::default() }, ..Batch::default() })
            .unwrap();
        let state = engine.state.read();
        assert_eq!((state.response_bytes, state.responses.len(), state.response_ages.len()), (0, 0, 0));
    }
}
