//! The row about modules that are replaced inside running workers.

use std::time::Duration;

use aegis_guests::{Guest, splice};
use aegis_harness::{
    App, Start, app,
    load::{Plan, Report},
};
use serde_json::json;

use crate::{
    Options, median,
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
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        told(&format!("swap: quiet load, round {} …", round + 1));
        let quiet = plan().run_for(Duration::from_secs(options.seconds * 2));
        quiet.assert_clean();
        told(&format!("swap: {SWAPS} versions under load …"));
        let running = plan().spawn();
        let mut exchanges_us = Vec::new();
        for number in 1..=SWAPS {
            app::write_component(cluster.folder(), "swapped", &version(SWAPS * round as u64 + number));
            let output = cluster.aegis(&["reload"]);
            assert!(output.status.success(), "{output:?}");
            let words = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            exchanges_us.extend(words.lines().filter_map(exchange_us));
        }
        let swapped = running.stop();
        assert_eq!(exchanges_us.len() as u64, 2 * SWAPS, "every worker tells of every exchange");
        rounds.push(Round {
            quiet,
            swapped,
            exchange_us_max: exchanges_us.into_iter().max().unwrap_or(u64::MAX),
        });
    }
    let last = SWAPS * options.rounds as u64;
    assert_eq!(cluster.client().post("swapped", &json!({"text": "x"})).json()["by"], last);
    rows(&rounds)
}

/// Load without and with exchanges, one after the other.
struct Round {
    quiet: Report,
    swapped: Report,
    /// Longest exchange in a worker, microseconds.
    exchange_us_max: u64,
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let failed: u64 = rounds.iter().map(|round| round.swapped.failed()).sum();
    let succeeded: u64 = rounds.iter().map(|round| round.swapped.succeeded).sum();
    let longest = rounds.iter().map(|round| round.exchange_us_max).max().unwrap_or(u64::MAX) as f64 / 1e3;
    let ratio = of(|round| slowest_ms(&round.swapped) / p99_ms(&round.quiet));
    let of_slowest = of(|round| slowest_ms(&round.swapped) / slowest_ms(&round.quiet));
    vec![
        row(
            &format!("swap × {SWAPS}: failed"),
            failed.to_string(),
            format!("of {succeeded}"),
            String::new(),
            "0",
            failed == 0 && succeeded > 0,
        ),
        row(
            &format!("swap × {SWAPS}: slowest request / quiet p99"),
            milliseconds(of(|round| slowest_ms(&round.swapped))),
            milliseconds(of(|round| p99_ms(&round.quiet))),
            format!("{ratio:.2}"),
            "≤ 2",
            ratio <= SLOWER_MAX,
        ),
        row(
            &format!("swap × {SWAPS}: slowest request / slowest quiet one"),
            milliseconds(of(|round| slowest_ms(&round.swapped))),
            milliseconds(of(|round| slowest_ms(&round.quiet))),
            format!("{of_slowest:.2}"),
            "–",
            true,
        ),
        row(
            "swap: longest exchange in a worker",
            milliseconds(longest),
            String::new(),
            String::new(),
            "≤ 5 ms",
            longest <= EXCHANGE_MS_MAX,
        ),
    ]
}

fn p99_ms(report: &Report) -> f64 {
    report.quantile(0.99).as_secs_f64() * 1e3
}

fn slowest_ms(report: &Report) -> f64 {
    report.quantile(1.0).as_secs_f64() * 1e3
}

/// Microseconds of the exchange that a line tells of.
fn exchange_us(line: &str) -> Option<u64> {
    line.split_once("exchanged in ")?.1.split_once(" µs")?.0.parse().ok()
}
