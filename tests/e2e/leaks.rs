//! After many cycles there is nothing more than before.

use std::time::Duration;

use aegis_harness::{
    App, Cluster, Footprint, app,
    cluster::signal_process,
    eventually,
    footprint::{resident_bytes, threads},
};
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn reloads_crashes_and_scaling_leave_nothing_behind() {
    let cluster = Cluster::start(App::todo().settings("[reload]\ncanary-time = \"1ms\""), 2);
    let _ = cluster.client().create("todo", &json!({"text": "a"}));
    cycle(&cluster, 0); // the first reload leaves the generation before it to go back to
    let store = cluster.status().store.pid;
    let (before, store_threads) = (Footprint::steady(&cluster), threads(store));
    // The store was forked with the one of the supervisor and has its own beside it.
    assert_eq!((before.children, before.zombies, before.boards), (3, 0, [1, 2]), "{before:?}");
    for round in 1..=10 {
        cycle(&cluster, round);
    }
    let after = Footprint::settled(&cluster, &before, Duration::from_secs(20));
    assert_eq!(after, before);
    eventually("the store to be as before", Duration::from_secs(20), || threads(store) <= store_threads);
    let megabytes = resident_bytes(cluster.pid()) / 1_000_000;
    assert!(megabytes < 40, "the supervisor has {megabytes} MB");
}

/// A new generation, new workers, a killed worker, one more and one less.
fn cycle(cluster: &Cluster, round: u32) {
    app::write_module(cluster.folder(), "todo", &app::revised_todo(round));
    cluster.aegis_ok(&["reload"]);
    cluster.aegis_ok(&["restart"]);
    let victim = cluster.await_workers(2)[round as usize % 2].pid;
    signal_process(victim, Signal::SIGKILL);
    eventually("the replacement", Duration::from_secs(20), || {
        cluster.serving().len() == 2 && cluster.serving().iter().all(|worker| worker.pid != victim)
    });
    cluster.aegis_ok(&["scale", "3"]);
    cluster.await_workers(3);
    cluster.aegis_ok(&["scale", "2"]);
    cluster.await_workers(2);
}
