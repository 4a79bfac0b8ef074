//! A new generation comes into force with no failed request, or not at all.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use aegis_harness::{
    App, Cluster, QUICK, Start, app,
    cluster::signal_process,
    load::{Plan, Reuse, Running},
    words,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn load(cluster: &Cluster, reuse: Reuse) -> (String, Running) {
    let id = cluster.client().create("todo", &json!({"text": "read me"}));
    let path = format!("/aegis/api/models/todo/{id}");
    let running = Plan::get(cluster.address, 16, &path).reuse(reuse).spawn();
    aegis_harness::eventually("the load to run", Duration::from_secs(30), || running.completed() > 100);
    (path, running)
}

#[test]
fn reloads_under_load_lose_no_request_on_kept_connections() {
    reloads_lose_nothing(Reuse::KeepAlive);
}

#[test]
fn reloads_under_load_lose_no_request_with_a_connection_each() {
    reloads_lose_nothing(Reuse::PerRequest);
}

fn reloads_lose_nothing(reuse: Reuse) {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let before = cluster.await_workers(2);
    let (_, running) = load(&cluster, reuse);
    for n in 1..=5 {
        app::write_module(cluster.folder(), "todo", &app::revised_todo(n));
        cluster.aegis_ok(&["reload"]);
        assert_eq!(cluster.status().generation, u64::from(n) + 1);
    }
    let report = running.stop();
    report.assert_clean();
    report.assert_generations_grow();
    assert!(report.workers.keys().any(|worker| worker.ends_with(".6")), "{:?}", report.workers);
    let after = cluster.await_workers(2);
    assert!(after.iter().all(|new| before.iter().all(|old| old.pid != new.pid)), "every worker is new");
}

#[test]
fn hup_brings_a_control_socket_back_that_somebody_has_removed() {
    let cluster = Cluster::start(App::todo(), 1);
    let socket = cluster.folder().join("data/control.sock");
    fs::remove_file(&socket).unwrap();
    assert!(!cluster.aegis(&["status"]).status.success());
    cluster.signal(Signal::SIGHUP);
    aegis_harness::eventually("the socket to be there again", Duration::from_secs(30), || {
        cluster.aegis(&["status"]).status.success()
    });
    cluster.aegis_ok(&["scale", "2"]);
    cluster.await_workers(2);
}

#[test]
fn signals_that_come_before_there_is_a_host_do_not_end_it() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().settings(QUICK).write(folder.path());
    let mut command = Start::app(App::default()).workers(1).command(folder.path());
    let mut host = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", host.id());
    aegis_harness::eventually("somebody to look at the app", Duration::from_secs(30), || {
        fs::read_to_string(&children).is_ok_and(|pids| !pids.is_empty())
    });
    for signal in
        [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGTTIN, Signal::SIGTTOU]
    {
        signal_process(host.id(), signal);
    }
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    signal_process(host.id(), Signal::SIGTERM);
    assert!(host.wait().unwrap().success());
    assert!(line.starts_with("listening on"), "{line:?}");
}

#[test]
fn hup_reloads_and_a_storm_of_them_is_joined() {
    const SIGNALS: u32 = 10;
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let (_, running) = load(&cluster, Reuse::KeepAlive);
    for n in 1..=SIGNALS {
        app::write_module(cluster.folder(), "todo", &app::revised_todo(n));
        cluster.signal(Signal::SIGHUP);
    }
    let refused = json!({format!("extra{SIGNALS}"): "not a number"});
    aegis_harness::eventually("the last text to be in force", Duration::from_secs(60), || {
        cluster.client().post("todo", &refused).status == 422
    });
    aegis_harness::eventually("the last reload to end", Duration::from_secs(60), || {
        let status = cluster.status();
        status.jobs.is_empty() && status.last_job.is_some_and(|job| job.verdict.is_some())
    });
    running.stop().assert_clean();
    cluster.await_workers(2);
    let status = cluster.status();
    let jobs = status.last_job.unwrap().job;
    assert!(jobs < u64::from(SIGNALS), "{jobs} reloads for {SIGNALS} signals");
    assert!((2..=jobs + 1).contains(&status.generation), "{jobs} reloads, generation {}", status.generation);
}

#[test]
fn a_new_field_is_served_after_the_reload_and_data_stays() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let client = cluster.client();
    let id = client.create("todo", &json!({"text": "a", "rank": "first"}));
    app::write_module(
        cluster.folder(),
        "todo",
        &format!("{}rank = {{ kind = \"text\", indexed = true }}\n", app::TODO),
    );
    app::write_module(
        cluster.folder(),
        "note",
        "name = \"note\"\nendpoint = \"notes\"\n[fields]\nt = \"text\"\n",
    );
    cluster.aegis_ok(&["reload"]);
    assert_eq!(client.get("todo?rank=first").json()[0]["id"], id.as_str());
    assert_eq!(client.post("todo", &json!({"rank": 7})).status, 422, "the new kind is enforced");
    assert_eq!(client.post("notes", &json!({"t": "x"})).status, 201, "a new model is served");
}

#[test]
fn an_unchanged_app_is_not_rolled() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let before = cluster.await_workers(2);
    cluster.aegis_ok(&["reload"]);
    assert_eq!(cluster.await_workers(2)[0].pid, before[0].pid);
    assert_eq!(cluster.status().generation, 1);
}

#[test]
fn a_bad_module_or_config_is_rejected_with_reasons_and_touches_nothing() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let before = cluster.await_workers(2);
    let (_, running) = load(&cluster, Reuse::KeepAlive);
    app::write_module(
        cluster.folder(),
        "todo",
        "name = \"todo\"\nendpoint = \"todo\"\n[fields]\nx = \"nonsense\"\n",
    );
    fs::write(cluster.folder().join("aegis.toml"), "workers = \"many\"\n").unwrap();
    let output = cluster.aegis(&["reload"]);
    assert_eq!(output.status.code(), Some(3));
    let text = words(&output);
    assert!(text.contains("nonsense") && text.contains("many"), "{text}");
    let after = cluster.await_workers(2);
    assert_eq!(
        before.iter().map(|one| one.pid).collect::<Vec<_>>(),
        after.iter().map(|one| one.pid).collect::<Vec<_>>()
    );
    running.stop().assert_clean();
}

#[test]
fn a_generation_that_the_data_contradict_is_rejected() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let client = cluster.client();
    for _ in 0..2 {
        let _ = client.create("todo", &json!({"text": "twice"}));
    }
    app::write_module(cluster.folder(), "todo", &format!("{}\n[mixins]\nunique = [\"text\"]\n", app::TODO));
    let output = cluster.aegis(&["reload"]);
    assert_eq!(output.status.code(), Some(3));
    let text = words(&output);
    assert!(text.contains("text") && text.to_lowercase().contains("unique"), "{text}");
    assert_eq!(client.post("todo", &json!({"text": "twice"})).status, 201, "the old rules are in force");
}

#[test]
fn limits_of_the_config_come_into_force_with_a_reload() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let client = cluster.client();
    let body = json!({"text": "x".repeat(4096)});
    assert_eq!(client.post("todo", &body).status, 201);
    let settings = format!("{QUICK}\n[limits]\nbody-bytes-max = \"1KiB\"\n");
    fs::write(cluster.folder().join("aegis.toml"), settings).unwrap();
    cluster.aegis_ok(&["reload"]);
    assert_eq!(client.post("todo", &body).status, 413);
}

#[test]
fn operators_reload_over_http_and_ask_for_the_verdict() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    let headers = [("connection", "close")];
    let accepted = cluster.admin().request("POST", "/aegis/api/reload", &headers, b"").unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let job = accepted.json()["job"].to_string();
    aegis_harness::eventually("the verdict", Duration::from_secs(30), || {
        let job: Value = serde_json::from_str(&cluster.admin_get(&format!("/aegis/api/jobs/{job}"))).unwrap();
        job["state"] == "done"
    });
    app::write_module(cluster.folder(), "todo", &app::revised_todo(2));
    let waited = cluster.admin().request("POST", "/reload?wait=true", &headers, b"").unwrap();
    assert_eq!((waited.status, waited.json()["state"].as_str()), (200, Some("done")), "{}", waited.text());
    assert_eq!(cluster.status().generation, 3);
}

#[test]
fn requests_in_flight_finish_on_the_worker_that_began_them() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let mut connection = cluster.client().connect().unwrap();
    let head = "POST /aegis/api/models/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    let holds = |cluster: &Cluster| cluster.status().workers.iter().any(|worker| worker.in_flight > 0);
    aegis_harness::eventually("the request to be in flight", Duration::from_secs(30), || holds(&cluster));
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    cluster.aegis_ok(&["reload"]);
    connection.send(b"{\"text\":\"a\"}").unwrap();
    let response = connection.receive(false).unwrap();
    assert_eq!(response.status, 201);
    assert!(response.worker().ends_with(".1"), "answered by the old generation: {}", response.worker());
    assert!(response.closes());
    cluster.await_workers(2);
}

#[test]
fn large_bodies_straddle_a_reload() {
    let app = App::todo().settings(QUICK).settings("[limits]\nbody-bytes-max = \"4MiB\"");
    let cluster = Cluster::start(app, 2);
    let text = "x".repeat(1024 * 1024);
    let body = json!({"id": "big", "text": text}).to_string();
    let head = format!(
        "POST /aegis/api/models/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut upload = cluster.client().connect().unwrap();
    upload.send(head.as_bytes()).unwrap();
    let (first, second) = body.as_bytes().split_at(body.len() / 2);
    upload.send(first).unwrap();
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    cluster.aegis_ok(&["reload"]);
    upload.send(second).unwrap();
    assert_eq!(upload.receive(false).unwrap().status, 201);
    let read = cluster.client().get("todo/big").json();
    assert_eq!(read["text"].as_str().unwrap().len(), text.len());
}

#[test]
fn idle_kept_connections_are_closed_only_at_the_deadline() {
    let app = App::todo().settings(QUICK).settings("[drain]\ntimeout = \"1500ms\"\nspread = \"500ms\"");
    let cluster = Cluster::start(app, 1);
    let mut idle = cluster.client().connect().unwrap();
    assert_eq!(idle.request("GET", "/aegis/api/models/todo", &[], b"").unwrap().status, 200);
    let begun = Instant::now();
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    cluster.aegis_ok(&["reload"]);
    let ended = idle.receive(false).unwrap_err();
    assert_eq!(ended.to_string(), "EndOfFile");
    assert!(begun.elapsed() >= Duration::from_millis(900), "closed after {:?}", begun.elapsed());
    cluster.await_workers(1);
}

#[test]
fn changed_files_reload_by_themselves_only_when_asked_to() {
    let unasked = Cluster::start(App::todo().settings(QUICK), 1);
    let asked = Cluster::start(App::todo().settings(&format!("{QUICK}\nwatch = true")), 1);
    app::write_module(unasked.folder(), "todo", &app::revised_todo(1));
    app::write_module(asked.folder(), "todo", &app::revised_todo(1));
    aegis_harness::eventually("the reload", Duration::from_secs(20), || asked.status().generation == 2);

    // The other host had as much time; whatever it did would have been a job before this one.
    unasked.aegis_ok(&["scale", "2"]);
    let scaled = unasked.status();
    let first = scaled.last_job.unwrap();
    assert_eq!((scaled.generation, first.kind.as_str()), (1, "scale"));
    assert!(unasked.await_workers(2).iter().all(|worker| worker.generation == 1));
    unasked.aegis_ok(&["reload"]);
    let reloaded = unasked.status();
    let second = reloaded.last_job.unwrap();
    assert_eq!((reloaded.generation, second.kind.as_str(), second.job), (2, "reload", first.job + 1));
}
