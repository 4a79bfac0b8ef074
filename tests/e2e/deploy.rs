//! One module is deployed, refused, taken back and forgotten, and everything else stays as it is.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use aegis_guests::{Guest, trap};
use aegis_harness::{
    App, Cluster, Publisher, QUICK, app, eventually, eventually_some, http,
    http::Response,
    load::{Plan, Running},
    words,
};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);
/// Time within which a deployed version answers.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

fn spec(name: &str) -> Value {
    json!({"name": name, "endpoint": format!("{name}s"), "version": "1.0.0"})
}

fn stamping(name: &str, stamp: &str) -> Vec<u8> {
    aegis_guests::stamping_model(name, stamp).build()
}

fn by(cluster: &Cluster, name: &str) -> String {
    let created = cluster.client().post(&format!("{name}s"), &json!({"x": 1}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["by"].as_str().unwrap().to_owned()
}

fn post(cluster: &Cluster, query: &str, body: &Value) -> Response {
    let headers = [("connection", "close"), ("content-type", "application/json")];
    let path = format!("/aegis/api/deploy{query}");
    cluster.admin().request("POST", &path, &headers, body.to_string().as_bytes()).unwrap()
}

/// Digests of all modules, by model.
fn digests(cluster: &Cluster) -> BTreeMap<String, String> {
    let rows: Value = serde_json::from_str(&modules(cluster)).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(|row| (text(&row["modelName"]), text(&row["digest"]))).collect()
}

fn modules(cluster: &Cluster) -> String {
    cluster.admin_get("/aegis/api/config?details=modules")
}

/// Creates documents of a model without end; these statuses are expected.
fn writers(cluster: &Cluster, name: &str, wanted: fn(u16) -> bool) -> Running {
    let post = http::encode(
        "POST",
        &format!("/aegis/api/models/{name}s"),
        &cluster.address.to_string(),
        &[("content-type", "application/json"), ("connection", "close")],
        b"{\"x\":1}",
    );
    let mut plan = Plan::get(cluster.address, 8, "").requests(move |_| post.clone());
    plan.reuse = aegis_harness::load::Reuse::PerRequest;
    plan.wanted = wanted;
    let running = plan.spawn();
    eventually("the load to run", WAIT, || running.completed() > 50);
    running
}

fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.serving().iter().map(|worker| worker.pid).collect()
}

/// A file beside the app folder's modules.
fn file(cluster: &Cluster, name: &str, bytes: &[u8]) -> PathBuf {
    let path = cluster.folder().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn records(cluster: &Cluster) -> String {
    fs::read_to_string(cluster.folder().join("data/deployments/records.json")).unwrap_or_default()
}

fn two_models() -> App {
    App::default()
        .settings(QUICK)
        .component("customer", stamping("customer", "one"))
        .component("order", stamping("order", "one"))
}

#[test]
fn one_module_is_deployed_under_load_and_all_others_stay_whatever_became_of_their_folders() {
    let cluster =
        Cluster::start(two_models().module("part", "name = \"part\"\n[fields]\nsku = \"text\"\n"), 2);
    let before = digests(&cluster);
    let pid = cluster.status().pid;
    let running = writers(&cluster, "order", |status| status == 201);
    app::write_component(cluster.folder(), "customer", &stamping("customer", "two"));
    app::write_component(cluster.folder(), "order", &stamping("order", "changed"));
    app::write_module(cluster.folder(), "part", "nonsense");
    let accepted = post(&cluster, "", &json!({"module": "customer"}));
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let begun = Instant::now();
    eventually("the new version to answer", WAIT, || by(&cluster, "customer") == "two");
    assert!(begun.elapsed() < SEEN_WITHIN, "seen after {:?}", begun.elapsed());
    let job = accepted.header("location").unwrap().to_owned();
    eventually("the verdict", WAIT, || cluster.admin_get(&job).contains("\"state\":\"done\""));
    running.stop().assert_clean();
    assert_eq!(cluster.status().pid, pid);
    assert_eq!((by(&cluster, "customer"), by(&cluster, "order")), ("two".to_owned(), "one".to_owned()));
    let after = digests(&cluster);
    assert_ne!(after["CUSTOMER"], before["CUSTOMER"]);
    assert_eq!((&after["ORDER"], after.len()), (&before["ORDER"], before.len()));
    assert_eq!(records(&cluster), "", "what comes from the app folder needs no record");
    let refused = cluster.aegis(&["reload"]);
    assert_eq!(refused.status.code(), Some(3), "the app folder is looked at only by a reload");
}

#[test]
fn a_deployment_comes_into_force_the_way_that_is_asked_for() {
    let cluster = Cluster::start(two_models(), 2);
    let before = pids(&cluster);
    let two = file(&cluster, "two.wasm", &stamping("customer", "two"));
    cluster.aegis_ok(&["deploy", "customer", "--file", two.to_str().unwrap(), "--mode", "rolling"]);
    assert_eq!(by(&cluster, "customer"), "two");
    let after: Vec<u32> = cluster.await_workers(2).iter().map(|worker| worker.pid).collect();
    assert!(after.iter().all(|pid| !before.contains(pid)), "new workers serve it: {before:?}, {after:?}");
    for (mode, stays) in [("swap", true), ("rolling", false)] {
        let before = pids(&cluster);
        app::write_component(cluster.folder(), "order", &stamping("order", mode));
        let done = post(&cluster, &format!("?wait=true&mode={mode}"), &json!({"module": "order"}));
        // The worker that waits for the verdict may have to leave before there is one.
        assert!([200, 202].contains(&done.status), "{}", done.text());
        eventually("the new version to answer", WAIT, || by(&cluster, "order") == mode);
        eventually("no job to run", WAIT, || cluster.status().jobs.is_empty());
        assert_eq!(before == pids(&cluster), stays, "mode {mode}");
    }
    app::write_component(cluster.folder(), "order", &stamping("order", "three"));
    let before = pids(&cluster);
    cluster.aegis_ok(&["reload", "order", "--mode", "rolling", "--dir", cluster.folder().to_str().unwrap()]);
    assert_eq!(by(&cluster, "order"), "three");
    assert!(pids(&cluster).iter().all(|pid| !before.contains(pid)));
}

#[test]
fn a_bad_version_is_refused_with_every_reason_and_nothing_is_touched() {
    let cluster = Cluster::start(two_models(), 2);
    let (before, served) = (digests(&cluster), pids(&cluster));
    let bad = file(&cluster, "bad.wasm", b"\0asm\x01\0\0\0");
    let refused = cluster.aegis(&["deploy", "customer", "--file", bad.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert!(words(&refused).contains("modules.customer") && words(&refused).contains("core module"));
    let good = file(&cluster, "good.wasm", &stamping("customer", "two"));
    let digest = "0".repeat(64);
    let refused =
        cluster.aegis(&["deploy", "customer", "--file", good.to_str().unwrap(), "--sha256", &digest]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(words(&refused).contains(&format!("expected {digest}")), "{}", words(&refused));
    app::write_component(cluster.folder(), "customer", b"(component)");
    let refused = post(&cluster, "?wait=true", &json!({"module": "customer"}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("deploy-rejected")));
    assert!(refused.json()["errors"][0]["message"].as_str().unwrap().contains("text format"));
    for arguments in [&["deploy", "custmer"][..], &["reload", "custmer"]] {
        let refused = cluster.aegis(arguments);
        assert_eq!(refused.status.code(), Some(3));
        assert!(words(&refused).contains("there are: customer, order"), "{}", words(&refused));
    }
    let unknown = post(&cluster, "", &json!({"module": "custmer"}));
    assert_eq!((unknown.status, unknown.json()["code"].as_str()), (404, Some("no-such-module")));
    assert_eq!(
        (digests(&cluster), pids(&cluster), records(&cluster).as_str()),
        (before, served, ""),
        "nothing is touched"
    );
}

#[test]
fn a_version_that_others_would_notice_is_refused_unless_it_is_forced() {
    let cluster = Cluster::start(two_models(), 1);
    let publisher = Publisher::start();
    let moved = json!({"name": "customer", "endpoint": "clients", "version": "2.0.0"});
    publisher.publish("customer", &Guest::model(moved).build());
    let source = publisher.source("customer");
    let refused = post(&cluster, "?wait=true", &json!({"module": "customer", "source": source}));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("incompatible")));
    let message = refused.json()["errors"][0]["message"].clone();
    assert_eq!(message, "modules.customer: endpoint: found clients, expected customers");
    let refused = cluster.aegis(&["deploy", "customer", "--source", &source]);
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert_eq!(by(&cluster, "customer"), "one");
    let body = json!({"module": "customer", "source": source, "force": true});
    let forced = post(&cluster, "?wait=true", &body);
    assert_eq!((forced.status, forced.json()["state"].as_str()), (200, Some("done")), "{}", forced.text());
    assert_eq!(cluster.client().post("clients", &json!({"x": 1})).status, 201);
    assert_eq!(cluster.client().post("customers", &json!({"x": 1})).status, 404);
}

#[test]
fn a_version_that_traps_on_every_call_is_taken_back_and_leaves_no_record() {
    let judged = "[reload]\ncanary-time = \"60s\"\ncanary-requests-min = 20\nlatency-factor-max = 1000.0\n";
    let cluster =
        Cluster::start(App::default().settings(judged).component("customer", stamping("customer", "one")), 2);
    let served = pids(&cluster);
    let running = writers(&cluster, "customer", |status| matches!(status, 201 | 500 | 503));
    let trapping = Guest::model(spec("customer")).hook("on-create", trap()).build();
    let publisher = Publisher::start();
    publisher.publish("customer", &trapping);
    let body = json!({"module": "customer", "source": publisher.source("customer")});
    let accepted = post(&cluster, "", &body);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let job = accepted.header("location").unwrap().to_owned();
    let ended = eventually_some("the verdict", WAIT, || {
        let job: Value = serde_json::from_str(&cluster.admin_get(&job)).unwrap();
        (job["state"] != "running").then_some(job)
    });
    running.stop().assert_clean();
    assert_eq!((&ended["state"], &ended["kind"]), (&json!("rolled-back"), &json!("deploy")), "{ended}");
    assert!(ended["reasons"][0].as_str().unwrap().contains("with 5xx"), "{ended}");
    cluster.await_workers(2);
    assert_eq!((pids(&cluster), by(&cluster, "customer")), (served, "one".to_owned()));
    assert_eq!(records(&cluster), "");
    assert!(!modules(&cluster).contains("deployed"));
}

#[test]
fn what_was_deployed_stays_through_reloads_and_restarts_until_it_is_taken_back() {
    let mut cluster = Cluster::start(two_models(), 2);
    let path = file(&cluster, "two.wasm", &stamping("customer", "two"));
    cluster.aegis_ok(&["deploy", "customer", "--file", path.to_str().unwrap()]);
    let again = cluster.aegis_ok(&["deploy", "customer", "--file", path.to_str().unwrap()]);
    assert!(again.contains("nothing has changed"), "{again}");
    fs::remove_file(&path).unwrap();
    assert_eq!(by(&cluster, "customer"), "two");
    let reloaded = cluster.aegis_ok(&["reload"]);
    assert!(reloaded.contains("nothing has changed"), "a reload makes the same of it: {reloaded}");
    let shown = cluster.aegis_ok(&["status"]);
    assert!(shown.contains("module customer deployed from file ") && shown.contains(" since 20"), "{shown}");
    let status = cluster.status();
    assert_eq!(status.deployed[0].deployed.sha256, digests(&cluster)["CUSTOMER"]);
    assert!(modules(&cluster).contains("\"deployed\":{\"source\":\"file "), "{}", modules(&cluster));
    app::write_component(cluster.folder(), "customer", &stamping("customer", "three"));
    app::write_component(cluster.folder(), "order", &stamping("order", "two"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!((by(&cluster, "customer"), by(&cluster, "order")), ("two".to_owned(), "two".to_owned()));
    assert!(cluster.log().contains("modules.customer: deployed from file"), "{}", cluster.log());
    cluster.stop_and_restart();
    assert_eq!(by(&cluster, "customer"), "two");
    cluster.kill_and_restart();
    assert_eq!(by(&cluster, "customer"), "two");
    let refused = cluster.aegis(&["deploy", "customer"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(words(&refused).contains("--reset"), "{}", words(&refused));
    cluster.aegis_ok(&["deploy", "customer", "--reset"]);
    assert_eq!(by(&cluster, "customer"), "three");
    assert_eq!(cluster.status().deployed, []);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster, "customer"), "three");
}

#[test]
fn a_repository_is_looked_for_on_the_git_host_of_the_module() {
    let git = Publisher::start();
    git.commit("team/note", "module", "v1", &stamping("note", "one"));
    git.commit("team/note", "module", "v2", &stamping("note", "two"));
    let settings =
        format!("[modules.note]\nsource = \"github:team/note/module@v1\"\napi = \"{}\"\n", git.git_host());
    let cluster = Cluster::start(App::todo().settings(&settings), 1);
    assert_eq!(by(&cluster, "note"), "one");
    cluster.aegis_ok(&["deploy", "note", "--source", "github:team/note/module@v2"]);
    assert_eq!(by(&cluster, "note"), "two");
}

#[test]
fn a_source_adds_a_module_that_the_app_does_not_know_and_is_not_asked_again() {
    let mut cluster = Cluster::start(two_models(), 1);
    let publisher = Publisher::start();
    publisher.publish("note", &stamping("note", "one"));
    let source = publisher.source("note");
    cluster.aegis_ok(&["deploy", "note", "--source", &source]);
    assert_eq!(by(&cluster, "note"), "one");
    publisher.publish("note", &stamping("note", "two"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster, "note"), "one", "what was deployed is what is served");
    cluster.aegis_ok(&["deploy", "note", "--source", &source]);
    assert_eq!(by(&cluster, "note"), "two");
    drop(publisher);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster, "note"), "two");
    let refused = cluster.aegis(&["deploy", "note", "--source", &source]);
    assert_eq!(refused.status.code(), Some(3), "a source that is away is no new version");
    let refused = cluster.aegis(&["deploy", "note", "--reset"]);
    assert!(words(&refused).contains("found nothing, expected model NOTE"), "{}", words(&refused));
    cluster.aegis_ok(&["deploy", "note", "--reset", "--force"]);
    assert_eq!(cluster.client().post("notes", &json!({"x": 1})).status, 404);
}

#[test]
fn a_folder_without_code_is_deployed_as_well() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 1);
    let folder = cluster.folder().join("next");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("module.toml"), format!("{}extra = \"integer\"\n", app::TODO)).unwrap();
    cluster.aegis_ok(&["deploy", "todo", "--file", folder.to_str().unwrap()]);
    assert_eq!(cluster.client().post("todo", &json!({"extra": "text"})).status, 422);
    fs::write(
        folder.join("module.toml"),
        "name = \"todo\"\nendpoint = \"todo\"\n[fields]\ntext = \"integer\"\n",
    )
    .unwrap();
    let refused = cluster.aegis(&["deploy", "todo", "--file", folder.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(3));
    let told = words(&refused);
    assert!(told.contains("fields.text.kind: found integer, expected text"), "{told}");
    assert!(told.contains("fields.n: found nothing, expected the field"), "all at once: {told}");
}

#[test]
fn a_reload_of_one_module_takes_it_from_where_the_app_says() {
    let publisher = Publisher::start();
    publisher.publish("customer", &stamping("customer", "one"));
    let settings = format!("{QUICK}[modules.customer]\nsource = \"{}\"", publisher.source("customer"));
    let app = App::default().settings(&settings).component("order", stamping("order", "one"));
    let cluster = Cluster::start(app, 1);
    publisher.publish("customer", &stamping("customer", "two"));
    app::write_component(cluster.folder(), "order", &stamping("order", "two"));
    cluster.aegis_ok(&["reload", "customer"]);
    assert_eq!((by(&cluster, "customer"), by(&cluster, "order")), ("two".to_owned(), "one".to_owned()));
    assert_eq!(records(&cluster), "");
    let accepted = cluster.aegis_ok(&["deploy", "order", "--no-wait"]);
    assert!(accepted.starts_with("accepted as job "), "{accepted}");
    eventually("the other module to follow", WAIT, || by(&cluster, "order") == "two");
}

#[test]
fn a_service_is_deployed_like_a_model_and_its_route_is_what_others_would_notice() {
    let app = App::todo().settings(QUICK).component("hello", aegis_guests::service("one"));
    let cluster = Cluster::start(app, 1);
    let folder = cluster.folder().join("next");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("hello.wasm"), aegis_guests::service("two")).unwrap();
    let moved = json!({"schema": "aegis.module/1", "route": "/hi"});
    fs::write(folder.join("aegis.module.json"), moved.to_string()).unwrap();
    let deploy = ["deploy", "hello", "--file", folder.to_str().unwrap()];
    let refused = cluster.aegis(&deploy);
    assert!(
        words(&refused).contains("modules.hello: route: found /hi, expected /hello"),
        "{}",
        words(&refused)
    );
    fs::remove_file(folder.join("aegis.module.json")).unwrap();
    cluster.aegis_ok(&deploy);
    let text = |path: &str| cluster.client().send("GET", path, b"").text();
    eventually("the new version to answer", WAIT, || text("/hello") == "two/hello");
    fs::write(folder.join("aegis.module.json"), moved.to_string()).unwrap();
    cluster.aegis_ok(&["deploy", "hello", "--force", "--file", folder.to_str().unwrap()]);
    eventually("the new route to be there", WAIT, || text("/hi") == "two/hi");
}
