//! Modules that were compiled for a release of the contract load and work for as long as its major version is served.
//!
//! What is in the museum is what authors have out there: it is never built anew. `tests/museum/README.md` says how it was
//! made.

use std::{fs, path::PathBuf, time::Duration};

use aegis_harness::{App, Cluster, app, eventually};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(30);

/// Folders of the releases.
fn releases() -> Vec<PathBuf> {
    let museum = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("museum");
    let entries = fs::read_dir(museum).unwrap().map(|entry| entry.unwrap().path());
    let releases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    assert!(!releases.is_empty(), "the museum is empty");
    releases
}

/// The modules of a release by name, each as it was when it was put there.
fn exhibits(release: &PathBuf) -> Vec<(String, Vec<u8>)> {
    let sums = fs::read_to_string(release.join("SHA256SUMS")).unwrap();
    let exhibits: Vec<(String, Vec<u8>)> = sums
        .lines()
        .map(|line| {
            let (digest, file) = line.split_once("  ").expect("each line is a digest and a file");
            let bytes = fs::read(release.join(file)).unwrap();
            assert_eq!(format!("{:x}", Sha256::digest(&bytes)), digest, "{}", release.join(file).display());
            (file.trim_end_matches(".wasm").to_owned(), bytes)
        })
        .collect();
    let files = fs::read_dir(release).unwrap().map(|entry| entry.unwrap().path());
    let modules = files.filter(|path| path.extension().is_some_and(|extension| extension == "wasm")).count();
    assert_eq!(modules, exhibits.len(), "SHA256SUMS of {} names every module", release.display());
    exhibits
}

fn exhibit(release: &PathBuf, name: &str) -> Vec<u8> {
    let found = exhibits(release).into_iter().find(|(exhibit, _)| exhibit == name);
    found.unwrap_or_else(|| panic!("{} has no {name}", release.display())).1
}

#[test]
fn the_todo_contract_of_every_release_is_answered_as_it_was() {
    for release in releases() {
        crate::languages::check(exhibit(&release, "todo-rust"));
    }
}

#[test]
fn hooks_and_commands_of_every_release_have_their_say() {
    for release in releases() {
        for name in ["todo-texts", "todo-documents"] {
            let settings = "[modules.todo]\nsettings = { greeting = \"hello\" }";
            let app = App::default().component("todo", exhibit(&release, name)).settings(settings);
            hooks_and_commands(&Cluster::start(app, 2));
        }
    }
}

fn hooks_and_commands(cluster: &Cluster) {
    let client = cluster.client();
    let created = client.post("todos", &json!({"id": "a", "title": "x", "priority": 3}));
    assert_eq!((created.status, &created.json()["stamped"]), (201, &json!(true)), "{}", created.text());
    assert_eq!(created.json()["done"], false, "its default");
    assert_eq!(client.post("todos", &json!({"title": "x", "priority": 6})).status, 422);
    assert_eq!(client.post("todos", &json!({"title": "forbidden"})).status, 422);
    let changed = client.patch("todos/a", &json!({"title": "y", "priority": null})).json();
    let changed = [&changed["touched"], &changed["title"], &changed["priority"], &changed["revision"]];
    assert_eq!(changed, [&json!(true), &json!("y"), &Value::Null, &json!(2)]);
    assert_eq!(client.post("todos/a/echo", &json!({"n": [1.5]})).text(), r#"{"n":[1.5]}"#);
    assert_eq!(client.post("todos/a/approve", &json!({})).json()["revision"], 3);
    assert_eq!(client.get("todos/a").json()["approved"], true);
    assert_eq!(client.post("todos/a/burn", &json!({"steps": 1000})).status, 200);
    assert_eq!(client.post("todos/a/refuse", &json!({})).status, 403);
    assert_eq!(client.get("todos/a?command=greeting").json(), "hello");
    assert_eq!(client.patch("todos/a", &json!({"protected": true})).status, 200);
    assert_eq!(client.delete("todos/a").status, 409);
}

#[test]
fn routes_events_documents_and_measurements_of_every_release_work() {
    for release in releases() {
        let grants = "[modules.journal]\ngrants = { events = [\"CREATETODO\"] }";
        let app = ["label", "journal", "entry", "outgrown"]
            .iter()
            .fold(App::todo(), |app, name| app.component(name, exhibit(&release, name)));
        let cluster = Cluster::start(app.settings(grants), 2);
        let client = cluster.client();

        assert_eq!(client.get("labels/7/label").text(), "7");
        let echoed = client.send("POST", "/aegis/api/models/labels/echo", b"[1]");
        assert_eq!(
            (echoed.status, echoed.header("x-kind"), echoed.text().as_str()),
            (201, Some("echo"), "[1]")
        );

        for id in ["a", "b", "desk"] {
            assert_eq!(client.post("entries", &json!({"id": id, "n": 2})).status, 201);
        }
        assert_eq!(client.post("entries/desk/many", &json!({})).text(), "121");
        assert_eq!(client.post("entries/desk/trade", &json!({"id": "c", "n": 5})).text(), "3");
        assert_eq!(client.post("entries/desk/sums", &json!({})).json(), json!([{ "_id": null, "n": 9 }]));
        assert_eq!(client.post("entries/desk/count", &json!({})).text(), "true");
        assert!(cluster.admin_get("/metrics").contains("\naegis_module_counted_total{module=\"entry\","));

        assert_eq!(client.post("outgrowns", &json!({"id": "old", "name": "x"})).status, 201);
        assert_eq!(client.get("outgrowns/old").json()["title"], "grown");

        let lag = "aegis_guest_module_event_lag{module=\"journal\"}";
        eventually("the delivery has begun", PATIENCE, || cluster.admin_get("/metrics").contains(lag));
        let id = client.create("todo", &json!({"text": "x"}));
        eventually("it hears of the event", PATIENCE, || {
            client.get("journals").json()[0]["of"] == id.as_str()
        });
    }
}

#[test]
fn what_a_module_of_a_release_remembers_goes_to_its_successor() {
    for release in releases() {
        let settings = "[reload]\nmode = \"swap\"\ncanary-time = \"100ms\"\nlatency-factor-max = 1000.0";
        let app = App::default().component("counter", exhibit(&release, "counter")).settings(settings);
        let cluster = Cluster::start(app, 1);
        assert_eq!(cluster.client().post("counters", &json!({"id": "a"})).status, 201);
        let next = || cluster.client().get("counters/a?command=next").json();
        assert_eq!((next(), next()), (json!(1), json!(2)));
        app::write_component(cluster.folder(), "counter", &aegis_guests::heir("1.1.0").build());
        cluster.aegis_ok(&["reload"]);
        assert_eq!(next(), 3);
    }
}
