mod aggregates;
mod answers;
mod laws;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    json,
    problem::Problem,
    query::{
        Bounds, Effort, Page, Query, Step, Wanted,
        tests::{BOUNDS, compile},
    },
};

/// A table, and where the bodies are that it does not keep.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) model: Arc<Model>,
    pub(super) table: Table,
    pub(super) bodies: BTreeMap<(String, u64), Bytes>,
    sequence: u64,
}

pub(super) fn everything() -> CacheBounds {
    CacheBounds { bytes_max: u64::MAX, documents_max: None }
}

impl Store {
    pub(super) fn new(toml: &str, bounds: CacheBounds) -> Self {
        let model = compile(toml);
        Self { table: Table::new(&model, bounds), model, bodies: BTreeMap::new(), sequence: 0 }
    }

    /// Puts a document whose properties are given as JSON.
    pub(super) fn put(&mut self, id: &str, properties: &str) {
        self.sequence += 1;
        let mut document = json::parse(properties.as_bytes()).expect("JSON");
        let members = document.as_object_mut().expect("an object");
        members.insert("id".to_owned(), Value::from(id));
        let body = Bytes::from(document.to_string());
        self.bodies.insert((id.to_owned(), self.sequence), body.clone());
        self.table.put(id, 1, self.sequence, body);
    }

    /// Removes a document.
    pub(super) fn remove(&mut self, id: &str) {
        self.sequence += 1;
        self.table.remove(id, self.sequence);
    }

    /// Answers a query, fetching what the table does not keep.
    pub(super) fn answer_within(&self, query: &str, bounds: &Bounds) -> Result<Page, Problem> {
        self.answer_in_steps(query, bounds).map(|(page, _)| page)
    }

    /// The same, and how many times the plan paused.
    pub(super) fn answer_in_steps(&self, query: &str, bounds: &Bounds) -> Result<(Page, usize), Problem> {
        let query = Query::parse(&self.model, query, bounds)?;
        let mut plan = self.table.plan(&query)?;
        let mut bodies = Vec::new();
        let mut effort = Effort::Brief;
        let mut pauses = 0;
        loop {
            (plan, bodies) = match plan.step(bodies, effort)? {
                Step::Done(page) => return Ok((page, pauses)),
                Step::Look(next) => (self.table.look(next).expect("nothing has changed"), Vec::new()),
                Step::Pause(next) => {
                    effort = Effort::Long;
                    pauses += 1;
                    (next, Vec::new())
                }
                Step::Fetch(next, wanted) => (next, self.fetch(&wanted)),
            }
        }
    }

    /// The bodies that a plan asks for.
    pub(super) fn fetch(&self, wanted: &[Wanted]) -> Vec<Bytes> {
        assert!(!wanted.is_empty(), "a step that asks for nothing would go on for ever");
        let body = |wanted: &Wanted| self.bodies[&(wanted.id.as_ref().to_owned(), wanted.sequence)].clone();
        wanted.iter().map(body).collect()
    }

    pub(super) fn answer(&self, query: &str) -> Page {
        self.answer_within(query, &BOUNDS).unwrap_or_else(|problem| panic!("{query}: {problem}"))
    }

    /// The answer as text.
    pub(super) fn text(&self, query: &str) -> String {
        String::from_utf8(self.answer(query).body.to_vec()).expect("text")
    }

    /// The ids of a list.
    pub(super) fn ids(&self, query: &str) -> Vec<String> {
        ids(&self.answer(query).body)
    }
}

pub(super) fn ids(body: &[u8]) -> Vec<String> {
    let rows = json::parse(body).expect("JSON");
    let id = |row: &Value| row["id"].as_str().expect("an id").to_owned();
    rows.as_array().expect("an array").iter().map(id).collect()
}

/// What happens to a table.
#[derive(Debug, Clone, Copy)]
enum Event {
    Put { id: u8, field: u8, length: usize },
    Remove { id: u8 },
    Get { id: u8 },
    Fill { id: u8 },
    Bound { bytes_max: u64, documents_max: Option<u64> },
    Replay,
    Truncate,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..12_u8, 0..4_u8, 0..60_usize).prop_map(|(id, field, length)| Event::Put { id, field, length }),
        3 => (0..12_u8).prop_map(|id| Event::Remove { id }),
        5 => (0..12_u8).prop_map(|id| Event::Get { id }),
        3 => (0..12_u8).prop_map(|id| Event::Fill { id }),
        1 => (0..400_u64, proptest::option::of(0..6_u64))
            .prop_map(|(bytes_max, documents_max)| Event::Bound { bytes_max, documents_max }),
        1 => Just(Event::Replay),
        1 => Just(Event::Truncate),
    ]
}

const INDEXED: &str = "name = \"thing\"\n[fields]\nfield = { kind = \"integer\", indexed = true }";

/// What a table should contain.
#[derive(Debug, Default)]
struct Expected {
    documents: BTreeMap<String, (u64, Bytes)>,
    last_put: Option<(String, u64, Bytes)>,
}

fn apply(table: &mut Table, expected: &mut Expected, sequence: u64, event: Event) -> CacheBounds {
    match event {
        Event::Put { id, field, length } => {
            let id = id.to_string();
            let body = format!(r#"{{"field":{field},"text":"{}","id":"{id}"}}"#, "x".repeat(length));
            let body = Bytes::from(body);
            table.put(&id, sequence, sequence, body.clone());
            expected.last_put = Some((id.clone(), sequence, body.clone()));
            expected.documents.insert(id, (sequence, body));
        }
        Event::Remove { id } => {
            table.remove(&id.to_string(), sequence);
            expected.documents.remove(&id.to_string());
            expected.last_put = None;
        }
        Event::Get { id } => {
            let _ = table.get(&id.to_string());
        }
        Event::Fill { id } => {
            if let Some((sequence, body)) = expected.documents.get(&id.to_string()) {
                assert!(table.fill(&id.to_string(), *sequence, body.clone()));
                assert!(!table.fill(&id.to_string(), *sequence - 1, Bytes::from_static(b"{}")));
            } else {
                assert!(!table.fill(&id.to_string(), sequence, Bytes::from_static(b"{}")));
            }
        }
        Event::Bound { bytes_max, documents_max } => {
            table.set_bounds(CacheBounds { bytes_max, documents_max })
        }
        Event::Replay => {
            if let Some((id, sequence, _)) = &expected.last_put {
                table.put(id, 0, *sequence, Bytes::from_static(b"{\"field\":9}"));
                table.remove(id, *sequence);
            }
        }
        Event::Truncate => {
            table.truncate();
            *expected = Expected::default();
        }
    }
    table.documents.bounds()
}

fn check(table: &Table, expected: &Expected, bounds: CacheBounds) -> Result<(), TestCaseError> {
    let statistics = table.statistics();
    let (mut cached, mut cached_bytes, mut bytes) = (0, 0, 0);
    for id in (0..12_u8).map(|id| id.to_string()) {
        match (table.get(&id), expected.documents.get(&id)) {
            (Lookup::Missing, None) => {}
            (Lookup::Hit { revision, sequence, body }, Some((its_sequence, its_body))) => {
                prop_assert_eq!((revision, sequence, &body), (*its_sequence, *its_sequence, its_body));
                cached += 1;
                cached_bytes += body.len() as u64;
            }
            (Lookup::Evicted { revision, sequence }, Some((its_sequence, _))) => {
                prop_assert_eq!((revision, sequence), (*its_sequence, *its_sequence));
            }
            (found, expected) => prop_assert!(false, "{id}: {found:?} instead of {expected:?}"),
        }
        bytes += expected.documents.get(&id).map_or(0, |(_, body)| body.len() as u64);
    }
    let documents = expected.documents.len() as u64;
    let counted = Statistics { documents, bytes, cached_documents: cached, cached_bytes };
    prop_assert_eq!(statistics, counted);
    prop_assert!(cached_bytes <= bounds.bytes_max && bounds.documents_max.is_none_or(|max| cached <= max));
    Ok(())
}

/// Every document is in the index once, under its key, and nothing else is.
fn check_index(table: &Table, expected: &Expected) -> Result<(), TestCaseError> {
    let way = table.way(&crate::query::Sort::default()).expect("a way by id");
    let by_id: Vec<_> = table.walk(&way).map(|slot| table.documents.slot(slot).id.0.to_string()).collect();
    prop_assert_eq!(by_id, expected.documents.keys().cloned().collect::<Vec<_>>());
    let way = walk::Way { axis: walk::Axis::Index(0), ..way };
    let by_field: Vec<_> = table.walk(&way).map(|slot| table.documents.slot(slot).id.0.to_string()).collect();
    let mut sorted: Vec<_> = expected
        .documents
        .iter()
        .map(|(id, (_, body))| (json::parse(body).expect("JSON")["field"].as_u64(), id.clone()))
        .collect();
    sorted.sort();
    prop_assert_eq!(by_field, sorted.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
    Ok(())
}

proptest! {
    #[test]
    fn a_table_is_a_map_with_an_index_whatever_its_cache_keeps(
        events in proptest::collection::vec(event(), 0..80), bytes_max in 0..400_u64,
    ) {
        let bounds = CacheBounds { bytes_max, documents_max: None };
        let mut table = Table::new(&compile(INDEXED), bounds);
        let mut expected = Expected::default();
        for (sequence, event) in (1..).zip(events) {
            let bounds = apply(&mut table, &mut expected, sequence, event);
            // Looking at everything uses everything, so that is done only now and then.
            if sequence % 7 == 0 {
                check(&table, &expected, bounds)?;
            }
            check_index(&table, &expected)?;
        }
        check(&table, &expected, table.documents.bounds())?;
    }
}
