//! More and fewer workers while they serve.

use std::time::Duration;

use aegis_harness::{App, Cluster, eventually, load::Plan};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn scaling_under_load_loses_no_request() {
    let cluster = Cluster::start(App::todo(), 2);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let running = Plan::get(cluster.address, 16, &format!("/aegis/api/models/todo/{id}")).spawn();
    for workers in [5, 1, 3] {
        cluster.aegis_ok(&["scale", &workers.to_string()]);
        assert_eq!(cluster.await_workers(workers).len(), workers);
    }
    for (signal, workers) in [(Signal::SIGTTIN, 4), (Signal::SIGTTIN, 5), (Signal::SIGTTOU, 4)] {
        cluster.signal(signal);
        cluster.await_workers(workers);
    }
    running.stop().assert_clean();
    assert!(!cluster.aegis(&["scale", "0"]).status.success());
    assert_eq!(cluster.status().workers_wanted, 4);
}

#[test]
fn drained_workers_come_back_when_asked() {
    let cluster = Cluster::start(App::todo(), 2);
    cluster.aegis_ok(&["drain"]);
    eventually("all workers to be gone", Duration::from_secs(20), || cluster.status().workers.is_empty());
    assert!(cluster.client().connect().is_ok(), "the socket stays open");
    cluster.aegis_ok(&["scale", "2"]);
    cluster.await_workers(2);
    assert_eq!(cluster.client().get("todo").status, 200);
}

#[test]
fn workers_are_recycled_after_their_share_of_requests() {
    let cluster = Cluster::start(App::todo().settings("[recycle]\nrequests-max = 200"), 2);
    let before = cluster.await_workers(2);
    let running = Plan::get(cluster.address, 8, "/aegis/api/models/todo").spawn();
    eventually("both workers to be replaced", Duration::from_secs(30), || {
        let now = cluster.serving();
        now.len() == 2 && now.iter().all(|new| before.iter().all(|old| old.pid != new.pid))
    });
    running.stop().assert_clean();
}
