//! The tables of all models, each under a lock of its own.
//!
//! What becomes visible at once is applied to each table under one write lock, so that a reader of a model sees all of
//! a group or nothing of it. A request reads one model, and the table says itself up to where it shows the log.

mod budget;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use aegis_config::Cache;
use aegis_domain::{
    Problem,
    catalog::{Catalog, Model},
    query::{Plan, Query},
    table::{self, CacheBounds, Lookup, Table},
};
use aegis_ipc::{
    board::{Board, Cell, ModelCounter},
    data::{Change, ChangeKind, Stored},
};
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::budget::Budget;
use super::statistics::ModelStatistics;

/// The table of one model.
#[derive(Debug)]
pub struct ModelTable {
    model: Arc<Model>,
    counter_index: usize,
    documents_max: Option<u64>,
    shown: RwLock<Shown>,
}

#[derive(Debug)]
struct Shown {
    table: Table,
    /// The table shows the log at least up to here.
    through: u64,
}

/// What a table shows, and up to where it shows the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it knows about the id.
    pub found: Lookup,
    /// It is as the log up to this number makes it.
    pub sequence: u64,
}

/// All tables of a catalog.
pub(super) struct Tables {
    tables: Vec<Arc<ModelTable>>,
    by_name: HashMap<String, usize>,
    budget: Mutex<Budget>,
    bytes_max: u64,
}

/// A complete copy in the making.
pub(super) struct Copy {
    tables: Vec<Table>,
    by_name: HashMap<String, usize>,
    documents_max: Vec<Option<u64>>,
    budget: Budget,
}

impl ModelTable {
    /// The model.
    #[must_use]
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Looks a document up. `applied` is [`super::Data::applied`], loaded before the call.
    #[must_use]
    pub fn look_up(&self, id: &str, applied: u64) -> Seen {
        let shown = self.shown.read();
        Seen { found: shown.table.get(id), sequence: shown.through.max(applied) }
    }

    /// Plans a query; also tells up to where the plan shows the log. `applied` as in [`look_up`](Self::look_up).
    ///
    /// # Errors
    /// As [`Table::plan`].
    pub fn plan(&self, query: &Query, applied: u64) -> Result<(Plan, u64), Problem> {
        let shown = self.shown.read();
        Ok((shown.table.plan(query)?, shown.through.max(applied)))
    }

    /// Takes the next documents that a plan asks for out of the table, as [`Table::look`].
    #[must_use]
    pub fn look(&self, plan: Plan) -> Option<Plan> {
        self.shown.read().table.look(plan)
    }

    /// Keeps the body of a version, if that is still the last one.
    pub fn fill(&self, id: &str, sequence: u64, body: Bytes) {
        self.shown.write().table.fill(id, sequence, body);
    }

    /// Adds to a total of the model.
    pub fn count(&self, cell: Cell, counter: ModelCounter, amount: u64) {
        cell.model_counter(self.counter_index, counter).fetch_add(amount, Ordering::Relaxed);
    }

    fn statistics(&self) -> table::Statistics {
        self.shown.read().table.statistics()
    }

    fn bounds(&self, bytes_max: u64) -> CacheBounds {
        CacheBounds { bytes_max, documents_max: self.documents_max }
    }

    /// Shows these changes, all of this model, at once.
    fn apply(&self, changes: &[(usize, &Change)], through: u64) {
        let mut shown = self.shown.write();
        for (_, change) in changes {
            match &change.kind {
                ChangeKind::Put { id, revision, body, .. } => {
                    shown.table.put(id, *revision, change.sequence, body.clone());
                }
                ChangeKind::Remove { id, .. } => shown.table.remove(id, change.sequence),
                ChangeKind::Truncate => shown.table.truncate(),
            }
        }
        shown.through = through;
    }
}

impl Tables {
    pub(super) fn new(cache: &Cache, catalog: &Catalog, board: Board) -> Self {
        let models = catalog.models();
        let budget = Budget::new(cache.bytes_max, models.len());
        let table = |(index, model): (usize, &Arc<Model>)| {
            let documents_max = model.spec().cache_documents_max.or(cache.documents_max);
            let bounds = CacheBounds { bytes_max: budget.share(index), documents_max };
            Arc::new(ModelTable {
                model: Arc::clone(model),
                counter_index: board.model_index(model.name()),
                documents_max,
                shown: RwLock::new(Shown { table: Table::new(model, bounds), through: 0 }),
            })
        };
        let tables = models.iter().enumerate().map(table).collect();
        let by_name =
            models.iter().enumerate().map(|(index, model)| (model.name().to_owned(), index)).collect();
        Self { tables, by_name, budget: Mutex::new(budget), bytes_max: cache.bytes_max }
    }

    pub(super) fn get(&self, model: &str) -> Option<&Arc<ModelTable>> {
        self.by_name.get(model).map(|index| &self.tables[*index])
    }

    /// Shows changes that become visible at once. Those of models that the catalog does not have are passed over.
    pub(super) fn apply(&self, changes: &[Change], through: u64) {
        let mut placed: Vec<(usize, &Change)> = Vec::with_capacity(changes.len());
        for change in changes {
            match placed.last() {
                Some((index, last)) if last.model == change.model => placed.push((*index, change)),
                _ => placed.extend(self.by_name.get(&change.model).map(|index| (*index, change))),
            }
        }
        placed.sort_by_key(|(index, _)| *index); // stable: the changes of a model stay in order
        for of_model in placed.chunk_by(|(left, _), (right, _)| left == right) {
            let index = of_model[0].0;
            self.make_room(index, of_model.iter().map(|(_, change)| body_bytes(change)).sum());
            self.tables[index].apply(of_model, through);
        }
    }

    /// A complete copy that has nothing yet.
    pub(super) fn new_copy(&self) -> Copy {
        let budget = Budget::new(self.bytes_max, self.tables.len());
        let table = |(index, table): (usize, &Arc<ModelTable>)| {
            Table::new(&table.model, table.bounds(budget.share(index)))
        };
        Copy {
            tables: self.tables.iter().enumerate().map(table).collect(),
            by_name: self.by_name.clone(),
            documents_max: self.tables.iter().map(|table| table.documents_max).collect(),
            budget,
        }
    }

    /// Shows a complete copy. Returns what was shown before: letting go of it takes long.
    pub(super) fn adopt(&self, copy: Copy, at: u64) -> Vec<Table> {
        *self.budget.lock() = copy.budget;
        let exchange = |(table, copy): (&Arc<ModelTable>, Table)| {
            let mut shown = table.shown.write();
            shown.through = at;
            std::mem::replace(&mut shown.table, copy)
        };
        self.tables.iter().zip(copy.tables).map(exchange).collect()
    }

    /// Sums over all tables.
    pub(super) fn totals(&self) -> table::Statistics {
        self.tables.iter().map(|table| table.statistics()).fold(table::Statistics::default(), |sum, one| {
            table::Statistics {
                documents: sum.documents + one.documents,
                bytes: sum.bytes + one.bytes,
                cached_documents: sum.cached_documents + one.cached_documents,
                cached_bytes: sum.cached_bytes + one.cached_bytes,
            }
        })
    }

    pub(super) fn statistics(&self) -> Vec<ModelStatistics> {
        let one = |table: &Arc<ModelTable>| {
            let table::Statistics { documents, bytes, cached_documents, cached_bytes } = table.statistics();
            ModelStatistics {
                model_name: table.model.name().to_owned(),
                endpoint: table.model.endpoint().to_owned(),
                documents,
                bytes,
                cached_documents,
                cached_bytes,
            }
        };
        self.tables.iter().map(one).collect()
    }

    /// Shares the memory for bodies anew, as the models need it by now.
    pub(super) fn share_budget(&self) {
        let demands: Vec<u64> = self.tables.iter().map(|table| table.statistics().bytes).collect();
        self.set_shares(&demands);
    }

    fn make_room(&self, index: usize, more_bytes: u64) {
        let demand = self.tables[index].statistics().bytes + more_bytes;
        if self.budget.lock().is_too_small(index, demand) {
            let mut demands: Vec<u64> = self.tables.iter().map(|table| table.statistics().bytes).collect();
            demands[index] = demand;
            self.set_shares(&demands);
        }
    }

    fn set_shares(&self, demands: &[u64]) {
        let mut budget = self.budget.lock();
        for (index, share) in budget.set_demands(demands) {
            let table = &self.tables[index];
            table.shown.write().table.set_bounds(table.bounds(share));
        }
    }
}

impl Copy {
    /// Adds documents. Those of models that the catalog does not have are passed over.
    pub(super) fn fill(&mut self, documents: Vec<Stored>) {
        for document in documents {
            let Some(index) = self.by_name.get(&document.model).copied() else { continue };
            let demand = self.tables[index].statistics().bytes + document.body.len() as u64;
            if self.budget.is_too_small(index, demand) {
                let mut demands: Vec<u64> =
                    self.tables.iter().map(|table| table.statistics().bytes).collect();
                demands[index] = demand;
                for (index, bytes_max) in self.budget.set_demands(&demands) {
                    let documents_max = self.documents_max[index];
                    self.tables[index].set_bounds(CacheBounds { bytes_max, documents_max });
                }
            }
            self.tables[index].put(&document.id, document.revision, document.sequence, document.body);
        }
    }
}

fn body_bytes(change: &Change) -> u64 {
    match &change.kind {
        ChangeKind::Put { body, .. } => body.len() as u64,
        ChangeKind::Remove { .. } | ChangeKind::Truncate => 0,
    }
}
