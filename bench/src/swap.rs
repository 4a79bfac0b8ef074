//! The row about modules that are replaced inside running workers.

use std::time::Duration;

use aegis_guests::{Guest, splice};
use aegis_harness::{App, Start, app, load::Plan};
use serde_json::json;

use crate::{
    Options,
    modules::{BASE, post, specification},
    rows::{Row, milliseconds, row},
    told,
};

/// Connections that keep the workers busy.
const CONNECTIONS: usize = 16;
/// Versions that follow each other while the load runs.
const SWAPS: u64 = 20;
/// A request may take this many times the quiet p99.
const SLOWER_MAX: f64 = 2.0;
/// Time of one exchange in one worker, milliseconds.
const EXCHANGE_MS_MAX: f64 = 5.0;

/// A model with code of which one version follows the other, asked as fast as it answers.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let version = |number: u64| {
        let hook = splice("input", &format!("\"by\":{number}"));
        Guest::model(specification("swapped")).hook("on-create", hook).build()
    };
    let settings = "[reload]\nmode = \"swap\"\ncanary-time = \"20ms\"\ncanary-requests-min = 1000000000\n";
    let app = App::todo().settings(settings).component("swapped", version(0));
    let cluster = Start::app(app).workers(2).start();
    let plan = || {
        let request = post(&cluster, &format!("{BASE}/swapped"), "{\"text\":\"x\"}");
        Plan::get(cluster.address, CONNECTIONS, "").requests(move |_| request.clone())
    };
    told("swap: quiet load …");
    let quiet = plan().run_for(Duration::from_secs(options.seconds * 2));
    quiet.assert_clean();
    told(&format!("swap: {SWAPS} versions under load …"));
    let running = plan().spawn();
    let mut exchanges_us = Vec::new();
    for number in 1..=SWAPS {
        app::write_component(cluster.folder(), "swapped", &version(number));
        let output = cluster.aegis(&["reload"]);
        assert!(output.status.success(), "{output:?}");
        let words =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        exchanges_us.extend(words.lines().filter_map(exchange_us));
    }
    let report = running.stop();
    assert_eq!(exchanges_us.len() as u64, 2 * SWAPS, "every worker tells of every exchange");
    assert_eq!(cluster.client().post("swapped", &json!({"text": "x"})).json()["by"], SWAPS);
    let (p99, slowest) = (quiet.quantile(0.99).as_secs_f64() * 1e3, report.quantile(1.0).as_secs_f64() * 1e3);
    let longest = exchanges_us.iter().copied().max().unwrap_or(u64::MAX) as f64 / 1e3;
    let ratio = slowest / p99;
    let failed = report.failed();
    vec![
        row(
            &format!("swap × {SWAPS}: failed"),
            failed.to_string(),
            format!("of {}", report.succeeded),
            String::new(),
            "0",
            failed == 0 && report.succeeded > 0,
        ),
        row(
            &format!("swap × {SWAPS}: slowest request / quiet p99"),
            milliseconds(slowest),
            milliseconds(p99),
            format!("{ratio:.2}"),
            "≤ 2",
            ratio <= SLOWER_MAX,
        ),
        row(
            "swap: longest exchange in a worker",
            milliseconds(longest),
            format!("quiet max {}", milliseconds(quiet.quantile(1.0).as_secs_f64() * 1e3)),
            String::new(),
            "≤ 5 ms",
            longest <= EXCHANGE_MS_MAX,
        ),
    ]
}

/// Microseconds of the exchange that a line tells of.
fn exchange_us(line: &str) -> Option<u64> {
    line.split_once("exchanged in ")?.1.split_once(" µs")?.0.parse().ok()
}
