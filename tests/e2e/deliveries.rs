//! Events reach the code that subscribes to them, whatever happens to processes and generations.

use std::{collections::BTreeSet, time::Duration};

use aegis_guests::refuse;
use aegis_harness::{App, Cluster, app, cluster::signal_process, eventually, words};
use nix::sys::signal::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
const GRANT: &str = "[modules.journal]\ngrants = { events = [\"CREATETODO\"] }\n";

fn listening() -> Cluster {
    let cluster = Cluster::start(
        App::todo().settings(GRANT).component("journal", aegis_guests::journal(&["CREATETODO"]).build()),
        2,
    );
    await_position(&cluster);
    cluster
}

/// Subscriptions begin with the first worker that delivers.
fn await_position(cluster: &Cluster) {
    eventually("the delivery has begun", PATIENCE, || {
        cluster.admin_get("/metrics").contains("aegis_guest_module_event_lag{module=\"journal\"}")
    });
}

/// Ids of the documents that were heard of; more than once for those that came more than once.
fn heard(cluster: &Cluster) -> Vec<String> {
    let documents = cluster.client().get("journals?__limit=1000&__select=of").json();
    let mut ids: Vec<String> =
        documents.as_array().unwrap().iter().map(|one| one["of"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

fn create(cluster: &Cluster, count: usize) -> BTreeSet<String> {
    (0..count).map(|_| cluster.client().create("todo", &json!({"text": "x"}))).collect()
}

fn await_all(cluster: &Cluster, created: &BTreeSet<String>) {
    eventually("every event is delivered", PATIENCE, || {
        let heard: BTreeSet<String> = heard(cluster).into_iter().collect();
        created.is_subset(&heard)
    });
}

#[test]
fn each_event_is_delivered_by_one_worker_once_while_nothing_breaks() {
    let cluster = listening();
    let created = create(&cluster, 40);
    await_all(&cluster, &created);
    assert_eq!(heard(&cluster), created.into_iter().collect::<Vec<_>>(), "each once");
}

#[test]
fn no_event_is_lost_when_workers_are_killed_and_the_host_crashes() {
    let mut cluster = listening();
    let mut created = BTreeSet::new();
    for _ in 0..4 {
        created.extend(create(&cluster, 10));
        let killed = cluster.serving()[0].pid;
        signal_process(killed, Signal::SIGKILL);
        created.extend(create(&cluster, 10));
        eventually("another worker serves", PATIENCE, || {
            let serving = cluster.serving();
            serving.len() == 2 && serving.iter().all(|worker| worker.pid != killed)
        });
    }
    created.extend(create(&cluster, 10));
    cluster.kill_and_restart();
    created.extend(create(&cluster, 10));
    await_all(&cluster, &created);
}

#[test]
fn a_subscription_lasts_over_a_reload_and_ends_with_the_generation_that_drops_it() {
    let cluster = listening();
    let mut created = create(&cluster, 10);
    cluster.aegis_ok(&["reload"]);
    created.extend(create(&cluster, 10));
    await_all(&cluster, &created);
    app::write_component(cluster.folder(), "journal", &aegis_guests::journal(&[]).build());
    cluster.aegis_ok(&["reload"]);
    let before = heard(&cluster).len();
    create(&cluster, 10);
    eventually("nobody lags any longer", PATIENCE, || {
        !cluster.admin_get("/metrics").contains("aegis_guest_module_event_lag{module=\"journal\"}")
    });
    assert_eq!(heard(&cluster).len(), before);
}

#[test]
fn what_is_not_granted_is_refused_when_the_app_is_read() {
    let cluster = Cluster::start(App::todo(), 1);
    let journal = aegis_guests::journal(&["CREATETODO"]).build();
    app::write_component(cluster.folder(), "journal", &journal);
    let refused = cluster.aegis(&["reload"]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    let reason = "subscriptions.0.event: found CREATETODO, expected changes of its own model";
    assert!(told.contains(reason), "{told}");
}

fn await_canary(cluster: &Cluster) {
    eventually("one worker is judged", PATIENCE, || {
        cluster.serving().iter().any(|worker| worker.generation == 2)
    });
}

#[test]
fn a_version_that_is_judged_throws_no_event_away() {
    let journal = || aegis_guests::journal(&["CREATETODO"]);
    let deaf =
        journal().function("event-handlers", "on-event", refuse("invalid", "it never listens")).build();
    for mode in ["rolling", "swap"] {
        let settings = format!("[reload]\ncanary-time = \"60s\"\n{GRANT}");
        let app = App::todo().settings(&settings).component("journal", journal().build());
        let cluster = Cluster::start(app, 2);
        await_position(&cluster);
        app::write_component(cluster.folder(), "journal", &deaf);
        cluster.aegis_ok(&["deploy", "journal", "--mode", mode, "--no-wait"]);
        await_canary(&cluster);
        let created = create(&cluster, 20);
        await_all(&cluster, &created);
        assert_eq!(cluster.status().generation, 1, "{mode}: it is still judged");
    }
}

#[test]
fn a_subscription_that_is_new_begins_while_its_version_is_judged() {
    let journal = |subscriptions: &[&str]| aegis_guests::journal(subscriptions).build();
    let settings = format!("[reload]\ncanary-time = \"2s\"\n{GRANT}");
    let cluster = Cluster::start(App::todo().settings(&settings).component("journal", journal(&[])), 2);
    app::write_component(cluster.folder(), "journal", &journal(&["CREATETODO"]));
    cluster.aegis_ok(&["deploy", "journal", "--no-wait"]);
    await_canary(&cluster);
    let created = create(&cluster, 20);
    await_all(&cluster, &created);
}
