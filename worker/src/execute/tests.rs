//! Requests against a worker's data and a small store over a real socket.

mod keys;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::{Retry, catalog::Catalog, module};
use aegis_ipc::board::Board;
use aegis_wasm::Lineage;
use insta::assert_snapshot;
use serde_json::Value;

use super::*;
use crate::{
    data::tests::{
        Worker, catalog, config, eventually,
        fake_store::{FakeStore, Mood},
        later, soon,
    },
    operation::{Answer, Outcome, Precondition, Revisions},
};

/// A model of its own with these lines in front of its fields.
pub(super) fn model(lines: &str) -> Arc<Model> {
    let spec = module::parse(&format!("name = \"todo\"\n{lines}[fields]\ntext = \"text\"\n"), "module.toml")
        .unwrap();
    Arc::clone(&Catalog::build(vec![spec]).unwrap().models()[0])
}

const MODULE: &str = r#"
name = "todo"
[fields]
text = { kind = "text", required = true }
code = { kind = "text", unique = true }
rank = { kind = "integer", indexed = true }
"#;

struct Scene {
    store: Arc<FakeStore>,
    worker: Worker,
    engine: Engine,
    model: Arc<Model>,
}

/// A request without conditions.
pub(super) fn request(model: &Arc<Model>, operation: Operation) -> Request {
    Request {
        model: Arc::clone(model),
        operation,
        precondition: Precondition::default(),
        idempotency: None,
        deadline: later(),
        answer: Answer::Representation,
        request_id: String::new(),
        lineage: Lineage::begin(),
        lot: Default::default(),
        principal: None,
    }
}

impl Scene {
    async fn new() -> Self {
        Self::with(config(), MODULE).await
    }

    async fn with(config: Config, module: &str) -> Self {
        let (board, _) = Board::create().unwrap();
        let catalog = catalog(&[module]);
        let store = FakeStore::start(board, Arc::clone(&catalog));
        let worker = Worker::start_ready(&config, &store, &catalog, board).await;
        let engine = Engine::new(&config, worker.data.clone());
        let model = Arc::clone(&catalog.models()[0]);
        Self { store, worker, engine, model }
    }

    fn request(&self, operation: Operation) -> Request {
        request(&self.model, operation)
    }

    async fn run(&self, operation: Operation) -> Result<Reply, Problem> {
        self.engine.execute(self.request(operation)).await
    }

    async fn create(&self, body: &str) -> Result<Reply, Problem> {
        self.run(Operation::Create { body: text(body) }).await
    }

    async fn read(&self, id: &str) -> Result<Reply, Problem> {
        self.run(Operation::Read { id: id.to_owned() }).await
    }

    async fn list(&self, query: &str) -> Value {
        json(&self.run(Operation::List { query: query.to_owned() }).await.unwrap())
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.worker.data.cell().counter(counter).load(Ordering::Relaxed)
    }
}

fn text(body: &str) -> Bytes {
    Bytes::copy_from_slice(body.as_bytes())
}

fn json(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn replace(id: &str, body: &str) -> Operation {
    Operation::Replace { id: id.to_owned(), body: text(body) }
}

fn merge(id: &str, body: &str) -> Operation {
    Operation::Merge { id: id.to_owned(), body: text(body) }
}

fn remove(id: &str) -> Operation {
    Operation::Remove { id: id.to_owned() }
}

fn if_match(revision: u64) -> Precondition {
    Precondition { if_match: Some(Revisions::Of(vec![revision])), if_none_match: None }
}

fn absent() -> Precondition {
    Precondition { if_match: None, if_none_match: Some(Revisions::Any) }
}

/// Code, detail and single errors on one line each.
fn told(problem: &Problem) -> String {
    let mut lines = vec![problem.to_string()];
    lines.extend(problem.errors.iter().map(|error| format!("{}: {}", error.path, error.message)));
    lines.join("\n")
}

#[tokio::test]
async fn a_document_lives_through_its_revisions() {
    let scene = Scene::new().await;
    let created = scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    assert_eq!(created.result, Outcome::Created { id: "a".to_owned(), revision: 1 });
    let read = scene.read("a").await.unwrap();
    assert_eq!((read.result, &read.body, read.sequence), (Outcome::Found { revision: 1 }, &created.body, 1));
    let replaced = scene.run(replace("a", r#"{"text":"y"}"#)).await.unwrap();
    assert_eq!(replaced.result, Outcome::Found { revision: 2 });
    let merged = scene.run(merge("a", r#"{"rank":3}"#)).await.unwrap();
    assert_eq!((json(&merged)["text"].as_str(), json(&merged)["rank"].as_u64()), (Some("y"), Some(3)));
    let patch = Operation::Patch { id: "a".to_owned(), body: text(r#"[{"op":"remove","path":"/rank"}]"#) };
    let patched = scene.run(patch).await.unwrap();
    assert_eq!(patched.result, Outcome::Found { revision: 4 });
    let removed = scene.run(remove("a")).await.unwrap();
    assert_eq!(
        (removed.result, removed.body, removed.sequence),
        (Outcome::Found { revision: 4 }, patched.body, 5)
    );
    assert_snapshot!(told(&scene.read("a").await.unwrap_err()), @r#"not-found: there is no document of TODO with the id "a""#);
    let recreated = scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    assert_eq!(recreated.result, Outcome::Created { id: "a".to_owned(), revision: 1 });
}

#[tokio::test]
async fn a_cached_document_is_read_without_waiting() {
    let scene = Scene::new().await;
    let created = scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    let document = Some(Found { revision: 1, body: created.body });
    assert_eq!(scene.engine.read_now(&scene.model, "a"), Some(ReadNow { document, sequence: 1 }));
    assert_eq!(scene.engine.read_now(&scene.model, "b"), Some(ReadNow { document: None, sequence: 1 }));
    scene.store.lose_frames(1);
    scene.store.put("TODO", "c", 1, "{}");
    assert_eq!(scene.engine.read_now(&scene.model, "c"), None, "the feed is behind the watermark");
    assert!(scene.read("c").await.is_ok(), "waiting helps");
}

#[tokio::test]
async fn an_update_that_changes_nothing_makes_no_revision() {
    let scene = Scene::new().await;
    let created = scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    for operation in [replace("a", r#"{"text":"x"}"#), merge("a", "{}")] {
        let reply = scene.run(operation).await.unwrap();
        assert_eq!(
            (reply.result, &reply.body, reply.sequence),
            (Outcome::Found { revision: 1 }, &created.body, 1)
        );
    }
    assert_eq!(scene.store.writes_seen().len(), 1);
}

#[tokio::test]
async fn writes_to_a_missing_document_are_not_found_except_a_replacement_that_wants_it_missing() {
    let scene = Scene::new().await;
    for operation in [replace("a", r#"{"text":"x"}"#), merge("a", "{}"), remove("a")] {
        let problem = scene.run(operation).await.unwrap_err();
        assert_eq!(problem.code, ProblemCode::NotFound, "{problem}");
    }
    let put = |body: &str| Request { precondition: absent(), ..scene.request(replace("a", body)) };
    let wrong_id = scene.engine.execute(put(r#"{"id":"b","text":"x"}"#)).await.unwrap_err();
    assert_snapshot!(told(&wrong_id), @r#"
    invalid: found the id "b", expected "a" as in the path
    /id: found the id "b", expected "a" as in the path
    "#);
    let created = scene.engine.execute(put(r#"{"text":"x"}"#)).await.unwrap();
    assert_eq!(created.result, Outcome::Created { id: "a".to_owned(), revision: 1 });
    let again = scene.engine.execute(put(r#"{"text":"x"}"#)).await.unwrap_err();
    assert_eq!(again.code, ProblemCode::RevisionMismatch);
    for id in ["..", "a/b", "\n", &"x".repeat(5_000)] {
        let put = Request { precondition: absent(), ..scene.request(replace(id, r#"{"text":"x"}"#)) };
        let problem = scene.engine.execute(put).await.unwrap_err();
        assert_eq!((problem.code, &*problem.errors[0].path), (ProblemCode::Invalid, "/id"), "{problem}");
    }
}

#[tokio::test]
async fn a_write_with_an_old_revision_is_refused() {
    let scene = Scene::new().await;
    scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    let put = |revision| Request {
        precondition: if_match(revision),
        ..scene.request(replace("a", &format!(r#"{{"text":"after {revision}"}}"#)))
    };
    assert!(scene.engine.execute(put(1)).await.is_ok());
    assert_snapshot!(told(&scene.engine.execute(put(1)).await.unwrap_err()), @"revision-mismatch: the document has revision 2, If-Match names 1");
    let read = Request {
        precondition: Precondition { if_match: None, if_none_match: Some(Revisions::Of(vec![2])) },
        ..scene.request(Operation::Read { id: "a".to_owned() })
    };
    let reply = scene.engine.execute(read).await.unwrap();
    assert_eq!((reply.result, reply.body.len()), (Outcome::NotModified { revision: 2 }, 0));
}

#[tokio::test]
async fn of_many_that_hold_the_same_revision_one_wins() {
    let scene = Scene::new().await;
    scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    let mut tasks = Vec::new();
    for number in 0..20 {
        let request = Request {
            precondition: if_match(1),
            ..scene.request(merge("a", &format!(r#"{{"rank":{number}}}"#)))
        };
        let engine = scene.engine.clone();
        tasks.push(tokio::spawn(async move { engine.execute(request).await }));
    }
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(problem) => assert_eq!(problem.code, ProblemCode::RevisionMismatch),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn writes_without_a_revision_all_succeed_and_none_is_lost() {
    let (board, _) = Board::create().unwrap();
    let catalog = catalog(&[MODULE]);
    let store = FakeStore::start(board, Arc::clone(&catalog));
    let workers = [
        Worker::start_ready(&config(), &store, &catalog, board).await,
        Worker::start_ready(&config(), &store, &catalog, board).await,
    ];
    let engines = workers.each_ref().map(|worker| Engine::new(&config(), worker.data.clone()));
    let request = |operation| request(&catalog.models()[0], operation);
    engines[0].execute(request(Operation::Create { body: text(r#"{"id":"a","text":"x"}"#) })).await.unwrap();
    let mut tasks = Vec::new();
    for number in 0..40 {
        let request = request(merge("a", &format!(r#"{{"n{number}":1}}"#)));
        let engine = engines[number % 2].clone();
        tasks.push(tokio::spawn(async move { engine.execute(request).await }));
    }
    let mut revisions = Vec::new();
    for task in tasks {
        match task.await.unwrap().unwrap().result {
            Outcome::Found { revision } => revisions.push(revision),
            other => panic!("{other:?}"),
        }
    }
    revisions.sort_unstable();
    assert!(revisions.into_iter().eq(2..=41));
    let last = json(&engines[1].execute(request(Operation::Read { id: "a".to_owned() })).await.unwrap());
    assert!((0..40).all(|number| last[format!("n{number}")] == 1), "{last}");
}

#[tokio::test]
async fn a_batch_is_made_together_or_not_at_all() {
    let scene = Scene::new().await;
    let reply = scene.create(r#"[{"id":"a","text":"1"},{"id":"b","text":"2","code":"c"}]"#).await.unwrap();
    assert_eq!((reply.result.clone(), reply.sequence), (Outcome::CreatedMany, 2));
    assert_eq!(json(&reply)[1]["id"], "b");
    let refused = [
        r#"[{"text":"1"},{"rank":2},{"text":3}]"#,
        r#"[{"text":"1"},{"id":"a","text":"2"}]"#,
        r#"[{"id":"same","text":"1"},{"id":"same","text":"2"}]"#,
        r#"[{"text":"1"},{"text":"2","code":"c"}]"#,
        "[]",
        "[{},{},{},{},{},{},{},{},{},{},{}]",
    ];
    let mut all = Vec::new();
    for body in refused {
        all.push(told(&scene.create(body).await.unwrap_err()));
    }
    assert_snapshot!(all.join("\n\n"), @r#"
    invalid: 2 of 3 documents are not valid, so none was created
    /1/text: is required
    /2/text: found the number 3, expected a text

    already-exists: a document of TODO with the id "a" exists
    /1/id: this id is taken

    invalid: document 1: found the id "same" of document 0 again, expected each id once
    /1/id: document 0 has it as well

    unique-taken: another document of TODO has this "code"
    /1/code: this value is taken

    invalid: found an empty array, expected at least one document
    : found an empty array, expected at least one document

    body-too-large: found 11 documents in one array, expected at most 10
    "#);
    assert_eq!(scene.store.documents(), 2);
}

#[tokio::test]
async fn a_taken_id_or_value_names_its_field() {
    let scene = Scene::new().await;
    scene.create(r#"{"id":"a","text":"x","code":"c"}"#).await.unwrap();
    assert_snapshot!(told(&scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap_err()), @r#"
    already-exists: a document of TODO with the id "a" exists
    /id: this id is taken
    "#);
    assert_snapshot!(told(&scene.create(r#"{"text":"x","code":"c"}"#).await.unwrap_err()), @r#"
    unique-taken: another document of TODO has this "code"
    /code: this value is taken
    "#);
    scene.create(r#"{"id":"b","text":"x"}"#).await.unwrap();
    let problem = scene.run(merge("b", r#"{"code":"c"}"#)).await.unwrap_err();
    assert_eq!((problem.code, problem.errors[0].path.as_str()), (ProblemCode::UniqueTaken, "/code"));
}

#[tokio::test]
async fn a_minimal_answer_names_the_document() {
    let scene = Scene::new().await;
    let minimal = |operation| Request { answer: Answer::Minimal, ..scene.request(operation) };
    let create = Operation::Create { body: text(r#"{"id":"a","text":"x"}"#) };
    for operation in [create, merge("a", r#"{"rank":1}"#), merge("a", "{}"), remove("a")] {
        let reply = scene.engine.execute(minimal(operation)).await.unwrap();
        assert_eq!(reply.body, text(r#"{"status":"ok","modelId":"a"}"#));
    }
}

#[tokio::test]
async fn lists_filter_sort_and_page() {
    let scene = Scene::new().await;
    let documents: Vec<String> =
        (0..9).map(|rank| format!(r#"{{"id":"d{rank}","text":"t","rank":{}}}"#, rank % 3)).collect();
    scene.create(&format!("[{}]", documents.join(","))).await.unwrap();
    let ids = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&scene.list("rank=2&__sort=-id").await), ["d8", "d5", "d2"]);
    let first = scene.run(Operation::List { query: "__sort=rank&__limit=4".to_owned() }).await.unwrap();
    let Outcome::Listed { next_cursor: Some(cursor) } = &first.result else { panic!("{first:?}") };
    assert_eq!(
        (ids(&json(&first)), first.sequence),
        (vec!["d0".into(), "d3".into(), "d6".into(), "d1".into()], 9)
    );
    let second = scene.list(&format!("__sort=rank&__limit=4&__cursor={cursor}")).await;
    assert_eq!(ids(&second), ["d4", "d7", "d2", "d5"]);
    let problem = scene.run(Operation::List { query: "__nonsense=1".to_owned() }).await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::BadParameter);
}

#[tokio::test]
async fn bodies_beyond_the_cache_come_from_the_store() {
    let mut small = config();
    small.cache.documents_max = Some(2);
    let scene = Scene::with(small, MODULE).await;
    for number in 0..9 {
        scene.create(&format!(r#"{{"id":"d{number}","text":"t{number}"}}"#)).await.unwrap();
    }
    assert_eq!(scene.list("").await.as_array().unwrap().len(), 9);
    assert_eq!(scene.list("text=t4").await.as_array().unwrap().len(), 1);
    for number in 0..9 {
        let read = scene.read(&format!("d{number}")).await.unwrap();
        assert_eq!(json(&read)["text"], format!("t{number}"));
    }
    assert!(scene.store.fetches() > 0 && scene.counted(Counter::CacheMisses) > 0);
    assert!(scene.worker.data.statistics().models[0].cached_documents <= 2);
    let merged = scene.run(merge("d0", r#"{"rank":1}"#)).await.unwrap();
    assert_eq!(json(&merged)["text"], "t0");
}

#[tokio::test]
async fn a_version_that_the_store_has_just_replaced_is_looked_for_again() {
    let mut small = config();
    small.cache.documents_max = Some(1);
    let scene = Scene::with(small, MODULE).await;
    for number in 0..3 {
        scene.create(&format!(r#"{{"id":"d{number}","text":"t{number}"}}"#)).await.unwrap();
    }
    scene.store.lose_bodies(3);
    assert_eq!(scene.list("").await.as_array().unwrap().len(), 3);
    scene.store.lose_bodies(2);
    for number in 0..3 {
        assert!(scene.read(&format!("d{number}")).await.is_ok());
    }
    scene.store.lose_bodies(u32::MAX);
    // It gives up by itself: a deadline might as well come while it waits for an answer of the store.
    let uncached = scene.run(Operation::List { query: String::new() }).await;
    assert_eq!(uncached.unwrap_err().code, ProblemCode::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_list_never_shows_half_a_batch() {
    let scene = Scene::new().await;
    let (engine, model) = (scene.engine.clone(), Arc::clone(&scene.model));
    let request = move |operation| request(&model, operation);
    let create = request(Operation::Create { body: text(r#"[{"text":"a"},{"text":"b"},{"text":"c"}]"#) });
    let writer = engine.clone();
    let writing = tokio::spawn(async move {
        for _ in 0..100 {
            writer.execute(create.clone()).await.unwrap();
        }
    });
    let mut last = (0, 0);
    while !writing.is_finished() {
        let reply =
            engine.execute(request(Operation::List { query: "__limit=1000".to_owned() })).await.unwrap();
        let shown = (json(&reply).as_array().unwrap().len(), reply.sequence);
        assert_eq!(shown.0 % 3, 0, "half a batch");
        assert_eq!(shown.0 as u64, reply.sequence, "a list shows exactly the log up to its number");
        assert!(shown >= last, "went back");
        last = shown;
    }
    writing.await.unwrap();
}

/// A list of patterns, each of which has to look at all of a long text.
fn some_patterns() -> Operation {
    let pattern = |length: usize| format!("&text__like=%25a{}b%25", "_".repeat(200 + length));
    Operation::List { query: format!("__operand=or{}", (0..4).map(pattern).collect::<String>()) }
}

#[tokio::test]
async fn patterns_in_long_texts_keep_nobody_waiting() {
    let scene = Scene::new().await;
    scene.create(&format!(r#"{{"id":"a","text":"{}"}}"#, "ax".repeat(250_000))).await.unwrap();
    let mut list = std::pin::pin!(scene.run(some_patterns()));
    let read = tokio::select! {
        biased;
        list = &mut list => panic!("the list was made while the read waited: {list:?}"),
        read = scene.read("a") => read,
    };
    assert!(read.is_ok());
    assert_eq!(json(&list.await.unwrap()).as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn patterns_in_a_long_text_end_at_the_deadline() {
    let scene = Scene::new().await;
    scene.create(&format!(r#"{{"id":"a","text":"{}"}}"#, "ax".repeat(250_000))).await.unwrap();
    let request = Request { deadline: Instant::now(), ..scene.request(some_patterns()) };
    let problem = scene.engine.execute(request).await.unwrap_err();
    assert_snapshot!(told(&problem), @"deadline-exceeded: the list took too long");
}

#[tokio::test]
async fn long_scans_do_not_run_on_the_thread_that_serves_connections() {
    let scene = Scene::new().await;
    for number in 0..6000 {
        scene.store.put("TODO", &format!("d{number}"), 1, &format!(r#"{{"text":"t{}"}}"#, number % 3));
    }
    assert!(scene.worker.data.wait_until_applied(6000, later()).await.is_ok());
    let began = Instant::now();
    let ticks = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        while began.elapsed() < Duration::from_millis(100) {
            let pass = Instant::now();
            tokio::task::yield_now().await;
            longest = longest.max(pass.elapsed());
        }
        longest
    });
    let counted = scene.list("text=t1&__count=all").await;
    assert_eq!(counted["total"], 2000);
    assert!(ticks.await.is_ok());
    assert!(scene.counted(Counter::Scanned) >= 6000);
}

#[tokio::test]
async fn requests_are_counted_for_their_model() {
    let scene = Scene::new().await;
    scene.create(r#"[{"id":"a","text":"x"},{"id":"b","text":"y"}]"#).await.unwrap();
    scene.read("a").await.unwrap();
    scene.engine.read_now(&scene.model, "a").unwrap();
    scene.list("").await;
    scene.run(merge("a", r#"{"rank":1}"#)).await.unwrap();
    scene.run(remove("a")).await.unwrap();
    scene.create("{").await.unwrap_err();
    let cell = scene.worker.data.cell();
    let count = |counter| cell.model_counter(0, counter).load(Ordering::Relaxed);
    let counts = [
        ModelCounter::Creates,
        ModelCounter::Reads,
        ModelCounter::Lists,
        ModelCounter::Updates,
        ModelCounter::Removes,
        ModelCounter::Refused,
    ];
    assert_eq!(counts.map(count), [2, 2, 1, 1, 1, 1]);
}

#[tokio::test]
async fn only_what_is_answered_with_a_4xx_counts_as_refused() {
    let scene = Scene::new().await;
    scene.create(r#"{"id":"a","text":"x"}"#).await.unwrap();
    scene.store.set_mood(Mood::Silent);
    let (engine, first) = (scene.engine.clone(), scene.request(merge("a", r#"{"rank":1}"#)));
    let first = tokio::spawn(async move { engine.execute(first).await });
    eventually("the write", || scene.store.writes_seen().len() == 2).await;
    let second = Request { deadline: soon(), ..scene.request(merge("a", r#"{"rank":2}"#)) };
    assert_eq!(scene.engine.execute(second).await.unwrap_err().code, ProblemCode::Contended);
    let refused = scene.worker.data.cell().model_counter(0, ModelCounter::Refused);
    assert_eq!(refused.load(Ordering::Relaxed), 0, "it was failed, not refused");
    assert!(scene.create("{").await.is_err());
    assert_eq!(refused.load(Ordering::Relaxed), 1);
    scene.store.set_mood(Mood::Good);
    assert!(first.await.unwrap().is_ok());
}
