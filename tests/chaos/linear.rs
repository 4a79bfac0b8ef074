//! Histories are linearizable while everything is being broken.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use aegis_harness::{App, Cluster, eventually};
use porcupine_rs::{CheckResult, Operation, check_operations_timeout};
use serde_json::json;

use crate::{
    Check, Options,
    clients::{self, Record, Shared},
    history::{Action, Document},
    lists::{self, Steps},
    nemesis::{self, Deeds},
    watch::{Tally, Watch},
};

const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// A history that can still be judged in minutes on a small machine.
const OPERATIONS_MAX: usize = 400_000;
/// Clients that look at lists.
const LISTERS: usize = 2;
/// Reloads of which at least one has to succeed although everything is being broken.
const RELOADS_ENOUGH: u32 = 5;
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A quick rollout; and a store that is back soon however often it was killed, or there would be little to see.
const SETTINGS: &str = "[reload]
canary-time = \"20ms\"
canary-requests-min = 1000000000
[restart]
delay-max = \"100ms\"
";

/// What came of one run.
struct Outcome {
    record: Record,
    lists: lists::Record,
    deeds: Deeds,
    /// What reads of all documents and a write met when all was whole again.
    last: Tally,
}

/// One run.
pub(crate) fn run(options: Options) -> Vec<Check> {
    let app = lists::add_models(App::todo().settings(SETTINGS));
    let mut cluster = Cluster::start(app, options.workers);
    let watch = Watch::new(cluster.client());
    let steps = Steps::begin(&watch);
    let shared =
        Shared { watch: &watch, keys: options.keys, begun: Instant::now(), values: AtomicU64::new(1) };
    let (mut record, lists, deeds) = fight(&mut cluster, &shared, &steps, options);
    await_whole(&cluster, options);
    let mut last = clients::final_reads(&shared);
    let asked = watch.ask();
    let write =
        watch.client.try_send("POST", "/aegis/api/models/todo", json!({"n": 0}).to_string().as_bytes());
    last.tally.judge(&watch, asked, &[201], write);
    record.history.append(&mut last.history);
    judge(Outcome { record, lists, deeds, last: last.tally }, options)
}

fn await_whole(cluster: &Cluster, options: Options) {
    eventually("the jobs to end and the store to be ready", WHOLE_TIMEOUT, || {
        let status = cluster.status();
        status.jobs.is_empty() && status.store.state == "ready"
    });
    cluster.await_workers(options.workers as usize);
}

fn fight(
    cluster: &mut Cluster,
    shared: &Shared<'_>,
    steps: &Steps<'_>,
    options: Options,
) -> (Record, lists::Record, Deeds) {
    let (mut all, mut lists) = (Record::default(), lists::Record::default());
    let deeds = thread::scope(|scope| {
        let nemesis = scope.spawn(|| nemesis::run(cluster, shared.watch, options.workers));
        let clients: Vec<_> = (0..options.clients)
            .map(|number| scope.spawn(move || clients::run(shared, number as u32)))
            .collect();
        let mut listers = vec![scope.spawn(|| steps.write())];
        listers.extend((0..LISTERS).map(|_| scope.spawn(|| steps.read())));
        let end = Instant::now() + Duration::from_secs(options.seconds);
        while Instant::now() < end && (shared.values.load(Ordering::Relaxed) as usize) < OPERATIONS_MAX {
            thread::sleep(Duration::from_millis(50));
        }
        shared.watch.stop.store(true, Ordering::Relaxed);
        for client in clients {
            let record = client.join().expect("a client ends by itself");
            all.history.extend(record.history);
            all.tally.merge(record.tally);
            all.pairs = (all.pairs.0 + record.pairs.0, all.pairs.1 + record.pairs.1);
        }
        for lister in listers {
            lists.merge(lister.join().expect("a lister ends by itself"));
        }
        nemesis.join().expect("the nemesis ends by itself")
    });
    (all, lists, deeds)
}

fn judge(outcome: Outcome, options: Options) -> Vec<Check> {
    let Outcome { record, lists, deeds, last } = outcome;
    let Record { mut history, mut tally, pairs } = record;
    tally.merge(lists.tally);
    let cuts_max = deeds.cuts * (options.clients + 1 + LISTERS) as u64;
    let crossed = pairs.1 as f64 / pairs.0.max(1) as f64;
    history.sort_by_key(|operation| operation.call_time);
    let mut checks = judge_history(&history, &deeds.strikes, &tally.unanswered);
    checks.extend([
        Check::none("no answer reflects less than an earlier answer did", &tally.stale),
        Check::none(
            "what goes wrong is what was broken, and is said with a documented 503",
            &tally.unexpected,
        ),
        Check::new(
            "requests are cut off by killed workers only, each connection once",
            tally.cut <= cuts_max,
            format!("{} cut off, at most {cuts_max}", tally.cut),
        ),
        Check::new(
            "every document can be read, and one written, when all is whole again",
            last.unanswered.is_empty() && last.unexpected.is_empty() && last.stale.is_empty(),
            format!("{last:?}"),
        ),
        Check::new(
            "reads are answered by other workers than the write before",
            crossed > 0.5,
            format!("{:.0} % of {} pairs", crossed * 100.0, pairs.0),
        ),
        Check::new(
            "each list shows one prefix of the log",
            lists.wrong.is_empty() && lists.lists > 0 && lists.steps > 0,
            format!(
                "{} of {} lists wrong {:?}; {} steps",
                lists.wrong.len(),
                lists.lists,
                lists.wrong.first(),
                lists.steps
            ),
        ),
        Check::new("the check of lists sees planted mistakes", lists::sees_planted_mistakes(), ""),
        Check::new(
            "generations come into force meanwhile",
            deeds.generations > 0 || deeds.reloads < RELOADS_ENOUGH,
            format!("{} after {} reloads", deeds.generations, deeds.reloads),
        ),
    ]);
    checks
}

fn judge_history(
    history: &[Operation<Document>],
    strikes: &BTreeMap<&'static str, u32>,
    unanswered: &BTreeMap<String, u64>,
) -> Vec<Check> {
    let verdict = check_operations_timeout(history, CHECK_TIMEOUT);
    let planted = plant_stale_read(history);
    vec![
        Check::new(
            "histories are linearizable per document",
            verdict == CheckResult::Ok,
            format!(
                "{verdict:?} over {} operations; strikes {strikes:?}; unanswered {unanswered:?}",
                history.len()
            ),
        ),
        Check::new(
            "the check sees a planted stale read",
            planted.as_ref().is_some_and(|history| {
                check_operations_timeout(history, CHECK_TIMEOUT) == CheckResult::Illegal
            }),
            format!("planted: {}", planted.is_some()),
        ),
    ]
}

/// The same history with one read that shows the revision before the one it showed.
fn plant_stale_read(history: &[Operation<Document>]) -> Option<Vec<Operation<Document>>> {
    let mut planted = history.to_vec();
    let at = planted.iter().position(
        |operation| matches!(operation.op.action, Action::Read { seen: Some((revision, _)) } if revision > 3),
    )?;
    if let Action::Read { seen: Some((revision, _)) } = &mut planted[at].op.action {
        *revision -= 1;
    }
    Some(planted)
}
