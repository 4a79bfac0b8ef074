//! What the host tells about itself, and to whom.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use aegis_harness::{
    App, Cluster,
    cluster::{executable, signal_process},
};
use aegis_ipc::operator::Status;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn every_view_of_the_config_is_an_array() {
    let cluster = Cluster::start(App::todo(), 2);
    let _ = cluster.client().create("todo", &json!({"text": "a"}));
    for view in
        ["models", "data", "events", "threads", "relations", "commands", "ports", "modules", "workers"]
    {
        let text = cluster.admin_get(&format!("/aegis/api/config?details={view}"));
        let value: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{view}: {error}: {text}"));
        assert!(value.is_array(), "{view}: {text}");
    }
    let models: Value = serde_json::from_str(&cluster.admin_get("/aegis/api/config")).unwrap();
    assert_eq!(models[0]["modelName"], "TODO");
    let data: Value = serde_json::from_str(&cluster.admin_get("/aegis/api/config?details=data")).unwrap();
    assert_eq!(data[0]["total"].to_string(), "1");
    let workers: Value =
        serde_json::from_str(&cluster.admin_get("/aegis/api/config?details=workers")).unwrap();
    assert_eq!(workers.as_array().unwrap().len(), 2);
}

#[test]
fn html_views_escape_what_is_stored() {
    let app = App::default().module(
        "todo",
        "name = \"todo\"\nendpoint = \"todo\"\ndescription = \"<script>alert(1)</script>\"\n[fields]\ntext = \"text\"\n",
    );
    let cluster = Cluster::start(app, 1);
    let page = cluster.admin_get("/aegis/api/config?details=models&html=true");
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
}

#[test]
fn operators_routes_are_not_for_everybody() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    for path in ["/aegis/api/config", "/metrics", "/aegis/api/jobs/1"] {
        let response = client.send("GET", path, b"");
        assert!(matches!(response.status, 403 | 404), "{path}: {}", response.status);
    }
    assert_eq!(client.send("POST", "/aegis/api/reload", b"").status, 403);
    assert_eq!(client.send("GET", "/livez", b"").status, 200);
    assert_eq!(client.send("GET", "/readyz", b"").status, 200);
}

fn total(cluster: &Cluster, line: &str) -> f64 {
    let text = cluster.admin_get("/metrics");
    let matching = text.lines().filter(|one| one.starts_with(line));
    matching.filter_map(|one| one.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn metrics_are_summed_over_workers_and_never_go_down() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    for n in 0..50 {
        let _ = client.create("todo", &json!({"n": n}));
    }
    let creates = "aegis_model_operations_total{model=\"TODO\",operation=\"create\"}";
    assert!((total(&cluster, creates) - 50.0).abs() < 0.5, "{}", cluster.admin_get("/metrics"));
    let responses = total(&cluster, "aegis_responses_total{");
    assert!(responses >= 50.0);
    cluster.aegis_ok(&["restart"]);
    cluster.await_workers(2);
    assert!((total(&cluster, creates) - 50.0).abs() < 0.5, "replaced workers are still counted");
    assert!(total(&cluster, "aegis_responses_total{") >= responses);
    assert!((total(&cluster, "aegis_workers_accepting ") - 2.0).abs() < 0.5);
}

#[test]
fn the_public_configuration_is_complete_and_without_paths_of_the_machine() {
    let cluster = Cluster::start(App::todo().settings("[limits]\nbody-bytes-max = \"2MiB\""), 1);
    let text = cluster.client().send("GET", "/aegis.config.json", b"").text();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["limits"]["body_bytes_max"].to_string(), (2 * 1024 * 1024).to_string(), "{text}");
    assert!(!text.contains("/tmp"), "{text}");
}

#[test]
fn status_speaks_to_people_and_to_programs() {
    let cluster = Cluster::start(App::todo(), 2);
    let status = cluster.status();
    assert_eq!(status.pid, cluster.pid());
    assert_eq!((status.generation, status.workers_wanted, status.workers.len()), (1, 2, 2));
    assert_eq!(status.store.state, "ready");
    let text = cluster.aegis_ok(&["status"]);
    assert!(text.contains("2/2 serving"), "{text}");
}

#[test]
fn status_as_json_is_the_whole_status_and_can_be_watched() {
    let cluster = Cluster::start(App::todo(), 2);
    let once: Status = serde_json::from_str(&cluster.aegis_ok(&["status", "--json"])).unwrap();
    let now = cluster.status();
    assert_eq!((once.pid, once.generation, &once.digest), (now.pid, now.generation, &now.digest));
    let pids = |status: &Status| status.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!(pids(&once), pids(&now));

    let mut watching = Command::new(executable())
        .args(["status", "--watch", "--json", "--control"])
        .arg(cluster.folder().join("data/control.sock"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut states = BufReader::new(watching.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<Status>(&line.unwrap()).unwrap());
    assert_eq!(states.next().unwrap().workers_wanted, 2, "what is, at once");
    cluster.aegis_ok(&["scale", "3"]);
    let seen =
        states.find(|state| state.workers.iter().filter(|worker| worker.state == "serving").count() == 3);
    assert_eq!(seen.unwrap().workers_wanted, 3, "and every change");
    signal_process(watching.id(), Signal::SIGINT);
    assert!(states.all(|state| state.pid == cluster.pid()));
    watching.wait().unwrap();
}
