use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use proptest::prelude::*;

use super::*;
use crate::{
    catalog::Generations,
    engine::IndexName,
    testing::{create, generation, idempotency, write},
};

const TODO: &str =
    "name = \"todo\"\n[fields]\ncode = { unique = true }\nmail = { kind = \"text\", unique = true }";
const NOTE: &str = "name = \"note\"\ndatasource = \"memory\"";

/// Committed state, kept by applying plans the obvious way.
#[derive(Debug, Default, Clone, PartialEq)]
struct Committed {
    documents: BTreeMap<(String, String), (Head, Bytes)>,
    owners: BTreeMap<(Place, UniqueKey), String>,
    responses: HashMap<String, KeptResponse>,
    requests: HashMap<(u64, u64), CommittedWrite>,
    last: u64,
}

impl View for Committed {
    fn head(&self, _place: Place, model: &str, id: &str) -> EngineResult<Option<Head>> {
        Ok(self.documents.get(&(model.to_owned(), id.to_owned())).map(|(head, _)| *head))
    }

    fn body(&self, _place: Place, model: &str, id: &str) -> EngineResult<Option<Bytes>> {
        Ok(self.documents.get(&(model.to_owned(), id.to_owned())).map(|(_, body)| body.clone()))
    }

    fn unique_owner(&self, place: Place, key: &UniqueKey) -> EngineResult<Option<String>> {
        Ok(self.owners.get(&(place, key.clone())).cloned())
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        Ok(self.responses.get(key).cloned())
    }

    fn committed(&self, incarnation: u64, request: u64) -> Option<CommittedWrite> {
        self.requests.get(&(incarnation, request)).copied()
    }
}

impl Committed {
    fn apply(&mut self, plan: &Plan) {
        for change in &plan.changes {
            assert_eq!(change.sequence, self.last + 1, "numbers have no gaps");
            self.last = change.sequence;
            match &change.kind {
                ChangeKind::Put { id, revision, body, .. } => {
                    let head = Head { sequence: change.sequence, revision: *revision };
                    self.documents.insert((change.model.clone(), id.clone()), (head, body.clone()));
                }
                ChangeKind::Remove { id, .. } => {
                    self.documents.remove(&(change.model.clone(), id.clone()));
                }
                ChangeKind::Truncate => panic!("no write truncates"),
            }
        }
        for Placed { place, what } in &plan.unique {
            match &what.owner {
                Some(owner) => self.owners.insert((*place, what.key.clone()), owner.clone()),
                None => self.owners.remove(&(*place, what.key.clone())),
            };
        }
        for placed in &plan.responses {
            self.responses.insert(placed.what.key.clone(), placed.what.clone());
        }
        for placed in &plan.committed {
            self.requests.insert((placed.what.incarnation, placed.what.request), placed.what);
        }
    }

    fn run(&mut self, rules: &Rules, group: Vec<Requested>) -> Vec<Outcome> {
        let plan = plan(self, rules, group, self.last, 1).unwrap();
        self.apply(&plan);
        plan.outcomes
    }
}

fn rules(state: IndexState) -> Rules {
    let generations = Generations::new(generation(1, &[TODO, NOTE]));
    generations.rules(|name: &IndexName| Some((if name.field == "code" { 1 } else { 2 }, state)))
}

fn requested(write: Write) -> Requested {
    Requested { incarnation: 7, write }
}

fn body(code: Option<u8>, mail: Option<u8>) -> Bytes {
    let part =
        |name: &str, value: Option<u8>| value.map(|value| format!("\"{name}\":\"{value}\"")).into_iter();
    let parts: Vec<String> = part("code", code).chain(part("mail", mail)).collect();
    Bytes::from(format!("{{{}}}", parts.join(",")))
}

/// What a client tries, with expectations relative to the present so that many of them hold.
#[derive(Debug, Clone)]
struct Attempt {
    model: &'static str,
    id: u8,
    remove: bool,
    stale: bool,
    body: Bytes,
}

#[derive(Debug, Clone)]
struct Try {
    request: u64,
    attempts: Vec<Attempt>,
    key: Option<u8>,
}

fn any_try() -> impl Strategy<Value = Try> {
    let small = || prop::option::of(0_u8..3);
    let attempt = (any::<bool>(), 0_u8..4, any::<bool>(), prop::bool::weighted(0.15), small(), small())
        .prop_map(|(todo, id, remove, stale, code, mail)| Attempt {
            model: if todo { "TODO" } else { "NOTE" },
            id,
            remove,
            stale,
            body: body(code, mail),
        });
    (0_u64..30, prop::collection::vec(attempt, 0..4), prop::option::weighted(0.3, 0_u8..6))
        .prop_map(|(request, attempts, key)| Try { request, attempts, key })
}

/// Turns attempts into operations against `state`, which the test keeps in step with the plan.
fn operations(attempts: &[Attempt], state: &RefCell<Committed>) -> Vec<Operation> {
    let state = state.borrow();
    let mut touched = std::collections::HashSet::new();
    let mut operations = Vec::new();
    for attempt in attempts {
        let key = (attempt.model.to_owned(), attempt.id.to_string());
        if !touched.insert(key.clone()) {
            continue; // a worker does not know the number of a change of the same write
        }
        let head = state.documents.get(&key).map(|(head, _)| *head);
        let (expect, revision) = match head {
            Some(head) => (Expect::At(head.sequence + u64::from(attempt.stale)), head.revision),
            None if attempt.stale => (Expect::At(1), 1),
            None => (Expect::Absent, 0),
        };
        let body = (!attempt.remove || head.is_none()).then(|| attempt.body.clone());
        let revision = if body.is_some() { revision + 1 } else { revision };
        operations.push(Operation { model: key.0, id: key.1, expect, revision, body, changes: None });
    }
    operations
}

fn all_values_are_owned_once(state: &Committed, rules: &Rules) -> Result<(), TestCaseError> {
    let mut owners = BTreeMap::new();
    for ((model, id), (_, body)) in &state.documents {
        let model = rules.model(model).unwrap();
        for (_, key) in model.unique_keys(body).unwrap() {
            prop_assert!(
                owners.insert((model.place, key), id.clone()).is_none(),
                "two documents with one value"
            );
        }
    }
    prop_assert_eq!(&owners, &state.owners, "the index is exactly the documents");
    Ok(())
}

proptest! {
    #[test]
    fn a_group_does_what_its_writes_would_do_one_by_one(tries in prop::collection::vec(any_try(), 1..25), cut in 1_usize..8) {
        let rules = rules(IndexState::Complete);
        // One by one, which also makes the operations.
        let single = RefCell::new(Committed::default());
        let mut writes = Vec::new();
        let mut outcomes = Vec::new();
        for attempt in &tries {
            let write = Write {
                request: attempt.request,
                operations: operations(&attempt.attempts, &single),
                idempotency: attempt.key.map(|key| idempotency(&key.to_string(), &attempt.request.to_string())),
            };
            let before = single.borrow().clone();
            let outcome = single.borrow_mut().run(&rules, vec![requested(write.clone())]).remove(0);
            let after = single.borrow();
            match &outcome {
                Outcome::Committed { first, last } => {
                    let known = before.requests.get(&(7, attempt.request));
                    let expected = known.map_or((before.last + 1, after.last), |known| (known.first, known.last));
                    prop_assert_eq!((*first, *last), expected);
                    prop_assert!(known.is_none() || *after == before, "a repeated write changes nothing");
                }
                Outcome::Conflict { .. } | Outcome::UniqueTaken { .. } | Outcome::Replayed(_) => {
                    prop_assert_eq!(&*after, &before, "all or nothing");
                }
                Outcome::Refused { reason } | Outcome::Unavailable { reason } => panic!("{reason}"),
            }
            all_values_are_owned_once(&after, &rules)?;
            writes.push(write);
            outcomes.push(outcome);
        }
        // In groups.
        let mut grouped = Committed::default();
        let mut found = Vec::new();
        for group in writes.chunks(cut) {
            found.extend(grouped.run(&rules, group.iter().cloned().map(requested).collect()));
        }
        prop_assert_eq!(found, outcomes);
        prop_assert_eq!(&grouped, &*single.borrow());
    }
}

#[test]
fn equal_writes_with_one_key_in_one_group_make_one_document() {
    let rules = rules(IndexState::Complete);
    let mut state = Committed::default();
    let keyed = |request, id| Write {
        idempotency: Some(idempotency("k", id)),
        ..write(request, create("TODO", id, "{}"))
    };
    let outcomes = state.run(&rules, vec![requested(keyed(1, "a")), requested(keyed(2, "b"))]);
    assert_eq!(outcomes[0], Outcome::Committed { first: 1, last: 1 });
    let Outcome::Replayed(stored) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!((&stored.response[..], stored.sequence), (&b"a"[..], 1));
    assert_eq!(state.documents.len(), 1);
}

#[test]
fn a_write_without_operations_keeps_its_response_and_takes_no_number() {
    let rules = rules(IndexState::Complete);
    let mut state = Committed::default();
    state.run(&rules, vec![requested(write(1, create("TODO", "a", "{}")))]);
    let empty = Write { request: 2, operations: Vec::new(), idempotency: Some(idempotency("k", "same")) };
    assert_eq!(state.run(&rules, vec![requested(empty)]), [Outcome::Committed { first: 2, last: 1 }]);
    assert_eq!(state.responses["k"].sequence, 1);
}

#[test]
fn what_belongs_to_a_write_goes_to_disk_unless_all_of_it_is_in_memory() {
    let rules = rules(IndexState::Complete);
    let operations = |models: &[&str]| models.iter().map(|model| create(model, "a", "{}")).collect();
    for (models, place) in
        [(&["NOTE"][..], Place::Memory), (&["TODO"], Place::File), (&["NOTE", "TODO"], Place::File)]
    {
        let write =
            Write { request: 1, operations: operations(models), idempotency: Some(idempotency("k", "r")) };
        let plan = plan(&Committed::default(), &rules, vec![requested(write)], 0, 1).unwrap();
        assert_eq!((plan.committed[0].place, plan.responses[0].place), (place, place), "{models:?}");
    }
}

#[test]
fn mistakes_of_a_worker_are_refused_with_a_reason() {
    let rules = rules(IndexState::Complete);
    let mut state = Committed::default();
    state.run(&rules, vec![requested(write(1, create("TODO", "a", "{}")))]);
    let at = |revision, body: Option<&str>| Operation {
        expect: Expect::At(1),
        revision,
        body: body.map(crate::testing::body),
        ..create("TODO", "a", "")
    };
    let operations = [
        create("GONE", "a", "{}"),
        create("TODO", "", "{}"),
        create("TODO", &"x".repeat(5000), "{}"),
        Operation { revision: 2, ..create("TODO", "b", "{}") },
        Operation { body: None, ..create("TODO", "b", "{}") },
        at(1, Some("{}")),
        at(2, None),
        create("TODO", "b", "no json"),
    ];
    let group =
        (2..).zip(operations).map(|(request, operation)| requested(write(request, operation))).collect();
    let reasons: Vec<String> = state
        .run(&rules, group)
        .into_iter()
        .map(|outcome| match outcome {
            Outcome::Refused { reason } => reason,
            other => panic!("{other:?}"),
        })
        .collect();
    insta::assert_snapshot!(reasons.join("\n"), @r#"
    operation 0: there is no model GONE
    operation 0: found an id of 0 bytes, expected 1 to 4096
    operation 0: found an id of 5000 bytes, expected 1 to 4096
    operation 0: found revision 2, expected 1
    operation 0 removes a document that it expects absent
    operation 0: found revision 1, expected 2
    operation 0: found revision 2, expected 1
    operation 0: new body: byte 0: expected '{'
    "#);
    let large =
        Operation { body: Some(Bytes::from(vec![b' '; WRITE_BYTES_MAX + 1])), ..create("NOTE", "b", "") };
    let outcome = state.run(&rules, vec![requested(write(99, large))]).remove(0);
    assert!(
        matches!(&outcome, Outcome::Refused { reason } if reason.contains("bytes of documents")),
        "{outcome:?}"
    );
}

#[test]
fn an_index_under_construction_is_filled_and_collisions_are_told_not_refused() {
    let rules = rules(IndexState::Building);
    let mut state = Committed::default();
    let text = "{\"code\":\"x\"}";
    let first = plan(&state, &rules, vec![requested(write(1, create("TODO", "a", text)))], 0, 1).unwrap();
    state.apply(&first);
    assert_eq!((first.unique.len(), first.collisions.len()), (1, 0));
    let second = plan(&state, &rules, vec![requested(write(2, create("TODO", "b", text)))], 1, 1).unwrap();
    assert_eq!(second.outcomes, [Outcome::Committed { first: 2, last: 2 }]);
    assert_eq!(second.collisions, [Collision { index: 1, ids: ("a".into(), "b".into()) }]);
    state.apply(&second);
    // The one that does not own the value leaves it to the one that does.
    let remove = Operation { expect: Expect::At(2), body: None, ..create("TODO", "b", "") };
    let third = plan(&state, &rules, vec![requested(write(3, remove))], 2, 1).unwrap();
    assert_eq!((third.outcomes.len(), third.unique.len()), (1, 0));
}
