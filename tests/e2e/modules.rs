//! Modules that are components: served from a folder, replaced under load, refused without harm.

use std::time::Duration;

use aegis_guests::{Guest, echo, spin, splice, stamping, trap};
use aegis_harness::{App, Cluster, app, eventually, http, load::Plan, words};
use serde_json::json;

fn todos() -> App {
    App::default().component("todo", aegis_guests::todo().build())
}

#[test]
fn a_component_in_a_folder_becomes_a_model_with_hooks_and_commands() {
    let cluster = Cluster::start(todos(), 2);
    let client = cluster.client();
    let created = client.post("todos", &json!({"id": "a", "title": "x"}));
    assert_eq!((created.status, &created.json()["stamped"]), (201, &json!(true)), "{}", created.text());
    let refused = client.post("todos", &json!({"title": "forbidden"}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("invalid")));
    let approved = client.post("todos/a/approve", &json!({}));
    assert_eq!((approved.status, &approved.json()["approved"]), (200, &json!(true)), "{}", approved.text());
    assert_eq!(approved.header("etag"), Some("\"2\""));
    let burnt = client.post("todos/a/burn", &json!({"steps": 1000}));
    assert_eq!(burnt.status, 200, "{}", burnt.text());
    assert_eq!(client.get("todos/a?command=echo&args=%7B%22n%22:1%7D").text(), "{\"n\":1}");
    assert_eq!(client.get("todos/a").json()["approved"], true, "every worker shows what a command saved");
}

#[test]
fn components_and_declarative_modules_live_side_by_side_and_survive_a_restart() {
    let mut cluster =
        Cluster::start(todos().module("part", "name = \"part\"\n[fields]\nsku = \"text\"\n"), 2);
    assert_eq!(cluster.client().post("todos", &json!({"id": "a", "title": "x"})).status, 201);
    assert_eq!(cluster.client().post("parts", &json!({"id": "p", "sku": "1"})).status, 201);
    cluster.stop_and_restart();
    assert_eq!(cluster.client().get("todos/a").json()["stamped"], true);
    assert_eq!(cluster.client().get("parts/p").json()["sku"], "1");
    assert_eq!(cluster.client().post("todos", &json!({"title": "y"})).json()["stamped"], true);
}

#[test]
fn a_component_is_replaced_under_load_without_a_failed_request() {
    let cluster = Cluster::start(App::default().component("note", stamping("one")), 2);
    let post = http::encode(
        "POST",
        "/aegis/api/models/notes",
        &cluster.address.to_string(),
        &[("content-type", "application/json")],
        b"{\"x\":1}",
    );
    let running = Plan::get(cluster.address, 8, "").requests(move |_| post.clone()).spawn();
    for name in ["two", "three", "four"] {
        app::write_component(cluster.folder(), "note", &stamping(name));
        cluster.aegis_ok(&["reload"]);
        let by = cluster.client().post("notes", &json!({"x": 1})).json()["by"].clone();
        assert_eq!(by, name, "the new code answers as soon as the reload is done");
    }
    let report = running.stop();
    report.assert_clean();
    assert!(report.succeeded > 0);
}

#[test]
fn a_bad_component_is_refused_with_its_reason_and_what_runs_goes_on() {
    let cluster = Cluster::start(App::default().component("note", stamping("one")), 1);
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    for (bytes, reason) in [
        (b"\0asm\x01\0\0\0".to_vec(), "core module"),
        (b"(component)".to_vec(), "text format"),
        (Guest::model(spec.clone()).describe(trap()).build(), "AEGIS-M"),
        (Guest::model(spec.clone()).start(trap()).build(), "AEGIS-M"),
    ] {
        app::write_component(cluster.folder(), "note", &bytes);
        let refused = cluster.aegis(&["reload"]);
        let told = words(&refused);
        assert_eq!(refused.status.code(), Some(3), "{told}");
        assert!(told.contains(reason) && told.contains("modules/note"), "{told}");
        assert_eq!(cluster.client().post("notes", &json!({"x": 1})).json()["by"], "one");
    }
}

#[test]
fn a_trapping_hook_is_an_error_of_one_request_and_no_worker_dies() {
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    let guest = Guest::model(spec)
        .hook("on-create", trap().when_holds("input", "boom").then(splice("input", "\"ok\":1")));
    let cluster = Cluster::start(App::default().component("note", guest.build()), 2);
    let pids = || cluster.serving().iter().map(|worker| worker.pid).collect::<Vec<_>>();
    let before = pids();
    // Once more, and it would not be called for a while.
    for _ in 0..4 {
        let trapped = cluster.client().post("notes", &json!({"x": "boom"}));
        assert_eq!(
            (trapped.status, &trapped.json()["code"]),
            (500, &json!("guest-trap")),
            "{}",
            trapped.text()
        );
        assert_eq!(cluster.client().post("notes", &json!({"x": 1})).status, 201);
    }
    eventually("the traps are counted", Duration::from_secs(30), || {
        cluster.admin_get("/metrics").contains("\naegis_guest_traps_total 4\n")
    });
    assert_eq!(pids(), before);
}

#[test]
fn a_component_answers_custom_routes_on_every_worker() {
    let cluster = Cluster::start(App::default().component("label", aegis_guests::label().build()), 2);
    let client = cluster.client();
    assert_eq!(client.post("labels", &json!({"id": "a"})).status, 201);
    for _ in 0..8 {
        // A client of its own each time, so that both workers are asked.
        let client = cluster.client();
        assert_eq!(client.get("labels/a/label").text(), "a");
        assert_eq!(client.get("labels/a").text(), "custom");
        assert_eq!(client.get("labels?__limit=1").json()[0]["id"], "a");
    }
    let burnt = client.post("labels/burn", &json!(1000));
    assert_eq!((burnt.status, burnt.header("content-type")), (200, Some("text/plain")), "{}", burnt.text());
    assert_eq!(client.post("labels/a/label", &json!({})).header("allow"), Some("GET, HEAD, OPTIONS"));
}

/// A note as the first version of its module knows it, with a name, or as the second does, with a title.
fn notes(version: u32) -> Vec<u8> {
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    let guest = Guest::model(spec).info("note", &format!("{version}.0.0"));
    if version == 1 {
        return guest.build();
    }
    let grown = splice("stored_data", "\"title\":\"grown\"").when_holds("stored_data", "\"name\"");
    guest.hook("on-load", grown.then(echo("stored_data"))).build()
}

#[test]
fn documents_of_an_older_shape_are_shown_in_the_new_one_after_a_reload() {
    let cluster = Cluster::start(App::default().component("note", notes(1)), 2);
    assert_eq!(cluster.client().post("notes", &json!({"id": "a", "name": "x"})).status, 201);
    app::write_component(cluster.folder(), "note", &notes(2));
    cluster.aegis_ok(&["reload"]);
    for _ in 0..8 {
        let client = cluster.client();
        let read = client.get("notes/a");
        assert_eq!(
            (&read.json()["title"], read.header("etag")),
            (&json!("grown"), Some("\"1\"")),
            "{}",
            read.text()
        );
        assert_eq!(client.get("notes?__select=title").json()[0]["title"], "grown");
    }
    let changed = cluster.client().patch("notes/a", &json!({"done": true})).json();
    assert_eq!((&changed["title"], &changed["revision"]), (&json!("grown"), &json!(2)), "{changed}");
}

#[test]
fn hooks_over_held_documents_have_their_say() {
    let cluster = Cluster::start(App::default().component("todo", aegis_guests::held_todo().build()), 1);
    let client = cluster.client();
    let created = client.post("todos", &json!({"id": "a", "title": "x", "protected": true}));
    assert_eq!((created.status, &created.json()["stamped"]), (201, &json!(true)), "{}", created.text());
    assert_eq!(client.post("todos", &json!({"title": "forbidden"})).status, 422);
    assert_eq!(client.patch("todos/a", &json!({"title": "y"})).json()["touched"], true);
    assert_eq!(client.delete("todos/a").status, 409);
}

#[test]
fn code_learns_the_number_of_its_generation() {
    let counter = || aegis_guests::counter().lifecycle("drain", spin());
    let cluster = Cluster::start(App::default().component("counter", counter().build()), 1);
    assert_eq!(cluster.client().post("counters", &json!({"id": "a"})).status, 201);
    let generation = || -> u64 {
        cluster.client().post("counters/a/generation", &json!({})).text().parse().expect("a number")
    };
    let before = generation();
    app::write_component(cluster.folder(), "counter", &counter().info("counter", "2.0.0").build());
    cluster.aegis_ok(&["reload"]);
    assert!(generation() > before, "drains that do not end keep no reload from ending");
}
