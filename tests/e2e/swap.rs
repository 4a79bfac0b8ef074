//! Modules are replaced inside the workers that run.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use aegis_guests::{Guest, agree, burn, refuse, splice, trap};
use aegis_harness::{App, Cluster, app, cluster::signal_process, eventually, http, load::Plan, words};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Latency is not what these tests are about: a busy machine makes it whatever it likes.
const SWAP: &str = "[reload]\nmode = \"swap\"\ncanary-time = \"100ms\"\nlatency-factor-max = 1000.0\n";
const NOTES: &str = "/aegis/api/models/notes";
/// Versions that one host goes through.
const SWAPS: u64 = 50;
/// How often state is handed over.
const HANDOVERS: u64 = 20;
/// A new version answers this long after it was asked for.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

fn specification(more: &Value) -> Value {
    let mut spec = json!({
        "name": "note", "endpoint": "notes", "version": "1.0.0",
        "commands": [{ "name": "burn", "cpu-bound": true }],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    spec
}

/// A model whose documents say which version made them, and with a command that takes as long as it is told to.
fn version(number: u64) -> Guest {
    let hook = splice("input", &format!("\"by\":{number}"));
    Guest::model(specification(&json!({}))).hook("on-create", hook).command("burn", burn("args"))
}

fn start(settings: &str, workers: u32) -> Cluster {
    Cluster::start(App::default().settings(settings).component("note", version(1).build()), workers)
}

fn post(cluster: &Cluster) -> Vec<u8> {
    let headers = [("content-type", "application/json")];
    http::encode("POST", NOTES, &cluster.address.to_string(), &headers, b"{\"x\":1}")
}

fn pids(cluster: &Cluster) -> Vec<u32> {
    let mut pids: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    pids.sort_unstable();
    pids
}

/// Executable mappings of code of generations in all workers.
fn code_mappings(cluster: &Cluster) -> Vec<usize> {
    let count = |pid: &u32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        maps.lines().filter(|line| line.contains("r-xp") && line.contains("aegis-bundle")).count()
    };
    pids(cluster).iter().map(count).collect()
}

/// One connection that is used for as long as it is wanted: what it saw, as (generation, version).
fn witness(cluster: &Cluster) -> (Arc<AtomicBool>, thread::JoinHandle<Vec<(u64, u64)>>) {
    let mut connection = cluster.client().connect().unwrap();
    let (request, stop) = (post(cluster), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        let mut seen = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            connection.send(&request).unwrap();
            let answer = connection.receive(false).unwrap();
            let generation = answer.worker().split_once('.').unwrap().1.parse().unwrap();
            seen.push((generation, answer.json()["by"].as_u64().unwrap()));
        }
        seen
    });
    (stop, thread)
}

#[test]
fn versions_follow_each_other_under_load_in_the_same_processes() {
    let cluster = start(SWAP, 2);
    let before = (pids(&cluster), code_mappings(&cluster));
    let request = post(&cluster);
    let running = Plan::get(cluster.address, 8, "").requests(move |_| request.clone()).spawn();
    let witnesses = [witness(&cluster), witness(&cluster)];
    let mut delays = Vec::new();
    for number in 2..SWAPS + 2 {
        app::write_component(cluster.folder(), "note", &version(number).build());
        let begun = Instant::now();
        thread::scope(|scope| {
            let reload = scope.spawn(|| cluster.aegis_ok(&["reload"]));
            eventually("the new version answers", Duration::from_secs(60), || {
                cluster.client().post("notes", &json!({"x": 1})).json()["by"] == number
            });
            delays.push(begun.elapsed());
            reload.join().unwrap();
        });
        for worker in cluster.serving() {
            assert_eq!(worker.generation, number, "the status knows what is served");
        }
    }
    let report = running.stop();
    report.assert_clean();
    report.assert_generations_grow();
    let answered: BTreeSet<&str> =
        report.workers.keys().filter_map(|worker| worker.split_once('.')).map(|(_, one)| one).collect();
    assert_eq!(answered.len() as u64, SWAPS + 1, "every generation answered clients: {answered:?}");
    for (stop, thread) in witnesses {
        stop.store(true, Ordering::Relaxed);
        let seen = thread.join().expect("its connection stays open");
        assert!(seen.is_sorted(), "generations and versions only grow on one connection");
        assert!(seen.iter().all(|(generation, by)| generation == by), "a request has one generation");
    }
    delays.sort_unstable();
    assert!(delays[delays.len() / 2] < SEEN_WITHIN, "{delays:?}");
    assert_eq!(pids(&cluster), before.0, "no process was replaced");
    assert_eq!(cluster.status().generation, SWAPS + 1);
    eventually("code that is not used any more is unmapped", Duration::from_secs(20), || {
        code_mappings(&cluster) == before.1
    });
}

#[test]
fn a_call_in_flight_ends_with_the_version_it_began_with() {
    let patient = format!(
        "{SWAP}\n[limits]\nrequest-timeout = \"300s\"\n[modules.note.limits]\ncpu-deadline = \"240s\"\n"
    );
    let cluster = start(&patient, 1);
    assert_eq!(cluster.client().post("notes", &json!({"id": "a"})).status, 201);
    let mut connection = cluster.client().connect().unwrap();
    let path = format!("{NOTES}/a/burn");
    let headers = [("content-type", "application/json")];
    let address = cluster.address.to_string();
    let begun = Instant::now();
    connection.send(&http::encode("POST", &path, &address, &headers, b"{\"steps\":2000000000}")).unwrap();
    let calls = || cluster.admin_get("/aegis/api/config?details=threads").contains("\"calls\":1");
    eventually("the call runs", Duration::from_secs(20), calls);
    app::write_component(cluster.folder(), "note", &version(2).build());
    cluster.aegis_ok(&["reload"]);
    assert_eq!(cluster.client().post("notes", &json!({})).json()["by"], 2);
    assert!(calls(), "the call is not over");
    let burnt = connection.receive_after(Duration::from_secs(300)).unwrap();
    assert_eq!((burnt.status, burnt.worker()), (200, "0.1"), "{}", burnt.text());
    assert!(begun.elapsed() >= Duration::from_millis(500));
}

#[test]
fn a_version_that_fails_its_clients_is_taken_back_without_a_new_process() {
    let settings = SWAP.replace("100ms", "60s") + "canary-requests-min = 20\n";
    let cluster = start(&settings, 2);
    let before = pids(&cluster);
    let request = post(&cluster);
    let mut plan = Plan::get(cluster.address, 8, "").requests(move |_| request.clone());
    plan.wanted = |status| matches!(status, 201 | 500 | 503);
    let running = plan.spawn();
    let trapping =
        Guest::model(specification(&json!({}))).hook("on-create", trap()).command("burn", burn("args"));
    app::write_component(cluster.folder(), "note", &trapping.build());
    let begun = Instant::now();
    let output = cluster.aegis(&["reload"]);
    assert!(begun.elapsed() < Duration::from_secs(40), "it was judged after {:?}", begun.elapsed());
    let text = words(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("the canary answered") && text.contains("back to generation 1"), "{text}");
    running.stop().assert_clean();
    let after = cluster.await_workers(2);
    assert!(after.iter().all(|worker| worker.generation == 1), "{after:?}");
    assert_eq!(pids(&cluster), before);
    for _ in 0..20 {
        assert_eq!(cluster.client().post("notes", &json!({})).json()["by"], 1);
    }
}

#[test]
fn what_is_more_than_code_goes_rolling_and_says_why() {
    let settings = SWAP.replace("swap", "rolling");
    let cluster = start(&settings, 2);
    let before = pids(&cluster);
    app::write_component(cluster.folder(), "note", &version(2).build());
    let swapped = words(&cluster.aegis(&["reload", "--mode", "swap"]));
    assert!(swapped.contains("worker 0 answers with generation 2"), "{swapped}");
    assert_eq!(pids(&cluster), before, "a request goes before the configuration");
    let indexed = json!({ "fields": [{ "name": "n", "kind": "integer", "rules": ["indexed"] }] });
    app::write_component(
        cluster.folder(),
        "note",
        &Guest::model(specification(&indexed)).command("burn", burn("args")).build(),
    );
    let output = cluster.aegis(&["reload", "--mode", "swap"]);
    let text = words(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let reason = "generation 3 needs new workers: model NOTE: its fields or their rules are others";
    assert!(text.contains(reason), "{text}");
    let after = cluster.await_workers(2);
    assert!(after.iter().all(|worker| worker.generation == 3 && !before.contains(&worker.pid)), "{after:?}");
}

#[test]
fn a_worker_that_is_killed_comes_back_with_the_version_that_was_swapped_in() {
    let cluster = start(SWAP, 2);
    app::write_component(cluster.folder(), "note", &version(2).build());
    cluster.aegis_ok(&["reload"]);
    let killed = cluster.serving()[0].pid;
    signal_process(killed, Signal::SIGKILL);
    eventually("another worker serves", Duration::from_secs(30), || {
        let serving = cluster.serving();
        serving.len() == 2 && serving.iter().all(|worker| worker.pid != killed && worker.generation == 2)
    });
    for _ in 0..20 {
        assert_eq!(cluster.client().post("notes", &json!({})).json()["by"], 2);
    }
}

#[test]
fn what_a_version_remembers_goes_to_the_next_one_over_twenty_swaps() {
    let heir = |version: &str| aegis_guests::heir(version).build();
    let cluster = Cluster::start(App::default().settings(SWAP).component("counter", heir("1.0.0")), 1);
    let client = cluster.client();
    assert_eq!(client.post("counters", &json!({"id": "a"})).status, 201);
    let next = || {
        let answer = client.get("counters/a?command=next");
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    for round in 1..=HANDOVERS {
        assert_eq!(next(), 2 * round - 1);
        assert_eq!(next(), 2 * round);
        app::write_component(cluster.folder(), "counter", &heir(&format!("1.{round}.0")));
        let told = cluster.aegis_ok(&["reload"]);
        let generation = client.get("counters/a?command=generation").json();
        assert_eq!(generation, round + 1, "{told}");
    }
    assert_eq!(next(), 2 * HANDOVERS + 1);
}

#[test]
fn what_a_version_remembers_is_handed_over_where_grants_change() {
    let heir = aegis_guests::heir("1.0.0").build();
    let granted = |hosts: &str| format!("{SWAP}[modules.counter]\ngrants = {{ http = [{hosts}] }}\n");
    let app = App::default().settings(&granted("\"api.example.com\"")).component("counter", heir);
    let cluster = Cluster::start(app, 1);
    assert_eq!(cluster.client().post("counters", &json!({"id": "a"})).status, 201);
    assert_eq!(next(&cluster), json!(1));
    let before = pids(&cluster);
    fs::write(cluster.folder().join("aegis.toml"), granted("")).unwrap();
    cluster.aegis_ok(&["reload"]);
    assert_eq!((next(&cluster), pids(&cluster)), (json!(2), before));
}

/// One worker whose code has counted to two, and in the app a version that does not take the state of it.
fn with_an_heir_that_refuses() -> Cluster {
    let heir = |version: &str| aegis_guests::heir(version).build();
    let cluster = Cluster::start(App::default().settings(SWAP).component("counter", heir("0.9.0")), 1);
    assert_eq!(cluster.client().post("counters", &json!({"id": "a"})).status, 201);
    assert_eq!((next(&cluster), next(&cluster)), (json!(1), json!(2)));
    app::write_component(cluster.folder(), "counter", &heir("1.0.0"));
    cluster
}

fn next(cluster: &Cluster) -> Value {
    cluster.client().get("counters/a?command=next").json()
}

#[test]
fn a_version_that_does_not_take_the_state_of_the_one_before_is_rejected_unless_state_may_be_lost() {
    let cluster = with_an_heir_that_refuses();
    let (next, before) = (|| next(&cluster), pids(&cluster));
    let rejected = cluster.aegis(&["reload"]);
    let told = words(&rejected);
    assert_eq!(rejected.status.code(), Some(3), "{told}");
    let reason = "the next code of COUNTER does not take the state of the code before: the module refused: it is too old";
    assert!(told.contains(reason) && told.contains("`aegis reload --mode rolling`"), "{told}");
    assert_eq!((next(), pids(&cluster)), (json!(3), before.clone()), "the old version goes on and remembers");
    let path = cluster.folder().join("counter.wasm");
    std::fs::write(&path, aegis_guests::heir("1.0.0").build()).unwrap();
    let deploy = ["deploy", "counter", "--file", path.to_str().unwrap()];
    for deploy in [&deploy[..], &[&deploy[..], &["--mode", "swap"]].concat()] {
        let deployed = cluster.aegis(deploy);
        let told = words(&deployed);
        assert!(deployed.status.code() == Some(3) && told.contains(reason), "{told}");
        assert!(told.contains("deploy it with `--mode rolling`"), "{told}");
        assert_eq!(pids(&cluster), before);
    }
    assert_eq!(next(), 4);
    let told = cluster.aegis_ok(&["reload", "--mode", "rolling"]);
    let after = cluster.await_workers(1);
    assert_ne!(before, [after[0].pid], "{told}");
    assert_eq!(next(), 1);
}

#[test]
fn a_deployment_may_lose_state_when_that_is_asked_for() {
    let cluster = with_an_heir_that_refuses();
    let (next, before) = (|| next(&cluster), pids(&cluster));
    assert_eq!(cluster.aegis(&["deploy", "counter"]).status.code(), Some(3));
    let told = cluster.aegis_ok(&["deploy", "counter", "--mode", "rolling"]);
    let after = cluster.await_workers(1);
    assert_ne!(before, [after[0].pid], "{told}");
    assert_eq!(next(), 1);
}

#[test]
fn a_version_that_does_not_begin_is_taken_back_before_anybody_calls_it() {
    let picky = |guest: Guest| {
        let begin = refuse("unavailable", "there is no key").when_holds("config", "\"fail\"");
        guest.lifecycle("init", begin.then(agree())).build()
    };
    for (guest, mode, status) in [
        (aegis_guests::counter(), "rolling", 4),
        (aegis_guests::counter(), "swap", 4),
        // New workers, which would begin without its state, are not tried.
        (aegis_guests::heir("1.0.0"), "swap", 3),
    ] {
        let app = App::default().settings(SWAP).component("counter", picky(guest));
        let cluster = Cluster::start(app, 1);
        assert_eq!(cluster.client().post("counters", &json!({"id": "a"})).status, 201);
        assert_eq!(next(&cluster), json!(1));
        let before = pids(&cluster);
        let settings = format!("{SWAP}[modules.counter.settings]\nfail = true\n");
        fs::write(cluster.folder().join("aegis.toml"), settings).unwrap();
        let refused = cluster.aegis(&["reload", "--mode", mode]);
        let told = words(&refused);
        let reason = "the code of COUNTER does not begin: init of module counter failed: it refused to begin: there is no key";
        assert!(refused.status.code() == Some(status) && told.contains(reason), "{mode}: {told}");
        assert_eq!(
            (next(&cluster), pids(&cluster)),
            (json!(2), before),
            "{mode}: the old one goes on and remembers"
        );
    }
}
