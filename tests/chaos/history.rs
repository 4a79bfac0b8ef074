//! What clients wrote down, and the sequential document it must be explained by.

use std::collections::BTreeMap;

use porcupine_rs::{Model, Operation};

/// One document: its revision and value, or nothing.
pub(crate) type State = Option<(u64, u64)>;

/// What a client did and saw. `None` as a result: the outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// GET.
    Read { seen: State },
    /// PUT with `If-None-Match: *`.
    Create { value: u64, created: Option<bool> },
    /// PUT. The revision it made, or that there was no document.
    Replace { value: u64, revision: Option<Option<u64>> },
    /// PATCH with `If-Match`. The revision it made, or that the revision was another.
    Compare { expected: u64, value: u64, revision: Option<Option<u64>> },
    /// DELETE. Whether there was a document.
    Remove { removed: Option<bool> },
}

/// An action on one of the documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keyed {
    pub(crate) key: usize,
    pub(crate) action: Action,
}

/// The sequential specification.
#[derive(Debug, Clone)]
pub(crate) struct Document;

impl Model for Document {
    type State = State;
    type Op = Keyed;
    type Metadata = ();

    fn partition_operations(history: &[Operation<Self>]) -> Vec<Vec<Operation<Self>>> {
        let mut parts: BTreeMap<usize, Vec<Operation<Self>>> = BTreeMap::new();
        for operation in history {
            parts.entry(operation.op.key).or_default().push(operation.clone());
        }
        parts.into_values().collect()
    }

    fn init() -> State {
        None
    }

    fn step(state: &State, operation: &Keyed) -> (bool, State) {
        let written = |value: u64| state.map(|(revision, _)| (revision + 1, value));
        match &operation.action {
            Action::Read { seen } => (seen == state, *state),
            Action::Create { value, created } => match (state, created) {
                (None, Some(true) | None) => (true, Some((1, *value))),
                (Some(_), Some(false) | None) => (true, *state),
                (None, Some(false)) | (Some(_), Some(true)) => (false, *state),
            },
            Action::Replace { value, revision } => match revision {
                None => (true, written(*value)),
                Some(None) => (state.is_none(), None),
                Some(Some(made)) => {
                    let next = written(*value);
                    (next.is_some_and(|(revision, _)| revision == *made), next)
                }
            },
            Action::Compare { expected, value, revision } => {
                let matches = state.is_some_and(|(current, _)| current == *expected);
                match revision {
                    None if matches => (true, written(*value)),
                    None => (true, *state),
                    Some(None) => (!matches, *state),
                    Some(Some(made)) => (matches && *made == expected + 1, written(*value)),
                }
            }
            Action::Remove { removed } => match removed {
                None => (true, None),
                Some(removed) => (*removed == state.is_some(), None),
            },
        }
    }
}
