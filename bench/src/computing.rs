//! Long computations in modules: how much slower than native code, and whether all cores take part.

use std::{
    hint::black_box,
    thread,
    time::{Duration, Instant},
};

use aegis_guests::{Guest, fibonacci};
use aegis_harness::{App, Cluster, Start};
use serde_json::json;

use crate::{
    Options, median,
    rows::{Row, milliseconds, row},
    told,
};

/// The number whose Fibonacci number is computed once, here and in a module.
const ONE: u64 = 35;
/// The one that is computed several times at once, and how many times.
const MANY: u64 = 32;
const TIMES: usize = 8;

/// Measures all rows about computations.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let spec = json!({
        "name": "number", "endpoint": "numbers", "version": "1.0.0",
        "commands": [{ "name": "fibonacci", "cpu-bound": true }],
    });
    let component = Guest::model(spec).command("fibonacci", fibonacci("args")).build();
    let app = App::default().component("number", component).settings("[wasm]\ncpu_threads = 2");
    // One worker, so that all calls meet in one pool.
    let cluster = Start::app(app).workers(1).start();
    assert_eq!(cluster.client().post("numbers", &json!({"id": "a"})).status, 201);
    vec![native(options, &cluster), parallel(options, &cluster)]
}

fn slow(n: u64) -> u64 {
    if n < 2 { n } else { slow(n - 1) + slow(n - 2) }
}

fn ask(cluster: &Cluster, n: u64) -> u64 {
    let answer = cluster.client().post("numbers/a/fibonacci", &json!({ "n": n }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().as_u64().expect("a number")
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn in_milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn native(options: &Options, cluster: &Cluster) -> Row {
    let (mut ours, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        told(&format!("fibonacci({ONE}), round {round} …"));
        let expected = black_box(slow(black_box(ONE)));
        let here = timed(|| assert_eq!(ask(cluster, ONE), expected));
        let there = timed(|| assert_eq!(black_box(slow(black_box(ONE))), expected));
        ratios.push(here.as_secs_f64() / there.as_secs_f64());
        ours.push(in_milliseconds(here));
        beside.push(in_milliseconds(there));
    }
    let ratio = median(ratios);
    row(
        &format!("fibonacci({ONE}): in a module / native"),
        milliseconds(median(ours)),
        milliseconds(median(beside)),
        format!("{ratio:.2}"),
        "≤ 2",
        ratio <= 2.0,
    )
}

fn parallel(options: &Options, cluster: &Cluster) -> Row {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(2);
    let (mut together, mut apart, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        told(&format!("{TIMES} × fibonacci({MANY}), round {round} …"));
        let sequence = timed(|| (0..TIMES).for_each(|_| _ = ask(cluster, MANY)));
        let at_once = timed(|| {
            thread::scope(|scope| {
                for _ in 0..TIMES {
                    scope.spawn(|| ask(cluster, MANY));
                }
            });
        });
        ratios.push(at_once.as_secs_f64() * cores as f64 / sequence.as_secs_f64());
        together.push(in_milliseconds(at_once));
        apart.push(in_milliseconds(sequence));
    }
    let ratio = median(ratios);
    row(
        &format!("{TIMES} × fibonacci({MANY}) at once × {cores} cores / in sequence"),
        milliseconds(median(together)),
        milliseconds(median(apart)),
        format!("{ratio:.2}"),
        "≤ 1.25",
        ratio <= 1.25,
    )
}
