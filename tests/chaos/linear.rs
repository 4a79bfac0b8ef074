//! Histories are linearizable while everything is being broken.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use aegis_harness::{App, Cluster};
use porcupine_rs::{CheckResult, Operation, check_operations_timeout};

use crate::{
    Check, Options,
    clients::{self, Record, Shared},
    history::{Action, Document},
    nemesis,
};

const CHECK_TIMEOUT: Duration = Duration::from_secs(300);
/// A history that can still be judged in minutes on a small machine.
const OPERATIONS_MAX: usize = 400_000;

/// One run.
pub(crate) fn run(options: Options) -> Vec<Check> {
    let settings = "[reload]\ncanary-time = \"20ms\"\ncanary-requests-min = 1000000000\n";
    let cluster = Cluster::start(App::todo().settings(settings), options.workers);
    let shared = Shared {
        client: cluster.client(),
        keys: options.keys,
        begun: Instant::now(),
        stop: AtomicBool::new(false),
        sequence: AtomicU64::new(0),
        values: AtomicU64::new(1),
    };
    let (mut record, strikes) = fight(&cluster, &shared, options);
    cluster.await_workers(options.workers as usize);
    let last = clients::final_reads(&shared);
    record.history.extend(last.history);
    record.stale.extend(last.stale);
    judge(record, &strikes)
}

fn fight(cluster: &Cluster, shared: &Shared, options: Options) -> (Record, BTreeMap<&'static str, u32>) {
    let mut all = Record::default();
    let strikes = thread::scope(|scope| {
        let nemesis = scope.spawn(|| nemesis::run(cluster, &shared.stop));
        let clients: Vec<_> = (0..options.clients)
            .map(|number| scope.spawn(move || clients::run(shared, number as u32)))
            .collect();
        let end = Instant::now() + Duration::from_secs(options.seconds);
        while Instant::now() < end && (shared.values.load(Ordering::Relaxed) as usize) < OPERATIONS_MAX {
            thread::sleep(Duration::from_millis(50));
        }
        shared.stop.store(true, Ordering::Relaxed);
        for client in clients {
            let record = client.join().expect("a client ends by itself");
            all.history.extend(record.history);
            all.failures.extend(record.failures);
            all.stale.extend(record.stale);
            all.pairs = (all.pairs.0 + record.pairs.0, all.pairs.1 + record.pairs.1);
        }
        nemesis.join().expect("the nemesis ends by itself")
    });
    (all, strikes)
}

fn judge(record: Record, strikes: &BTreeMap<&'static str, u32>) -> Vec<Check> {
    let Record { mut history, failures, stale, pairs } = record;
    history.sort_by_key(|operation| operation.call_time);
    let verdict = check_operations_timeout(&history, CHECK_TIMEOUT);
    let planted = plant_stale_read(&history);
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for failure in &failures {
        *kinds.entry(failure.split(':').next().unwrap_or(failure)).or_default() += 1;
    }
    let crossed = pairs.1 as f64 / pairs.0.max(1) as f64;
    vec![
        Check::new(
            "histories are linearizable per document",
            verdict == CheckResult::Ok,
            format!(
                "{verdict:?} over {} operations; strikes {strikes:?}; unanswered {kinds:?}",
                history.len()
            ),
        ),
        Check::new(
            "no answer reflects less than an earlier answer did",
            stale.is_empty(),
            format!("{} stale {:?}", stale.len(), stale.first()),
        ),
        Check::new(
            "reads are answered by other workers than the write before",
            crossed > 0.5,
            format!("{:.0} % of {} pairs", crossed * 100.0, pairs.0),
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
