//! Decides what becomes of a group of writes. Pure: reads through [`View`], changes nothing.
//!
//! Each write is checked against the documents as the writes before it in the group left them, and gets the next
//! numbers when everything it expects holds. A write that fails leaves no trace in the plan.
//!
//! The order of the checks, each of which ends the matter: a write that was committed before is answered from the
//! record; a known idempotency key is answered with the kept response; then the operations, in order.

mod overlay;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use aegis_ipc::data::{Change, ChangeKind, Expect, Operation, Outcome, StoredResponse, Write};
use bytes::Bytes;

pub(crate) use self::overlay::Overlay;
use crate::{
    catalog::{ModelRules, Rules},
    engine::{
        CommittedWrite, EngineResult, Head, IndexState, KeptResponse, UniqueEdit, UniqueKey,
        records::{ID_BYTES_MAX, MODEL_BYTES_MAX},
    },
    error::EngineError,
    storage::Place,
};

/// Largest sum of bodies and what is different in them in one write, bytes. Its changes have to fit into one frame with room for their names.
pub(crate) const WRITE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Most operations in one write. With the names of their fields they have to fit into one frame.
pub(crate) const OPERATIONS_MAX: usize = 65_536;

/// What a plan needs to know about what is committed.
pub(crate) trait View {
    /// Revision and number of a document.
    fn head(&self, place: Place, model: &str, id: &str) -> EngineResult<Option<Head>>;
    /// Body of a document.
    fn body(&self, place: Place, model: &str, id: &str) -> EngineResult<Option<Bytes>>;
    /// Id of the document that has a unique value.
    fn unique_owner(&self, place: Place, key: &UniqueKey) -> EngineResult<Option<String>>;
    /// A kept response that has not expired.
    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>>;
    /// A write that was committed before.
    fn committed(&self, incarnation: u64, request: u64) -> Option<CommittedWrite>;
}

/// A write and the worker it came from.
#[derive(Debug)]
pub(crate) struct Requested {
    /// Process number of the worker.
    pub(crate) incarnation: u64,
    /// The write.
    pub(crate) write: Write,
}

/// A change and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed<T> {
    /// Where it goes.
    pub(crate) place: Place,
    /// The thing.
    pub(crate) what: T,
}

/// Two documents with one value in a field that is about to become unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Collision {
    /// Number of the index being built.
    pub(crate) index: u32,
    /// Ids of the two.
    pub(crate) ids: (String, String),
}

/// What is to be done for a group.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// One for each write, in order.
    pub(crate) outcomes: Vec<Outcome>,
    /// All changes, in order of their numbers, without gaps.
    pub(crate) changes: Vec<Change>,
    /// Where each change goes.
    pub(crate) places: Vec<Place>,
    /// At most one edit for each key.
    pub(crate) unique: Vec<Placed<UniqueEdit>>,
    /// Responses to keep.
    pub(crate) responses: Vec<Placed<KeptResponse>>,
    /// Writes of this group that were accepted.
    pub(crate) committed: Vec<Placed<CommittedWrite>>,
    /// Reasons to refuse the generation whose indexes are being built.
    pub(crate) collisions: Vec<Collision>,
    /// Writes that were refused because of what they expected.
    pub(crate) conflicts: u64,
}

impl Plan {
    /// With room for what most groups of so many writes come to: one change each.
    fn for_writes(writes: usize) -> Self {
        Self {
            outcomes: Vec::with_capacity(writes),
            changes: Vec::with_capacity(writes),
            places: Vec::with_capacity(writes),
            committed: Vec::with_capacity(writes),
            ..Self::default()
        }
    }
}

/// Decides about `group`, whose first change gets the number after `last`.
pub(crate) fn plan(
    view: &dyn View,
    rules: &Rules,
    group: Vec<Requested>,
    last: u64,
    now_ms: u64,
) -> EngineResult<Plan> {
    let mut planner = Planner {
        view,
        rules,
        last,
        now_ms,
        overlay: Overlay::for_writes(group.len()),
        requests: HashMap::with_capacity(group.len()),
        keys: HashMap::new(),
        plan: Plan::for_writes(group.len()),
    };
    for requested in group {
        let outcome = planner.decide(requested)?;
        if matches!(outcome, Outcome::Conflict { .. }) {
            planner.plan.conflicts += 1;
        }
        planner.plan.outcomes.push(outcome);
    }
    let mut plan = planner.plan;
    plan.unique = planner.overlay.into_unique_edits();
    Ok(plan)
}

/// Why a write is not accepted. Either the engine failed, or the write gets this outcome.
enum Stop {
    Engine(EngineError),
    Outcome(Outcome),
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

struct Planner<'a> {
    view: &'a dyn View,
    rules: &'a Rules,
    last: u64,
    now_ms: u64,
    overlay: Overlay,
    /// Positions in `plan.committed` by identity.
    requests: HashMap<(u64, u64), usize>,
    /// Positions in `plan.responses` by key.
    keys: HashMap<String, usize>,
    plan: Plan,
}

impl Planner<'_> {
    fn decide(&mut self, requested: Requested) -> EngineResult<Outcome> {
        let Requested { incarnation, write } = requested;
        if let Some(known) = self.committed_before(incarnation, write.request) {
            return Ok(Outcome::Committed { first: known.first, last: known.last });
        }
        if let Some(idempotency) = &write.idempotency
            && let Some(kept) = self.response(&idempotency.key)?
        {
            let KeptResponse { fingerprint, response, sequence, .. } = kept;
            return Ok(Outcome::Replayed(StoredResponse { fingerprint, response, sequence }));
        }
        if let Some(reason) = too_large(&write) {
            return Ok(Outcome::Refused { reason });
        }
        let (changes_before, last_before) = (self.plan.changes.len(), self.last);
        let collisions_before = self.plan.collisions.len();
        self.overlay.begin();
        for (at, operation) in (0_u32..).zip(write.operations) {
            match self.operate(at, operation) {
                Ok(()) => {}
                Err(stop) => {
                    self.overlay.undo();
                    self.plan.changes.truncate(changes_before);
                    self.plan.places.truncate(changes_before);
                    self.plan.collisions.truncate(collisions_before);
                    self.last = last_before;
                    return match stop {
                        Stop::Engine(error) => Err(error),
                        Stop::Outcome(outcome) => Ok(outcome),
                    };
                }
            }
        }
        let place = self.place_of_write(changes_before);
        let (first, last) = (last_before + 1, self.last);
        let committed = CommittedWrite { incarnation, request: write.request, first, last };
        self.requests.insert((incarnation, write.request), self.plan.committed.len());
        self.plan.committed.push(Placed { place, what: committed });
        if let Some(idempotency) = write.idempotency {
            let kept = KeptResponse {
                key: idempotency.key,
                fingerprint: idempotency.fingerprint,
                response: idempotency.response,
                sequence: last,
                time_ms: self.now_ms,
            };
            self.keys.insert(kept.key.clone(), self.plan.responses.len());
            self.plan.responses.push(Placed { place, what: kept });
        }
        Ok(Outcome::Committed { first, last })
    }

    /// What belongs to a write as a whole is on disk unless all its documents are only in memory.
    fn place_of_write(&self, changes_before: usize) -> Place {
        let places = &self.plan.places[changes_before..];
        if !places.is_empty() && places.iter().all(|place| *place == Place::Memory) {
            Place::Memory
        } else {
            Place::File
        }
    }

    fn committed_before(&self, incarnation: u64, request: u64) -> Option<CommittedWrite> {
        match self.requests.get(&(incarnation, request)) {
            Some(at) => Some(self.plan.committed[*at].what),
            None => self.view.committed(incarnation, request),
        }
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        match self.keys.get(key) {
            Some(at) => Ok(Some(self.plan.responses[*at].what.clone())),
            None => self.view.response(key),
        }
    }

    fn operate(&mut self, at: u32, operation: Operation) -> Result<(), Stop> {
        let Operation { model, id, expect, revision, body, changes } = operation;
        let Some(rules) = self.rules.model(&model) else {
            return Err(refused(format!("operation {at}: there is no model {model}")));
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX || model.len() > MODEL_BYTES_MAX {
            let reason =
                format!("operation {at}: found an id of {} bytes, expected 1 to {ID_BYTES_MAX}", id.len());
            return Err(refused(reason));
        }
        let head = self.overlay.head(self.view, rules.place, &model, &id)?;
        let held = match expect {
            Expect::Absent => head.is_none(),
            Expect::At(sequence) => head.is_some_and(|head| head.sequence == sequence),
        };
        if !held {
            let current = head.map(|head| head.sequence);
            return Err(Stop::Outcome(Outcome::Conflict { operation: at, current }));
        }
        let expected_revision = match (&head, &body) {
            (None, Some(_)) => 1,
            (Some(head), Some(_)) => head.revision + 1,
            (Some(head), None) => head.revision,
            (None, None) => {
                return Err(refused(format!("operation {at} removes a document that it expects absent")));
            }
        };
        if revision != expected_revision {
            let reason = format!("operation {at}: found revision {revision}, expected {expected_revision}");
            return Err(refused(reason));
        }
        self.check_unique(at, rules, &model, &id, head.is_some(), body.as_deref())?;
        self.last += 1;
        let now = body.as_ref().map(|body| (Head { sequence: self.last, revision }, body.clone()));
        self.overlay.put_document(&model, &id, now);
        let kind = match body {
            Some(body) => ChangeKind::Put { id, revision, body, changes },
            None => ChangeKind::Remove { id, revision },
        };
        self.plan.changes.push(Change { sequence: self.last, model, kind, time_ms: self.now_ms });
        self.plan.places.push(rules.place);
        Ok(())
    }

    fn check_unique(
        &mut self,
        at: u32,
        rules: &ModelRules,
        model: &str,
        id: &str,
        exists: bool,
        body: Option<&[u8]>,
    ) -> Result<(), Stop> {
        if rules.indexes.is_empty() {
            return Ok(());
        }
        let place = rules.place;
        let read = |body: &[u8], what: &str| {
            rules
                .unique_keys(body)
                .map_err(|reason| refused(format!("operation {at}: {what} body: {reason}")))
        };
        let old_body = if exists { self.overlay.body(self.view, place, model, id)? } else { None };
        let old = old_body.map_or_else(|| Ok(Vec::new()), |body| read(&body, "stored"))?;
        let new = body.map_or_else(|| Ok(Vec::new()), |body| read(body, "new"))?;
        for (position, key) in &old {
            let kept = new.iter().any(|other| other == &(*position, key.clone()));
            let building = rules.indexes[*position].state == IndexState::Building;
            // An index under construction may not have the value yet, or have it for another document.
            if !kept && (!building || self.overlay.owner(self.view, place, key)?.as_deref() == Some(id)) {
                self.overlay.put_owner(place, key, None);
            }
        }
        for (position, key) in new {
            match self.overlay.owner(self.view, place, &key)? {
                Some(owner) if owner == id => {}
                Some(owner) if rules.indexes[position].state == IndexState::Building => {
                    let ids = (owner, id.to_owned());
                    self.plan.collisions.push(Collision { index: key.index, ids });
                }
                Some(_) => {
                    let field = rules.indexes[position].field.clone();
                    return Err(Stop::Outcome(Outcome::UniqueTaken { operation: at, field }));
                }
                None => self.overlay.put_owner(place, &key, Some(id.to_owned())),
            }
        }
        Ok(())
    }
}

fn refused(reason: String) -> Stop {
    Stop::Outcome(Outcome::Refused { reason })
}

fn too_large(write: &Write) -> Option<String> {
    if write.operations.len() > OPERATIONS_MAX {
        return Some(format!(
            "found {} operations, expected at most {OPERATIONS_MAX}",
            write.operations.len()
        ));
    }
    let bytes: usize = write
        .operations
        .iter()
        .map(|operation| {
            let content = [&operation.body, &operation.changes];
            operation.id.len() + content.into_iter().flatten().map(Bytes::len).sum::<usize>()
        })
        .sum();
    (bytes > WRITE_BYTES_MAX)
        .then(|| format!("found {bytes} bytes of documents, expected at most {WRITE_BYTES_MAX}"))
}
