//! A version is tried beside the one in force, for a share of the users, and becomes the only one or goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use aegis_guests::{Body, Guest, answer, order, respond, splice, trap};
use aegis_harness::{
    App, Cluster, QUICK, eventually, eventually_some,
    http::{self, Connection, Response},
    load::{Plan, Running},
    words,
};
use aegis_ipc::operator::{Reply, Request, Verdict};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);
/// Time after which a version that faults is gone.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// Requests of which the trial has to get its share: five standard deviations of 20 % are 2 %.
const REQUESTS: u64 = 10_000;
const USERS: u32 = 40;
const WHO: &str = "/aegis/api/models/notes/a?command=who";

/// A model whose command `who` answers a stamp, which the create hook also puts in front.
fn stamping(name: &str, version: &str, stamp: &str) -> Guest {
    aegis_guests::stamping_model(name, stamp)
        .info(name, version)
        .command("who", answer(&format!("\"{stamp}\"")))
}

fn one() -> Vec<u8> {
    stamping("note", "1.0.0", "one").build()
}

fn two() -> Vec<u8> {
    stamping("note", "2.0.0", "two").build()
}

/// Traps on every second call of an instance, which ends it.
fn half_broken() -> Vec<u8> {
    let count = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                 (if (i32.eq (global.get $calls) (i32.const 2)) (then (unreachable)))";
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    Guest::model(spec)
        .info("note", "3.0.0")
        .item("(global $calls (mut i32) (i32.const 0))")
        .hook("on-create", splice("input", "\"by\":\"three\""))
        .command("who", Body::from(count).then(answer("\"three\"")))
        .build()
}

fn start(app: App) -> Cluster {
    let cluster = Cluster::start(app.settings(QUICK).component("note", one()), 2);
    assert_eq!(cluster.client().post("notes", &json!({"id": "a"})).status, 201);
    cluster
}

fn file(cluster: &Cluster, name: &str, bytes: &[u8]) -> PathBuf {
    let path = cluster.folder().join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = cluster.aegis(arguments);
    assert_eq!(output.status.code(), Some(3), "{}", words(&output));
    words(&output)
}

/// Asks who answers, without end; these statuses are expected.
fn load(cluster: &Cluster, wanted: fn(u16) -> bool) -> Running {
    let get = http::encode("GET", WHO, &cluster.address.to_string(), &[], b"");
    let mut plan = Plan::get(cluster.address, 8, "").requests(move |_| get.clone());
    plan.wanted = wanted;
    let running = plan.spawn();
    eventually("the load to run", WAIT, || running.completed() > 50);
    running
}

fn who(cluster: &Cluster, headers: &[(&str, &str)]) -> Response {
    let client = headers.iter().fold(cluster.client(), |client, (name, value)| client.with(name, value));
    client.get("notes/a?command=who")
}

/// Who answers, and the version that is told: nothing when none is tried.
fn told(cluster: &Cluster, headers: &[(&str, &str)]) -> (String, Option<String>) {
    let response = who(cluster, headers);
    assert_eq!(response.status, 200, "{}", response.text());
    (response.json().as_str().unwrap().to_owned(), response.header("aegis-variant").map(str::to_owned))
}

/// A connection to each worker. Those that stay open lead the next ones elsewhere.
fn one_to_each_worker(cluster: &Cluster) -> Vec<Connection> {
    let mut by_worker = BTreeMap::new();
    let mut held = Vec::new();
    eventually("a connection to each worker", WAIT, || {
        let mut connection = cluster.client().connect().unwrap();
        let worker = connection.request("GET", "/livez", &[], b"").unwrap().worker().to_owned();
        held.extend(by_worker.insert(worker, connection));
        by_worker.len() == 2
    });
    by_worker.into_values().collect()
}

/// Which version each of the users gets, whichever worker answers; one is as good as its word.
fn versions_of_users(cluster: &Cluster) -> BTreeMap<u32, String> {
    let mut connections = one_to_each_worker(cluster);
    let mut version = |user: u32| {
        let name = format!("user-{user}");
        let mut answers = BTreeSet::new();
        for connection in connections.iter_mut() {
            let response = connection.request("GET", WHO, &[("x-user", &name)], b"").unwrap();
            answers.insert((response.text(), response.header("aegis-variant").unwrap().to_owned()));
        }
        assert_eq!(answers.len(), 1, "one user gets one version: {answers:?}");
        let (answer, version) = answers.into_iter().next().unwrap();
        assert_eq!(answer, if version == "trial" { "\"two\"" } else { "\"one\"" });
        (user, version)
    };
    (0..USERS).map(&mut version).collect()
}

fn on_trial(versions: &BTreeMap<u32, String>) -> BTreeSet<u32> {
    versions.iter().filter(|(_, version)| *version == "trial").map(|(user, _)| *user).collect()
}

/// Calls of the version in force and of the one that is tried.
fn calls(cluster: &Cluster) -> (u64, u64) {
    let metrics = cluster.admin_get("/metrics");
    let total = |variant: &str| {
        let name = format!("aegis_guest_module_calls_total{{module=\"note\",variant=\"{variant}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name}: {metrics}")).parse::<u64>().unwrap()
    };
    (total("current"), total("trial"))
}

fn modules(cluster: &Cluster) -> Value {
    let rows: Value =
        serde_json::from_str(&cluster.admin_get("/aegis/api/config?details=modules&modelName=note")).unwrap();
    rows[0].clone()
}

fn pids(cluster: &Cluster) -> Vec<u32> {
    cluster.serving().iter().map(|worker| worker.pid).collect()
}

#[test]
fn a_version_gets_its_share_keeps_its_users_and_becomes_the_only_one_without_a_failed_request() {
    let mut cluster = start(App::default());
    let (served, tried) = (pids(&cluster), file(&cluster, "two.wasm", &two()));
    let running = load(&cluster, |status| status == 200);
    cluster.aegis_ok(&["deploy", "note", "--file", tried.to_str().unwrap(), "--share", "10"]);
    fs::remove_file(&tried).unwrap();
    assert_share(&cluster, &running, 0.1);
    cluster.aegis_ok(&["deploy", "note", "--share", "20"]);
    assert_share(&cluster, &running, 0.2);

    let users = versions_of_users(&cluster);
    let few = on_trial(&users);
    assert!((1..USERS as usize).contains(&few.len()), "{users:?}");
    let asked = |version| told(&cluster, &[("aegis-variant", version), ("x-user", "user-0")]);
    assert_eq!(asked("trial"), ("two".to_owned(), Some("trial".to_owned())));
    assert_eq!(asked("current"), ("one".to_owned(), Some("current".to_owned())));
    let wrong = who(&cluster, &[("aegis-variant", "Trial")]);
    assert_eq!((wrong.status, &wrong.json()["code"]), (400, &json!("bad-header")), "{}", wrong.text());

    cluster.aegis_ok(&["deploy", "note", "--share", "50"]);
    let many = on_trial(&versions_of_users(&cluster));
    assert!(few.is_subset(&many) && few.len() < many.len(), "nobody falls back: {few:?}, {many:?}");
    running.stop().assert_clean();

    assert_shown(&cluster);
    cluster.stop_and_restart();
    assert_eq!(on_trial(&versions_of_users(&cluster)), many, "a restart changes nothing");
    assert_shown(&cluster);
    assert!(cluster.log().contains("50 % of the users get version 2.0.0"), "{}", cluster.log());
    cluster.aegis_ok(&["reload"]);
    assert_eq!(on_trial(&versions_of_users(&cluster)), many, "nor does a reload");

    let (restarted, running) = (pids(&cluster), load(&cluster, |status| status == 200));
    cluster.aegis_ok(&["deploy", "note", "--promote"]);
    for user in 0..USERS {
        assert_eq!(told(&cluster, &[("x-user", &format!("user-{user}"))]), ("two".to_owned(), None));
    }
    running.stop().assert_clean();
    assert_ne!(restarted, served);
    assert_eq!(pids(&cluster), restarted, "no worker is replaced");
    let status = cluster.status();
    assert_eq!((status.trials.len(), status.deployed.len()), (0, 1));
    assert!(modules(&cluster)["trial"].is_null());
    cluster.stop_and_restart();
    assert_eq!(told(&cluster, &[]), ("two".to_owned(), None));
}

/// Of many requests the version that is tried gets its share, more or less two of a hundred.
fn assert_share(cluster: &Cluster, running: &Running, expected: f64) {
    let (before, begun) = (calls(cluster), running.completed());
    eventually("many requests", Duration::from_secs(120), || running.completed() > begun + REQUESTS);
    let after = calls(cluster);
    let (current, trial) = (after.0 - before.0, after.1 - before.1);
    assert!(current + trial >= REQUESTS - 100, "each request is one call: {current} and {trial}");
    let share = trial as f64 / (current + trial) as f64;
    assert!((share - expected).abs() <= 0.02, "found {share}, expected {expected} ± 0.02");
}

/// Both versions and the share are told, to people and to programs.
fn assert_shown(cluster: &Cluster) {
    let shown = cluster.aegis_ok(&["status"]);
    assert!(shown.contains("module note: 50 % get version 2.0.0 ("), "{shown}");
    assert!(shown.contains("the others version 1.0.0 ("), "{shown}");
    let status = cluster.status();
    let [module] = &status.trials[..] else { panic!("{:?}", status.trials) };
    let row = modules(cluster);
    assert_eq!(row["version"], "1.0.0");
    assert_eq!((&row["trial"]["version"], &row["trial"]["sharePercent"]), (&json!("2.0.0"), &json!(50)));
    assert_eq!(row["digest"], json!(module.tried.current_sha256));
    assert_eq!(row["trial"]["sha256"], json!(module.tried.deployed.sha256));
}

#[test]
fn a_trial_ends_on_request_and_a_rollback_brings_it_back() {
    let mut cluster = start(App::default());
    let (served, tried) = (pids(&cluster), file(&cluster, "two.wasm", &two()));
    let tried = tried.to_str().unwrap();
    let running = load(&cluster, |status| status == 200);
    cluster.aegis_ok(&["deploy", "note", "--file", tried, "--share", "99"]);
    let again = cluster.aegis_ok(&["deploy", "note", "--file", tried, "--share", "99"]);
    assert!(again.contains("nothing has changed"), "{again}");
    assert_eq!(told(&cluster, &[("aegis-variant", "trial")]).0, "two");
    cluster.aegis_ok(&["upgrade"]);
    assert_eq!(told(&cluster, &[("aegis-variant", "trial")]).0, "two", "an upgrade in place goes on with it");
    cluster.aegis_ok(&["deploy", "note", "--abort"]);
    for version in ["current", "trial"] {
        assert_eq!(told(&cluster, &[("aegis-variant", version)]), ("one".to_owned(), None));
    }
    assert_eq!(cluster.status().trials, []);
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(told(&cluster, &[("aegis-variant", "trial")]).0, "two");
    assert_eq!(cluster.status().trials[0].tried.share_percent, 99);
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(told(&cluster, &[("aegis-variant", "trial")]), ("one".to_owned(), None));
    running.stop().assert_clean();
    assert_eq!(pids(&cluster).len(), served.len());
    cluster.stop_and_restart();
    assert_eq!(told(&cluster, &[("aegis-variant", "trial")]), ("one".to_owned(), None));
}

#[test]
fn a_version_that_faults_on_half_of_its_calls_is_taken_back_within_five_seconds() {
    let cluster = start(App::default());
    let (served, broken) = (pids(&cluster), file(&cluster, "three.wasm", &half_broken()));
    cluster.aegis_ok(&["deploy", "note", "--file", broken.to_str().unwrap(), "--share", "10"]);
    // Nobody asked while it was on its way; now it is in force.
    let begun = Instant::now();
    let running = load(&cluster, |status| matches!(status, 200 | 500 | 503));
    let ended = eventually_some("the trial is taken back", WAIT, || {
        let job = cluster.status().last_job?;
        matches!(job.verdict, Some(Verdict::RolledBack { .. })).then_some(job)
    });
    assert!(begun.elapsed() < GONE_WITHIN, "gone after {:?}", begun.elapsed());
    let Some(Verdict::RolledBack { reason }) = ended.verdict else { panic!("no reason") };
    assert!(reason.contains("calls of the version on trial were faults"), "{reason}");
    let job: Value =
        serde_json::from_str(&cluster.admin_get(&format!("/aegis/api/jobs/{}", ended.job))).unwrap();
    assert_eq!(
        (&job["state"], &job["kind"], &job["reasons"][0]),
        (&json!("rolled-back"), &json!("deploy"), &json!(reason))
    );
    let shown = cluster.aegis_ok(&["status"]);
    assert!(shown.contains(&format!("last: deploy rolled back: {reason}")), "{shown}");
    assert!(cluster.log().contains(&format!("rolled back: {reason}")));
    for _ in 0..20 {
        assert_eq!(told(&cluster, &[]), ("one".to_owned(), None), "the host goes on");
    }
    running.stop().assert_clean();
    assert_eq!((cluster.status().trials.len(), pids(&cluster)), (0, served));
    let metrics = cluster.admin_get("/metrics");
    let traps =
        |variant: &str| format!("aegis_guest_module_traps_total{{module=\"note\",variant=\"{variant}\"}} ");
    assert!(metrics.contains(&format!("{}0\n", traps("current"))), "{metrics}");
    assert!(metrics.contains(&traps("trial")) && !metrics.contains(&format!("{}0\n", traps("trial"))));
}

#[test]
fn one_that_is_not_called_any_more_because_it_only_faults_is_taken_back_all_the_same() {
    let trapping = Guest::model(json!({"name": "note", "endpoint": "notes", "version": "1.0.0"}))
        .info("note", "4.0.0")
        .hook("on-create", splice("input", "\"by\":\"four\""))
        .command("who", trap());
    let cluster = Cluster::start(App::default().settings(QUICK).component("note", one()), 1);
    assert_eq!(cluster.client().post("notes", &json!({"id": "a"})).status, 201);
    let trapping = file(&cluster, "four.wasm", &trapping.build());
    cluster.aegis_ok(&["deploy", "note", "--file", trapping.to_str().unwrap(), "--share", "10"]);
    assert_eq!(modules(&cluster)["trial"]["breaker"], "closed");
    // One worker calls it five times, and a second and three seconds later once more: that alone would be too few calls.
    let begun = Instant::now();
    let running = load(&cluster, |status| matches!(status, 200 | 500 | 503));
    let current = [("aegis-variant", "current")];
    eventually("the trial is taken back", WAIT, || {
        assert_eq!(who(&cluster, &current).status, 200, "nobody else is refused");
        matches!(cluster.status().last_job.and_then(|job| job.verdict), Some(Verdict::RolledBack { .. }))
    });
    assert!(begun.elapsed() < GONE_WITHIN, "gone after {:?}", begun.elapsed());
    running.stop().assert_clean();
    let metrics = cluster.admin_get("/metrics");
    let denials = "aegis_guest_module_denials_total{module=\"note\",variant=";
    assert!(metrics.contains(&format!("{denials}\"current\"}} 0\n")), "{metrics}");
    assert!(!metrics.contains(&format!("{denials}\"trial\"}} 0\n")), "{metrics}");
}

#[test]
fn one_that_faults_while_the_first_worker_tries_it_is_taken_back_without_waiting_for_the_judgement() {
    let settings = QUICK.replace("50ms", "120s");
    let cluster = Cluster::start(App::default().settings(&settings).component("note", one()), 2);
    assert_eq!(cluster.client().post("notes", &json!({"id": "a"})).status, 201);
    let broken = file(&cluster, "three.wasm", &half_broken());
    let running = load(&cluster, |status| matches!(status, 200 | 500 | 503));
    let output = cluster.aegis(&["deploy", "note", "--file", broken.to_str().unwrap(), "--share", "10"]);
    let told = words(&output);
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains("calls of the version on trial were faults"), "{told}");
    running.stop().assert_clean();
    assert_eq!((cluster.status().trials.len(), cluster.status().generation), (0, 1));
}

#[test]
fn custom_routes_reads_and_what_is_loaded_are_of_the_version_that_is_told() {
    let note = |version: &str| {
        let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
        let mut text = Body::default();
        let stamp = text.text(version);
        Guest::model(spec)
            .info("note", version)
            .hook("on-load", splice("stored_data", &format!("\"seen\":\"{version}\"")))
            .route(
                json!({ "method": "get", "path": "/{id}/label" }),
                text.then(respond("(i32.const 200)", &[("content-type", "text/plain")], &stamp)),
            )
            .build()
    };
    let app = App::default()
        .settings(QUICK)
        .component("note", note("1.0.0"))
        .component("part", stamping("part", "1.0.0", "one").build());
    let cluster = Cluster::start(app, 2);
    for endpoint in ["notes", "parts"] {
        assert_eq!(cluster.client().post(endpoint, &json!({"id": "a"})).status, 201);
    }
    let try_out = |name: &str, bytes: &[u8]| {
        let tried = file(&cluster, "next.wasm", bytes);
        cluster.aegis_ok(&["deploy", name, "--file", tried.to_str().unwrap(), "--share", "50"]);
    };
    try_out("note", &note("2.0.0"));
    try_out("part", &stamping("part", "2.0.0", "two").build());
    let mut seen = BTreeSet::new();
    for user in 0..20 {
        let client = cluster.client().with("x-user", &format!("user-{user}"));
        let (read, label) = (client.get("notes/a"), client.get("notes/a/label"));
        let list = client.get("notes?id=a");
        let version = read.json()["seen"].as_str().unwrap().to_owned();
        assert_eq!((label.text(), list.json()[0]["seen"].as_str()), (version.clone(), Some(&*version)));
        let told = if version == "2.0.0" { "trial" } else { "current" };
        for response in [&read, &label, &list] {
            assert_eq!(response.header("aegis-variant"), Some(told));
        }
        seen.insert(version);
        let plainly_read = client.with("aegis-variant", "trial").get("parts/a");
        assert_eq!((plainly_read.status, plainly_read.header("aegis-variant")), (200, Some("trial")));
        assert_eq!(client.with("aegis-variant", "no").get("parts/a").status, 400);
    }
    assert_eq!(seen.len(), 2, "both versions are asked");
}

#[test]
fn a_request_has_one_version_on_all_models_that_it_leads_to() {
    let todo = |stamp: &str| stamping("todo", stamp, stamp).build();
    let app = App::default()
        .settings("[modules.order]\ngrants = { models = { todo = [\"read\", \"write\"] } }\n")
        .component("order", order().build())
        .component("todo", todo("1.0.0"));
    let cluster = start(app);
    assert_eq!(cluster.client().post("orders", &json!({"id": "a", "item": "pen"})).status, 201);
    let tried = file(&cluster, "two.wasm", &todo("2.0.0"));
    cluster.aegis_ok(&["deploy", "todo", "--file", tried.to_str().unwrap(), "--share", "50"]);
    let by = |response: Response| {
        assert!(matches!(response.status, 200 | 201), "{}", response.text());
        response.json()["by"].as_str().unwrap().to_owned()
    };
    let mut seen = BTreeSet::new();
    for user in 0..10 {
        let client = cluster.client().with("x-user", &format!("user-{user}"));
        let version = by(client.post("todos", &json!({})));
        let through_another = || by(client.post("orders/a/remind", &json!({})));
        assert_eq!((through_another(), through_another()), (version.clone(), version.clone()));
        seen.insert(version);
        for (wanted, version) in [("trial", "2.0.0"), ("current", "1.0.0")] {
            assert_eq!(by(client.with("aegis-variant", wanted).post("orders/a/remind", &json!({}))), version);
        }
    }
    assert_eq!(seen.len(), 2, "both versions are asked");
}

#[test]
fn what_is_no_step_of_a_trial_is_refused_with_all_reasons() {
    let service = aegis_guests::service("hello");
    let cluster = start(App::todo().component("hello", service.clone()));
    let path = |name: &str, bytes: &[u8]| file(&cluster, name, bytes).to_str().unwrap().to_owned();
    let (first, second) = (path("one.wasm", &one()), path("two.wasm", &two()));
    let third = path("three.wasm", &half_broken());
    let spec = json!({
        "name": "note", "endpoint": "others", "version": "2.0.0",
        "fields": [{ "name": "n", "kind": "integer" }],
    });
    let other = path("other.wasm", &Guest::model(spec).hook("validate", aegis_guests::agree()).build());
    let hello = path("hello.wasm", &service);
    let attempt =
        |name: &str, file: &str| refused(&cluster, &["deploy", name, "--file", file, "--share", "5"]);
    for step in [&["--promote"][..], &["--abort"], &["--share", "5"]] {
        let told = refused(&cluster, &[&["deploy", "note"], step].concat());
        assert!(told.contains("found no trial, expected one that runs"), "{told}");
    }
    assert!(attempt("note", &first).contains("found the version that is in force"));
    assert!(attempt("note", &hello).contains("found a service, expected a model with code"));
    assert!(attempt("hello", &hello).contains("found a service, expected a model with code"));
    assert!(attempt("todo", &second).contains("found a model without code in force"));
    let told = attempt("note", &other);
    for reason in ["endpoint: found others", "fields: found others", "hooks: found others", "commands.who"] {
        assert!(told.contains(reason), "{reason}: {told}");
    }
    assert_eq!(cluster.status().trials, []);
    cluster.aegis_ok(&["deploy", "note", "--file", &second, "--share", "5"]);
    for told in [
        attempt("note", &third),
        refused(&cluster, &["deploy", "note", "--file", &third]),
        refused(&cluster, &["deploy", "note"]),
        refused(&cluster, &["deploy", "note", "--reset"]),
    ] {
        assert!(told.contains("found a trial of version 2.0.0 ("), "{told}");
    }
    let digest = "0".repeat(64);
    let told = refused(&cluster, &["deploy", "note", "--promote", "--sha256", &digest]);
    assert!(told.contains(&format!("expected {digest}")), "{told}");
    let conflicts = cluster.aegis(&["deploy", "note", "--promote", "--abort"]);
    assert_eq!(conflicts.status.code(), Some(64), "{}", words(&conflicts));
    assert_eq!(cluster.status().trials[0].tried.share_percent, 5);
    over_http(&cluster);
}

/// The same steps over HTTP.
fn over_http(cluster: &Cluster) {
    let post = |body: &Value| {
        let headers = [("connection", "close"), ("content-type", "application/json")];
        let path = "/aegis/api/deploy?wait=true";
        cluster.admin().request("POST", path, &headers, body.to_string().as_bytes()).unwrap()
    };
    let mistakes =
        post(&json!({"module": "note", "share": 100, "promote": true, "abort": true, "force": true}));
    assert_eq!(mistakes.status, 422, "{}", mistakes.text());
    let errors = mistakes.json()["errors"].to_string();
    for mistake in ["1 to 99", "one of share, promote and abort only", "none with promote"] {
        assert!(errors.contains(mistake), "{mistake}: {errors}");
    }
    let shared = post(&json!({"module": "note", "share": 60}));
    assert_eq!((shared.status, shared.json()["state"].as_str()), (200, Some("done")), "{}", shared.text());
    let Ok(Reply::Status(status)) = cluster.ask(&Request::Status) else { panic!("no status") };
    assert_eq!(status.trials[0].tried.share_percent, 60);
    let aborted = post(&json!({"module": "note", "abort": true}));
    assert_eq!(aborted.status, 200, "{}", aborted.text());
    let again = post(&json!({"module": "note", "abort": true}));
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("deploy-rejected")));
}
