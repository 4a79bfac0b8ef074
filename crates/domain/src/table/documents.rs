//! Slots: where documents are.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    Statistics,
    cache::{Cache, CacheBounds, Links},
};

/// An id, which is compared by its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) Arc<str>);

impl Borrow<[u8]> for Id {
    fn borrow(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl PartialOrd for Id {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Id {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

/// Number of a slot.
pub(crate) type SlotNumber = u32;

/// One document.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: Id,
    pub(crate) revision: u64,
    pub(crate) sequence: u64,
    /// Bytes of the body, in memory or not.
    pub(crate) length: u32,
    /// Whether the body has been read since the hand of the cache passed by.
    pub(super) is_used: AtomicBool,
    pub(super) links: Links,
    pub(super) body: Option<Bytes>,
}

/// A version of a document that has been replaced or removed.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) id: Id,
    pub(super) sequence: u64,
    pub(super) length: u32,
    pub(super) body: Option<Bytes>,
}

impl Slot {
    fn version(&self, body: Option<Bytes>) -> Version {
        Version { id: self.id.clone(), sequence: self.sequence, length: self.length, body }
    }

    /// The body, without a trace.
    pub(crate) fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    /// The body, which is used by that.
    pub(super) fn used_body(&self) -> Option<&Bytes> {
        // Only the first reader writes, so that all others share the cache line.
        if self.body.is_some() && !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
        self.body.as_ref()
    }
}

/// All documents, by slot, by id and in the order of ids.
#[derive(Debug)]
pub(super) struct Documents {
    slots: Vec<Slot>,
    vacant: Vec<SlotNumber>,
    by_id: HashTable<SlotNumber>,
    hasher: DefaultHashBuilder,
    ordered: BTreeMap<Id, SlotNumber>,
    cache: Cache,
    bytes: u64,
}

impl Documents {
    pub(super) fn new(bounds: CacheBounds) -> Self {
        Self {
            slots: Vec::new(),
            vacant: Vec::new(),
            by_id: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            ordered: BTreeMap::new(),
            cache: Cache::new(bounds),
            bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ordered.len()
    }

    pub(super) fn find(&self, id: &str) -> Option<SlotNumber> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&slot| *self.slot(slot).id.0 == *id).copied()
    }

    pub(super) fn slot(&self, slot: SlotNumber) -> &Slot {
        &self.slots[slot as usize]
    }

    pub(super) fn ordered(&self) -> &BTreeMap<Id, SlotNumber> {
        &self.ordered
    }

    pub(super) fn statistics(&self) -> Statistics {
        Statistics {
            documents: self.ordered.len() as u64,
            bytes: self.bytes,
            cached_documents: self.cache.documents(),
            cached_bytes: self.cache.bytes(),
        }
    }

    /// Adds a document that is not there.
    pub(super) fn insert(&mut self, id: &str, revision: u64, sequence: u64, body: Bytes) -> SlotNumber {
        let id = Id(id.into());
        let length = length(&body);
        let document = Slot {
            id: id.clone(),
            revision,
            sequence,
            length,
            is_used: AtomicBool::new(false),
            links: Links::default(),
            body: None,
        };
        let slot = if let Some(slot) = self.vacant.pop() {
            self.slots[slot as usize] = document;
            slot
        } else {
            self.slots.push(document);
            SlotNumber::try_from(self.slots.len() - 1)
                .expect("memory ends long before 2^32 slots of 80 bytes")
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |&slot: &SlotNumber| hasher.hash_one(&*slots[slot as usize].id.0);
        self.by_id.insert_unique(hasher.hash_one(&*id.0), slot, rehash);
        self.ordered.insert(id, slot);
        self.bytes += u64::from(length);
        self.cache.admit(&mut self.slots, slot, body);
        slot
    }

    /// Puts the next version of a document into its slot; returns the one that was there.
    pub(super) fn replace(&mut self, slot: SlotNumber, revision: u64, sequence: u64, body: Bytes) -> Version {
        let former = self.cache.take_body(&mut self.slots, slot);
        let document = &mut self.slots[slot as usize];
        let version = document.version(former);
        self.bytes -= u64::from(document.length);
        document.revision = revision;
        document.sequence = sequence;
        document.length = length(&body);
        self.bytes += u64::from(document.length);
        if version.body.is_some() {
            self.cache.admit(&mut self.slots, slot, body);
        }
        version
    }

    /// Puts the body of the current version back.
    pub(super) fn fill(&mut self, slot: SlotNumber, body: Bytes) {
        if self.slot(slot).body.is_none() {
            self.cache.admit(&mut self.slots, slot, body);
        }
    }

    /// Removes a document; returns the version that was there.
    pub(super) fn remove(&mut self, slot: SlotNumber) -> Version {
        let body = self.cache.take_body(&mut self.slots, slot);
        let document = &mut self.slots[slot as usize];
        let version = document.version(body);
        let id = std::mem::replace(&mut document.id, Id("".into()));
        // No change has this number, so that nobody takes the slot for the document that was there.
        document.sequence = 0;
        self.bytes -= u64::from(document.length);
        let hash = self.hasher.hash_one(&*id.0);
        if let Ok(entry) = self.by_id.find_entry(hash, |&found| found == slot) {
            entry.remove();
        }
        self.ordered.remove(id.0.as_bytes());
        self.vacant.push(slot);
        version
    }

    #[cfg(test)]
    pub(super) fn bounds(&self) -> CacheBounds {
        self.cache.bounds()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.cache.bounds());
    }

    pub(super) fn set_bounds(&mut self, bounds: CacheBounds) {
        self.cache.set_bounds(&mut self.slots, bounds);
    }
}

/// A body that is longer than 4 GiB is refused long before it comes here.
fn length(body: &Bytes) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}
