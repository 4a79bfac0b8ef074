//! `aegis data` beside a host that is stopped.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use aegis_harness::{App, Cluster, cluster::executable, words};
use nix::sys::signal::Signal;
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const PERSON: &str = "name = \"person\"\nendpoint = \"person\"\n[fields]\nemail = { unique = true }";

fn data(app: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(executable());
    command.arg("data").arg(arguments[0]).arg(app).args(&arguments[1..]).output().unwrap()
}

fn assert_done(output: &Output) -> String {
    assert!(output.status.success(), "{}", words(output));
    words(output)
}

#[test]
fn documents_go_into_a_new_folder_only_if_a_host_can_start_on_them() {
    let mut cluster = Cluster::start(App::default().module("person", PERSON), 1);
    for (id, email) in [("a", "a@example.com"), ("b", "b@example.com")] {
        assert_eq!(cluster.client().post("person", &json!({"id": id, "email": email})).status, 201);
    }
    cluster.signal(Signal::SIGTERM);
    assert!(cluster.wait_exit(PATIENCE).success());
    let app = cluster.folder().to_owned();
    let (good, bad) = (app.join("good.jsonl"), app.join("bad.jsonl"));
    assert_done(&data(&app, &["export", "--output", good.to_str().unwrap()]));
    let text = fs::read_to_string(&good).unwrap().replace("b@example.com", "a@example.com");
    fs::write(&bad, text).unwrap();
    fs::remove_dir_all(app.join("data")).unwrap();

    let refused = data(&app, &["import", "--input", bad.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(65), "{}", words(&refused));
    assert!(words(&refused).contains("unique field email of model PERSON"), "{}", words(&refused));
    let mode = fs::metadata(app.join("data")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700, "nobody else reads the data");
    assert_done(&data(&app, &["import", "--input", good.to_str().unwrap()]));
    let verified = assert_done(&data(&app, &["verify"]));
    assert!(verified.ends_with("everything is whole\n"), "{verified}");
    cluster.restart();
    assert_eq!(cluster.client().get("person/b").json()["email"], "b@example.com");
    assert_eq!(cluster.client().post("person", &json!({"email": "a@example.com"})).status, 409);
}

#[test]
fn a_host_that_cannot_start_on_its_documents_does_not_say_that_it_is_done() {
    let mut cluster =
        Cluster::start(App::default().module("person", &PERSON.replace("unique = true", "")), 1);
    for id in ["a", "b"] {
        assert_eq!(cluster.client().post("person", &json!({"id": id, "email": "a@example.com"})).status, 201);
    }
    cluster.signal(Signal::SIGTERM);
    assert!(cluster.wait_exit(PATIENCE).success());
    fs::write(cluster.folder().join("modules/person/module.toml"), PERSON).unwrap();
    let told = cluster.start_in_vain();
    assert_eq!(told.status.code(), Some(78), "{}", words(&told));
    let told = words(&told);
    assert!(told.contains("cannot go on: the store cannot start"), "{told}");
    assert!(!told.contains("start (job 1): done"), "{told}");
}
