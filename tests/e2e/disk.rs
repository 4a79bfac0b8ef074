//! Disks that are full or cannot be written: nothing that was acknowledged is lost, what is served goes on being served,
//! and everybody is told why nothing new is taken.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use aegis_guests::stamping;
use aegis_harness::{App, Cluster, QUICK, Start, app, eventually, words};
use serde_json::json;

use crate::errors::assert_problem;

const PATIENCE: Duration = Duration::from_secs(60);
const MEBIBYTE: u64 = 1024 * 1024;
/// Room for the reserve of the store, and for what it writes in a test.
const DISK_BYTES: u64 = 224 * MEBIBYTE;
const SETTINGS: &str =
    "data-dir = \"disk\"\ncontrol-socket = \"data/control.sock\"\nadmin-socket = \"data/admin.sock\"\n";

fn start() -> Cluster {
    let app = App::default().settings(SETTINGS).settings(QUICK).component("note", stamping("one"));
    Start::app(app).disk(DISK_BYTES).start()
}

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    created.json()["by"].as_str().unwrap_or_default().to_owned()
}

/// Writes with many clients until told to stop. Gives the ids that were acknowledged.
fn write_through(cluster: &Cluster, meanwhile: impl FnOnce()) -> BTreeSet<String> {
    let (acknowledged, stop) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let write = |client: usize| {
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let id = format!("{client}-{n}");
            let body = json!({"id": id, "text": "x".repeat(2000)}).to_string();
            let path = "/aegis/api/models/notes";
            match cluster.client().try_send("POST", path, body.as_bytes()) {
                Ok(response) if response.status == 201 => {
                    acknowledged.lock().unwrap().insert(id);
                }
                Ok(response) => assert_eq!(response.status, 503, "{}", response.text()),
                Err(failure) => panic!("a client is always answered: {failure}"),
            }
        }
    };
    thread::scope(|scope| {
        for client in 0..4 {
            let write = &write;
            scope.spawn(move || write(client));
        }
        eventually("clients write", PATIENCE, || acknowledged.lock().unwrap().len() > 50);
        meanwhile();
        stop.store(true, Ordering::Relaxed);
    });
    acknowledged.into_inner().unwrap()
}

fn assert_there(cluster: &Cluster, ids: &BTreeSet<String>) {
    for id in ids {
        assert_eq!(cluster.client().get(&format!("notes/{id}")).status, 200, "{id} was acknowledged");
    }
}

#[test]
fn with_little_room_writes_are_refused_and_reads_go_on_until_there_is_room_again() {
    let cluster = start();
    let kept = cluster.client().create("notes", &json!({"x": 1}));
    cluster.disk().leave(20 * MEBIBYTE);
    eventually("writes are refused", PATIENCE, || cluster.client().post("notes", &json!({})).status == 503);
    let refused = cluster.client().post("notes", &json!({}));
    assert_problem(&refused, 503, "store-unavailable");
    assert!(refused.json()["detail"].as_str().unwrap().contains("disk"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(cluster.client().get(&format!("notes/{kept}")).status, 200);
    assert_eq!(cluster.client().get("notes?__count=all").status, 200);
    let store = cluster.status().store.pid;
    let told = words(&cluster.aegis(&["status"]));
    assert!(told.contains("the disk of the store is nearly full, writes have been refused for "), "{told}");
    assert!(cluster.admin_get("/metrics").contains("\naegis_store_disk_full 1\n"));
    cluster.disk().relieve();
    eventually("writes are taken", PATIENCE, || cluster.client().post("notes", &json!({})).status == 201);
    assert_eq!(cluster.status().store.pid, store, "the store has not ended");
    assert_eq!(cluster.status().store.disk_full, None);
    assert!(cluster.admin_get("/metrics").contains("\naegis_store_disk_full 0\n"));
}

#[test]
fn a_disk_that_fills_up_while_clients_write_loses_nothing_that_was_acknowledged() {
    let mut cluster = start();
    let mut acknowledged = BTreeSet::new();
    let written = write_through(&cluster, || {
        cluster.disk().leave(0);
        eventually("writes are refused", PATIENCE, || {
            cluster.client().post("notes", &json!({})).status == 503
        });
        cluster.disk().relieve();
        eventually("writes are taken", PATIENCE, || cluster.client().post("notes", &json!({})).status == 201);
    });
    acknowledged.extend(written);
    assert_there(&cluster, &acknowledged);
    cluster.kill_and_restart();
    assert_there(&cluster, &acknowledged);
}

#[test]
fn a_reload_and_a_deployment_on_a_full_disk_are_refused_and_the_old_version_serves() {
    let cluster = start();
    let kept = cluster.client().create("notes", &json!({"x": 1}));
    let before: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    cluster.disk().leave(0);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    let refused = cluster.aegis(&["reload"]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("bytes free on its disk"), "{told}");

    let file = cluster.folder().join("three.wasm");
    fs::write(&file, stamping("three")).unwrap();
    let refused = cluster.aegis(&["deploy", "note", "--file", file.to_str().unwrap()]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("No space left on device"), "{told}");

    assert_eq!(cluster.client().get(&format!("notes/{kept}")).json()["by"], "one");
    let after: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    assert_eq!(before, after, "no worker was touched");
    cluster.disk().relieve();
    eventually("writes are taken", PATIENCE, || cluster.client().post("notes", &json!({})).status == 201);
    assert_eq!(by(&cluster), "one");
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two");
}

#[test]
fn a_reload_and_a_deployment_that_change_nothing_need_no_room() {
    let cluster = start();
    let before: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    cluster.disk().leave(0);
    for arguments in [&["reload"][..], &["deploy", "note"]] {
        let told = cluster.aegis_ok(arguments);
        assert!(told.contains("nothing has changed"), "{told}");
    }
    let after: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    assert_eq!(before, after, "no worker was touched");
    let generation = cluster.status().generation;
    app::write_component(cluster.folder(), "note", &stamping("two"));
    let refused = cluster.aegis(&["reload"]);
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert_eq!(cluster.status().generation, generation, "what is new needs room");
}

#[test]
fn caches_and_records_that_cannot_be_written_are_told_and_served_without() {
    let mut cluster = start();
    let reload = |cluster: &Cluster, name: &str| {
        app::write_component(cluster.folder(), "note", &stamping(name));
        cluster.aegis_ok(&["reload"]);
        assert_eq!(by(cluster), name);
    };
    reload(&cluster, "two");
    for folder in ["code-cache", "generations"] {
        cluster.disk().protect(folder);
    }
    reload(&cluster, "three");
    eventually("the log says so", PATIENCE, || {
        let log = cluster.log();
        log.contains("code-cache") && log.contains("could not be kept as last good")
    });
    // It comes up on what the app folder says.
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "three");
    for folder in ["code-cache", "generations"] {
        cluster.disk().open(folder);
    }
    reload(&cluster, "four");
}

#[test]
fn a_deployment_that_cannot_be_kept_is_refused() {
    let cluster = start();
    let file = cluster.folder().join("two.wasm");
    fs::write(&file, stamping("two")).unwrap();
    fs::create_dir_all(cluster.disk().path().join("deployments")).unwrap();
    cluster.disk().protect("deployments");
    let refused = cluster.aegis(&["deploy", "note", "--file", file.to_str().unwrap()]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("Read-only file system"), "{told}");
    assert_eq!(by(&cluster), "one");
    cluster.disk().open("deployments");
    cluster.aegis_ok(&["deploy", "note", "--file", file.to_str().unwrap()]);
    assert_eq!(by(&cluster), "two");
}

#[test]
fn a_host_that_was_stopped_comes_up_on_a_full_disk_and_answers_what_it_can() {
    let mut cluster = start();
    let kept = cluster.client().create("notes", &json!({"x": 1}));
    cluster.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(cluster.wait_exit(PATIENCE).success());
    cluster.disk().leave(0);
    cluster.restart();
    assert_eq!(cluster.client().get(&format!("notes/{kept}")).status, 200);
    let refused = cluster.client().post("notes", &json!({}));
    assert_problem(&refused, 503, "store-unavailable");
    cluster.disk().relieve();
    eventually("writes are taken", PATIENCE, || cluster.client().post("notes", &json!({})).status == 201);
}

#[test]
fn a_host_on_a_disk_that_cannot_be_written_says_so_and_does_not_start() {
    let mut cluster = start();
    let kept = cluster.client().create("notes", &json!({"x": 1}));
    cluster.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(cluster.wait_exit(PATIENCE).success());
    cluster.disk().protect("");
    let refused = cluster.start_in_vain();
    let told = words(&refused);
    assert!(!refused.status.success(), "{told}");
    assert!(told.contains("Read-only file system") && told.contains("disk"), "{told}");
    cluster.disk().open("");
    cluster.restart();
    assert_eq!(cluster.client().get(&format!("notes/{kept}")).status, 200);
}
