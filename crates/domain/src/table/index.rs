//! The values of one field: by document, and in order.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::documents::{Id, SlotNumber};
use crate::{
    catalog::IndexedField,
    order::{self, KEY_BYTES_MAX, Key},
    query::{Direction, Span, Spans},
};

/// The index of a field. Documents without the field are in it, under the key of what is missing.
#[derive(Debug)]
pub(super) struct Index {
    field: IndexedField,
    /// Keys by slot; those of vacant slots are without meaning.
    column: Vec<Key>,
    by_key: BTreeMap<Key, Postings>,
}

/// The documents with one value, by id.
#[derive(Debug)]
pub(super) enum Postings {
    /// The only one: what most values of most fields have.
    One(Id, SlotNumber),
    /// Several.
    Many(BTreeMap<Id, SlotNumber>),
}

impl Index {
    pub(super) fn new(field: IndexedField) -> Self {
        Self { field, column: Vec::new(), by_key: BTreeMap::new() }
    }

    /// Name of the field.
    pub(super) fn field(&self) -> &str {
        &self.field.name
    }

    /// The key of a value of the field, cut as it is kept. `scratch` is memory to work in.
    pub(super) fn key(&self, value: Option<&[u8]>, scratch: &mut Vec<u8>) -> Key {
        scratch.clear();
        order::write_raw(self.field.kind, value, scratch);
        Key::from_canonical(&scratch[..scratch.len().min(KEY_BYTES_MAX)])
    }

    /// The key of a document.
    pub(super) fn key_at(&self, slot: SlotNumber) -> &[u8] {
        self.column[slot as usize].as_bytes()
    }

    /// Whether the slot had a document before is known by its key: vacant slots have the empty one.
    pub(super) fn set(&mut self, slot: SlotNumber, id: &Arc<str>, key: Key) {
        let at = slot as usize;
        if self.column.len() <= at {
            self.column.resize_with(at + 1, || Key::from_canonical(&[]));
        }
        if self.column[at] == key {
            return;
        }
        self.unset(slot, id);
        let id = Id(Arc::clone(id));
        self.by_key
            .entry(key.clone())
            .and_modify(|postings| postings.insert(id.clone(), slot))
            .or_insert_with(|| Postings::One(id, slot));
        self.column[at] = key;
    }

    pub(super) fn unset(&mut self, slot: SlotNumber, id: &str) {
        let Some(place) = self.column.get_mut(slot as usize) else { return };
        let key = std::mem::replace(place, Key::from_canonical(&[]));
        let is_last = match self.by_key.get_mut(key.as_bytes()) {
            Some(Postings::One(_, only)) => *only == slot,
            Some(Postings::Many(many)) => {
                many.remove(id.as_bytes());
                many.is_empty()
            }
            None => false,
        };
        if is_last {
            self.by_key.remove(key.as_bytes());
        }
    }

    pub(super) fn clear(&mut self) {
        self.column = Vec::new();
        self.by_key = BTreeMap::new();
    }

    /// The values in a set, in order.
    pub(super) fn walk<'a>(
        &'a self,
        spans: &'a Spans,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = (&'a Key, &'a Postings)> + 'a> {
        let range = |span: &'a Span| {
            let high = span.high.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            self.by_key.range::<[u8], _>((Bound::Included(span.low.as_slice()), high))
        };
        match direction {
            Direction::Ascending => Box::new(spans.iter().flat_map(range)),
            Direction::Descending => Box::new(spans.iter().rev().flat_map(move |span| range(span).rev())),
        }
    }

    /// The documents with this key.
    pub(super) fn postings(&self, key: &[u8]) -> Option<&Postings> {
        self.by_key.get(key)
    }
}

impl Postings {
    fn insert(&mut self, id: Id, slot: SlotNumber) {
        match self {
            Self::Many(many) => {
                many.insert(id, slot);
            }
            Self::One(other_id, other) => {
                *self = Self::Many(BTreeMap::from([(other_id.clone(), *other), (id, slot)]));
            }
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(many) => many.len(),
        }
    }

    /// The documents by id, all or those after an id.
    pub(super) fn walk<'a>(
        &'a self,
        after: Option<&[u8]>,
        direction: Direction,
    ) -> Box<dyn Iterator<Item = SlotNumber> + 'a> {
        let many = match self {
            Self::Many(many) => many,
            Self::One(id, slot) => {
                let comes = after.is_none_or(|after| match direction {
                    Direction::Ascending => id.0.as_bytes() > after,
                    Direction::Descending => id.0.as_bytes() < after,
                });
                return Box::new(comes.then_some(*slot).into_iter());
            }
        };
        match direction {
            Direction::Ascending => {
                let low = after.map_or(Bound::Unbounded, Bound::Excluded);
                Box::new(many.range::<[u8], _>((low, Bound::Unbounded)).map(|(_, slot)| *slot))
            }
            Direction::Descending => {
                let high = after.map_or(Bound::Unbounded, Bound::Excluded);
                Box::new(many.range::<[u8], _>((Bound::Unbounded, high)).rev().map(|(_, slot)| *slot))
            }
        }
    }
}
