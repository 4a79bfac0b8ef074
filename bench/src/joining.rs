//! A worker more, when the code of all modules is compiled already.

use std::{
    thread,
    time::{Duration, Instant},
};

use aegis_guests::{Guest, splice};
use aegis_harness::{App, Cluster, Start};
use aegis_ipc::operator::Request;
use serde_json::json;

use crate::{
    Options, median,
    rows::{Row, milliseconds, row},
    told,
};

const MODULES: usize = 20;
const MOST_MS: f64 = 50.0;
/// How often the host is asked whether the worker serves.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// From the wish for a second worker to its first accepted connection.
pub(crate) fn row_of(options: &Options) -> Row {
    let app = (0..MODULES).fold(App::todo(), |app, number| {
        let name = format!("m{number}");
        let spec = json!({ "name": name, "endpoint": name, "version": "1.0.0" });
        app.component(&name, Guest::model(spec).hook("on-create", splice("input", "\"a\":1")).build())
    });
    let cluster = Start::app(app).workers(1).start();
    let mut times = Vec::new();
    for round in 1..=options.rounds * 3 {
        told(&format!("a second worker with {MODULES} modules, round {round} …"));
        times.push(scale(&cluster, 2).as_secs_f64() * 1000.0);
        scale(&cluster, 1);
    }
    let time = median(times);
    row(
        "start: a second worker with 20 modules",
        milliseconds(time),
        String::new(),
        String::new(),
        "≤ 50 ms",
        time <= MOST_MS,
    )
}

fn scale(cluster: &Cluster, workers: u32) -> Duration {
    let begun = Instant::now();
    cluster.ask(&Request::Scale { workers }).expect("the supervisor answers");
    while cluster.serving().len() != workers as usize {
        assert!(begun.elapsed() < Duration::from_secs(60), "no {workers} workers");
        thread::sleep(LOOK_INTERVAL);
    }
    begun.elapsed()
}
