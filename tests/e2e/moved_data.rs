//! Data that is moved away under a host that runs: nothing is begun anew in its place, and nothing is lost.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use aegis_harness::{
    App, Cluster, QUICK, Start, app::revised_todo, cluster::signal_process, eventually, eventually_some,
    words,
};
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
        // A write whose outcome was unknown may be there already.
        [201, 409].contains(&cluster.client().post("todo", &json!({"id": "after"})).status)
    });
    cluster.kill_and_restart();
    for id in ids.iter().map(String::as_str).chain(["after"]) {
        assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 200, "{id} was acknowledged");
    }
}

/// Has a link lead elsewhere, in one step.
fn point(link: &Path, target: &Path) {
    let fresh = link.with_extension("new");
    symlink(target, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

fn kill_store(cluster: &Cluster) {
    let store = cluster.status().store.pid;
    signal_process(store, Signal::SIGKILL);
    eventually("the next store", PATIENCE, || {
        let now = cluster.status().store;
        now.pid != store && now.state == "ready"
    });
}

#[test]
fn a_link_that_leads_to_another_app_folder_does_not_move_the_data() {
    let links = tempfile::tempdir().unwrap();
    let (link, other) = (links.path().join("current"), links.path().join("other"));
    let mut cluster = Start::app(App::todo().settings(QUICK)).through(&link).start();
    let before = cluster.client().create("todo", &json!({"text": "before"}));
    App::default().settings(QUICK).module("todo", &revised_todo(1)).write(&other);
    point(&link, &other);
    let refused = cluster.aegis(&["reload"]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    let sentence = format!(
        "data_dir: found {}, expected {}: it cannot change while the host runs",
        other.join("data").display(),
        cluster.folder().join("data").display()
    );
    assert!(told.contains(&sentence), "{told}");

    kill_store(&cluster);
    let after = cluster.client().create("todo", &json!({"text": "after"}));
    assert!(!other.join("data").exists(), "nothing is begun there");
    point(&link, cluster.folder());
    cluster.aegis_ok(&["reload"]);
    cluster.kill_and_restart();
    for id in [before, after] {
        assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 200);
    }
}

#[test]
fn a_link_that_leads_to_the_next_release_is_followed_when_the_data_stay_where_they_are() {
    let links = tempfile::tempdir().unwrap();
    let (link, next) = (links.path().join("current"), links.path().join("next"));
    let data = links.path().join("data");
    let settings = format!("data-dir = {data:?}\ncontrol-socket = \"data/control.sock\"\n{QUICK}");
    let cluster = Start::app(App::todo().settings(&settings)).through(&link).start();
    let before = cluster.client().create("todo", &json!({"text": "before"}));
    App::default().settings(&settings).module("todo", &revised_todo(1)).write(&next);
    point(&link, &next);
    cluster.aegis_ok(&["reload"]);
    assert_eq!(cluster.status().generation, 2);
    kill_store(&cluster);
    assert_eq!(cluster.client().get(&format!("todo/{before}")).status, 200);
    let refused = cluster.client().post("todo", &json!({"extra1": "no integer"}));
    assert_eq!(refused.status, 422, "the next release serves: {}", refused.text());
    assert!(data.join("store/engine").exists());
}
