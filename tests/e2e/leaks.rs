//! After many cycles there is nothing more than before.

use std::{fs, time::Duration};

use aegis_harness::{App, Cluster, cluster::signal_process, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

fn zombies(parent: u32) -> usize {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")))
        .count()
}

#[test]
fn reloads_crashes_and_scaling_leave_nothing_behind() {
    let cluster = Cluster::start(App::todo().settings("[reload]\ncanary-time = \"1ms\""), 2);
    cluster.await_workers(2);
    let _ = cluster.client().create("todo", &json!({"text": "a"}));
    let (descriptors, supervisor_threads) = (cluster.descriptors(), threads(cluster.pid()));
    let store = cluster.status().store.pid;
    let store_threads = threads(store);
    for round in 0..10 {
        cluster.aegis_ok(&["restart"]);
        let victim = cluster.await_workers(2)[round % 2].pid;
        signal_process(victim, Signal::SIGKILL);
        eventually("the replacement", Duration::from_secs(20), || {
            cluster.serving().len() == 2 && cluster.serving().iter().all(|worker| worker.pid != victim)
        });
        cluster.aegis_ok(&["scale", "3"]);
        cluster.await_workers(3);
        cluster.aegis_ok(&["scale", "2"]);
        cluster.await_workers(2);
    }
    eventually("the supervisor to be as before", Duration::from_secs(20), || {
        cluster.descriptors() == descriptors && threads(cluster.pid()) == supervisor_threads
    });
    eventually("the store to be as before", Duration::from_secs(20), || threads(store) <= store_threads);
    assert_eq!(zombies(cluster.pid()), 0);
    let resident: usize = fs::read_to_string(format!("/proc/{}/statm", cluster.pid()))
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let megabytes = resident * 4096 / 1_000_000;
    assert!(megabytes < 40, "the supervisor has {megabytes} MB");
}
