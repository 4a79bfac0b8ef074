//! The order of a list, and places in it.

use std::collections::BinaryHeap;

use super::filter::Field;
use crate::order::{self, KEY_BYTES_MAX, Key, tag};

/// Fields of one sort.
pub(crate) const SORT_FIELDS_MAX: usize = 8;

/// The order of a list: by these fields, then by id, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sort {
    /// Most important first.
    pub(crate) fields: Vec<SortField>,
}

/// One field to sort by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SortField {
    /// The field.
    pub(crate) field: Field,
    /// Which way.
    pub(crate) direction: Direction,
}

/// Which way to sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

/// A place in a list, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Keys of the sort fields, cut.
    pub(crate) keys: Vec<Key>,
    /// The id there.
    pub(crate) id: Vec<u8>,
}

/// Writes places as bytes that compare like the rows themselves.
#[derive(Debug, Default)]
pub(crate) struct PlaceWriter {
    key: Vec<u8>,
    place: Vec<u8>,
}

impl PlaceWriter {
    /// Starts with another row.
    pub(crate) fn begin(&mut self) {
        self.place.clear();
    }

    /// Adds the key of the next sort field.
    pub(crate) fn push(&mut self, direction: Direction, key: &[u8]) {
        let start = self.place.len();
        order::write_delimited(&key[..key.len().min(KEY_BYTES_MAX)], &mut self.place);
        if direction == Direction::Descending {
            self.place[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
    }

    /// Adds the id, and is the place.
    pub(crate) fn end(&mut self, id: &[u8]) -> &[u8] {
        order::write_delimited(id, &mut self.place);
        &self.place
    }

    /// The place of a stored document.
    pub(crate) fn write(&mut self, sort: &Sort, document: &[u8], id: &[u8]) -> &[u8] {
        self.begin();
        let mut key = std::mem::take(&mut self.key);
        for field in &sort.fields {
            key.clear();
            field.field.write_key(field.field.find(document), &mut key);
            self.push(field.direction, &key);
        }
        self.key = key;
        self.end(id)
    }
}

/// Takes a place apart; nothing if it is no place of this order.
pub(crate) fn read_place(sort: &Sort, place: &[u8]) -> Option<Place> {
    let mut rest = place;
    let mut keys = Vec::with_capacity(sort.fields.len());
    for field in &sort.fields {
        let key = read_delimited(&mut rest, field.direction)?;
        if !(tag::MISSING..=tag::ARRAY).contains(key.first()?) || key.len() > KEY_BYTES_MAX {
            return None;
        }
        keys.push(Key::from_canonical(&key));
    }
    let id = read_delimited(&mut rest, Direction::Ascending)?;
    rest.is_empty().then_some(Place { keys, id })
}

fn read_delimited(rest: &mut &[u8], direction: Direction) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut coded = rest.iter().map(|&byte| if direction == Direction::Descending { !byte } else { byte });
    let mut length = 0;
    loop {
        let byte = coded.next()?;
        length += 1;
        if byte == 0 {
            length += 1;
            match coded.next()? {
                0 => break,
                0xff => {}
                _ => return None,
            }
        }
        bytes.push(byte);
    }
    *rest = &rest[length..];
    Some(bytes)
}

/// The first rows of an order, kept while all rows pass by.
#[derive(Debug)]
pub(crate) struct First<T> {
    kept_max: usize,
    heap: BinaryHeap<Placed<T>>,
}

#[derive(Debug)]
struct Placed<T> {
    place: Box<[u8]>,
    row: T,
}

impl<T> PartialEq for Placed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl<T> Eq for Placed<T> {}

impl<T> PartialOrd for Placed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Placed<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}

impl<T> First<T> {
    /// Keeps at most so many rows.
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { kept_max, heap: BinaryHeap::new() }
    }

    /// Offers a row; returns the one that is not kept, if any.
    pub(crate) fn offer(&mut self, place: &[u8], row: T) -> Option<T> {
        if self.heap.len() < self.kept_max {
            self.heap.push(Placed { place: place.into(), row });
            return None;
        }
        match self.heap.peek_mut() {
            Some(mut last) if *last.place > *place => {
                let last = &mut *last;
                last.place = place.into();
                Some(std::mem::replace(&mut last.row, row))
            }
            _ => Some(row),
        }
    }

    /// The rows kept, in order.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = T> {
        self.heap.into_sorted_vec().into_iter().map(|placed| placed.row)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{order::Times, spec::FieldKind};

    fn sort(directions: &[Direction]) -> Sort {
        let field = |name: &str| {
            let (path, within) = (vec![name.to_owned()], Times::default());
            Field { name: name.to_owned(), path, kind: FieldKind::Any, within }
        };
        Sort {
            fields: directions.iter().map(|&direction| SortField { field: field("x"), direction }).collect(),
        }
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0), Just(1), Just(0xfe), Just(0xff)], 0..4).prop_map(|mut bytes| {
            bytes.insert(0, tag::TEXT);
            bytes
        })
    }

    fn direction() -> impl Strategy<Value = Direction> {
        prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)]
    }

    fn place(directions: &[Direction], keys: &[Vec<u8>], id: &[u8]) -> Vec<u8> {
        let mut writer = PlaceWriter::default();
        writer.begin();
        for (&direction, key) in directions.iter().zip(keys) {
            writer.push(direction, key);
        }
        writer.end(id).to_vec()
    }

    proptest! {
        #[test]
        fn places_compare_like_rows(
            directions in vec(direction(), 2..=2), left in vec(key(), 2..=2), right in vec(key(), 2..=2),
            left_id in key(), right_id in key(),
        ) {
            let mut expected = left_id.cmp(&right_id);
            for index in (0..2).rev() {
                let order = left[index].cmp(&right[index]);
                let order = if directions[index] == Direction::Descending { order.reverse() } else { order };
                expected = order.then(expected);
            }
            let found = place(&directions, &left, &left_id).cmp(&place(&directions, &right, &right_id));
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn a_place_is_read_back(directions in vec(direction(), 2..=2), keys in vec(key(), 2..=2), id in key()) {
            let read = read_place(&sort(&directions), &place(&directions, &keys, &id)).expect("a place");
            prop_assert_eq!(read.keys, keys.iter().map(|key| Key::from_canonical(key)).collect::<Vec<_>>());
            prop_assert_eq!(read.id, id);
        }

        #[test]
        fn arbitrary_bytes_are_no_place_or_one(directions in vec(direction(), 0..3), bytes in vec(any::<u8>(), 0..40)) {
            if let Some(read) = read_place(&sort(&directions), &bytes) {
                let keys: Vec<_> = read.keys.iter().map(|key| key.as_bytes().to_vec()).collect();
                prop_assert_eq!(place(&directions, &keys, &read.id), bytes);
            }
        }

        #[test]
        fn the_first_rows_are_kept(places in vec(key(), 0..40), kept_max in 0_usize..10) {
            let mut first = First::new(kept_max);
            let dropped = places.iter().filter_map(|place| first.offer(place, place.clone())).count();
            let mut sorted = places.clone();
            sorted.sort();
            sorted.truncate(kept_max);
            prop_assert_eq!(dropped + sorted.len(), places.len());
            prop_assert_eq!(first.into_rows().collect::<Vec<_>>(), sorted);
        }
    }
}
