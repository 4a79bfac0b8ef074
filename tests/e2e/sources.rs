//! Modules that are published elsewhere: fetched, replaced, refused, and served without the network.

use std::{fs, path::Path};

use aegis_guests::{Guest, splice, stamping};
use aegis_harness::{App, Cluster, Publisher, Start, words};
use serde_json::json;

/// An app that has nothing but what is published.
fn app(publisher: &Publisher) -> App {
    App::default().settings(&format!("[modules.note]\nsource = \"{}\"", publisher.source("note")))
}

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["by"].as_str().unwrap().to_owned()
}

/// Files below a folder, but not below `except`.
fn files(folder: &Path, except: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && path != except {
                folders.push(path);
            } else if path.is_file() {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn a_host_serves_what_is_published_and_has_it_in_its_data_folder_only() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("one"));
    // Proxies of the environment have no say.
    let cluster = Start::app(app(&publisher))
        .environment("http_proxy", "http://127.0.0.1:1")
        .environment("ALL_PROXY", "http://127.0.0.1:1")
        .start();
    assert_eq!(by(&cluster), "one");
    for path in files(cluster.folder(), &cluster.folder().join("data")) {
        let bytes = fs::read(&path).unwrap();
        let has_code = bytes.windows(4).any(|window| window == b"\0asm" || window == b"\x7fELF");
        assert!(!has_code, "{} has code in it", path.display());
    }
}

/// A model of its own at this endpoint.
fn model(name: &str, endpoint: &str) -> Vec<u8> {
    let spec = json!({"name": name, "endpoint": endpoint, "version": "1.0.0"});
    Guest::model(spec).hook("on-create", splice("input", &format!("\"by\":\"{name}\""))).build()
}

#[test]
fn one_host_serves_modules_of_several_teams_from_several_places() {
    let (web, git, registry) = (Publisher::start(), Publisher::start(), Publisher::start());
    web.publish("order", &model("order", "orders"));
    git.commit("team/modules", "customer", "main", &model("customer", "customers"));
    let invoice = model("invoice", "invoices");
    registry.push("team/invoice", "1.0.0", &invoice, &invoice);
    let settings = format!(
        "[modules.order]\nsource = \"{}\"\n\
         [modules.customer]\nsource = \"github:team/modules/customer@main\"\napi = \"{}\"\n\
         [modules.invoice]\nsource = \"{}:1.0.0\"",
        web.source("order"),
        git.git_host(),
        registry.registry("team/invoice")
    );
    let app = App::todo().component("stock", model("stock", "stocks")).settings(&settings);
    let cluster = Cluster::start(app, 1);
    for (endpoint, name) in
        [("orders", "order"), ("customers", "customer"), ("invoices", "invoice"), ("stocks", "stock")]
    {
        let created = cluster.client().post(endpoint, &json!({"x": 1}));
        assert_eq!(created.json()["by"], name, "{}", created.text());
    }
    assert_eq!(cluster.client().post("todo", &json!({"text": "x"})).status, 201);
}

#[test]
fn a_new_version_is_served_after_a_reload() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("one"));
    let cluster = Cluster::start(app(&publisher), 2);
    assert_eq!(by(&cluster), "one");
    publisher.publish("note", &stamping("two"));
    assert_eq!(by(&cluster), "one", "nothing changes by itself");
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two");
}

#[test]
fn a_version_that_is_not_what_its_manifest_says_is_refused_and_the_old_one_goes_on() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("one"));
    let cluster = Cluster::start(app(&publisher), 1);
    for (component, sha256, reason) in [
        (stamping("two"), "0".repeat(64), "modules.note: AEGIS-M121"),
        (stamping("two"), "short".to_owned(), "modules.note: AEGIS-M100"),
    ] {
        publisher.publish_as("note", &component, &sha256);
        let refused = cluster.aegis(&["reload"]);
        let told = words(&refused);
        assert_eq!(refused.status.code(), Some(3), "{told}");
        assert!(told.contains(reason), "{told}");
        assert_eq!(by(&cluster), "one");
    }
    publisher.publish("note", b"\0asm\x01\0\0\0");
    assert_eq!(cluster.aegis(&["reload"]).status.code(), Some(3));
    assert_eq!(by(&cluster), "one");
    publisher.publish("note", &stamping("three"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "three");
}

#[test]
fn without_the_source_reloads_and_restarts_go_on_with_what_it_last_published() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("one"));
    let mut cluster = Cluster::start(app(&publisher), 2);
    publisher.publish("note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    drop(publisher);
    let told = |cluster: &Cluster| cluster.log().matches("modules.note: AEGIS-M102").count();
    assert_eq!(told(&cluster), 0);
    let reload = cluster.aegis(&["reload"]);
    assert_eq!(reload.status.code(), Some(0), "{}", words(&reload));
    assert!(words(&reload).contains("warning: modules.note: AEGIS-M102"), "{}", words(&reload));
    assert_eq!(by(&cluster), "two");
    assert_eq!(told(&cluster), 1, "{}", cluster.log());
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "two");
    assert_eq!(told(&cluster), 2, "{}", cluster.log());
    cluster.kill_and_restart();
    assert_eq!(by(&cluster), "two");
}
