//! Unique indexes: which there are, which are missing, and how a missing one is built while writes go on.
//!
//! From the moment an index is begun, the writer keeps it up to date for every document it writes. A scan of a view
//! opened at that moment supplies the documents from before; one that has been written since is skipped, because the
//! writer has already seen it. An index that is not required any more is dropped: first its name, in one step, then
//! its rows, a few at a time. Its number is never given again, so what is left of it harms nobody.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    catalog::Rules,
    commit::{Collision, Placed},
    engine::{EngineResult, IndexName, IndexRow, IndexState, MetaEdit, Recovered, UniqueEdit, UniqueKey},
    error::chain,
    storage::{Copy, Place, Storage},
};

/// Documents handed over at once by a scan. Each piece is synced; filling it in takes some milliseconds, in which writes
/// wait.
const SCAN_DOCUMENTS: usize = 512;
/// Collisions that are named; further ones are counted.
pub(crate) const COLLISIONS_NAMED_MAX: usize = 20;

/// An index that is being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewIndex {
    /// What it indexes.
    pub(crate) name: IndexName,
    /// Its number.
    pub(crate) number: u32,
    /// Where the documents are.
    pub(crate) place: Place,
}

/// All unique indexes of the store.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    known: HashMap<IndexName, Known>,
    dropped: VecDeque<(Place, u32)>,
    last_number: u32,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    number: u32,
    state: IndexState,
    place: Place,
}

impl Indexes {
    /// Continues with what is on disk.
    pub(crate) fn recovered(recovered: &Recovered) -> Self {
        let mut indexes = Self::default();
        for row in &recovered.indexes {
            let known = Known { number: row.number, state: row.state, place: Place::File };
            indexes.known.insert(row.name.clone(), known);
        }
        indexes.dropped = recovered.dropped.iter().map(|number| (Place::File, *number)).collect();
        let numbers = recovered.indexes.iter().map(|row| row.number).chain(recovered.dropped.iter().copied());
        indexes.last_number = numbers.max().unwrap_or(0);
        indexes
    }

    /// Number and state of an index.
    pub(crate) fn find(&self, name: &IndexName) -> Option<(u32, IndexState)> {
        self.known.get(name).map(|known| (known.number, known.state))
    }

    /// Drops every index that is not required, or that is not finished while nobody builds it.
    pub(crate) fn drop_surplus(&mut self, required: &HashMap<IndexName, Place>) -> Vec<MetaEdit> {
        let keep = |name: &IndexName, known: &Known| {
            known.state == IndexState::Complete && required.get(name) == Some(&known.place)
        };
        let mut surplus: Vec<(IndexName, Known)> = self
            .known
            .iter()
            .filter(|(name, known)| !keep(name, known))
            .map(|(name, known)| (name.clone(), *known))
            .collect();
        surplus.sort_by_key(|(_, known)| known.number);
        let mut edits = Vec::new();
        for (name, known) in surplus {
            self.known.remove(&name);
            self.dropped.push_back((known.place, known.number));
            if known.place == Place::File {
                edits.push(MetaEdit::DropIndex(IndexRow { name, number: known.number, state: known.state }));
            }
        }
        edits
    }

    /// Begins every index that is required and missing.
    pub(crate) fn begin_missing(
        &mut self,
        required: &HashMap<IndexName, Place>,
    ) -> (Vec<NewIndex>, Vec<MetaEdit>) {
        let mut missing: Vec<(IndexName, Place)> = required
            .iter()
            .filter(|(name, _)| !self.known.contains_key(name))
            .map(|(name, place)| (name.clone(), *place))
            .collect();
        missing.sort();
        let (mut begun, mut edits) = (Vec::new(), Vec::new());
        for (name, place) in missing {
            self.last_number += 1;
            let (number, state) = (self.last_number, IndexState::Building);
            self.known.insert(name.clone(), Known { number, state, place });
            if place == Place::File {
                edits.push(MetaEdit::Index(IndexRow { name: name.clone(), number, state }));
            }
            begun.push(NewIndex { name, number, place });
        }
        (begun, edits)
    }

    /// These are complete from now on.
    pub(crate) fn complete(&mut self, built: &[NewIndex]) -> Vec<MetaEdit> {
        let mut edits = Vec::new();
        for NewIndex { name, number, place } in built {
            if let Some(known) = self.known.get_mut(name).filter(|known| known.number == *number) {
                known.state = IndexState::Complete;
                if *place == Place::File {
                    let (number, state) = (*number, IndexState::Complete);
                    edits.push(MetaEdit::Index(IndexRow { name: name.clone(), number, state }));
                }
            }
        }
        edits
    }

    /// A dropped index whose rows are still to be removed.
    pub(crate) fn dropped(&self) -> Option<(Place, u32)> {
        self.dropped.front().copied()
    }

    /// The rows of the first dropped index are gone.
    pub(crate) fn dropped_is_gone(&mut self) {
        self.dropped.pop_front();
    }
}

/// A document from before an index, with its values in the indexes that are being built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scanned {
    place: Place,
    model: String,
    id: String,
    sequence: u64,
    keys: Vec<UniqueKey>,
}

/// Reads all documents of the models whose indexes are being built. `hand_over` gets them in bounded pieces and may
/// end the scan.
///
/// # Errors
/// What cannot be indexed, or cannot be read.
pub(crate) fn scan(
    copy: &Copy,
    rules: &Rules,
    new: &[NewIndex],
    hand_over: &mut dyn FnMut(Vec<Scanned>) -> Result<(), String>,
) -> Result<(), String> {
    let mut models: Vec<(&str, Place)> =
        new.iter().map(|index| (index.name.model.as_str(), index.place)).collect();
    models.sort_unstable();
    models.dedup();
    let mut piece = Vec::new();
    for (model, place) in models {
        let Some(rules) = rules.model(model) else { continue };
        for stored in copy.documents(place, model) {
            let stored = stored.map_err(|error| chain(&error))?;
            let keys = rules
                .unique_keys(&stored.body)
                .map_err(|reason| format!("document {} of model {model}: {reason}", stored.id))?;
            let keys = keys.into_iter().map(|(_, key)| key);
            let keys: Vec<_> = keys.filter(|key| new.iter().any(|index| index.number == key.index)).collect();
            if keys.is_empty() {
                continue;
            }
            piece.push(Scanned {
                place,
                model: stored.model,
                id: stored.id,
                sequence: stored.sequence,
                keys,
            });
            if piece.len() >= SCAN_DOCUMENTS {
                hand_over(std::mem::take(&mut piece))?;
            }
        }
    }
    if piece.is_empty() { Ok(()) } else { hand_over(piece) }
}

/// What a piece of a scan adds to the indexes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Values and who has them.
    pub(crate) unique: Vec<Placed<UniqueEdit>>,
    /// Values that two documents have.
    pub(crate) collisions: Vec<Collision>,
}

/// Decides what a piece of a scan adds, given what is committed by now.
pub(crate) fn fill(storage: &Storage, piece: Vec<Scanned>) -> EngineResult<Filled> {
    let mut filled = Filled::default();
    let mut added: BTreeMap<(Place, UniqueKey), String> = BTreeMap::new();
    for Scanned { place, model, id, sequence, keys } in piece {
        let engine = storage.engine(place);
        if engine.head(&model, &id)?.is_none_or(|head| head.sequence != sequence) {
            continue;
        }
        for key in keys {
            let owner = match added.get(&(place, key.clone())) {
                Some(owner) => Some(owner.clone()),
                None => engine.unique_owner(&key)?,
            };
            match owner {
                None => {
                    added.insert((place, key), id.clone());
                }
                Some(owner) if owner == id => {}
                Some(owner) => {
                    filled.collisions.push(Collision { index: key.index, ids: (owner, id.clone()) })
                }
            }
        }
    }
    let edits = added.into_iter();
    filled.unique = edits
        .map(|((place, key), owner)| Placed { place, what: UniqueEdit { key, owner: Some(owner) } })
        .collect();
    Ok(filled)
}

/// Collisions found so far: the first ones by name, the rest as a number.
#[derive(Debug, Default)]
pub(crate) struct Collisions {
    named: Vec<Collision>,
    count: usize,
}

impl Collisions {
    /// Notes one.
    pub(crate) fn add(&mut self, collision: Collision) {
        self.count += 1;
        if self.named.len() < COLLISIONS_NAMED_MAX {
            self.named.push(collision);
        }
    }

    /// Sentences for people; empty when there are none.
    pub(crate) fn reasons(&self, new: &[NewIndex]) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .named
            .iter()
            .map(|Collision { index, ids: (first, second) }| {
                let name = new.iter().find(|new| new.number == *index).map(|new| new.name.to_string());
                let name = name.unwrap_or_else(|| "unique field".to_owned());
                format!("{name}: documents {first:?} and {second:?} have the same value")
            })
            .collect();
        if self.count > self.named.len() {
            reasons.push(format!(
                "and {} more documents with values that others have",
                self.count - self.named.len()
            ));
        }
        reasons
    }
}
