//! Any process may be killed at any time.

use std::time::{Duration, Instant};

use aegis_harness::{App, Cluster, cluster::signal_process, eventually, eventually_some, load::Plan};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn requests_are_spread_over_all_workers() {
    let cluster = aegis_harness::Start::app(App::todo()).workers(4).start();
    let mut workers = std::collections::HashSet::new();
    for _ in 0..1000 {
        workers.insert(cluster.client().get("todo").worker().to_owned());
    }
    assert!(workers.len() >= 4, "{workers:?}");
}

#[test]
fn a_killed_worker_costs_at_most_what_it_had_in_flight_and_is_replaced_at_once() {
    let cluster = Cluster::start(App::todo(), 4);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let connections = 16_u64;
    let path = format!("/aegis/api/models/todo/{id}");
    let running = Plan::get(cluster.address, connections as usize, &path).spawn();
    let mut at_risk = 0;
    for round in 0..10_usize {
        let workers =
            eventually_some("every connection to be with a worker", Duration::from_secs(20), || {
                let workers = cluster.await_workers(4);
                let open: u64 = workers.iter().map(|worker| worker.connections).sum();
                (open == connections).then_some(workers)
            });
        let (victim, open) = (workers[round % 4].pid, workers[round % 4].connections);
        signal_process(victim, Signal::SIGKILL);
        at_risk += open;
        let killed = Instant::now();
        eventually("four workers again", Duration::from_secs(30), || {
            let serving = cluster.serving();
            serving.len() == 4 && serving.iter().all(|worker| worker.pid != victim)
        });
        assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    }
    let report = running.stop();
    assert!(
        report.failed() <= at_risk,
        "{} failures, {at_risk} at risk: {:?}",
        report.failed(),
        report.failures
    );
    assert!(report.failures.keys().all(|failure| failure.to_string() != "Refused"), "{:?}", report.failures);
    assert_eq!(cluster.status().deaths.len(), 10);
}

#[test]
fn reads_go_on_and_writes_wait_while_the_store_is_dead() {
    // A disk that others keep busy may hold the next store up for longer than writes usually wait.
    let patient = "[limits]\nwrite-timeout = \"60s\"\nrequest-timeout = \"60s\"";
    let cluster = Cluster::start(App::todo().settings(patient), 2);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let reads = Plan::get(cluster.address, 8, &format!("/aegis/api/models/todo/{id}")).spawn();
    let address = cluster.address.to_string();
    let writes = Plan::get(cluster.address, 8, "/")
        .requests(move |number| {
            let body = format!("{{\"id\":\"w{number}\",\"n\":{number}}}");
            let headers = [("content-type", "application/json")];
            aegis_harness::http::encode("POST", "/aegis/api/models/todo", &address, &headers, body.as_bytes())
        })
        .spawn();
    for round in 0..5 {
        eventually("writes to go on", Duration::from_secs(20), || writes.completed() > round * 50 + 50);
        let store = cluster.status().store;
        signal_process(store.pid, Signal::SIGKILL);
        eventually("the store to be back", Duration::from_secs(20), || {
            let now = cluster.status().store;
            now.pid != store.pid && now.state == "ready"
        });
    }
    eventually("writes to go on", Duration::from_secs(20), || writes.completed() > 400);
    let (reads, writes) = (reads.stop(), writes.stop());
    reads.assert_clean();
    writes.assert_clean();
    let total = cluster.client().get("todo?__count=all").json()["total"].to_string();
    assert_eq!(total, (writes.succeeded + 1).to_string(), "none lost, none doubled");
    assert_eq!(cluster.status().store.restarts, 5);
}

#[test]
fn reads_go_on_while_the_store_is_down() {
    // The second death in a row is answered after this time: long enough to see many reads meanwhile on any machine.
    let cluster = Cluster::start(App::todo().settings("[restart]\ndelay-min = \"30s\""), 2);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let reads = Plan::get(cluster.address, 8, &format!("/aegis/api/models/todo/{id}")).spawn();
    for _ in 0..2 {
        let store = eventually_some("the store to be ready", Duration::from_secs(20), || {
            let store = cluster.status().store;
            (store.state == "ready").then_some(store)
        });
        signal_process(store.pid, Signal::SIGKILL);
        eventually("the store to be gone", Duration::from_secs(20), || {
            cluster.status().store.pid != store.pid
        });
    }
    let down = cluster.status().store;
    assert_eq!((down.pid, down.state.as_str()), (0, "down"));
    let (began, enough) = (Instant::now(), reads.completed() + 1000);
    eventually("reads to go on", Duration::from_secs(20), || reads.completed() > enough);
    assert_eq!(cluster.status().store.state, "down", "1000 reads took {:?}", began.elapsed());
    let report = reads.stop();
    report.assert_clean();
    let longest = report.quantile(1.0);
    assert!(longest < Duration::from_secs(1), "a read took {longest:?}");
}

#[test]
fn a_stopped_worker_is_replaced_before_it_is_killed() {
    let app = App::todo().settings("[hang]\nsuspect-after = \"500ms\"\nkill-after = \"1500ms\"");
    let cluster = Cluster::start(app, 2);
    let victim = cluster.await_workers(2)[0].pid;
    signal_process(victim, Signal::SIGSTOP);
    let mut came_first = false;
    eventually("the hung worker to be replaced", Duration::from_secs(20), || {
        let workers = cluster.status().workers;
        let others =
            workers.iter().filter(|worker| worker.pid != victim && worker.state == "serving").count();
        let is_there = workers.iter().any(|worker| worker.pid == victim);
        came_first |= is_there && others == 2;
        !is_there && others == 2
    });
    assert!(came_first, "the replacement came first");
    assert!(cluster.status().deaths[0].reason.contains("hung"), "{:?}", cluster.status().deaths);
}

#[test]
fn workers_end_after_their_supervisor_was_killed() {
    let app = App::todo().settings("[workers]\norphan-grace = \"200ms\"");
    let mut cluster = Cluster::start(app, 2);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let status = cluster.status();
    cluster.signal(Signal::SIGKILL);
    let _ = cluster.wait_exit(Duration::from_secs(5));
    let pids: Vec<u32> = status.workers.iter().map(|worker| worker.pid).chain([status.store.pid]).collect();
    eventually("no process to be left", Duration::from_secs(20), || {
        pids.iter().all(|pid| {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        })
    });
    cluster.restart();
    assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 200);
}
