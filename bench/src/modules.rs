//! Rows about modules: what code costs, and what it may cost its neighbours.

use aegis_guests::{Guest, splice};
use aegis_harness::{App, Cluster, Start, load::Plan};
use serde_json::{Value, json};

use crate::{
    Options,
    disturbed::{self, Claim},
    median,
    rows::{Row, clean, rate, row},
    told,
    wrk::{self, Load},
};

pub(crate) const BASE: &str = "/aegis/api/models";
/// What a disturbing call computes that was declared to: tens of milliseconds of one core.
const DECLARED_STEPS: u64 = 20_000_000;
/// What one computes that was not: as much.
const UNDECLARED_STEPS: u64 = 20_000_000;

/// Measures all rows about modules that were asked for.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    if options.wants("hook") {
        rows.push(hook(options));
    }
    if options.wants("spin") {
        rows.extend(neighbour(options));
    }
    if options.wants("cpu") {
        rows.extend(computing(options));
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
    let stamped = cluster.client().post("hooked", &body);
    assert!(stamped.status == 201 && stamped.json()["stamped"] == true, "the hook is called: {stamped:?}");
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

/// Reads of one model, quiet and while clients keep a command of another one busy that takes long and does not say so. It
/// ends by itself: code that goes on until its time is up is soon not called any more, and then disturbs nobody.
fn neighbour(options: &Options) -> Vec<Row> {
    let settings = "[modules.spinning.limits]\ndeadline = \"20s\"";
    let app = App::todo().component("spinning", burning("spinning", &json!({}))).settings(settings);
    let claim = Claim { name: "get p99: a spinning neighbour / quiet", most: 1.5, must: "≤ 1.5" };
    beside_burning(
        &claim,
        &start(app),
        options,
        &Burning { model: "spinning", clients: 4, steps: UNDECLARED_STEPS },
    )
}

/// Reads, quiet and while eight clients keep a CPU-bound command busy.
fn computing(options: &Options) -> Vec<Row> {
    let app = App::todo().component("todos", burning("computed", &json!({ "cpu-bound": true })));
    let claim = Claim { name: "get p99: 8 × a CPU-bound command / quiet", most: 2.0, must: "≤ 2" };
    beside_burning(
        &claim,
        &start(app),
        options,
        &Burning { model: "computed", clients: 8, steps: DECLARED_STEPS },
    )
}

/// A model with a command that computes, about which the specification says more.
fn burning(name: &str, more: &Value) -> Vec<u8> {
    let mut command = json!({ "name": "burn" });
    command.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    let mut spec = specification(name);
    spec["commands"] = json!([command]);
    Guest::model(spec).command("burn", aegis_guests::burn("args")).build()
}

/// A load that disturbs.
struct Burning {
    model: &'static str,
    clients: usize,
    /// Of each call.
    steps: u64,
}

fn beside_burning(claim: &Claim<'_>, cluster: &Cluster, options: &Options, burning: &Burning) -> Vec<Row> {
    let Burning { model, clients, steps } = burning;
    assert_eq!(cluster.client().post(model, &json!({"id": "a", "text": "x"})).status, 201);
    let (path, body) = (format!("{BASE}/{model}/a/burn"), json!({ "steps": steps }).to_string());
    disturbed::rows(claim, cluster, options, |cluster| {
        let request = post(cluster, &path, &body);
        Plan::get(cluster.address, *clients, "").requests(move |_| request.clone()).spawn()
    })
}

pub(crate) fn post(cluster: &Cluster, path: &str, body: &str) -> Vec<u8> {
    let headers = [("content-type", "application/json")];
    aegis_harness::http::encode("POST", path, &cluster.address.to_string(), &headers, body.as_bytes())
}
