//! A worker's data against a small store over a real socket.

pub(crate) mod fake_store;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64},
    thread,
};

use aegis_config::{
    Cache, Datasource, Drain, Hang, Limits, Log, LogFormat, Query, Recycle, Reload, ReloadMode, Restart,
    Store, Trust, Wasm, Workers,
};
use aegis_domain::{module, table::Lookup};
use aegis_ipc::{
    data::{ChangeKind, Expect, FromStore},
    frame,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};

use self::fake_store::{FakeStore, Mood};
use super::*;

/// How long a test waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Limits that no test comes near.
fn limits(second: Duration) -> Limits {
    Limits {
        body_bytes_max: 1 << 20,
        header_bytes_max: 1 << 16,
        headers_max: 100,
        uri_bytes_max: 1 << 14,
        batch_documents_max: 10,
        connections_max: 100,
        requests_in_flight_max: 100,
        http2_streams_max: 100,
        header_timeout: second,
        request_timeout: 30 * second,
        write_timeout: 10 * second,
        idle_timeout: second,
        streams_max: 10,
        requests_per_second: 0,
        requests_burst: 0,
    }
}

pub(crate) fn config() -> Config {
    let second = Duration::from_secs(1);
    Config {
        app_dir: "/app".into(),
        modules_dir: "/app/modules".into(),
        data_dir: "/app/data".into(),
        control_socket: "/app/control".into(),
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        admin_listen: None,
        admin_socket: "/app/admin".into(),
        admin_on_public: false,
        api_root: "/aegis/api".into(),
        workers: Workers { count: 1, threads: 1, surge: 1, ready_timeout: second, orphan_grace: second },
        limits: limits(second),
        reload: Reload {
            mode: ReloadMode::Rolling,
            watch: false,
            poll: None,
            webhook_secret_file: None,
            webhook_secret: None,
            canary_time: second,
            canary_requests_min: 1,
            error_rate_margin: 0.1,
            latency_factor_max: 2.0,
            probe_timeout: second,
        },
        drain: Drain { timeout: second, spread: second },
        restart: Restart {
            delay_min: second,
            delay_max: second,
            healthy_after: second,
            reset_after: second,
            crash_loop_count: 3,
            crash_loop_window: second,
        },
        recycle: Recycle { memory_bytes_max: None, requests_max: None },
        hang: Hang { suspect_after: second, kill_after: second },
        datasource: Datasource::File,
        cache: Cache { bytes_max: 1 << 20, documents_max: None },
        store: Store {
            log_changes_min: 100,
            idempotency_time: second,
            group_writes_max: 100,
            queue_writes_max: 1000,
            feed_bytes_max: 1 << 20,
            engine_cache_bytes: 1 << 20,
        },
        query: Query { scan_max: 10_000, limit_default: 100, limit_max: 1000 },
        wasm: Wasm { cpu_threads: 1, cpu_queue_max: 1 },
        modules: BTreeMap::new(),
        secrets: BTreeMap::new(),
        trust: Trust::default(),
        auth: aegis_config::Auth::default(),
        listens_by_default: false,
        log: Log { level: "info".into(), format: LogFormat::Text, file: None, requests: false },
    }
}

pub(crate) fn catalog(modules: &[&str]) -> Arc<Catalog> {
    let specs = modules.iter().map(|text| module::parse(text, "module.toml").expect("a module")).collect();
    Arc::new(Catalog::build(specs).expect("a catalog"))
}

/// One worker's data, kept connected until dropped.
pub(crate) struct Worker {
    pub(crate) data: Data,
    link: JoinHandle<()>,
}

impl Worker {
    pub(crate) fn start(config: &Config, store: &FakeStore, catalog: &Catalog, board: Board) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let data = Data::new(config, catalog, board, number % 200, 1, u64::from(number) + 1);
        let (link, path) = (data.clone(), store.path().clone());
        let link = tokio::spawn(async move {
            link.run(&path).await;
        });
        Self { data, link }
    }

    pub(crate) async fn start_ready(
        config: &Config,
        store: &FakeStore,
        catalog: &Catalog,
        board: Board,
    ) -> Self {
        let worker = Self::start(config, store, catalog, board);
        tokio::time::timeout(PATIENCE, worker.data.ready()).await.expect("ready");
        worker
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.data.cell().counter(counter).load(Ordering::Relaxed)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.link.abort();
    }
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

pub(crate) fn later() -> Instant {
    Instant::now() + PATIENCE
}

const TODO: &str = "name = \"todo\"\n[fields]\ntext = \"text\"\n";

struct Scene {
    config: Config,
    catalog: Arc<Catalog>,
    board: Board,
    store: Arc<FakeStore>,
}

impl Scene {
    fn new() -> Self {
        let (board, _) = Board::create().unwrap();
        let catalog = catalog(&[TODO, "name = \"order\"\n"]);
        let store = FakeStore::start(board, Arc::clone(&catalog));
        Self { config: config(), catalog, board, store }
    }

    async fn worker(&self) -> Worker {
        Worker::start_ready(&self.config, &self.store, &self.catalog, self.board).await
    }
}

fn body_of(data: &Data, id: &str) -> Option<String> {
    match data.table("TODO").unwrap().look_up(id, 0).found {
        Lookup::Hit { body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
        Lookup::Evicted { .. } | Lookup::Missing => None,
    }
}

fn put(id: &str, body: &str) -> Vec<Operation> {
    let body = Some(Bytes::copy_from_slice(body.as_bytes()));
    vec![Operation {
        model: "TODO".to_owned(),
        id: id.to_owned(),
        expect: Expect::Absent,
        revision: 1,
        body,
        changes: None,
    }]
}

#[tokio::test]
async fn a_worker_is_ready_once_it_shows_what_was_durable_when_it_attached() {
    let scene = Scene::new();
    for number in 0..250 {
        scene.store.put("TODO", &format!("d{number}"), 1, "{}");
    }
    let worker = scene.worker().await;
    assert_eq!(worker.data.applied(), Some(250));
    assert_eq!(body_of(&worker.data, "d249").as_deref(), Some("{}"));
    scene.store.put("TODO", "new", 1, "{}");
    eventually("the new document", || body_of(&worker.data, "new").is_some()).await;
    let statistics = worker.data.statistics();
    assert_eq!((statistics.applied, statistics.durable, statistics.connected), (Some(251), 251, true));
    assert_eq!((statistics.models[0].documents, statistics.models[1].documents), (251, 0));
}

#[tokio::test]
async fn a_write_is_shown_by_the_worker_that_made_it_before_it_is_answered() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    for number in 1..50 {
        let outcome = worker.data.commit(put(&format!("d{number}"), "{}"), None, later()).await.unwrap();
        assert_eq!(outcome, Outcome::Committed { first: number, last: number });
        assert_eq!(worker.data.applied(), Some(number));
    }
}

#[tokio::test]
async fn what_is_not_durable_is_not_shown_and_the_reader_that_sees_the_watermark_shows_it() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::Unsynced);
    let problem = worker.data.commit(put("a", "{}"), None, soon()).await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::WriteOutcomeUnknown);
    eventually("the frame", || worker.data.statistics().changes_held_back == 1).await;
    assert_eq!(body_of(&worker.data, "a"), None);
    assert_eq!(worker.counted(Counter::UnknownOutcomes), 1);
    scene.store.publish();
    assert!(worker.data.caught_up(), "without waiting for anything");
    assert_eq!(body_of(&worker.data, "a").as_deref(), Some("{}"));
}

#[tokio::test]
async fn what_a_crash_undid_is_forgotten_although_its_number_is_used_again() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::Unsynced);
    let _ = worker.data.commit(put("undone", "{}"), None, soon()).await;
    eventually("the frame", || worker.data.statistics().changes_held_back == 1).await;
    scene.store.go_down();
    scene.store.set_mood(Mood::Good);
    scene.store.come_up();
    scene.store.put("TODO", "real", 1, "{}");
    eventually("the real document", || body_of(&worker.data, "real").is_some()).await;
    assert_eq!(body_of(&worker.data, "undone"), None);
    assert_eq!(worker.data.applied(), Some(1));
    assert_eq!(scene.store.attaches(), [None, Some(0)], "no second copy was needed");
}

#[tokio::test]
async fn reads_go_on_and_writes_wait_while_the_store_is_away() {
    let scene = Scene::new();
    scene.store.put("TODO", "old", 1, "{}");
    let worker = scene.worker().await;
    scene.store.go_down();
    eventually("the loss", || !worker.data.is_connected()).await;
    assert!(worker.data.caught_up());
    assert!(body_of(&worker.data, "old").is_some());
    let problem = worker.data.commit(put("never", "{}"), None, soon()).await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::StoreUnavailable, "it was never sent");
    let (writer, writing) = (worker.data.clone(), put("waits", "{}"));
    let write = tokio::spawn(async move { writer.commit(writing, None, later()).await });
    eventually("the write to wait", || worker.data.statistics().writes_waiting == 1).await;
    scene.store.come_up();
    assert_eq!(write.await.unwrap().unwrap(), Outcome::Committed { first: 2, last: 2 });
    assert_eq!(scene.store.documents(), 2, "the write that was given up was not sent later");
}

#[tokio::test]
async fn an_unanswered_write_is_sent_again_and_made_once() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::BreaksBeforeAnswer);
    let outcome = worker.data.commit(put("a", "{}"), None, later()).await.unwrap();
    assert_eq!(outcome, Outcome::Committed { first: 1, last: 1 });
    assert_eq!(scene.store.writes_seen(), [1, 1]);
    assert_eq!(worker.counted(Counter::WriteResends), 1);
}

#[tokio::test]
async fn a_write_that_waits_is_sent_to_a_store_of_before_in_the_form_that_it_reads() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::Silent);
    let writer = worker.data.clone();
    let write = tokio::spawn(async move { writer.commit(put("a", "{}"), None, later()).await });
    eventually("the write", || scene.store.writes_seen() == [1]).await;
    scene.store.become_older();
    scene.store.set_mood(Mood::BreaksBeforeAnswer);
    assert_eq!(write.await.unwrap().unwrap(), Outcome::Committed { first: 1, last: 1 });
    assert_eq!(scene.store.writes_seen(), [1, 1, 1], "the second one broke the connection");
    assert_eq!(body_of(&worker.data, "a").as_deref(), Some("{}"));
}

#[tokio::test]
async fn a_store_that_is_stopping_is_asked_again_under_another_number() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::Stopping);
    let outcome = worker.data.commit(put("a", "{}"), None, soon()).await;
    assert!(!matches!(outcome, Ok(Outcome::Committed { .. })), "{outcome:?}");
    assert_eq!(scene.store.documents(), 0);
    let refused = scene.store.writes_seen().len();
    let writer = worker.data.clone();
    let write = tokio::spawn(async move { writer.commit(put("a", "{}"), None, later()).await });
    eventually("a refusal", || scene.store.writes_seen().len() > refused).await;
    scene.store.set_mood(Mood::Good);
    assert_eq!(write.await.unwrap().unwrap(), Outcome::Committed { first: 1, last: 1 });
    assert!(scene.store.writes_seen().is_sorted_by(|a, b| a < b));
}

#[tokio::test]
async fn a_store_whose_disk_is_full_is_not_asked_again() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.board.store(StoreWord::DiskFullSince).store(1, Ordering::Relaxed);
    scene.store.set_mood(Mood::Stopping);
    let outcome = worker.data.commit(put("a", "{}"), None, later()).await.unwrap();
    assert_eq!(outcome, Outcome::Unavailable { reason: "stopping".to_owned() });
    assert_eq!(scene.store.writes_seen().len(), 1);
}

#[tokio::test]
async fn what_a_store_said_before_it_went_away_is_told() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::Stopping);
    let (writer, deadline) = (worker.data.clone(), Instant::now() + Duration::from_secs(2));
    let write = tokio::spawn(async move { writer.commit(put("a", "{}"), None, deadline).await });
    // By then the pauses between two attempts are long ones. In a pause nothing waits, and nothing is sent after it.
    eventually("a pause", || {
        scene.store.writes_seen().len() > 5 && worker.data.statistics().writes_waiting == 0
    })
    .await;
    scene.store.go_down();
    assert_eq!(write.await.unwrap(), Ok(Outcome::Unavailable { reason: "stopping".to_owned() }));
}

#[tokio::test]
async fn more_writes_than_may_wait_are_refused() {
    let mut scene = Scene::new();
    scene.config.store.queue_writes_max = 1;
    let worker = scene.worker().await;
    scene.store.set_mood(Mood::Silent);
    let writer = worker.data.clone();
    let write = tokio::spawn(async move { writer.commit(put("a", "{}"), None, later()).await });
    eventually("the first write", || worker.data.statistics().writes_waiting == 1).await;
    let problem = worker.data.commit(put("b", "{}"), None, later()).await.unwrap_err();
    assert_eq!(problem.code, ProblemCode::Overloaded);
    scene.store.set_mood(Mood::Good);
    assert!(write.await.unwrap().is_ok());
    assert!(worker.data.commit(put("b", "{}"), None, later()).await.is_ok());
}

#[tokio::test]
async fn a_lost_frame_is_noticed_by_the_next_one_and_at_the_latest_by_the_watermark() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.lose_frames(1);
    scene.store.put("TODO", "a", 1, "{}");
    scene.store.put("TODO", "b", 1, "{}");
    assert!(worker.data.wait_until_applied(2, later()).await.is_ok());
    assert!(body_of(&worker.data, "a").is_some());
    assert_eq!((worker.counted(Counter::FeedGaps), worker.counted(Counter::ReadWaits)), (1, 1));
    scene.store.lose_frames(1);
    scene.store.put("TODO", "c", 1, "{}");
    assert!(worker.data.wait_until_applied(3, later()).await.is_ok());
    assert!(body_of(&worker.data, "c").is_some());
    assert_eq!(scene.store.attaches(), [None]);
}

#[tokio::test]
async fn a_worker_too_far_behind_is_sent_a_complete_copy() {
    let scene = Scene::new();
    scene.store.put("TODO", "a", 1, "{}");
    let worker = scene.worker().await;
    let mut subscription = worker.data.subscribe();
    scene.store.go_down();
    scene.store.put("TODO", "b", 1, "{}");
    scene.store.cut_log();
    scene.store.come_up();
    assert!(worker.data.wait_until_applied(2, later()).await.is_ok());
    assert!(body_of(&worker.data, "b").is_some());
    assert_eq!(scene.store.attaches(), [None, Some(1)]);
    assert!(matches!(subscription.next().await, Applied::Skipped));
    let page = worker.data.changes(1, 10, later()).await.unwrap();
    assert_eq!((page.oldest, page.durable, page.changes.len()), (3, 2, 0));
}

#[tokio::test]
async fn a_reader_beyond_its_deadline_is_told_why() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    let problem = worker.data.wait_until_applied(9, soon()).await.unwrap_err();
    insta::assert_snapshot!(problem, @"deadline-exceeded: the answer has to show the log up to 9, this worker had 0 in time");
    scene.store.go_down();
    eventually("the loss", || !worker.data.is_connected()).await;
    let problem = worker.data.wait_until_applied(9, soon()).await.unwrap_err();
    insta::assert_snapshot!(problem, @"store-unavailable: the store could not be reached in time: a read needs what was written before it");
}

#[tokio::test]
async fn subscribers_hear_of_every_change_in_order() {
    let scene = Scene::new();
    scene.store.put("TODO", "before", 1, "{}");
    let worker = scene.worker().await;
    let mut subscription = worker.data.subscribe();
    assert_eq!(subscription.applied(), 1);
    for number in 0..5 {
        scene.store.put(if number % 2 == 0 { "TODO" } else { "ORDER" }, &format!("d{number}"), 1, "{}");
    }
    let mut heard = Vec::new();
    while heard.len() < 5 {
        match subscription.next().await {
            Applied::Changes(changes) => heard.extend(changes.iter().cloned()),
            Applied::Skipped => panic!("nothing was skipped"),
        }
    }
    assert!(heard.iter().map(|change| change.sequence).eq(2..=6));
    assert!(matches!(&heard[1].kind, ChangeKind::Put { id, .. } if id == "d1"));
}

#[tokio::test]
async fn what_a_client_no_longer_waits_for_is_not_sent() {
    let scene = Scene::new();
    let worker = scene.worker().await;
    scene.store.go_down();
    eventually("the loss", || !worker.data.is_connected()).await;
    let writer = worker.data.clone();
    let write = tokio::spawn(async move { writer.commit(put("a", "{}"), None, later()).await });
    eventually("the write to wait", || worker.data.statistics().writes_waiting == 1).await;
    write.abort();
    assert!(write.await.is_err());
    scene.store.come_up();
    assert!(worker.data.commit(put("b", "{}"), None, later()).await.is_ok());
    assert_eq!(scene.store.documents(), 1);
}

#[tokio::test]
async fn a_store_that_talks_nonsense_or_refuses_is_connected_to_again() {
    let scene = Scene::new();
    scene.store.go_down();
    let listener = tokio::net::UnixListener::bind(scene.store.path()).unwrap();
    let worker = Worker::start(&scene.config, &scene.store, &scene.catalog, scene.board);
    let refusal = FromStore::AttachRefused { reason: "not today".to_owned() };
    let (mut refused, mut unknown) = (Vec::new(), Vec::new());
    frame::write_message(&refusal, &mut refused).unwrap();
    frame::write_message(&"something else", &mut unknown).unwrap();
    for nonsense in [refused, unknown, vec![0xff; 100], vec![5, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]] {
        let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        stream.write_all(&nonsense).await.unwrap();
        // Whatever the worker still says, it hangs up by itself.
        let mut said = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it hangs up");
        assert!(!worker.data.is_ready());
    }
    drop(listener);
    std::fs::remove_file(scene.store.path()).unwrap();
    scene.store.come_up();
    tokio::time::timeout(PATIENCE, worker.data.ready()).await.expect("ready in the end");
}

/// The promise of the whole design: a read that begins after a write was answered, on whichever worker and thread,
/// sees it; and what a reader sees never goes back.
#[test]
fn no_read_is_stale_whichever_worker_and_thread_serves_it() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store_runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (scene, workers) = store_runtime.block_on(async {
        let scene = Scene::new();
        let workers = [scene.worker().await, scene.worker().await];
        (scene, workers)
    });
    let (answered, finished) = (AtomicU64::new(0), AtomicBool::new(false));
    let [writer, reader] = &workers;
    thread::scope(|scope| {
        scope.spawn(|| {
            runtime().block_on(async {
                for number in 1..=400_u64 {
                    let outcome =
                        writer.data.commit(put(&format!("d{number}"), "{}"), None, later()).await.unwrap();
                    assert_eq!(outcome, Outcome::Committed { first: number, last: number });
                    answered.store(number, Ordering::Release);
                    tokio::task::yield_now().await;
                }
                finished.store(true, Ordering::Relaxed);
            });
        });
        for _ in 0..2 {
            scope.spawn(|| {
                runtime().block_on(async {
                    let mut seen_before = 0;
                    while !finished.load(Ordering::Relaxed) {
                        let acknowledged = answered.load(Ordering::Acquire);
                        let watermark = reader.data.watermark();
                        reader.data.wait_until_applied(watermark, later()).await.unwrap();
                        let applied = reader.data.applied().unwrap();
                        if acknowledged > 0 {
                            assert!(body_of(&reader.data, &format!("d{acknowledged}")).is_some(), "stale");
                        }
                        assert!(applied >= seen_before, "went back");
                        assert!(applied <= scene.board.durable(), "above the watermark");
                        seen_before = applied;
                    }
                });
            });
        }
    });
    store_runtime.block_on(async { drop(workers) });
}
