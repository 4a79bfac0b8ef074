//! The rows about rolling reloads: every worker is replaced, again and again, while clients ask as fast as they are
//! answered.

use std::{
    thread,
    time::{Duration, Instant},
};

use aegis_harness::{
    Cluster, app,
    load::{Plan, Report, Reuse},
};
use aegis_ipc::slice;

use crate::{
    Options, keep_running,
    metronome::Metronome,
    rows::{Row, milliseconds, none_failed, row},
    subject, told,
    windows::{Order, Record, Sample, Window, pooled, quantile_ms},
};

/// Connections that keep the workers busy.
const CONNECTIONS: usize = 64;
/// Reloads that follow each other without a pause in one window.
const RELOADS_IN_A_ROW: usize = 5;
/// What counts after a reload was told done, since the workers before it end then.
const AFTERMATH: Duration = Duration::from_millis(100);
/// How long nothing counts after that.
const SETTLING: Duration = Duration::from_millis(100);
/// The first quiet window, before it is known how long the reloads take.
const WINDOW: Duration = Duration::from_millis(500);
/// Requests that are asked for beside 200 reloads.
const REQUESTS: u64 = 1_000_000;
/// A p99 during reloads is at most so many times the one without.
const RATIO_MAX: f64 = 1.5;

/// Reloads with connections that are kept, and with one for each request.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    [Reuse::KeepAlive, Reuse::PerRequest].into_iter().flat_map(|reuse| rows(options, reuse)).collect()
}

fn rows(options: &Options, reuse: Reuse) -> Vec<Row> {
    let (cluster, _) = subject::start("[reload]\ncanary-time = \"20ms\"\ncanary-requests-min = 1000000000");
    let name = match reuse {
        Reuse::KeepAlive => "keep-alive",
        Reuse::PerRequest => "connection each",
    };
    let record = Record::default();
    let heard = record.clone();
    // Clients stand for those that are elsewhere, whom nothing that starts on this machine holds up.
    slice::ask_for_short();
    let running = Plan::get(cluster.address, CONNECTIONS, subject::PATH)
        .reuse(reuse)
        .on_latency(move |begun, took| heard.add(begun, took))
        .spawn();
    slice::ask_for_usual();
    let metronome = Metronome::start();
    let mut windows = Windows::default();
    thread::sleep(SETTLING);
    while windows.reloads < options.reloads {
        told(&format!("reload {} of {}, {name} …", windows.reloads + 1, options.reloads));
        windows.pair(&cluster, options.reloads);
    }
    let late = metronome.stop();
    // A reload that finds nothing new succeeds too.
    assert_eq!(cluster.status().generation, 1 + options.reloads as u64, "each reload made a generation");
    keep_running(&running, REQUESTS * options.reloads as u64 / 200);
    windows.rows(&format!("reload × {}, {name}", options.reloads), &running.stop(), &record.all(), &late)
}

/// Windows with reloads and windows without, equally long in each pair.
#[derive(Default)]
struct Windows {
    quiet: Vec<Window>,
    reloading: Vec<Window>,
    reloads: usize,
}

impl Windows {
    fn pair(&mut self, cluster: &Cluster, reloads_max: usize) {
        let before = self.reloading.last().map_or(WINDOW, Window::length);
        match Order::of_pair(self.reloading.len()) {
            Order::QuietFirst => {
                self.quiet(before);
                self.reload(cluster, reloads_max);
            }
            Order::DisturbedFirst => {
                let length = self.reload(cluster, reloads_max);
                self.quiet(length);
            }
        }
    }

    fn quiet(&mut self, length: Duration) {
        thread::sleep(SETTLING);
        self.quiet.push(Window::pass(length));
    }

    fn reload(&mut self, cluster: &Cluster, reloads_max: usize) -> Duration {
        let begun = Instant::now();
        for _ in 0..RELOADS_IN_A_ROW.min(reloads_max - self.reloads) {
            // Two texts in turn: each reload finds another one than the generation in force has.
            app::write_module(cluster.folder(), "todo", &app::revised_todo(self.reloads as u32 % 2));
            cluster.aegis_ok(&["reload"]);
            self.reloads += 1;
        }
        thread::sleep(AFTERMATH);
        let window = Window { begun, ended: Instant::now() };
        self.reloading.push(window);
        window.length()
    }

    fn rows(&self, name: &str, report: &Report, requests: &[Sample], late: &[Sample]) -> Vec<Row> {
        let compared = |samples: &[Sample], share| {
            [&self.reloading, &self.quiet].map(|windows| quantile_ms(&pooled(samples, windows), share))
        };
        let beside = |name: &str, [ours, beside]: [f64; 2], limit: Option<f64>| {
            let ratio = ours / beside;
            let must = limit.map_or("–".to_owned(), |limit| format!("≤ {limit}"));
            let held = limit.is_none_or(|limit| ratio <= limit);
            row(name, milliseconds(ours), milliseconds(beside), format!("{ratio:.2}"), &must, held)
        };
        vec![
            none_failed(name, report),
            beside(&format!("{name}: p99 / quiet"), compared(requests, 0.99), Some(RATIO_MAX)),
            beside(&format!("{name}: p50 / quiet"), compared(requests, 0.5), None),
            beside("  p99 of how late a sleeper woke up meanwhile", compared(late, 0.99), None),
        ]
    }
}
