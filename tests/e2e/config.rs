//! Nothing is bound before the configuration is valid, and all mistakes are told at once.

use std::{fs, path::Path, process::Command};

use aegis_harness::{App, cluster::executable};
use serde_json::Value;

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(executable()).args(arguments).arg(folder).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn all_mistakes_of_config_and_modules_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    App::default()
        .settings("listen = \"nowhere\"\nwrokers = 3\n[limits]\nbody-bytes-max = \"lots\"")
        .module("a", "name = \"a\"\nendpoint = \"same\"\n[fields]\nx = \"number\"\n")
        .module("b", "name = \"b\"\nendpoint = \"same\"\n[fields]\ny = \"text\"\n")
        .write(folder.path());
    for command in ["check", "run"] {
        let (code, text) = run(folder.path(), &[command]);
        assert_eq!(code, Some(78), "{command}: {text}");
        for part in [
            "listen",
            "nowhere",
            "wrokers",
            "workers",
            "body-bytes-max",
            "lots",
            "/a/module.toml:4: fields.x",
        ] {
            assert!(text.contains(part), "{command}: {part} is missing in:\n{text}");
        }
    }
}

#[test]
fn check_accepts_what_run_accepts() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let (code, text) = run(folder.path(), &["check"]);
    assert_eq!(code, Some(0), "{text}");
    fs::write(folder.path().join("modules/todo/module.toml"), "name = [").unwrap();
    let (code, text) = run(folder.path(), &["check"]);
    assert_eq!(code, Some(78));
    assert!(text.contains("modules/todo/module.toml:1:9: not valid TOML: "), "{text}");
}

#[test]
fn a_taken_port_and_a_missing_folder_are_named() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(executable())
        .args(["run", folder.path().to_str().unwrap(), "--listen", &address])
        // Variables of whoever runs the tests would be told as well.
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(71));
    let told = String::from_utf8(output.stderr).unwrap().replace(&address, "ADDRESS");
    let told = told.replace(folder.path().canonicalize().unwrap().to_str().unwrap(), "APP");
    let told: Vec<_> = told.lines().map(|line| line.split_once("]").map_or(line, |(_, told)| told)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    aegis_supervisor::driver::actions: start (job 1): generation 1: validating the application
    aegis_supervisor::listen: listening socket closed: not all addresses of its generation can be bound address=Unix("APP/data/admin.sock")
    aegis_supervisor::driver::actions: cannot go on: cannot listen on ADDRESS: Address already in use (os error 98)
    aegis_supervisor::driver::actions: start (job 1): failed: cannot listen on ADDRESS: Address already in use (os error 98)
    aegis_supervisor::driver::actions: stop (job 2): stopping: at once
    aegis_supervisor::driver::actions: stop (job 2): done
    "#);
    let (code, text) = run(&folder.path().join("absent"), &["run"]);
    assert_eq!(code, Some(78));
    assert!(text.contains("absent"), "{text}");
}

#[test]
fn two_hosts_do_not_share_a_data_folder() {
    let cluster = aegis_harness::Cluster::start(App::todo(), 1);
    let output = Command::new(executable())
        .args(["run", cluster.folder().to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("data") && text.contains(&cluster.pid().to_string()), "{text}");
    assert_eq!(cluster.client().get("todo").status, 200);
}

#[test]
fn a_host_that_could_not_begin_is_not_taken_for_one_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let occupied = folder.path().join("occupied");
    fs::write(&occupied, "no socket").unwrap();
    let start = |control: &Path| {
        let arguments = ["run", folder.path().to_str().unwrap(), "--listen", &address, "--control"];
        let output = Command::new(executable()).args(arguments).arg(control).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = start(&occupied);
    assert!(text.contains("something that is not a socket is there"), "{text}");
    let text = start(&folder.path().join("free.sock"));
    assert!(text.contains(&address) && !text.contains("was killed"), "{text}");
}

#[test]
fn commands_without_a_host_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control.sock");
    let output = Command::new(executable()).args(["status", "--control"]).arg(&control).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("control.sock") && text.contains("aegis run"), "{text}");
}

#[test]
fn a_program_that_asks_for_json_is_told_in_json_why_nothing_came_of_it() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    fs::write(folder.path().join("key.pem"), "something else").unwrap();
    for (arguments, code) in [
        (&["data", "import", ".", "--input", "none.json"][..], 71),
        (&["data", "verify", "."], 78),
        (&["key", "new", "key.pem", "--name", "shop"], 64),
        (&["sign", "none.json", "--key", "key.pem"], 78),
        (&["status"], 75),
    ] {
        let mut command = Command::new(executable());
        let output = command.arg("--json").args(arguments).current_dir(folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(told["reply"], "error", "{told}");
        assert!(told["message"].is_string() && output.stderr.is_empty(), "{output:?}");
    }
}
