//! Data that is moved away under a host that runs: nothing is begun anew in its place, and nothing is lost.

use std::{fs, time::Duration};

use aegis_harness::{App, Cluster, cluster::signal_process, eventually, eventually_some};
use nix::sys::signal::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_store_whose_folder_was_moved_away_does_not_begin_anew_and_goes_on_when_it_is_back() {
    let settings = "[restart]\ndelay-min = \"50ms\"\ndelay-max = \"500ms\"\n\
                    [limits]\nwrite-timeout = \"1s\"\nrequest-timeout = \"2s\"";
    let mut cluster = Cluster::start(App::todo().settings(settings), 2);
    let ids: Vec<String> =
        (0..20).map(|n| cluster.client().create("todo", &json!({"id": format!("d{n}"), "n": n}))).collect();
    let data = cluster.folder().join("data");
    let (store, away) = (data.join("store"), data.join("store.away"));
    fs::rename(&store, &away).unwrap();
    signal_process(cluster.status().store.pid, Signal::SIGKILL);
    let told = eventually_some("the status to say why there is no store", PATIENCE, || {
        let deaths = cluster.status().deaths;
        deaths.into_iter().map(|death| death.reason).find(|reason| reason.contains("is gone"))
    });
    assert!(told.contains("data/store/engine is gone, with the changes up to 20 that were"), "{told}");
    assert_eq!(cluster.client().post("todo", &json!({"id": "refused"})).status, 503);
    assert_eq!(cluster.client().get("todo/d0").status, 200);
    assert!(!store.exists(), "nothing is made in its place");

    fs::rename(&away, &store).unwrap();
    eventually("writes are taken", PATIENCE, || {
        let status = cluster.client().put("todo/after", &json!({"text": "after"})).status;
        (200..300).contains(&status)
    });
    cluster.kill_and_restart();
    for id in ids.iter().map(String::as_str).chain(["after"]) {
        assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 200, "{id} was acknowledged");
    }
}
