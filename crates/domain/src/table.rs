//! One model's documents in the memory of a worker.
//!
//! Every document has a slot with its id, revision and sequence number; its body is in the slot as long as the bounded
//! cache has room (see [`cache`]), the keys of its indexed fields always. So a read by id is one look-up, and a list
//! needs bodies only for what it shows and for filters that no index answers.
//!
//! A table is changed by one writer and read by many, under a lock of its owner. Nothing here waits or allocates much:
//! queries leave the lock with a [`Plan`](crate::query::Plan) and evaluate outside.

mod cache;
mod documents;
mod index;
mod plan;
mod retired;
mod walk;

use std::sync::Arc;

use bytes::Bytes;

pub use self::cache::CacheBounds;
use self::{documents::Documents, index::Index, retired::Retired};
use crate::{
    catalog::{IndexedField, Model},
    order::Key,
    raw,
};

/// The documents of one model.
#[derive(Debug)]
pub struct Table {
    documents: Documents,
    indexes: Vec<Index>,
    retired: Retired,
    /// Keys of the document that is being put, one per index.
    keys: Vec<Key>,
    /// Memory to make keys in.
    scratch: Vec<u8>,
}

/// What a table knows about an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The document, with its body.
    Hit {
        /// Its revision.
        revision: u64,
        /// Number of the change that wrote it.
        sequence: u64,
        /// Its body.
        body: Bytes,
    },
    /// The document exists, but its body is not in memory: fetch the version and [`Table::fill`] it in.
    Evicted {
        /// Its revision.
        revision: u64,
        /// Number of the change that wrote it.
        sequence: u64,
    },
    /// There is no such document.
    Missing,
}

/// How full a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Documents.
    pub documents: u64,
    /// Bytes of all their bodies, in memory or not.
    pub bytes: u64,
    /// Documents whose body is in memory.
    pub cached_documents: u64,
    /// Bytes of these bodies.
    pub cached_bytes: u64,
}

impl Table {
    /// An empty table for a model.
    #[must_use]
    pub fn new(model: &Model, bounds: CacheBounds) -> Self {
        Self::with_fields(model.indexed_fields(), bounds)
    }

    fn with_fields(fields: &[IndexedField], bounds: CacheBounds) -> Self {
        let indexes: Vec<_> = fields.iter().cloned().map(Index::new).collect();
        Self {
            documents: Documents::new(bounds),
            keys: Vec::with_capacity(indexes.len()),
            indexes,
            retired: Retired::default(),
            scratch: Vec::new(),
        }
    }

    /// Looks a document up and marks its body as used.
    #[must_use]
    pub fn get(&self, id: &str) -> Lookup {
        let Some(slot) = self.documents.find(id).map(|slot| self.documents.slot(slot)) else {
            return Lookup::Missing;
        };
        match slot.used_body() {
            Some(body) => {
                Lookup::Hit { revision: slot.revision, sequence: slot.sequence, body: body.clone() }
            }
            None => Lookup::Evicted { revision: slot.revision, sequence: slot.sequence },
        }
    }

    /// Applies the change that wrote a document. A change that is not newer than what the table has is ignored, so that
    /// applying a part of the log twice does no harm.
    ///
    /// The body of a new document is kept; that of an old one only if it was in memory before.
    pub fn put(&mut self, id: &str, revision: u64, sequence: u64, body: Bytes) {
        let known = self.documents.find(id);
        if known.is_some_and(|slot| self.documents.slot(slot).sequence >= sequence) {
            return;
        }
        self.read_keys(&body);
        let slot = match known {
            Some(slot) => {
                self.retired.add(self.documents.replace(slot, revision, sequence, body));
                slot
            }
            None => self.documents.insert(id, revision, sequence, body),
        };
        let id = Arc::clone(&self.documents.slot(slot).id.0);
        for (index, key) in self.indexes.iter_mut().zip(self.keys.drain(..)) {
            index.set(slot, &id, key);
        }
    }

    /// Applies the change that removed a document.
    pub fn remove(&mut self, id: &str, sequence: u64) {
        let Some(slot) = self.documents.find(id) else { return };
        if self.documents.slot(slot).sequence >= sequence {
            return;
        }
        for index in &mut self.indexes {
            index.unset(slot, id);
        }
        self.retired.add(self.documents.remove(slot));
    }

    /// Forgets every document.
    pub fn truncate(&mut self) {
        self.retired.end();
        self.documents.clear();
        self.indexes.iter_mut().for_each(Index::clear);
    }

    /// Puts the body of a version back into the cache. Tells whether that version is still the current one.
    pub fn fill(&mut self, id: &str, sequence: u64, body: Bytes) -> bool {
        match self.documents.find(id) {
            Some(slot) if self.documents.slot(slot).sequence == sequence => {
                self.documents.fill(slot, body);
                true
            }
            _ => false,
        }
    }

    /// Changes the bounds of the cache, and evicts what is beyond them.
    pub fn set_bounds(&mut self, bounds: CacheBounds) {
        self.documents.set_bounds(bounds);
    }

    /// How full it is.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.documents.statistics()
    }

    /// Reads the keys of all indexed fields in one pass.
    fn read_keys(&mut self, body: &[u8]) {
        let scratch = &mut self.scratch;
        self.keys.clear();
        self.keys.extend(self.indexes.iter().map(|index| index.key(None, scratch)));
        if self.keys.is_empty() {
            return;
        }
        for member in raw::members(body) {
            for (index, key) in self.indexes.iter().zip(&mut self.keys) {
                if member.is(index.field()) {
                    *key = index.key(Some(member.value), scratch);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
