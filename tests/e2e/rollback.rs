//! Back to the generation before: without the app folder, without the network, and through restarts.

use std::{fs, time::Duration};

use aegis_guests::stamping;
use aegis_harness::{App, Cluster, Publisher, QUICK, app, eventually};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(30);

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["by"].as_str().unwrap().to_owned()
}

fn settings(cluster: &Cluster, more: &str) {
    fs::write(cluster.folder().join("aegis.toml"), format!("{QUICK}{more}\n")).unwrap();
}

#[test]
fn a_rollback_leads_back_to_the_code_and_configuration_before_and_a_second_one_forth_again() {
    let cluster = Cluster::start(App::default().settings(QUICK).component("note", stamping("one")), 2);
    let refused = cluster.aegis(&["rollback"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing to go back to"));
    app::write_component(cluster.folder(), "note", &stamping("two"));
    settings(&cluster, "[limits]\nbody-bytes-max = \"1KiB\"");
    cluster.aegis_ok(&["reload"]);
    let large = json!({"x": "x".repeat(4096)});
    assert_eq!((by(&cluster), cluster.client().post("notes", &large).status), ("two".to_owned(), 413));
    // The app folder is not looked at.
    fs::remove_dir_all(cluster.folder().join("modules")).unwrap();
    let told = cluster.aegis_ok(&["rollback"]);
    assert!(told.contains("rollback done, generation 4 is in force"), "{told}");
    assert_eq!((by(&cluster), cluster.client().post("notes", &large).status), ("one".to_owned(), 201));
    let shown = cluster.aegis_ok(&["status"]);
    assert!(shown.contains("PINNED by a rollback") && shown.contains("not the app folder: "), "{shown}");
    cluster.aegis_ok(&["rollback"]);
    assert_eq!((by(&cluster), cluster.client().post("notes", &large).status), ("two".to_owned(), 413));
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(by(&cluster), "one");
}

#[test]
fn a_host_comes_up_on_what_was_put_back_until_a_reload_is_asked_for() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("one"));
    let source = format!("{QUICK}[modules.note]\nsource = \"{}\"", publisher.source("note"));
    let mut cluster = Cluster::start(App::default().settings(&source), 2);
    publisher.publish("note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two");
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(by(&cluster), "one");
    let pin = cluster.folder().join("data/generations/pinned");
    assert!(pin.exists());
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "one");
    let told = "the host does not come up on the app folder: rolled back on request";
    assert!(cluster.log().contains(told), "{}", cluster.log());
    assert!(cluster.status().notice.is_some());
    // It is pinned as it was, not as it would be made today, and a crash of the machine changes nothing.
    publisher.publish("note", &stamping("three"));
    cluster.kill_and_restart();
    assert_eq!(by(&cluster), "one");
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "three");
    assert!(!pin.exists());
    assert_eq!(cluster.status().notice, None);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "three");
}

#[test]
fn a_change_of_files_that_nobody_asked_for_does_not_undo_a_rollback() {
    let watching = format!("{QUICK}watch = true\n");
    let cluster = Cluster::start(App::todo().settings(&watching), 1);
    let before = cluster.status().digest;
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    eventually("the reload", WAIT, || {
        let status = cluster.status();
        status.digest != before && status.jobs.is_empty()
    });
    cluster.aegis_ok(&["rollback"]);
    let held = cluster.status().digest;
    assert_eq!(held, before);
    app::write_module(cluster.folder(), "todo", &app::revised_todo(2));
    let told = "what changed in the app is not taken up: rolled back on request";
    eventually("the change to be noticed", WAIT, || cluster.log().contains(told));
    assert_eq!(cluster.status().digest, held);
    cluster.aegis_ok(&["reload"]);
    assert_ne!(cluster.status().digest, held);
}

#[test]
fn a_rollback_takes_back_what_was_deployed_and_its_record() {
    let mut cluster = Cluster::start(App::default().settings(QUICK).component("note", stamping("one")), 1);
    let records = || fs::read_to_string(cluster.folder().join("data/deployments/records.json")).unwrap();
    let path = cluster.folder().join("two.wasm");
    fs::write(&path, stamping("two")).unwrap();
    cluster.aegis_ok(&["deploy", "note", "--file", path.to_str().unwrap()]);
    assert!(records().contains("\"note\""));
    cluster.aegis_ok(&["rollback"]);
    assert_eq!((by(&cluster), cluster.status().deployed.len()), ("one".to_owned(), 0));
    assert!(!records().contains("\"note\""));
    cluster.aegis_ok(&["rollback"]);
    assert_eq!((by(&cluster), cluster.status().deployed.len()), ("two".to_owned(), 1));
    cluster.aegis_ok(&["reload"]);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "two", "its bytes were kept for the way forth");
}

#[test]
fn a_rollback_after_a_start_with_another_app_leads_to_what_was_there_before_it() {
    let settings = format!("{QUICK}[restart]\nhealthy-after = \"50ms\"\n");
    let mut cluster =
        Cluster::start(App::default().settings(&settings).component("note", stamping("one")), 1);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    cluster.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(cluster.wait_exit(WAIT).success());
    app::write_component(cluster.folder(), "note", &stamping("three"));
    let last_good = cluster.folder().join("data/generations/last-good");
    let kept = fs::read(&last_good).unwrap();
    cluster.restart();
    eventually("it has proved itself", WAIT, || fs::read(&last_good).unwrap() != kept);
    assert_eq!(by(&cluster), "three");
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(by(&cluster), "two");
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(by(&cluster), "three");
}

#[test]
fn a_host_whose_modules_have_mistakes_by_now_comes_up_on_the_last_good_generation_and_says_so() {
    let mut cluster = Cluster::start(App::default().settings(QUICK).component("note", stamping("one")), 2);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    app::write_component(cluster.folder(), "note", b"\0asm\x01\0\0\0");
    assert_eq!(cluster.aegis(&["reload"]).status.code(), Some(3));
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "two");
    let log = cluster.log();
    assert!(
        log.contains("1 mistake found in the app; the host comes up on the LAST GOOD generation"),
        "{log}"
    );
    let shown = cluster.aegis_ok(&["status"]);
    assert!(shown.contains("LAST GOOD generation, the app has mistakes"), "{shown}");
    assert!(shown.contains("core module"), "{shown}");
    cluster.kill_and_restart();
    assert_eq!(by(&cluster), "two");
    app::write_component(cluster.folder(), "note", &stamping("three"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!((by(&cluster), cluster.status().notice), ("three".to_owned(), None));
}

/// An app whose model has two documents with the same text, and which makes that text unique from the next start on.
fn become_unique(cluster: &mut Cluster) {
    for _ in 0..2 {
        assert_eq!(cluster.client().post("todo", &json!({"text": "same"})).status, 201);
    }
    let last_good = cluster.folder().join("data/generations/last-good");
    eventually("the generation is kept", WAIT, || last_good.exists());
    cluster.aegis_ok(&["stop"]);
    assert!(cluster.wait_exit(WAIT).success());
    app::write_module(cluster.folder(), "todo", &format!("{}\n[mixins]\nunique = [\"text\"]\n", app::TODO));
}

#[test]
fn a_host_whose_documents_do_not_fit_the_app_comes_up_on_the_last_good_generation_and_says_so() {
    let settings = format!("{QUICK}[restart]\nhealthy-after = \"50ms\"\n");
    let mut cluster = Cluster::start(App::todo().settings(&settings), 1);
    become_unique(&mut cluster);
    cluster.restart();
    assert_eq!(cluster.client().post("todo", &json!({"text": "same"})).status, 201);
    let log = cluster.log();
    let told = "does not begin with the app folder: the last good generation, because with the app the store cannot start";
    assert!(log.contains(told), "{log}");
    let shown = cluster.aegis_ok(&["status"]);
    assert!(shown.contains("LAST GOOD generation, the store does not start with the app"), "{shown}");
    assert!(shown.contains("unique field text of model TODO"), "{shown}");
    assert_eq!(cluster.aegis(&["reload"]).status.code(), Some(3));
    app::write_module(cluster.folder(), "todo", &app::revised_todo(2));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(cluster.status().notice, None);
}

#[test]
fn a_start_that_fails_says_why_on_the_terminal_although_log_lines_go_to_a_file() {
    let settings = format!("{QUICK}[restart]\nhealthy-after = \"50ms\"\n[log]\nfile = \"host.log.file\"\n");
    let mut cluster = Cluster::start(App::todo().settings(&settings), 1);
    become_unique(&mut cluster);
    fs::remove_file(cluster.folder().join("data/generations/last-good")).unwrap();
    let output = cluster.start_in_vain();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.starts_with("aegis: the start failed: the store cannot start: "), "{told}");
    assert!(told.contains("unique field text of model TODO") && told.contains("host.log.file"), "{told}");
}

#[test]
fn a_last_good_generation_that_cannot_come_up_is_told_beside_the_mistakes() {
    let mut cluster = Cluster::start(App::todo(), 1);
    let path = cluster.folder().join("data/generations/last-good");
    eventually("the generation is kept", WAIT, || path.exists());
    cluster.aegis_ok(&["stop"]);
    assert!(cluster.wait_exit(WAIT).success());
    app::write_module(cluster.folder(), "todo", "name = 5");
    fs::write(&path, "nonsense").unwrap();
    let output = cluster.start_in_vain();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{told}");
    assert!(told.contains("the last good generation cannot come up instead: "), "{told}");
    assert!(told.contains("modules/todo/module.toml"), "{told}");
}

#[test]
fn what_is_deployed_after_a_rollback_stays_with_it_through_a_restart() {
    let app = App::default().settings(QUICK).component("note", stamping("one"));
    let part = "name = \"part\"\nendpoint = \"parts\"\n[fields]\nsku = \"text\"\n";
    let mut cluster = Cluster::start(app.module("part", part), 2);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    cluster.aegis_ok(&["rollback"]);
    app::write_module(cluster.folder(), "part", &format!("{part}n = \"integer\"\n"));
    cluster.aegis_ok(&["deploy", "part"]);
    let is_new = |cluster: &Cluster| cluster.client().post("parts", &json!({"n": "text"})).status == 422;
    assert!(is_new(&cluster));
    cluster.stop_and_restart();
    assert_eq!((by(&cluster).as_str(), is_new(&cluster)), ("one", true));
}

#[test]
fn what_was_put_back_comes_up_again_although_it_could_not_be_kept_as_last_good() {
    let mut cluster = Cluster::start(App::default().settings(QUICK).component("note", stamping("one")), 2);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    fs::create_dir(cluster.folder().join("data/generations/last-good.new")).unwrap();
    cluster.aegis_ok(&["rollback"]);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "one");
    assert!(cluster.log().contains("could not be kept as last good"), "{}", cluster.log());
    // Nor is it lost to a deployment that cannot be kept.
    let path = cluster.folder().join("three.wasm");
    fs::write(&path, stamping("three")).unwrap();
    cluster.aegis_ok(&["deploy", "note", "--file", path.to_str().unwrap()]);
    assert_eq!(by(&cluster), "three");
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "one");
    assert!(cluster.status().summary.contains("PINNED by a rollback"));
}

#[test]
fn an_upgrade_keeps_what_was_put_back() {
    let app = App::default().settings(QUICK).component("note", stamping("one"));
    let mut cluster = Cluster::start(app, 2);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    cluster.aegis_ok(&["rollback"]);
    cluster.aegis_ok(&["upgrade"]);
    assert_eq!(by(&cluster), "one");
    assert!(cluster.status().summary.contains("PINNED by a rollback"));
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "one");
}
