//! From what is on disk and on the board to a store that can serve.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use aegis_ipc::{
    board::{Board, StoreWord, monotonic_ms},
    data::{Change, ChangeKind},
};

use crate::{
    catalog::{Generation, Generations, Rules},
    clock::now_ms,
    engine::{
        Batch, Engine, EngineResult, MetaEdit,
        fjall::Options,
        memory::{MemoryEngine, kept::Kept},
    },
    error::StoreError,
    index::{self, Collisions, Indexes, NewIndex},
    requests::RecentRequests,
    storage::{Place, Storage},
    writer::{Memory, apply_unique},
};

/// Numbers reserved at once for changes that are only in memory, so that a host that starts anew does not give them
/// again to others.
const RESERVED_AT_ONCE: u64 = 65_536;

/// A store that can serve.
pub(crate) struct Recovery {
    /// The engines.
    pub(crate) storage: Storage,
    /// What the writer begins with.
    pub(crate) memory: Memory,
    /// What writes have to keep to.
    pub(crate) rules: Arc<Rules>,
}

/// Refuses a folder without an engine when a store of this host has published something from there: somebody has moved it
/// away, or its disk is not mounted. An empty one in its place would lose what was acknowledged, and be in the way of what is
/// put back.
///
/// # Errors
/// It is gone.
pub(crate) fn expect_engine(folder: &Path, published: u64) -> Result<(), StoreError> {
    let options = Options { folder: folder.to_owned(), cache_bytes: 0 };
    let exists = || options.exists().map_err(|source| StoreError::engine("opening the store", source));
    if published == 0 || exists()? {
        return Ok(());
    }
    Err(StoreError::Gone { path: options.engine_folder(), published })
}

/// What the stores of this host have published before; 0 is nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Published {
    /// Number of the last change.
    last: u64,
    /// Number of the last one that is on disk.
    on_disk: u64,
}

impl Published {
    /// As the board says it.
    pub(crate) fn on(board: Board) -> Self {
        Self { last: board.durable(), on_disk: board.store(StoreWord::OnDisk).load(Ordering::Acquire) }
    }
}

/// Opens the engine in `folder`, in which the stores of this host have `published` changes.
///
/// # Errors
/// The folder cannot be read, or holds something that has to be looked at first.
pub(crate) fn open_engine(
    folder: &Path,
    cache_bytes: u64,
    published: Published,
) -> Result<Box<dyn Engine>, StoreError> {
    let options = Options { folder: folder.to_owned(), cache_bytes };
    let opened = options.open().map_err(|source| StoreError::engine("opening the store", source))?;
    if let Some(set_aside) = opened.set_aside {
        tracing::warn!(
            "the last group was cut short, by a power failure or a full disk; nobody was told of it, and {set_aside}"
        );
    }
    let reserved = opened
        .engine
        .reserved()
        .map_err(|source| StoreError::engine("reading the reserved numbers", source))?;
    let on_disk = opened.engine.last();
    // Every number is on disk before it is published: with its change, or with those that are reserved.
    for (found, published) in [(on_disk, published.on_disk), (on_disk.max(reserved), published.last)] {
        if found < published {
            return Err(StoreError::Behind { path: options.engine_folder(), found, published });
        }
    }
    Ok(Box::new(opened.engine))
}

/// Finds out where the log ends, takes up what the process before kept in memory or else has it forgotten, and builds the
/// unique indexes that are missing.
///
/// The epoch goes to the board before any number does: workers show changes of one store process only while the board
/// bears its epoch.
///
/// # Errors
/// The generation does not fit the documents, or the engine fails.
pub(crate) fn recover(
    file: Box<dyn Engine>,
    generation: Generation,
    kept: Option<Kept>,
    board: Board,
    epoch: u64,
) -> Result<Recovery, StoreError> {
    let failed = |source| StoreError::engine("recovering the store", source);
    let recovered = file.recover().map_err(failed)?;
    let published = board.durable();
    let on_disk = file.last();
    // A host that starts anew must not give numbers again that clients have seen on changes that were never on disk.
    let start = on_disk.max(if published == 0 { recovered.reserved } else { published });
    // It is the state as of one number. With any other one, a store in between has committed or forgotten something.
    let kept = kept.filter(|kept| {
        let fits = kept.committed == published && kept.committed == start;
        if !fits {
            tracing::warn!(kept = kept.committed, published, start, "what was kept in memory is outdated");
        }
        fits
    });
    let is_kept = kept.is_some();
    let (memory, kept_requests) =
        kept.map_or_else(|| (MemoryEngine::new(), Vec::new()), |kept| (kept.engine, kept.requests));
    let storage = Storage::new(file, memory, start);
    tracing::info!(on_disk, published, start, epoch, is_kept, "the log is recovered");

    let mut indexes = Indexes::recovered(&recovered);
    let number = generation.number;
    let encoded = generation.encoded.clone();
    let generations = Generations::new(generation);
    let required = generations.required();
    let mut meta = indexes.drop_surplus(&required);
    let (new, begun) = indexes.begin_missing(&required);
    meta.extend(begun);
    if recovered.catalog.as_deref() != Some(&encoded) {
        meta.push(MetaEdit::Catalog(encoded));
    }
    write_meta(&storage, meta).map_err(failed)?;
    if !new.is_empty() {
        let rules = generations.rules(|name| indexes.find(name));
        let reasons = build(&storage, &rules, &new, board).map_err(failed)?;
        if !reasons.is_empty() {
            return Err(StoreError::Generation { generation: number, reasons });
        }
        write_meta(&storage, indexes.complete(&new)).map_err(failed)?;
    }
    let rules = Arc::new(generations.rules(|name| indexes.find(name)));
    let mut reserved = recovered.reserved;
    // Of an earlier host, too, clients may know what was only in memory.
    if !is_kept && (published != 0 || reserved != 0) {
        truncate(&storage, &rules.memory_models(), &mut reserved).map_err(failed)?;
    }
    board.store(StoreWord::Epoch).store(epoch, Ordering::Release);
    board.store(StoreWord::Pid).store(u64::from(std::process::id()), Ordering::Relaxed);
    board.store(StoreWord::LogOldest).store(storage.log_oldest(), Ordering::Relaxed);
    board.store(StoreWord::OnDisk).fetch_max(on_disk, Ordering::Release);
    board.publish_durable(storage.committed());
    let requests = RecentRequests::recovered(recovered.requests, kept_requests);
    let memory =
        Memory { generations, indexes, requests, reserved, has_forgotten: published != 0 && !is_kept };
    Ok(Recovery { storage, memory, rules })
}

fn write_meta(storage: &Storage, meta: Vec<MetaEdit>) -> EngineResult<()> {
    storage.apply(&Batch { meta, ..Batch::default() }, &Batch::default(), storage.committed())
}

/// Builds indexes while nobody writes. Returns what stands against them.
fn build(storage: &Storage, rules: &Rules, new: &[NewIndex], board: Board) -> EngineResult<Vec<String>> {
    tracing::info!(indexes = new.len(), "unique indexes are being built");
    let copy = storage.copy()?;
    let mut collisions = Collisions::default();
    let mut failure = None;
    let scanned = index::scan(&copy, rules, new, &mut |piece| {
        board.store(StoreWord::Beat).store(monotonic_ms(), Ordering::Relaxed);
        let filled = index::fill(storage, piece).and_then(|filled| {
            filled.collisions.into_iter().for_each(|collision| collisions.add(collision));
            apply_unique(storage, filled.unique)
        });
        filled.map_err(|error| {
            failure = Some(error);
            "the engine failed".to_owned()
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let mut reasons = collisions.reasons(new);
    reasons.extend(scanned.err());
    Ok(reasons)
}

/// Tells the workers of the process before that the documents of these models are gone. The numbers for that are reserved,
/// as all are that are not on disk with a change.
fn truncate(storage: &Storage, models: &[String], reserved: &mut u64) -> EngineResult<()> {
    debug_assert_eq!(storage.engine(Place::Memory).last(), 0);
    let changes = truncations(storage.committed(), models);
    let Some(last) = changes.last().map(|change| change.sequence) else { return Ok(()) };
    let batch = Batch { changes: changes.iter().collect(), ..Batch::default() };
    let file = Batch { meta: reserve(last, reserved).into_iter().collect(), ..Batch::default() };
    storage.apply(&file, &batch, last)
}

/// The changes after `before` that say that these models have no documents.
pub(crate) fn truncations(before: u64, models: &[String]) -> Vec<Change> {
    let (time_ms, kind) = (now_ms(), ChangeKind::Truncate);
    let change = |(sequence, model): (u64, &String)| Change {
        sequence,
        model: model.clone(),
        kind: kind.clone(),
        time_ms,
    };
    (before + 1..).zip(models).map(change).collect()
}

/// Reserves numbers up to `last` and some more, unless they are, for changes that are only in memory.
pub(crate) fn reserve(last: u64, reserved: &mut u64) -> Option<MetaEdit> {
    if last <= *reserved {
        return None;
    }
    *reserved = last + RESERVED_AT_ONCE;
    Some(MetaEdit::Reserved(*reserved))
}
