//! The rows about modules that are replaced inside running workers.
//!
//! The load calls code of the module and waits for no disk: what a command answers is not stored.

use std::{
    thread,
    time::{Duration, Instant},
};

use aegis_guests::{Guest, answer};
use aegis_harness::{
    App, Cluster, Start, app,
    load::{Plan, Report},
};
use serde_json::json;

use crate::{
    Options, chance,
    metronome::Metronome,
    modules::{BASE, post, specification},
    rows::{Row, milliseconds, none_failed, row},
    told,
    windows::{Order, Record, Sample, Window, above, pooled, quantile, quantile_ms},
};

/// Connections that keep the workers busy.
const CONNECTIONS: usize = 16;
/// Versions that follow each other in one round.
const SWAPS: usize = 20;
/// A request is slow that takes this many times the p99 of the quiet windows.
const SLOWER: u32 = 2;
/// Time of one exchange in one worker, milliseconds.
const EXCHANGE_MS_MAX: f64 = 5.0;
/// How long a window takes at least.
const WINDOW: Duration = Duration::from_millis(300);
/// What counts after an exchange was told done, since then the old version's code and instances go.
const AFTERMATH: Duration = Duration::from_millis(100);

/// A model with code of which one version follows the other, asked as fast as it answers.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let settings = "[reload]\nmode = \"swap\"\ncanary-time = \"20ms\"\ncanary-requests-min = 1000000000\n";
    let app = App::todo().settings(settings).component("swapped", version(0));
    let cluster = Start::app(app).workers(2).start();
    assert_eq!(cluster.client().post("swapped", &json!({"id": "a", "text": "x"})).status, 201);
    let (request, record) = (post(&cluster, &format!("{BASE}/swapped/a/version"), "{}"), Record::default());
    let heard = record.clone();
    let running = Plan::get(cluster.address, CONNECTIONS, "")
        .requests(move |_| request.clone())
        .on_latency(move |begun, took| heard.add(begun, took))
        .spawn();
    let metronome = Metronome::start();
    let swaps = SWAPS * options.rounds;
    let mut windows = Windows::default();
    thread::sleep(WINDOW); // connections and first calls
    for number in 1..=swaps {
        told(&format!("swap {number} of {swaps} …"));
        windows.pair(&cluster, number);
    }
    let late = metronome.stop();
    let report = running.stop();
    assert_eq!(windows.exchanges_us.len(), 2 * swaps, "every worker tells of every exchange");
    let last = cluster.client().post("swapped/a/version", &json!({}));
    assert_eq!(last.json()["by"], swaps, "the last version answers");
    windows.rows(&report, &record.all(), &late)
}

/// A component whose command says which version it is.
fn version(number: usize) -> Vec<u8> {
    let mut spec = specification("swapped");
    spec["commands"] = json!([{ "name": "version" }]);
    Guest::model(spec).command("version", answer(&format!("{{\"by\":{number}}}"))).build()
}

/// Windows with an exchange and windows without, equally long in each pair.
#[derive(Default)]
struct Windows {
    pairs: Vec<Pair>,
    /// The longest so far with an exchange.
    longest: Duration,
    /// Exchanges in workers, microseconds.
    exchanges_us: Vec<u64>,
}

struct Pair {
    /// One, or one before and what it lacked in length after.
    quiet: Vec<Window>,
    swapped: Window,
}

impl Windows {
    fn pair(&mut self, cluster: &Cluster, number: usize) {
        let component = version(number);
        // How long the exchange takes is known only when it is over.
        let expected = self.longest.max(WINDOW);
        let mut quiet = Vec::new();
        if Order::of_pair(number) == Order::QuietFirst {
            quiet.push(Window::pass(expected));
        }
        let swapped = self.swap(cluster, &component, expected);
        let passed: Duration = quiet.iter().map(Window::length).sum();
        let missing = swapped.length().saturating_sub(passed);
        if !missing.is_zero() {
            quiet.push(Window::pass(missing));
        }
        self.longest = self.longest.max(swapped.length());
        self.pairs.push(Pair { quiet, swapped });
    }

    /// An exchange at the beginning of a window that lasts at least so long.
    fn swap(&mut self, cluster: &Cluster, component: &[u8], least: Duration) -> Window {
        let begun = Instant::now();
        app::write_component(cluster.folder(), "swapped", component);
        let output = cluster.aegis(&["reload"]);
        assert!(output.status.success(), "{output:?}");
        let rest = least.saturating_sub(begun.elapsed()).max(AFTERMATH);
        thread::sleep(rest);
        let words =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        self.exchanges_us.extend(words.lines().filter_map(exchange_us));
        Window { begun, ended: Instant::now() }
    }

    fn rows(&self, report: &Report, calls: &[Sample], late: &[Sample]) -> Vec<Row> {
        let swaps = self.pairs.len();
        let quiet_windows: Vec<Window> = self.pairs.iter().flat_map(|pair| pair.quiet.clone()).collect();
        let swap_windows: Vec<Window> = self.pairs.iter().map(|pair| pair.swapped).collect();
        let (quiet, swapped) = (pooled(calls, &quiet_windows), pooled(calls, &swap_windows));
        let limit_us = quantile(&quiet, 0.99).unwrap_or(0).saturating_mul(SLOWER);
        let counts: Vec<(u32, u32)> = self
            .pairs
            .iter()
            .map(|pair| {
                let slow = |windows: &[Window]| above(&pooled(calls, windows), limit_us) as u32;
                (slow(&[pair.swapped]), slow(&pair.quiet))
            })
            .collect();
        let (slow, slow_quiet) = (above(&swapped, limit_us), above(&quiet, limit_us));
        let chance = chance::of_no_fewer(&counts);
        let longest = self.exchanges_us.iter().max().map_or(f64::INFINITY, |&us| us as f64 / 1e3);
        vec![
            none_failed(&format!("swap × {swaps}"), report),
            row(
                &format!("swap × {swaps}, a command: above {SLOWER} × quiet p99"),
                share(slow, swapped.len()),
                share(slow_quiet, quiet.len()),
                format!("p={chance:.3}"),
                &format!("no more than without swaps (p ≥ {})", chance::LEVEL),
                chance >= chance::LEVEL && !quiet.is_empty() && !swapped.is_empty(),
            ),
            beside(&format!("swap × {swaps}, a command: p99"), 0.99, &swapped, &quiet),
            beside(&format!("swap × {swaps}, a command: slowest"), 1.0, &swapped, &quiet),
            beside(
                "  p99 of how late a sleeper woke up meanwhile",
                0.99,
                &pooled(late, &swap_windows),
                &pooled(late, &quiet_windows),
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
}

/// A row that only informs: a quantile with exchanges beside that without.
fn beside(name: &str, quantile: f64, swapped: &[u32], quiet: &[u32]) -> Row {
    let (swapped, quiet) = (quantile_ms(swapped, quantile), quantile_ms(quiet, quantile));
    row(name, milliseconds(swapped), milliseconds(quiet), format!("{:.2}", swapped / quiet), "–", true)
}

fn share(slow: usize, all: usize) -> String {
    format!("{slow} {:.3}%", slow as f64 * 100.0 / all.max(1) as f64)
}

/// Microseconds of the exchange that a line tells of.
fn exchange_us(line: &str) -> Option<u64> {
    line.split_once("exchanged in ")?.1.split_once(" µs")?.0.parse().ok()
}
