//! One suite of laws for every engine: random batches against a plain map.

use std::collections::BTreeMap;

use aegis_ipc::data::{Change, ChangeKind, Stored, Version};
use bytes::Bytes;
use proptest::{prelude::*, test_runner::TestCaseResult};

use super::{
    Batch, Engine, Forget, IndexName, IndexRow, IndexState, KeptResponse, LogBudget, MetaEdit, RequestGroup,
    Snapshot, UniqueEdit, UniqueKey,
    fjall::{FjallEngine, Options},
    memory::MemoryEngine,
};
use crate::engine::CommittedWrite;

const MODELS: [&str; 2] = ["ORDER", "ORDERS"];
const IDS: [&str; 5] = ["", "a", "b", "ab", "é"];

#[derive(Debug, Clone)]
enum Kind {
    Put(u8),
    Remove,
    Truncate,
}

#[derive(Debug, Clone)]
struct Step {
    changes: Vec<(usize, usize, Kind, u64)>,
    unique: BTreeMap<(u32, u8), Option<usize>>,
    response: Option<(u8, u64)>,
    forget_log: Option<u64>,
    forget_responses: Option<u64>,
    snapshot: bool,
}

fn any_step() -> impl Strategy<Value = Step> {
    let kind =
        prop_oneof![6 => any::<u8>().prop_map(Kind::Put), 3 => Just(Kind::Remove), 1 => Just(Kind::Truncate)];
    let change = (0..MODELS.len(), 0..IDS.len(), kind, 1_u64..4);
    (
        prop::collection::vec(change, 0..7),
        prop::collection::btree_map((0_u32..3, 0_u8..4), prop::option::of(0..IDS.len()), 0..4),
        prop::option::of((0_u8..3, 0_u64..50)),
        prop::option::weighted(0.3, 0_u64..40),
        prop::option::weighted(0.2, 0_u64..60),
        any::<bool>(),
    )
        .prop_map(|(changes, unique, response, forget_log, forget_responses, snapshot)| Step {
            changes,
            unique,
            response,
            forget_log,
            forget_responses,
            snapshot,
        })
}

#[derive(Debug, Clone, Default)]
struct Map {
    documents: BTreeMap<(String, String), Stored>,
    log: Vec<Change>,
    log_oldest: u64,
    unique: BTreeMap<UniqueKey, String>,
    responses: BTreeMap<String, KeptResponse>,
    ages: Vec<(u64, u64)>,
    requests: Vec<RequestGroup>,
    last: u64,
}

impl Map {
    fn change(&mut self, change: &Change) {
        let key = |id: &String| (change.model.clone(), id.clone());
        match &change.kind {
            ChangeKind::Put { id, revision, body, .. } => {
                let stored = Stored {
                    model: change.model.clone(),
                    id: id.clone(),
                    revision: *revision,
                    sequence: change.sequence,
                    body: body.clone(),
                };
                self.documents.insert(key(id), stored);
            }
            ChangeKind::Remove { id, .. } => {
                self.documents.remove(&key(id));
            }
            ChangeKind::Truncate => self.documents.retain(|(model, _), _| *model != change.model),
        }
        self.last = change.sequence;
        self.log.push(change.clone());
    }
}

fn changes_of(step: &Step, mut sequence: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    for (model, id, kind, gap) in &step.changes {
        sequence += gap;
        let id = IDS[*id].to_owned();
        let kind = match kind {
            Kind::Put(byte) => ChangeKind::Put {
                id,
                revision: u64::from(*byte),
                body: Bytes::from(vec![*byte; usize::from(*byte) * 20]),
                changes: (*byte > 1).then(|| Bytes::from(vec![*byte; usize::from(*byte)])),
            },
            Kind::Remove => ChangeKind::Remove { id, revision: 1 },
            Kind::Truncate => ChangeKind::Truncate,
        };
        changes.push(Change { sequence, model: MODELS[*model].to_owned(), kind, time_ms: sequence });
    }
    changes
}

fn run(engine: &dyn Engine, steps: &[Step]) -> Result<Map, TestCaseError> {
    let mut map = Map { log_oldest: engine.log_oldest(), ..Map::default() };
    let mut snapshots: Vec<(Box<dyn Snapshot>, Map)> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let changes = changes_of(step, map.last);
        let mut batch = Batch { changes: changes.iter().collect(), ..Batch::default() };
        changes.iter().for_each(|change| map.change(change));
        for ((index, value), owner) in &step.unique {
            let key = UniqueKey::new(*index, &vec![*value; usize::from(*value) * 100]);
            let owner = owner.map(|owner| IDS[owner].to_owned());
            match &owner {
                Some(owner) => map.unique.insert(key.clone(), owner.clone()),
                None => map.unique.remove(&key),
            };
            batch.unique.push(UniqueEdit { key, owner });
        }
        if let Some((key, time_ms)) = step.response {
            let kept = KeptResponse {
                key: "k".repeat(usize::from(key) * 200),
                fingerprint: Bytes::from_static(b"f"),
                response: Bytes::from(vec![key; 3]),
                sequence: number as u64,
                time_ms,
            };
            map.responses.insert(kept.key.clone(), kept.clone());
            map.ages.push((time_ms, number as u64));
            batch.responses.push(kept);
        }
        let writes = vec![CommittedWrite { incarnation: 1, request: number as u64, first: 2, last: 3 }];
        let group = RequestGroup { number: number as u64, time_ms: 1, writes };
        map.requests.push(group.clone());
        batch.requests = Some(group);
        engine.apply(&batch).unwrap();
        forget(engine, step, &mut map)?;
        check(engine, &map)?;
        if step.snapshot {
            snapshots.push((engine.snapshot().unwrap(), map.clone()));
        }
    }
    for (snapshot, then) in &snapshots {
        check_snapshot(&**snapshot, then)?;
    }
    Ok(map)
}

fn forget(engine: &dyn Engine, step: &Step, map: &mut Map) -> TestCaseResult {
    let mut forget = Forget::default();
    // The newest row always stays, as in the store: it tells the last number after a restart.
    if let Some(before) = step.forget_log.map(|before| before.min(map.last)) {
        let rows = engine.log_rows(before, 3).unwrap();
        let expected: Vec<u64> = map
            .log
            .iter()
            .map(|change| change.sequence)
            .filter(|sequence| *sequence < before)
            .take(3)
            .collect();
        prop_assert_eq!(&rows, &expected, "the oldest rows");
        map.log.retain(|change| !rows.contains(&change.sequence));
        let kept_from = rows.last().map_or(0, |last| last + 1);
        map.log_oldest = map.log_oldest.max(kept_from);
        forget.log_before = rows.last().map(|last| last + 1);
        forget.log = rows;
    }
    if let Some(before_ms) = step.forget_responses {
        let ages = engine.responses_before(before_ms, 2).unwrap();
        map.ages.sort_unstable();
        let expected: Vec<(u64, u64)> =
            map.ages.iter().copied().filter(|(time_ms, _)| *time_ms < before_ms).take(2).collect();
        let found: Vec<(u64, u64)> = ages.iter().map(|age| (age.time_ms, age.sequence)).collect();
        prop_assert_eq!(&found, &expected, "the oldest responses");
        map.ages.retain(|age| !found.contains(age));
        map.responses.retain(|_, kept| !found.contains(&(kept.time_ms, kept.sequence)));
        forget.responses = ages;
    }
    engine.apply(&Batch { forget, ..Batch::default() }).unwrap();
    Ok(())
}

fn check(engine: &dyn Engine, map: &Map) -> TestCaseResult {
    prop_assert_eq!(engine.last(), map.last);
    prop_assert_eq!(engine.log_oldest(), map.log_oldest);
    for model in MODELS {
        for id in IDS {
            let expected = map.documents.get(&(model.to_owned(), id.to_owned()));
            let found = engine.document(model, id).unwrap();
            prop_assert_eq!(found.as_ref(), expected);
            let head = engine.head(model, id).unwrap();
            prop_assert_eq!(
                head.map(|head| (head.sequence, head.revision)),
                expected.map(|stored| (stored.sequence, stored.revision))
            );
        }
    }
    for change in &map.log {
        let ChangeKind::Put { id, body, .. } = &change.kind else { continue };
        let version = Version { model: change.model.clone(), id: id.clone(), sequence: change.sequence };
        let found = engine.version(&version).unwrap();
        prop_assert_eq!(found.as_ref(), Some(body));
        let other = Version { id: "other".into(), ..version };
        prop_assert_eq!(engine.version(&other).unwrap(), None);
    }
    check_log(engine, map)?;
    for kept in map.responses.values() {
        let found = engine.response(&kept.key).unwrap();
        prop_assert_eq!(found.as_ref(), Some(kept));
    }
    prop_assert_eq!(engine.response("unknown").unwrap(), None);
    for index in 0..3 {
        let mut rows = Vec::new();
        while let Some(next) =
            engine.index_rows(index, rows.last().map(|row: &UniqueEdit| &row.key), 1).unwrap().pop()
        {
            prop_assert_eq!(engine.unique_owner(&next.key).unwrap(), next.owner.clone());
            rows.push(next);
        }
        let expected: Vec<UniqueEdit> = map
            .unique
            .iter()
            .filter(|(key, _)| key.index == index)
            .map(|(key, owner)| UniqueEdit { key: key.clone(), owner: Some(owner.clone()) })
            .collect();
        prop_assert_eq!(rows, expected);
    }
    check_snapshot(&*engine.snapshot().unwrap(), map)
}

fn check_log(engine: &dyn Engine, map: &Map) -> TestCaseResult {
    for (after, changes_max, bytes_max) in [(0, 1000, usize::MAX), (0, 2, usize::MAX), (5, 1000, 100)] {
        let budget = LogBudget { changes_max, bytes_max };
        let (mut found, mut reached) = (Vec::new(), after);
        while reached < map.last {
            let page = engine.log(reached, map.last, budget).unwrap();
            prop_assert!(page.reached > reached, "the log is read in steps that end");
            prop_assert!(page.changes.len() <= changes_max);
            prop_assert!(page.changes.iter().all(|change| change.sequence <= page.reached));
            found.extend(page.changes);
            reached = page.reached;
        }
        let expected: Vec<Change> =
            map.log.iter().filter(|change| change.sequence > after).cloned().collect();
        prop_assert_eq!(found, expected);
    }
    Ok(())
}

fn check_snapshot(snapshot: &dyn Snapshot, then: &Map) -> TestCaseResult {
    prop_assert_eq!(snapshot.last(), then.last);
    let mut models: Vec<&String> = then.documents.keys().map(|(model, _)| model).collect();
    models.dedup();
    let found = snapshot.models().unwrap();
    prop_assert_eq!(found.iter().collect::<Vec<_>>(), models);
    for model in MODELS {
        let found: Vec<Stored> = snapshot.documents(model).collect::<Result<_, _>>().unwrap();
        let expected: Vec<Stored> =
            then.documents.values().filter(|stored| stored.model == model).cloned().collect();
        prop_assert_eq!(found, expected);
    }
    Ok(())
}

fn open(folder: &std::path::Path) -> FjallEngine {
    Options { folder: folder.to_owned(), cache_bytes: 1 << 20 }.open().unwrap().engine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn memory_obeys(steps in prop::collection::vec(any_step(), 1..12)) {
        run(&MemoryEngine::new(), &steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn fjall_obeys_also_after_it_is_opened_again(steps in prop::collection::vec(any_step(), 1..8)) {
        let folder = tempfile::tempdir().unwrap();
        let map = run(&open(folder.path()), &steps)?;
        let engine = open(folder.path());
        check(&engine, &map)?;
        prop_assert_eq!(engine.recover().unwrap().requests, map.requests);
    }
}

#[test]
fn a_response_kept_after_the_clock_was_set_back_is_found_when_it_is_old() {
    let step = |time_ms, before_ms| Step {
        changes: vec![],
        unique: BTreeMap::new(),
        response: Some((0, time_ms)),
        forget_log: None,
        forget_responses: Some(before_ms),
        snapshot: false,
    };
    let folder = tempfile::tempdir().unwrap();
    run(&open(folder.path()), &[step(4, 5), step(0, 28)]).unwrap();
}

#[test]
fn what_an_engine_knows_about_itself_survives() {
    let folder = tempfile::tempdir().unwrap();
    let name = |field: &str| IndexName { model: "ORDER".into(), field: field.into() };
    let row = |field, number, state| IndexRow { name: name(field), number, state };
    let edits = vec![
        MetaEdit::Declared(vec![1, 2]),
        MetaEdit::Reserved(9),
        MetaEdit::Index(row("a", 1, IndexState::Building)),
        MetaEdit::Index(row("b", 2, IndexState::Complete)),
    ];
    let later = vec![
        MetaEdit::Catalog(vec![3, 4]),
        MetaEdit::Index(row("a", 1, IndexState::Complete)),
        MetaEdit::DropIndex(row("b", 2, IndexState::Complete)),
    ];
    let again = vec![
        MetaEdit::DropIndex(row("a", 1, IndexState::Complete)),
        MetaEdit::Index(row("a", 3, IndexState::Building)),
        MetaEdit::IndexGone(2),
    ];
    let memory = MemoryEngine::new();
    let disk = open(folder.path());
    for engine in [&memory as &dyn Engine, &disk] {
        engine.apply(&Batch { meta: edits.clone(), ..Batch::default() }).unwrap();
        let recovered = engine.recover().unwrap();
        assert_eq!((recovered.catalog, recovered.declared), (None, Some(vec![1, 2])));
        engine.apply(&Batch { meta: later.clone(), ..Batch::default() }).unwrap();
        engine.apply(&Batch { meta: again.clone(), ..Batch::default() }).unwrap();
    }
    drop(disk);
    let recovered = open(folder.path()).recover().unwrap();
    assert_eq!(recovered, memory.recover().unwrap());
    assert_eq!(recovered.indexes, vec![row("a", 3, IndexState::Building)]);
    assert_eq!((recovered.dropped, recovered.reserved), (vec![1], 9));
    assert_eq!((recovered.catalog, recovered.declared), (Some(vec![3, 4]), None), "a host has taken it over");
}
