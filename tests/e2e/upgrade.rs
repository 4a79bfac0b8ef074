//! The running executable is replaced in place: same process, no failed request, and a way back.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use aegis_harness::{
    App, Cluster, QUICK,
    cluster::{executable, signal_process},
    load::Plan,
    words,
};
use nix::sys::signal::Signal;
use serde_json::json;

fn script(cluster: &Cluster, name: &str, text: &str) -> PathBuf {
    let path = cluster.folder().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Descriptors without those of a moment, such as the connection of the command that ran last.
fn steady_descriptors(cluster: &Cluster) -> HashMap<String, usize> {
    let mut last = HashMap::new();
    let mut same_in_a_row = 0;
    aegis_harness::eventually("the descriptors to be steady", Duration::from_secs(30), || {
        let now = cluster.descriptors();
        same_in_a_row = if now == last { same_in_a_row + 1 } else { 0 };
        last = now;
        same_in_a_row == 5
    });
    last
}

#[test]
fn upgrades_under_load_keep_the_process_and_lose_no_request() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let client = cluster.client();
    let id = client.create("todo", &json!({"text": "a"}));
    let running = Plan::get(cluster.address, 16, &format!("/aegis/api/models/todo/{id}")).spawn();
    let copy = cluster.folder().join("aegis-new");
    fs::copy(executable(), &copy).unwrap();
    let mut descriptors = Vec::new();
    for _ in 0..3 {
        let before = cluster.status();
        cluster.aegis_ok(&["upgrade", copy.to_str().unwrap()]);
        let after = cluster.status();
        assert_eq!(after.pid, cluster.pid());
        assert_eq!(after.last_job.unwrap().kind, "upgrade");
        assert!(after.generation > before.generation, "the workers run the new image");
        let workers = cluster.await_workers(2);
        for worker in &workers {
            let image = fs::read_link(format!("/proc/{}/exe", worker.pid)).unwrap();
            assert_eq!(image, copy, "worker {}", worker.slot);
        }
        aegis_harness::eventually("the store to run the new image", Duration::from_secs(20), || {
            let store = cluster.status().store;
            store.state == "ready"
                && fs::read_link(format!("/proc/{}/exe", store.pid)).is_ok_and(|image| image == copy)
        });
        descriptors.push(steady_descriptors(&cluster));
    }
    running.stop().assert_clean();
    assert_eq!(client.get(&format!("todo/{id}")).status, 200);
    assert_eq!(client.post("todo", &json!({"text": "b"})).status, 201);
    aegis_harness::eventually(
        "no descriptor to be left behind by an upgrade",
        Duration::from_secs(30),
        || cluster.descriptors() == descriptors[1],
    );
}

fn await_other_store(cluster: &Cluster, before: u32) {
    aegis_harness::eventually("another store process", Duration::from_secs(20), || {
        let now = cluster.status().store;
        now.pid != before && now.state == "ready"
    });
}

#[test]
fn what_is_only_in_memory_survives_upgrades_and_not_a_crash_of_the_store() {
    let note = "name = \"note\"\nendpoint = \"notes\"\ndatasource = \"memory\"\n[fields]\ntext = \"text\"\n\
                code = { unique = true }\n";
    let cluster = Cluster::start(App::todo().module("note", note).settings(QUICK), 2);
    let client = cluster.client();
    let kept = client.create("notes", &json!({"text": "a", "code": 1}));
    let answer = client.get(&format!("notes/{kept}"));
    for round in 0..2 {
        let more = client.create("notes", &json!({"text": format!("round {round}")}));
        let store = cluster.status().store.pid;
        cluster.aegis_ok(&["upgrade"]);
        await_other_store(&cluster, store);
        assert_eq!(client.get(&format!("notes/{kept}")).json(), answer.json());
        assert_eq!(client.get(&format!("notes/{more}")).status, 200);
        assert_eq!(client.post("notes", &json!({"code": 1})).status, 409, "the value is still taken");
        assert_eq!(client.patch(&format!("notes/{more}"), &json!({"text": "b"})).status, 200);
    }
    assert_eq!(client.get("notes?__count=all").json()["total"].to_string(), "3");

    let store = cluster.status().store.pid;
    signal_process(store, Signal::SIGKILL);
    await_other_store(&cluster, store);
    aegis_harness::eventually("the loss to show", Duration::from_secs(20), || {
        client.get("notes?__count=all").json()["total"].as_u64() == Some(0)
    });
    assert_eq!(client.get(&format!("notes/{kept}")).status, 404);
    assert_eq!(client.post("notes", &json!({"code": 1})).status, 201);
}

#[test]
fn usr2_upgrades_from_the_path_it_was_started_from() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    cluster.signal(Signal::SIGUSR2);
    aegis_harness::eventually("the upgrade", Duration::from_secs(30), || {
        cluster.status().last_job.is_some_and(|job| job.kind == "upgrade" && job.verdict.is_some())
    });
    assert_eq!(cluster.client().get("todo").status, 200);
    cluster.await_workers(2);
}

#[test]
fn images_that_do_not_work_are_rejected_and_the_old_one_serves() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let before = cluster.await_workers(2);
    let running = Plan::get(cluster.address, 8, &format!("/aegis/api/models/todo/{id}")).spawn();
    let plain = cluster.folder().join("plain.txt");
    fs::write(&plain, "not executable").unwrap();
    for (path, word) in [
        (plain, "execut"),
        (script(&cluster, "exits", "#!/bin/sh\nexit 1\n"), "exit"),
        (script(&cluster, "hangs", "#!/bin/sh\nexec sleep 60\n"), "within 8 s"),
        (script(&cluster, "crashes", "#!/bin/sh\nkill -SEGV $$\n"), "SIG"),
        (cluster.folder().join("absent"), "absent"),
    ] {
        let begun = Instant::now();
        let output = cluster.aegis(&["upgrade", path.to_str().unwrap()]);
        assert!(matches!(output.status.code(), Some(3 | 4)), "{}: {output:?}", path.display());
        assert!(begun.elapsed() < Duration::from_secs(10), "{}: {:?}", path.display(), begun.elapsed());
        let text = words(&output);
        assert!(text.contains(word), "{}: {text}", path.display());
        assert_eq!(cluster.status().pid, cluster.pid());
    }
    running.stop().assert_clean();
    let after = cluster.await_workers(2);
    assert_eq!(
        before.iter().map(|one| one.pid).collect::<Vec<_>>(),
        after.iter().map(|one| one.pid).collect::<Vec<_>>()
    );
    assert_eq!(cluster.client().post("todo", &json!({"text": "b"})).status, 201);
}
