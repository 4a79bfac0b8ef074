//! After a thousand cycles the host holds what it held before.

use std::time::Duration;

use aegis_harness::{
    App, Cluster, Footprint, app,
    cluster::START_TIMEOUT,
    eventually,
    footprint::{resident_bytes, threads},
};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::{Check, Options, nemesis};

/// Quick rollouts, and a store that is back at once however often it was killed.
const SETTINGS: &str = "[reload]
canary-time = \"1ms\"
canary-requests-min = 1000000000
[restart]
delay-max = \"50ms\"
";
/// Cycles after which the host holds what it will hold: its last generation, the one before, and warm allocators.
const WARM_CYCLES: u32 = 20;
/// Kinds of cycles that take turns.
const KINDS: u32 = 5;
const SETTLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory that the supervisor may have more than before.
const GROWTH_BYTES_MAX: u64 = 4_000_000;

/// One run.
pub(crate) fn run(options: Options) -> Vec<Check> {
    let cluster = Cluster::start(App::todo().settings(SETTINGS), options.workers);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    (0..WARM_CYCLES).for_each(|number| cycle(&cluster, options.workers, number));
    let before = Footprint::steady(&cluster);
    let (store_threads, memory) = (threads(cluster.status().store.pid), resident_bytes(cluster.pid()));
    let deaths = |cluster: &Cluster| cluster.status().store.restarts;
    let killed = deaths(&cluster);
    (WARM_CYCLES..WARM_CYCLES + options.cycles).for_each(|number| cycle(&cluster, options.workers, number));
    let after = Footprint::settled(&cluster, &before, SETTLE_TIMEOUT);
    let (store_threads_after, grown) =
        (threads(cluster.status().store.pid), resident_bytes(cluster.pid()).saturating_sub(memory));
    vec![
        Check::new(
            "descriptors, threads, processes, mappings and files are as before",
            after == before && after.zombies == 0,
            format!(
                "{} cycles, {} kills of the store; before {before:?}, after {after:?}",
                options.cycles,
                deaths(&cluster) - killed
            ),
        ),
        Check::new(
            "the store has no more threads than before",
            store_threads_after <= store_threads,
            format!("{store_threads} before, {store_threads_after} after"),
        ),
        Check::new(
            "the supervisor does not grow",
            grown <= GROWTH_BYTES_MAX,
            format!("{:.1} MB more than before", grown as f64 / 1e6),
        ),
        Check::new(
            "the document is still there",
            cluster.client().get(&format!("todo/{id}")).status == 200,
            id,
        ),
    ]
}

/// One deed, waited for to its end.
fn cycle(cluster: &Cluster, workers: u32, number: u32) {
    match number % KINDS {
        0 => {
            app::write_module(cluster.folder(), "todo", &app::revised_todo(number));
            cluster.aegis_ok(&["reload"]);
        }
        1 => {
            cluster.aegis_ok(&["restart"]);
        }
        2 => {
            let victim = cluster.await_workers(workers as usize)[number as usize % workers as usize].pid;
            nemesis::send(victim, Signal::SIGKILL);
            eventually("the replacement of a killed worker", START_TIMEOUT, || {
                let serving = cluster.serving();
                serving.len() == workers as usize && serving.iter().all(|worker| worker.pid != victim)
            });
        }
        3 => {
            cluster.aegis_ok(&["scale", &(workers + 1).to_string()]);
            cluster.await_workers(workers as usize + 1);
            cluster.aegis_ok(&["scale", &workers.to_string()]);
        }
        _ => {
            let store = cluster.status().store.pid;
            nemesis::send(store, Signal::SIGKILL);
            eventually("the store after the killed one", START_TIMEOUT, || {
                let now = cluster.status().store;
                now.pid != store && now.state == "ready"
            });
        }
    }
    cluster.await_workers(workers as usize);
}
