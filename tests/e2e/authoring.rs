//! Commands for who writes modules.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Stdio},
};

use aegis_harness::{App, Cluster, Start, cluster::executable};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Runs a program in a folder, which must succeed.
fn run(folder: &Path, program: impl AsRef<Path>, words: &[&str]) -> String {
    let output = Command::new(program.as_ref()).args(words).current_dir(folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_new_model_is_valid_and_runs_at_once() {
    let place = tempfile::tempdir().unwrap();
    run(place.path(), executable(), &["new", "model", "note"]);
    let folder = place.path().join("note");
    assert!(run(&folder, executable(), &["check"]).contains("NOTE  /aegis/api/models/notes"));
    let module = fs::read_to_string(folder.join("modules/note/module.toml")).unwrap();
    let cluster = Cluster::start(App::default().module("note", &module), 1);
    let client = cluster.client();
    let created = client.post("notes", &json!({"id": "a", "title": "first"}));
    assert_eq!(created.status, 201, "{}", created.text());
    assert_eq!(client.get("notes/a").json()["closed"], false);
    let again =
        Command::new(executable()).args(["new", "model", "note"]).current_dir(place.path()).output().unwrap();
    assert_eq!(again.status.code(), Some(64), "nothing is overwritten");
}

#[test]
fn a_program_is_told_in_json_where_the_new_model_is_and_where_its_host_listens() {
    let place = tempfile::tempdir().unwrap();
    let told: Value =
        serde_json::from_str(&run(place.path(), executable(), &["new", "model", "note", "--json"])).unwrap();
    assert_eq!(told, json!({"folder": "note"}));
    let mut host = Command::new(executable())
        .args(["run", "note", "--json", "--listen", "127.0.0.1:0", "--workers", "1"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    run(place.path(), executable(), &["logs", "reopen", "--dir", "note"]);
    run(place.path(), executable(), &["stop", "--dir", "note"]);
    assert!(host.wait().unwrap().success());
    let told: Value = serde_json::from_str(&line).unwrap();
    assert!(told["listening"].as_str().is_some_and(|url| url.starts_with("http://127.0.0.1:")), "{line}");
}

/// Begins an app with the model `note` in a language.
fn begun(language: &str) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    run(place.path(), executable(), &["new", "model", "note", "--lang", language, "."]);
    place
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What the templates of all languages do, once they are built.
fn check_note(folder: &Path) {
    let bytes = fs::read(folder.join("modules/note/note.wasm")).unwrap();
    let app =
        App::default().component("note", bytes).settings("[modules.note]\nlimits = { deadline = \"10s\" }");
    let cluster = Start::app(app).workers(1).compiled_first().start();
    let client = cluster.client();
    assert_eq!(client.post("notes", &json!({"id": "a", "title": "first"})).status, 201);
    assert_eq!(client.post("notes/a/close", &json!({})).json()["closed"], true);
    let refused = client.patch("notes/a", &json!({"title": "second"}));
    assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("conflict")), "{}", refused.text());
    assert_eq!(refused.json()["errors"][0]["path"], "/title");
}

#[test]
#[ignore = "scripts/guests brings what builds modules in JavaScript"]
fn a_new_model_in_javascript_builds_and_runs() {
    let place = begun("js");
    symlink(repository().join("sdk/js/node_modules"), place.path().join("sdk/node_modules")).unwrap();
    let component = "modules/note/note.wasm";
    run(place.path(), "node", &["sdk/build.mjs", "sources/note.js", component]);
    assert!(run(place.path(), executable(), &["check"]).contains("hooks      validate"));
    let words = ["run-command", component, "close", "--target", "{\"title\":\"x\"}"];
    assert_eq!(run(place.path(), executable(), &words), "{\"title\":\"x\",\"closed\":true}\n");
    check_note(place.path());
}

#[test]
#[ignore = "scripts/guests brings what builds modules in Python"]
fn a_new_model_in_python_builds_and_runs() {
    let place = begun("python");
    symlink(repository().join("sdk/python/.venv"), place.path().join("sdk/.venv")).unwrap();
    run(place.path(), "python3", &["sdk/build.py", "sources/model.py", "modules/note/note.wasm"]);
    check_note(place.path());
}

#[test]
#[ignore = "scripts/guests brings what builds modules in Rust"]
fn a_new_model_in_rust_builds_and_runs() {
    let place = begun("rust");
    // What the guests of the repository depend on is compiled there already.
    let target = executable().parent().unwrap().parent().unwrap().join("guests");
    let cargo = ["build", "--quiet", "--offline", "--release", "--target", "wasm32-wasip2", "--target-dir"];
    let words = [&cargo[..], &[target.to_str().unwrap(), "--manifest-path", "sources/Cargo.toml"]].concat();
    run(place.path(), "cargo", &words);
    let built = target.join("wasm32-wasip2/release/component.wasm");
    fs::copy(built, place.path().join("modules/note/note.wasm")).unwrap();
    check_note(place.path());
}

#[test]
fn a_command_of_a_component_is_called_without_a_host() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("todo.wasm"), aegis_guests::todo().build()).unwrap();
    let call = |words: &[&str]| {
        let output = Command::new(executable())
            .args(["run-command", "todo.wasm"])
            .args(words)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, stdout, stderr) = call(&["echo", "--arguments", "{\"n\": 1}", "--repeat", "9"]);
    assert_eq!((code, stdout.as_str()), (Some(0), "{\"n\":1}\n"), "{stderr}");
    assert!(stderr.contains("first call") && stderr.contains("of 9 repeats"), "{stderr}");
    let (code, stdout, stderr) = call(&["refuse"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr, "aegis: refused: denied: nobody may do that\n");
    let (code, _, stderr) = call(&["nap"]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("there are: echo, approve"), "{stderr}");
    let (code, stdout, stderr) = call(&["greeting", "--json", "--settings", "{\"greeting\": \"hello\"}"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.starts_with("{\"answer\":\"hello\",\"firstMicroseconds\":"), "{stdout}");
    assert!(stderr.contains("greeted"), "what the code logs is shown: {stderr}");
}
