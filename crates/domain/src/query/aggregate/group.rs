//! `$group`.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Accumulator, Expression, Reader,
    accumulator::{self, State},
    expression::{self, TooLarge},
    object,
};
use crate::{
    json,
    order::{Key, Times},
    query::parameters::Mistake,
};

/// How rows are grouped, and what is made of each group.
#[derive(Debug)]
pub(super) struct Group {
    id: Expression,
    id_times: Times,
    results: Vec<(String, Accumulator)>,
}

/// The groups so far.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: HashMap<Key, Members>,
    bytes: usize,
}

#[derive(Debug)]
struct Members {
    /// The id, JSON, as its first row has it.
    id: Vec<u8>,
    states: Vec<State>,
}

/// Reads the stage.
pub(super) fn parse(reader: &Reader<'_>, value: &Value) -> Result<Group, Mistake> {
    let mut id = None;
    let mut results = Vec::new();
    for (name, value) in object(reader, value)? {
        if name == "_id" {
            id = Some(expression::parse(reader, value)?);
        } else {
            results.push((reader.new_name(name)?.to_owned(), accumulator::parse(reader, value)?));
        }
    }
    match id {
        Some(id) => Ok(Group { id_times: id.times(), id, results }),
        None => Err(reader.saying("no _id", "an _id (null for one group of everything)")),
    }
}

impl Group {
    /// Adds a row; ends with the result that is too much, so that no row keeps many times more than all may.
    pub(super) fn add(&self, groups: &mut Groups, row: &[u8], bytes_max: usize) -> Result<(), TooLarge> {
        let id = self.id.value(row)?.unwrap_or_else(|| b"null".to_vec());
        let key = self.id_times.key_of_raw(&id);
        let members = groups.groups.entry(key).or_insert_with_key(|key| {
            let states: Vec<State> =
                self.results.iter().map(|(_, accumulator)| accumulator.start()).collect();
            groups.bytes += id.len() + key.as_bytes().len() + size_of::<(Key, Members)>();
            groups.bytes += states.iter().map(State::bytes).sum::<usize>();
            Members { id, states }
        });
        for ((_, accumulator), state) in self.results.iter().zip(&mut members.states) {
            let before = state.bytes();
            accumulator.add(state, row)?;
            groups.bytes = groups.bytes - before + state.bytes();
            if groups.bytes > bytes_max {
                break;
            }
        }
        Ok(())
    }

    /// Points in time of the groups.
    pub(super) fn times(&self) -> Times {
        let mut times = Times::default();
        times.put(&["_id".to_owned()], self.id_times.clone());
        for (name, result) in &self.results {
            times.put(std::slice::from_ref(name), result.times());
        }
        times
    }

    /// The groups as rows, by their ids.
    pub(super) fn finish(&self, groups: Groups) -> impl Iterator<Item = Vec<u8>> {
        let mut groups: Vec<_> = groups.groups.into_iter().collect();
        groups.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        groups.into_iter().map(|(_, members)| {
            let mut row = b"{\"_id\":".to_vec();
            row.extend_from_slice(&members.id);
            for ((name, accumulator), state) in self.results.iter().zip(&members.states) {
                row.push(b',');
                json::write_text(&mut row, name);
                row.push(b':');
                accumulator.finish(state, &mut row);
            }
            row.push(b'}');
            row
        })
    }
}

impl Groups {
    /// Bytes they keep.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
