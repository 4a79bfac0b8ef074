//! Workers are killed every 100 ms under load.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aegis_harness::{App, Cluster, http, load::Plan};
use nix::sys::signal::Signal;

use crate::{Check, Options, clients::Dice, nemesis};

const INTERVAL: Duration = Duration::from_millis(100);
const READERS: usize = 16;
const WRITERS: usize = 16;

/// One run.
pub(crate) fn run(options: Options) -> Vec<Check> {
    let settings = "[restart]\nhealthy-after = \"1ms\"\ncrash-loop-count = 1000000\n";
    let cluster = Cluster::start(App::todo().settings(settings), options.workers);
    let read = cluster.client().post("todo", &serde_json::json!({"id": "read", "text": "me"}));
    assert_eq!(read.status, 201);
    let reads = Plan::get(cluster.address, READERS, "/aegis/api/models/todo/read").spawn();
    let sent = Arc::new(Mutex::new(0_u64));
    let address = cluster.address.to_string();
    let writes = Plan::get(cluster.address, WRITERS, "/")
        .requests({
            let sent = Arc::clone(&sent);
            move |number| {
                *sent.lock().expect("the counter") = number + 1;
                let body = format!("{{\"id\":\"w{number}\",\"n\":{number}}}");
                let headers = [("content-type", "application/json")];
                http::encode("POST", "/aegis/api/models/todo", &address, &headers, body.as_bytes())
            }
        })
        .spawn();
    let (mut returns, at_risk) = kill_for(&cluster, options);
    let (reads, writes) = (reads.stop(), writes.stop());
    cluster.await_workers(options.workers as usize);

    let sent = *sent.lock().expect("the counter");
    let total = cluster.client().get("todo?__count=all").json()["total"].to_string();
    let total: u64 = total.parse().unwrap_or(0) - 1;
    let failed = reads.failed() + writes.failed();
    returns.sort_unstable();
    let p99 = returns.get(returns.len() * 99 / 100).copied().unwrap_or_default();
    vec![
        Check::new(
            "failures are at most what was open at the killed workers",
            failed <= at_risk,
            format!(
                "{failed} of {} ({:?} {:?}), at risk {at_risk}",
                reads.succeeded + writes.succeeded,
                reads.failures,
                writes.failures
            ),
        ),
        Check::new(
            "no acknowledged write is lost and none is doubled",
            total >= writes.succeeded && total <= sent,
            format!("{} acknowledged, {total} stored, {sent} sent", writes.succeeded),
        ),
        Check::new(
            "all workers serve again within 50 ms (p99)",
            p99 <= Duration::from_millis(50),
            format!("p99 {p99:?}, median {:?}, {} kills", returns[returns.len() / 2], returns.len()),
        ),
    ]
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
                std::thread::sleep(Duration::from_micros(500));
            }
            returns.push(killed.elapsed());
        }
        std::thread::sleep(INTERVAL.saturating_sub(begun.elapsed()));
    }
    (returns, at_risk)
}
