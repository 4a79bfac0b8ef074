//! How one generation follows another: unique indexes are built before it starts and dropped after it has gone.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{Command, Writer};
use crate::{
    catalog::Generation,
    commit::{Collision, Placed},
    engine::{Batch, EngineResult, MetaEdit, UniqueEdit},
    error::{StoreError, chain},
    index::{self, Collisions, Filled, NewIndex, Scanned},
    notice::Notice,
    storage::{Place, Storage},
};

/// Indexes that are being built for a generation.
pub(super) struct Build {
    number: u64,
    generation: u64,
    new: Vec<NewIndex>,
    collisions: Collisions,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Build {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Writer {
    /// Makes it possible to serve `next` beside the generation in force, or refuses it.
    pub(super) fn prepare(&mut self, next: Generation) -> Result<(), StoreError> {
        let generation = next.number;
        if generation == self.generations.active().number {
            self.notifier.tell(Notice::Prepared { generation });
            return Ok(());
        }
        let objections = self.generations.objections(&next);
        if !objections.is_empty() {
            self.refuse(generation, objections);
            return Ok(());
        }
        self.build = None;
        self.generations.prepare(next);
        let before = self.shared.rules().memory_models();
        let new = self.follow_generations(Vec::new())?;
        if self.has_forgotten {
            self.empty_what_is_gained(&before)
                .map_err(|source| StoreError::engine("emptying models in memory", source))?;
        }
        if new.is_empty() {
            self.notifier.tell(Notice::Prepared { generation });
            return Ok(());
        }
        self.builds += 1;
        let cancelled = Arc::new(AtomicBool::new(false));
        let build = Build {
            number: self.builds,
            generation,
            new: new.clone(),
            collisions: Collisions::default(),
            cancelled: Arc::clone(&cancelled),
        };
        let names: Vec<String> = new.iter().map(|index| index.name.to_string()).collect();
        tracing::info!(generation, indexes = names.join(", "), "unique indexes are being built");
        // The view is opened before the next group is written: what is written from now on updates the new indexes.
        let copy =
            self.shared.storage.copy().map_err(|source| StoreError::engine("opening a view", source))?;
        let (rules, commands, number) = (self.shared.rules(), self.inbox.to_commands.clone(), build.number);
        let scan = move || {
            let lost = |_| "the store is stopping".to_owned();
            let mut hand_over = |piece: Vec<Scanned>| {
                if cancelled.load(Ordering::Relaxed) {
                    return Err("the generation was discarded".to_owned());
                }
                commands.send(Command::Scanned { build: number, piece }).map_err(lost)
            };
            let result = index::scan(&copy, &rules, &new, &mut hand_over);
            // The writer is gone when nobody listens.
            let _ = commands.send(Command::ScanEnded { build: number, result });
        };
        self.build = Some(build);
        let thread = std::thread::Builder::new().name("index-scan".to_owned()).spawn(scan);
        if let Err(error) = thread {
            return self.end_build(vec![format!("no thread to build unique indexes: {}", chain(&error))]);
        }
        Ok(())
    }

    /// Tells the workers that models in memory which come back with the generation have no documents. Its workers show those
    /// that the store before had, when it was killed while they were judged.
    fn empty_what_is_gained(&mut self, before: &[String]) -> EngineResult<()> {
        let memory = self.shared.storage.engine(Place::Memory).snapshot()?;
        let mut gained = self.shared.rules().memory_models();
        gained.retain(|model| !before.contains(model) && memory.documents(model).next().is_none());
        self.commit_empty(&gained)
    }

    /// The prepared generation is in force.
    pub(super) fn activate(&mut self, generation: u64) -> Result<(), StoreError> {
        if generation == self.generations.active().number {
            return Ok(());
        }
        if self.generations.prepared() != Some(generation) || self.build.is_some() {
            tracing::error!(generation, "told to activate a generation that is not prepared");
            return Ok(());
        }
        self.generations.activate();
        let active = self.generations.active();
        self.settings = active.settings.clone();
        let catalog = MetaEdit::Catalog(active.encoded.clone());
        self.shared.registry.set_feed_bytes_max(bytes_max(self.settings.store.feed_bytes_max));
        let idempotency_time = self.settings.store.idempotency_time.as_millis();
        self.shared.set_idempotency_time_ms(u64::try_from(idempotency_time).unwrap_or(u64::MAX));
        (self.follow_log)(&self.settings.log);
        self.follow_generations(vec![catalog])?;
        tracing::info!(generation, "the generation is in force");
        Ok(())
    }

    /// The prepared generation is not coming.
    pub(super) fn discard(&mut self, generation: u64) -> Result<(), StoreError> {
        if self.generations.prepared() != Some(generation) {
            return Ok(());
        }
        self.build = None;
        self.generations.discard();
        self.follow_generations(Vec::new())?;
        tracing::info!(generation, "the generation is discarded");
        Ok(())
    }

    /// Fills a piece of a scan into the new indexes.
    pub(super) fn scanned(&mut self, number: u64, piece: Vec<Scanned>) -> Result<(), StoreError> {
        if self.build.as_ref().is_none_or(|build| build.number != number) {
            return Ok(());
        }
        if let Some(reason) = self.space.refusal() {
            return self.end_build(vec![format!("no unique index is built: {reason}")]);
        }
        let Some(build) = &mut self.build else { return Ok(()) };
        let storage = &self.shared.storage;
        let failed = |source| StoreError::engine("building a unique index", source);
        let Filled { unique, collisions } = index::fill(storage, piece).map_err(failed)?;
        collisions.into_iter().for_each(|collision| build.collisions.add(collision));
        apply_unique(storage, unique).map_err(failed)
    }

    /// A scan has ended.
    pub(super) fn scan_ended(&mut self, number: u64, result: Result<(), String>) -> Result<(), StoreError> {
        let Some(build) = self.build.as_ref().filter(|build| build.number == number) else { return Ok(()) };
        let mut reasons = build.collisions.reasons(&build.new);
        reasons.extend(result.err());
        self.end_build(reasons)
    }

    /// A write made two documents share a value of a field that is about to become unique.
    pub(super) fn collided(&mut self, collision: Collision) {
        if let Some(build) = &mut self.build {
            build.collisions.add(collision);
        }
    }

    fn end_build(&mut self, reasons: Vec<String>) -> Result<(), StoreError> {
        let Some(build) = self.build.take() else { return Ok(()) };
        if reasons.is_empty() {
            let complete = self.indexes.complete(&build.new);
            self.follow_generations(complete)?;
            self.notifier.tell(Notice::Prepared { generation: build.generation });
        } else {
            self.generations.discard();
            self.follow_generations(Vec::new())?;
            self.refuse(build.generation, reasons);
        }
        Ok(())
    }

    fn refuse(&self, generation: u64, reasons: Vec<String>) {
        tracing::warn!(generation, reasons = reasons.join("; "), "the generation is refused");
        self.notifier.tell(Notice::Refused { generation, reasons });
    }

    /// Drops and begins indexes as the generations require, and makes their rules known.
    fn follow_generations(&mut self, mut edits: Vec<MetaEdit>) -> Result<Vec<NewIndex>, StoreError> {
        let required = self.generations.required();
        edits.extend(self.indexes.drop_surplus(&required));
        let (new, begun) = self.indexes.begin_missing(&required);
        edits.extend(begun);
        let storage = &self.shared.storage;
        let batch = Batch { meta: edits, ..Batch::default() };
        storage
            .apply(&batch, &Batch::default(), storage.committed())
            .map_err(|source| StoreError::engine("noting the unique indexes", source))?;
        let rules = self.generations.rules(|name| self.indexes.find(name));
        self.shared.set_rules(Arc::new(rules));
        Ok(new)
    }
}

/// Writes values of unique indexes.
pub(crate) fn apply_unique(storage: &Storage, unique: Vec<Placed<UniqueEdit>>) -> EngineResult<()> {
    let (file, memory): (Vec<_>, Vec<_>) = unique.into_iter().partition(|edit| edit.place == Place::File);
    let batch = |edits: Vec<Placed<UniqueEdit>>| Batch {
        unique: edits.into_iter().map(|edit| edit.what).collect(),
        ..Batch::default()
    };
    storage.apply(&batch(file), &batch(memory), storage.committed())
}

/// A setting in bytes as a length in memory.
pub(crate) fn bytes_max(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
