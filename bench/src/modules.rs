//! Rows about modules: what code costs, and what it may cost its neighbours.

use std::time::Duration;

use aegis_guests::{Guest, spin, splice};
use aegis_harness::{App, Cluster, Start, load::Plan};
use serde_json::{Value, json};

use crate::{
    Options, median,
    rows::{Row, clean, milliseconds, rate, row},
    told,
    wrk::{self, Load},
};

pub(crate) const BASE: &str = "/aegis/api/models";

/// Measures all rows about modules that were asked for.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    if options.wants("hook") {
        rows.push(hook(options));
    }
    if options.wants("spin") {
        rows.push(neighbour(options));
    }
    if options.wants("cpu") {
        rows.push(computing(options));
    }
    rows
}

fn start(app: App) -> Cluster {
    Start::app(app).workers(2).start()
}

pub(crate) fn specification(name: &str) -> Value {
    json!({
        "name": name, "endpoint": name, "version": "1.0.0",
        "fields": [
            { "name": "text", "kind": "text", "rules": ["required"] },
            { "name": "isComplete", "kind": "boolean", "default-value": "false" },
            { "name": "n", "kind": "integer", "rules": ["indexed"] },
        ],
    })
}

/// The same POST with a hook in front and without.
fn hook(options: &Options) -> Row {
    let hooked = Guest::model(specification("hooked")).hook("on-create", splice("input", "\"stamped\":true"));
    let cluster = start(App::todo().component("hooked", hooked.build()));
    let body = json!({
        "text": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et",
        "isComplete": false, "n": 7, "tags": ["a", "b", "c"], "customer": {"name": "Ada", "city": "London"},
    });
    let body = body.to_string();
    let (mut ours, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        told(&format!("POST with a hook, {} bytes, round {round} …", body.len()));
        let post = |endpoint: &str| {
            let path = format!("{BASE}/{endpoint}");
            clean(wrk::run(cluster.address, 64, options.duration(), &Load::Post(&path, &body))).rate
        };
        let (plain, hooked) = (post("todo"), post("hooked"));
        ratios.push(hooked / plain);
        ours.push(hooked);
        beside.push(plain);
    }
    let ratio = median(ratios);
    row(
        "post, 64 connections: hook / declarative",
        rate(median(ours)),
        rate(median(beside)),
        format!("{ratio:.2}"),
        "≥ 0.75",
        ratio >= 0.75,
    )
}

/// Reads of one model, quiet and while every call of another one's hook spins until its time is up.
fn neighbour(options: &Options) -> Row {
    let spinning = Guest::model(specification("spinning")).hook("on-create", spin());
    let cluster = start(App::todo().component("spinning", spinning.build()));
    let disturb = |cluster: &Cluster| {
        let request = post(cluster, &format!("{BASE}/spinning"), "{\"text\":\"x\"}");
        Plan::get(cluster.address, 4, "").requests(move |_| request.clone()).spawn()
    };
    disturbed("get p99: a spinning neighbour / quiet", "≤ 1.5", 1.5, &cluster, options, disturb)
}

/// Reads, quiet and while eight clients keep a CPU-bound command busy.
fn computing(options: &Options) -> Row {
    let cluster = start(App::todo().component("todos", computing_model()));
    assert_eq!(cluster.client().post("computed", &json!({"id": "a", "text": "x"})).status, 201);
    let disturb = |cluster: &Cluster| {
        let request = post(cluster, &format!("{BASE}/computed/a/burn"), "{\"steps\":100000000}");
        Plan::get(cluster.address, 8, "").requests(move |_| request.clone()).spawn()
    };
    disturbed("get p99: 8 × a CPU-bound command / quiet", "≤ 2", 2.0, &cluster, options, disturb)
}

fn computing_model() -> Vec<u8> {
    let mut spec = specification("computed");
    spec["commands"] = json!([{ "name": "burn", "cpu-bound": true }]);
    Guest::model(spec).command("burn", aegis_guests::burn("args")).build()
}

pub(crate) fn post(cluster: &Cluster, path: &str, body: &str) -> Vec<u8> {
    let headers = [("content-type", "application/json")];
    aegis_harness::http::encode("POST", path, &cluster.address.to_string(), &headers, body.as_bytes())
}

/// Reads at a fixed rate, which leaves the machine room, quiet and disturbed in turn.
fn disturbed(
    name: &str,
    must: &str,
    most: f64,
    cluster: &Cluster,
    options: &Options,
    disturb: impl Fn(&Cluster) -> aegis_harness::load::Running,
) -> Row {
    assert_eq!(cluster.client().post("todo", &json!({"id": "bench", "text": "x"})).status, 201);
    let read = || {
        let plan = Plan::get(cluster.address, 8, &format!("{BASE}/todo/bench")).rate(2_000);
        let report = plan.run_for(options.duration());
        report.assert_clean();
        report.quantile(0.99)
    };
    let (mut quiet, mut loud, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        told(&format!("{name}, round {round} …"));
        let before = read();
        let running = disturb(cluster);
        let during = read();
        drop(running.stop());
        ratios.push(during.as_secs_f64() / before.as_secs_f64());
        quiet.push(in_milliseconds(before));
        loud.push(in_milliseconds(during));
    }
    let ratio = median(ratios);
    row(
        name,
        milliseconds(median(loud)),
        milliseconds(median(quiet)),
        format!("{ratio:.2}"),
        must,
        ratio <= most,
    )
}

fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
