//! Ways through the documents in the order of an index.

use std::ops::Bound;

use super::{Table, documents::SlotNumber, index::Postings};
use crate::{
    order::{Key, tag},
    query::{Direction, Sort, Span, Spans},
};

/// Something that documents are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Axis {
    /// Their ids.
    Ids,
    /// The index of this number.
    Index(usize),
}

/// A way through the documents.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) axis: Axis,
    /// Which keys.
    pub(super) spans: Spans,
    pub(super) keys: Direction,
    /// The order of documents with equal keys.
    pub(super) ids: Direction,
}

/// Where a way goes on: after the document with this key and id.
#[derive(Debug, Clone)]
pub(super) struct Onward {
    pub(super) key: Key,
    pub(super) id: Vec<u8>,
}

/// Distinct values that are counted before an estimate is a guess.
const COUNT_STEPS_MAX: usize = 4096;

/// Key of an id.
pub(super) fn id_key(id: &[u8]) -> Vec<u8> {
    [&[tag::TEXT], id].concat()
}

impl Table {
    /// The axis of a field, if there is one.
    pub(super) fn axis(&self, field: &str) -> Option<Axis> {
        if field == "id" {
            return Some(Axis::Ids);
        }
        self.indexes.iter().position(|index| index.field() == field).map(Axis::Index)
    }

    /// Name of the field of an axis.
    pub(super) fn field(&self, axis: Axis) -> &str {
        match axis {
            Axis::Ids => "id",
            Axis::Index(index) => self.indexes[index].field(),
        }
    }

    /// All axes.
    pub(super) fn axes(&self) -> impl Iterator<Item = Axis> {
        std::iter::once(Axis::Ids).chain((0..self.indexes.len()).map(Axis::Index))
    }

    /// The way that leads through all documents in this order, if there is one.
    pub(super) fn way(&self, sort: &Sort) -> Option<Way> {
        let mut fields = sort.fields.iter();
        let first = fields.next();
        let axis = first.map_or(Some(Axis::Ids), |first| self.axis(&first.field.name))?;
        let keys = first.map_or(Direction::Ascending, |first| first.direction);
        let ids = match (axis, fields.next()) {
            // Ids are unique, so that nothing after them matters.
            (Axis::Ids, _) => keys,
            (Axis::Index(_), None) => Direction::Ascending,
            (Axis::Index(_), Some(next)) if next.field.name == "id" => next.direction,
            (Axis::Index(_), Some(_)) => return None,
        };
        Some(Way { axis, spans: Spans::everything(), keys, ids })
    }

    /// The rest of a way after a place, and the documents with the same key that come before that rest.
    pub(super) fn cut(&self, way: &mut Way, onward: &Onward) -> Option<&Postings> {
        let rest = match way.keys {
            Direction::Ascending => Spans::after(onward.key.as_bytes()),
            Direction::Descending => Spans::before(onward.key.as_bytes()),
        };
        let same_key = match way.axis {
            Axis::Index(index) if way.spans.contains(onward.key.as_bytes()) => {
                self.indexes[index].postings(onward.key.as_bytes())
            }
            Axis::Ids | Axis::Index(_) => None,
        };
        way.spans = way.spans.intersect(&rest);
        same_key
    }

    /// The documents of a way.
    pub(super) fn walk<'a>(&'a self, way: &'a Way) -> Box<dyn Iterator<Item = SlotNumber> + 'a> {
        match way.axis {
            Axis::Index(index) => Box::new(
                self.indexes[index]
                    .walk(&way.spans, way.keys)
                    .flat_map(|(_, postings)| postings.walk(None, way.ids)),
            ),
            Axis::Ids => {
                let range = |span: &'a Span| {
                    let (low, high) = id_bounds(span);
                    self.documents.ordered().range::<[u8], _>((low, high)).map(|(_, slot)| *slot)
                };
                match way.keys {
                    Direction::Ascending => {
                        Box::new(way.spans.iter().filter(|span| has_ids(span)).flat_map(range))
                    }
                    Direction::Descending => Box::new(
                        way.spans
                            .iter()
                            .rev()
                            .filter(|span| has_ids(span))
                            .flat_map(move |span| range(span).rev()),
                    ),
                }
            }
        }
    }

    /// How many documents have a key in a set.
    pub(super) fn count(&self, axis: Axis, spans: &Spans) -> u64 {
        self.count_up_to(axis, spans, usize::MAX).unwrap_or(u64::MAX)
    }

    /// About how many documents have a key in a set.
    pub(super) fn estimate(&self, axis: Axis, spans: &Spans) -> u64 {
        let documents = self.documents.len() as u64;
        if spans.is_everything() {
            return documents;
        }
        // What takes too long to count is taken for half of all.
        self.count_up_to(axis, spans, COUNT_STEPS_MAX).unwrap_or(documents / 2)
    }

    fn count_up_to(&self, axis: Axis, spans: &Spans, steps_max: usize) -> Option<u64> {
        let way = Way { axis, spans: spans.clone(), keys: Direction::Ascending, ids: Direction::Ascending };
        let mut lengths: Box<dyn Iterator<Item = usize> + '_> = match axis {
            Axis::Ids => Box::new(self.walk(&way).map(|_| 1)),
            Axis::Index(index) => {
                Box::new(self.indexes[index].walk(&way.spans, way.keys).map(|(_, postings)| postings.len()))
            }
        };
        let counted: usize = lengths.by_ref().take(steps_max).sum();
        lengths.next().is_none().then_some(counted as u64)
    }
}

/// Ids are texts, and the tree of ids knows them without the first byte of their keys.
fn has_ids(span: &Span) -> bool {
    let starts = span.low.as_slice() < [tag::TEXT + 1].as_slice();
    starts && span.high.as_deref().is_none_or(|high| high > [tag::TEXT].as_slice())
}

fn id_bounds(span: &Span) -> (Bound<&[u8]>, Bound<&[u8]>) {
    let low = match span.low.split_first() {
        Some((&tag::TEXT, id)) => Bound::Included(id),
        _ => Bound::Unbounded,
    };
    let high = match span.high.as_deref().and_then(<[u8]>::split_first) {
        Some((&tag::TEXT, id)) => Bound::Excluded(id),
        _ => Bound::Unbounded,
    };
    (low, high)
}
