//! Sources that are asked now and then: what is published is served without a call.

use std::time::Duration;

use aegis_harness::{App, Cluster, Publisher, eventually};
use serde_json::json;

/// Time in which something must be there that is asked for every second; generous, the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
const MANIFEST: &str = "/note/aegis.module.json";

/// A model of this version whose create hook adds `"by":version` in front.
fn stamping(version: &str) -> Vec<u8> {
    aegis_guests::stamping_model("note", version).info("note", version).build()
}

/// An app that has nothing but what is published, and asks for it every second.
fn app(publisher: &Publisher, terms: &str) -> App {
    let source = publisher.source("note");
    App::default()
        .settings("[reload]\npoll = \"1s\"\ncanary_time = \"100ms\"")
        .settings(&format!("[modules.note]\nsource = \"{source}\"\n{terms}"))
}

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["by"].as_str().unwrap().to_owned()
}

fn served(cluster: &Cluster, version: &str) {
    eventually(&format!("{version} is served"), PATIENCE, || by(cluster) == version);
}

#[test]
fn what_is_published_is_served_within_the_interval_without_a_call() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("1.0.0"));
    let cluster = Cluster::start(app(&publisher, ""), 2);
    assert_eq!(by(&cluster), "1.0.0");
    eventually("it is asked and has nothing new", PATIENCE, || publisher.answered(304, MANIFEST) >= 2);
    assert!(!cluster.log().contains("reload (job"), "{}", cluster.log());
    publisher.publish("note", &stamping("1.0.1"));
    served(&cluster, "1.0.1");
    assert!(cluster.log().contains("something was published: note"), "{}", cluster.log());
}

#[test]
fn a_version_that_joins_the_index_is_served_if_it_is_within_the_range() {
    let publisher = Publisher::start();
    publisher.publish_version("note", "2.0.0", &stamping("2.0.0"), &["2.0.0"]);
    publisher.publish_version("note", "1.2.3", &stamping("1.2.3"), &["1.2.3", "2.0.0"]);
    let cluster = Cluster::start(app(&publisher, "version = \"^1.2\""), 1);
    assert_eq!(by(&cluster), "1.2.3");
    let known = ["1.2.3", "1.4.0", "2.0.0"];
    publisher.publish_version("note", "1.4.0", &stamping("1.4.0"), &known);
    served(&cluster, "1.4.0");
    eventually("1.4.0 is shown", PATIENCE, || {
        let modules = cluster.admin().request("GET", "/aegis/api/config?details=modules", &[], b"").unwrap();
        modules.json()[0]["version"] == "1.4.0"
    });
}

#[test]
fn a_bad_version_is_tried_once_and_the_old_one_goes_on() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("1.0.0"));
    let cluster = Cluster::start(app(&publisher, ""), 1);
    publisher.publish("note", b"\0asm\x01\0\0\0");
    let rejected = |cluster: &Cluster| cluster.log().matches("rejected").count();
    eventually("the bad version is rejected", PATIENCE, || rejected(&cluster) > 0);
    let asked = publisher.answered(304, MANIFEST);
    eventually("it is asked again", PATIENCE, || publisher.answered(304, MANIFEST) >= asked + 3);
    assert_eq!(rejected(&cluster), 1, "{}", cluster.log());
    assert_eq!(by(&cluster), "1.0.0");
    publisher.publish("note", &stamping("1.0.2"));
    served(&cluster, "1.0.2");
}

#[test]
fn a_source_that_is_away_is_told_once_and_what_it_last_published_goes_on() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("1.0.0"));
    let cluster = Cluster::start(app(&publisher, ""), 1);
    drop(publisher);
    let told = |cluster: &Cluster| cluster.log().matches("sources of modules cannot be asked").count();
    eventually("its absence is told", PATIENCE, || told(&cluster) == 1);
    assert_eq!(by(&cluster), "1.0.0");
    assert!(!cluster.log().contains("reload (job"), "{}", cluster.log());
}

#[test]
fn a_tag_of_a_registry_is_followed_and_a_layer_of_another_module_is_not() {
    let publisher = Publisher::start();
    let (one, two) = (stamping("1.0.0"), stamping("1.0.1"));
    publisher.push("team/note", "stable", &one, &one);
    let source = format!("[modules.note]\nsource = \"{}:stable\"", publisher.registry("team/note"));
    let app = App::default().settings("[reload]\npoll = \"1s\"\ncanary_time = \"100ms\"").settings(&source);
    let cluster = Cluster::start(app, 1);
    assert_eq!(by(&cluster), "1.0.0");
    publisher.push("team/note", "stable", &stamping("6.6.6"), &two);
    eventually("the strange layer is refused", PATIENCE, || cluster.log().contains("AEGIS-M121"));
    assert_eq!(by(&cluster), "1.0.0");
    publisher.push("team/note", "stable", &two, &two);
    served(&cluster, "1.0.1");
}

#[test]
fn a_version_that_is_tried_goes_on_being_tried_when_it_is_published() {
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("1.0.0"));
    let cluster = Cluster::start(app(&publisher, ""), 2);
    let next = cluster.folder().join("next.wasm");
    std::fs::write(&next, stamping("1.0.1")).unwrap();
    cluster.aegis_ok(&["deploy", "note", "--file", next.to_str().unwrap(), "--share", "20"]);
    publisher.publish("note", &stamping("1.0.1"));
    let goes_on = "the app has the version that is tried by now; nobody asked for it to be the only one";
    eventually("it is found and left as it is", PATIENCE, || cluster.log().contains(goes_on));
    let outcome =
        || cluster.log().lines().any(|line| line.contains("reload (job") && line.contains("nothing to do"));
    eventually("the reload is through", PATIENCE, outcome);
    let current = cluster.client().with("aegis-variant", "current");
    let created = current.post("notes", &json!({"x": 1}));
    assert_eq!((created.status, &created.json()["by"]), (201, &json!("1.0.0")), "{}", created.text());
    assert_eq!(created.header("aegis-variant"), Some("current"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "1.0.1", "who asks for the app gets it");
    assert_eq!(cluster.client().post("notes", &json!({"x": 1})).header("aegis-variant"), None);
}
