//! Workers are killed every 100 ms under load: once under as much of it as the machine can bear, and once under so much
//! that it has room to start processes, which is when the time that takes means something.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aegis_harness::{
    App, Client, Cluster,
    client::MODELS,
    http,
    load::{Plan, Running},
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{Check, Options, clients::Dice, nemesis};

const INTERVAL: Duration = Duration::from_millis(100);
/// Time between two looks at the fleet. Each look costs the supervisor time that it needs to start the next worker.
const LOOK_INTERVAL: Duration = Duration::from_millis(3);
const READERS: usize = 16;
const WRITERS: usize = 16;
/// Requests per second of a paced run. A worker that starts copies all documents, so writes are few.
const READS_PER_SECOND: u64 = 4_000;
const WRITES_PER_SECOND: u64 = 100;
/// Writes whose fate one run can remember, one bit each: 8 MiB for each set of them.
const WRITES_MAX: u64 = 64 * 1024 * 1024;

/// A set of numbers of writes, as large as the largest of them has bits.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Adds a number; false when it was there.
    fn add(&mut self, number: u64) -> bool {
        assert!(number < WRITES_MAX, "a shorter run, or room for more than {WRITES_MAX} writes");
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Numbers that are in this set and not in the other.
    fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u64> + 'a {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let missing = bits & !other.0.get(word).copied().unwrap_or(0);
            (0..64).filter(move |bit| missing & (1 << bit) != 0).map(move |bit| word as u64 * 64 + bit)
        })
    }
}

/// What became of the writes, as far as their senders know.
#[derive(Default)]
struct Writes {
    sent: u64,
    acknowledged: Numbers,
}

/// How much load there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// As many requests as the machine can bear.
    Saturated,
    /// So many that it has room to breathe.
    Paced,
}

impl Pace {
    fn of(self, plan: Plan, per_second: u64) -> Plan {
        match self {
            Self::Saturated => plan,
            Self::Paced => plan.rate(per_second),
        }
    }
}

/// Both runs.
pub(crate) fn run(options: Options) -> Vec<Check> {
    let mut checks = storm(options, Pace::Paced);
    checks.extend(storm(options, Pace::Saturated));
    checks
}

fn storm(options: Options, pace: Pace) -> Vec<Check> {
    let cluster = Cluster::start(App::todo(), options.workers);
    let read = cluster.client().post("todo", &json!({"id": "read", "text": "me"}));
    assert_eq!(read.status, 201);
    let reads = Plan::get(cluster.address, READERS, "/aegis/api/models/todo/read");
    let reads = pace.of(reads, READS_PER_SECOND).spawn();
    let known = Arc::new(Mutex::new(Writes::default()));
    let writes = write(&cluster, &known, pace);
    let (mut returns, at_risk) = kill_for(&cluster, options);
    let (reads, writes) = (reads.stop(), writes.stop());
    cluster.await_workers(options.workers as usize);

    let failed = reads.failed() + writes.failed();
    returns.sort_unstable();
    let p99 = returns.get(returns.len() * 99 / 100).copied().unwrap_or_default();
    let times = format!("p99 {p99:?}, median {:?}, {} kills", returns[returns.len() / 2], returns.len());
    let whole = match pace {
        Pace::Paced => ("all workers serve again within 50 ms (p99)", Duration::from_millis(50)),
        Pace::Saturated => ("all workers serve again within 5 s (p99)", Duration::from_secs(5)),
    };
    vec![
        Check::new(
            format!("{pace:?}: failures are at most what was open at the killed workers"),
            failed <= at_risk,
            format!(
                "{failed} of {} ({:?} {:?}), at risk {at_risk}",
                reads.succeeded + writes.succeeded,
                reads.failures,
                writes.failures
            ),
        ),
        compare(&cluster.client(), &known.lock().expect("the writes")),
        Check::new(format!("{pace:?}: {}", whole.0), p99 <= whole.1, times),
    ]
}

/// Writes one document per request, with the number of the request in its id.
fn write(cluster: &Cluster, known: &Arc<Mutex<Writes>>, pace: Pace) -> Running {
    let address = cluster.address.to_string();
    let (sending, hearing) = (Arc::clone(known), Arc::clone(known));
    let plan = Plan::get(cluster.address, WRITERS, "/")
        .requests(move |number| {
            sending.lock().expect("the writes").sent = number + 1;
            let body = format!("{{\"id\":\"w{number}\",\"n\":{number}}}");
            let headers = [("content-type", "application/json")];
            http::encode("POST", "/aegis/api/models/todo", &address, &headers, body.as_bytes())
        })
        .on_success(move |number| {
            hearing.lock().expect("the writes").acknowledged.add(number);
        });
    pace.of(plan, WRITES_PER_SECOND).spawn()
}

/// Every acknowledged document is there, and nothing is there twice or was never sent.
fn compare(client: &Client, known: &Writes) -> Check {
    let mut stored = Numbers::default();
    let (mut count, mut foreign) = (0_u64, Vec::new());
    let mut path = format!("{MODELS}/todo?__sort=id&__select=id&__limit=1000");
    loop {
        let response = client.send("GET", &path, b"");
        assert_eq!(response.status, 200, "{}", response.text());
        for row in response.json().as_array().expect("a list is an array") {
            let id = row["id"].as_str().expect("a document has an id");
            let number = id.strip_prefix('w').and_then(|text| text.parse().ok());
            match number.filter(|number| *number < known.sent) {
                Some(number) if stored.add(number) => count += 1,
                None if id == "read" => {}
                _ => foreign.push(id.to_owned()),
            }
        }
        let next = response.header("link").and_then(|link| link.split(['<', '>']).nth(1));
        let Some(next) = next else { break };
        next.clone_into(&mut path);
    }
    let lost: Vec<u64> = known.acknowledged.without(&stored).take(10).collect();
    let acknowledged = known.acknowledged.without(&Numbers::default()).count();
    Check::new(
        "no acknowledged write is lost, none is doubled, none comes from nowhere",
        lost.is_empty() && foreign.is_empty() && acknowledged > 0,
        format!(
            "{acknowledged} acknowledged, {count} stored, {} sent; lost {lost:?}, foreign {:?}",
            known.sent,
            foreign.first()
        ),
    )
}

/// Kills a worker every 100 ms; how long each took to be replaced, and the connections they had.
fn kill_for(cluster: &Cluster, options: Options) -> (Vec<Duration>, u64) {
    let mut dice = Dice::new(7);
    let mut returns = Vec::new();
    let mut at_risk = 0;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    while Instant::now() < end {
        let begun = Instant::now();
        let serving = cluster.serving();
        if !serving.is_empty() {
            let victim = &serving[dice.below(serving.len() as u64) as usize];
            at_risk += victim.connections + 2; // and what its acceptor was about to hand over
            nemesis::send(victim.pid, Signal::SIGKILL);
            let killed = Instant::now();
            let old: BTreeSet<u32> = serving.iter().map(|worker| worker.pid).collect();
            let whole = || {
                let now = cluster.serving();
                now.len() == options.workers as usize && now.iter().any(|worker| !old.contains(&worker.pid))
            };
            while !whole() && killed.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(LOOK_INTERVAL);
            }
            returns.push(killed.elapsed());
        }
        std::thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
    }
    (returns, at_risk)
}
