//! More and fewer workers while they serve.

use std::time::Duration;

use aegis_harness::{App, Cluster, Start, eventually, load::Plan};
use nix::sys::signal::Signal;
use serde_json::json;

const WAIT: Duration = Duration::from_secs(60);
/// Most workers that a host has.
const WORKERS_MAX: usize = 112;

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
fn sixteen_workers_and_back_by_command_and_signal_lose_no_request() {
    let cluster = Cluster::start(App::todo(), 2);
    let running = Plan::get(cluster.address, 8, "/aegis/api/models/todo").rate(500).spawn();
    for workers in [16, 2] {
        cluster.aegis_ok(&["scale", &workers.to_string()]);
        let mut slots: Vec<u32> =
            cluster.await_workers(workers).into_iter().map(|worker| worker.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), workers, "each has a slot of its own");
    }
    // Signals of one kind that come together are one: the next is sent when this one was counted.
    let steps = [(Signal::SIGTTIN, [3, 4, 5, 6]), (Signal::SIGTTOU, [5, 4, 3, 2])];
    for (signal, counts) in steps {
        for wanted in counts {
            cluster.signal(signal);
            eventually("the signal to count", WAIT, || cluster.status().workers_wanted == wanted);
        }
        cluster.await_workers(cluster.status().workers_wanted as usize);
    }
    running.stop().assert_clean();
}

#[test]
fn variables_of_the_original_say_whether_it_is_a_cluster() {
    let start = |value: &str| {
        let start = Start::app(App::todo()).workers_as_configured().environment("CLUSTER_ENABLED", value);
        start.start().status().workers_wanted
    };
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(start("true") as usize, cores.clamp(2, WORKERS_MAX), "one for each core");
    assert_eq!(start("false"), 1);
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

#[test]
fn workers_with_too_much_memory_are_replaced_before_they_leave() {
    // Less than the documents that every worker keeps, so that each of them is above it some time.
    let cluster = Cluster::start(App::todo().settings("[recycle]\nmemory-bytes-max = \"32MiB\""), 2);
    let before = cluster.await_workers(2);
    let running = Plan::get(cluster.address, 8, "/aegis/api/models/todo?__limit=1").rate(500).spawn();
    let text = "x".repeat(1000 * 1000);
    for n in 0..32 {
        assert_eq!(cluster.client().post("todo", &json!({"n": n, "text": text})).status, 201);
    }
    eventually("both workers to be replaced", WAIT, || {
        let workers = cluster.status().workers;
        let serving: Vec<_> =
            workers.iter().filter(|one| matches!(one.state.as_str(), "serving" | "suspect")).collect();
        assert!(serving.len() >= 2, "the replacement comes first: {workers:?}");
        serving.iter().all(|new| before.iter().all(|old| old.pid != new.pid))
    });
    running.stop().assert_clean();
    assert!(cluster.log().contains("is recycled: ") && cluster.log().contains(" MiB resident"));
    eventually("the old workers to have drained", WAIT, || {
        let deaths = cluster.status().deaths;
        before.iter().all(|old| deaths.iter().any(|death| death.pid == old.pid))
    });
    let deaths = cluster.status().deaths;
    assert!(deaths.iter().all(|death| !death.reason.contains("SIG")), "{deaths:?}");
}
