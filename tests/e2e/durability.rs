//! What was acknowledged is there after a crash; what each datasource promises.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use aegis_harness::{
    App, Cluster,
    cluster::{executable, signal_process},
    unsynced::{Pages, pages},
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn hundred() -> Vec<Value> {
    (0..100).map(|n| json!({"id": format!("d{n}"), "n": n, "text": format!("text {n}")})).collect()
}

#[test]
fn documents_survive_kill_9_of_the_whole_host() {
    let mut cluster = Cluster::start(App::todo(), 2);
    for document in hundred() {
        assert_eq!(cluster.client().post("todo", &document).status, 201);
    }
    let before = cluster.client().get("todo?__limit=1000").json();
    cluster.kill_and_restart();
    let client = cluster.client();
    assert_eq!(client.get("todo?__count=all").json()["total"].to_string(), "100");
    assert_eq!(client.get("todo?__limit=1000").json(), before);
    let sequence = client.get("todo/d0").sequence();
    assert!(client.post("todo", &json!({"text": "next"})).sequence() > sequence, "numbers go on");
}

/// All files below a folder whose names end so.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_was_acknowledged_is_on_the_disk_and_not_only_in_the_memory_of_the_kernel() {
    const ATTEMPTS_MAX: usize = 20;
    let cluster = Cluster::start(App::todo(), 1);
    let probe = cluster.folder().join("unsynced");
    fs::write(&probe, [1; 8192]).unwrap();
    match pages(&[&probe]) {
        Ok(told) if told[0].unsynced > 0 => {}
        Ok(told) => return eprintln!("skipped: this file system does not tell what is unsynced ({told:?})"),
        Err(reason) => return eprintln!("skipped: {reason}"),
    }
    let store = cluster.status().store.pid;
    // What the store does next is not acknowledged yet: it is stopped, but perhaps in the middle of something else.
    let seen = (0..ATTEMPTS_MAX).map(|n| {
        let written = cluster.client().post("todo", &json!({"text": "x".repeat(16 * 1024), "n": n}));
        signal_process(store, Signal::SIGSTOP);
        let journals = files(&cluster.folder().join("data/store"), ".jnl");
        let told = pages(&journals);
        signal_process(store, Signal::SIGCONT);
        assert_eq!(written.status, 201, "{}", written.text());
        told.unwrap()
    });
    let seen: Vec<_> = seen.collect();
    assert!(seen.iter().flatten().any(|one| one.cached >= 4), "the journal was written: {seen:?}");
    let synced = |told: &Vec<Pages>| told.iter().all(|one| one.unsynced == 0);
    let count = seen.iter().filter(|told| synced(told)).count();
    assert!(
        count > ATTEMPTS_MAX / 2,
        "{count} of {ATTEMPTS_MAX} acknowledged writes were on the disk: {seen:?}"
    );
}

#[test]
fn a_memory_model_starts_empty_and_a_file_model_does_not() {
    let kept =
        "name = \"customer\"\nendpoint = \"customers\"\ndatasource = \"file\"\n[fields]\nname = \"text\"\n";
    let lost = "name = \"order\"\nendpoint = \"orders\"\n[fields]\nname = \"text\"\n";
    let app =
        App::default().module("customer", kept).module("order", lost).settings("datasource = \"memory\"");
    let mut cluster = Cluster::start(app, 2);
    let customer = cluster.client().create("customers", &json!({"name": "Ada"}));
    let order = cluster.client().create("orders", &json!({"name": "gear"}));
    cluster.stop_and_restart();
    assert_eq!(cluster.client().get(&format!("customers/{customer}")).status, 200);
    assert_eq!(cluster.client().get(&format!("orders/{order}")).status, 404);
    assert_eq!(cluster.client().get("orders?__count=all").json()["total"].to_string(), "0");
}

#[test]
fn memory_documents_survive_a_reload_of_the_workers() {
    let cluster = Cluster::start(App::todo().settings("datasource = \"memory\""), 2);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    cluster.aegis_ok(&["restart"]);
    assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 200);
}

#[test]
fn an_unknown_datasource_stops_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let output = Command::new(executable())
        .args(["run", folder.path().to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .env("DATASOURCE_ADAPTER", "Etherium")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("DATASOURCE_ADAPTER") && text.contains("Etherium"), "{text}");
}

#[test]
fn the_original_environment_name_selects_the_datasource() {
    let mut cluster =
        aegis_harness::Start::app(App::todo()).environment("DATASOURCE_ADAPTER", "Memory").start();
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    cluster.stop_and_restart();
    assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 404);
}

#[test]
fn data_can_be_verified_exported_and_imported() {
    let mut cluster = Cluster::start(App::todo(), 1);
    assert_eq!(cluster.client().post("todo", &json!(hundred())).status, 201);
    let folder = cluster.folder().to_owned();
    let data = |arguments: &[&str], stdin: Option<File>| {
        let mut command = Command::new(executable());
        command.args(["data"]).args(arguments).arg(&folder);
        if let Some(file) = stdin {
            command.stdin(file);
        }
        command.output().unwrap()
    };
    let busy = data(&["verify"], None);
    assert!(!busy.status.success(), "a running host keeps its data to itself");
    assert!(String::from_utf8_lossy(&busy.stderr).contains("lock"), "{busy:?}");

    cluster.signal(Signal::SIGTERM);
    assert!(cluster.wait_exit(aegis_harness::cluster::START_TIMEOUT).success());
    assert!(data(&["verify"], None).status.success());
    let export = data(&["export"], None);
    assert!(export.status.success(), "{export:?}");
    let lines = String::from_utf8(export.stdout.clone()).unwrap();
    assert!(lines.lines().filter(|line| line.contains("\"text 42\"")).count() == 1);

    fs::remove_dir_all(folder.join("data")).unwrap();
    let dump = folder.join("dump.jsonl");
    fs::write(&dump, &export.stdout).unwrap();
    let import = data(&["import"], Some(File::open(&dump).unwrap()));
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    assert_eq!(data(&["export"], None).stdout.len(), export.stdout.len());

    fs::write(&dump, b"{\"not\": \"an export\"}\n").unwrap();
    let refused = data(&["import"], Some(File::open(&dump).unwrap()));
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 1"), "{refused:?}");
}
