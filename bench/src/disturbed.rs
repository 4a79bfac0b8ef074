//! Reads at a fixed rate that leaves the machine room, in windows with a disturbing load and in windows without.

use std::{thread, time::Duration};

use aegis_harness::{
    Cluster,
    load::{Plan, Running},
};
use aegis_ipc::slice;
use serde_json::json;

use crate::{
    Options,
    metronome::Metronome,
    modules::BASE,
    rows::{Row, milliseconds, row},
    told,
    windows::{Order, Record, Sample, Window, pooled, quantile_ms},
};

/// Reads each second, over all connections.
const READS: u64 = 2_000;
const CONNECTIONS: usize = 8;
/// How long a window of each kind takes: long enough that calls of the disturbing load begin, go on and end in it.
const WINDOW: Duration = Duration::from_secs(1);
/// What does not count after each change: the disturbing load opens its connections, or what is left of it ends.
const SETTLING: Duration = Duration::from_millis(100);
/// What is compared.
const SHARE: f64 = 0.99;

/// What a row claims.
pub(crate) struct Claim<'a> {
    pub(crate) name: &'a str,
    /// The largest ratio, and the same in words.
    pub(crate) most: f64,
    pub(crate) must: &'a str,
}

/// What was measured.
#[derive(Default)]
struct Measured {
    quiet: Vec<Window>,
    disturbed: Vec<Window>,
    /// Calls of the disturbing load that were answered during its windows.
    answered: u64,
    /// Windows of it in which none was.
    idle_windows: usize,
}

/// Two rows: the reads, and how late a thread that only sleeps woke up meanwhile. `disturb` starts the load that
/// disturbs; a window in which none of its calls is answered has not been one, and the row does not hold.
pub(crate) fn rows(
    claim: &Claim<'_>,
    cluster: &Cluster,
    options: &Options,
    disturb: impl Fn(&Cluster) -> Running,
) -> Vec<Row> {
    assert_eq!(cluster.client().post("todo", &json!({"id": "bench", "text": "x"})).status, 201);
    let metronome = Metronome::start();
    let record = Record::default();
    let heard = record.clone();
    // Readers stand for clients that are elsewhere, whom nothing that computes on this machine holds up.
    slice::ask_for_short();
    let reading = Plan::get(cluster.address, CONNECTIONS, &format!("{BASE}/todo/bench"))
        .rate(READS)
        .on_latency(move |begun, took| heard.add(begun, took))
        .spawn();
    slice::ask_for_usual();
    let mut measured = Measured::default();
    let time = options.duration() * u32::try_from(options.rounds).unwrap_or(u32::MAX);
    let pairs = (time.as_secs_f64() / WINDOW.as_secs_f64()).ceil() as usize;
    for pair in 0..pairs {
        told(&format!("{}, window {} of {pairs} …", claim.name, pair + 1));
        match Order::of_pair(pair) {
            Order::QuietFirst => {
                measured.quiet();
                measured.disturbed(cluster, &disturb);
            }
            Order::DisturbedFirst => {
                measured.disturbed(cluster, &disturb);
                measured.quiet();
            }
        }
    }
    let late = metronome.stop();
    reading.stop().assert_clean();
    measured.rows(claim, &record.all(), &late)
}

impl Measured {
    fn quiet(&mut self) {
        thread::sleep(SETTLING);
        self.quiet.push(Window::pass(WINDOW));
    }

    fn disturbed(&mut self, cluster: &Cluster, disturb: impl Fn(&Cluster) -> Running) {
        let running = disturb(cluster);
        thread::sleep(SETTLING);
        let before = running.completed();
        self.disturbed.push(Window::pass(WINDOW));
        let answered = running.completed() - before;
        self.answered += answered;
        self.idle_windows += usize::from(answered == 0);
        // What it still has in flight ends before the next window begins to settle.
        running.stop().assert_clean();
    }

    fn rows(&self, claim: &Claim<'_>, reads: &[Sample], late: &[Sample]) -> Vec<Row> {
        let Claim { name, most, must } = claim;
        let compared = |samples: &[Sample]| {
            let (quiet, disturbed) = (pooled(samples, &self.quiet), pooled(samples, &self.disturbed));
            told(&format!(
                "{name}: {} samples, p50 {:.2} ms, quiet {}, p50 {:.2} ms",
                disturbed.len(),
                quantile_ms(&disturbed, 0.5),
                quiet.len(),
                quantile_ms(&quiet, 0.5),
            ));
            (quantile_ms(&disturbed, SHARE), quantile_ms(&quiet, SHARE))
        };
        let (disturbed, quiet) = compared(reads);
        let (late_disturbed, late_quiet) = compared(late);
        let ratio = disturbed / quiet;
        told(&format!(
            "{name}: {} disturbing calls were answered in {} windows, none in {} of them",
            self.answered,
            self.disturbed.len(),
            self.idle_windows
        ));
        let must = match self.idle_windows {
            0 => (*must).to_owned(),
            idle => format!("{must}; nothing disturbed {idle} of {} windows", self.disturbed.len()),
        };
        vec![
            row(
                name,
                milliseconds(disturbed),
                milliseconds(quiet),
                format!("{ratio:.2}"),
                &must,
                ratio <= *most && self.idle_windows == 0,
            ),
            row(
                "  p99 of how late a sleeper woke up meanwhile",
                milliseconds(late_disturbed),
                milliseconds(late_quiet),
                format!("{:.2}", late_disturbed / late_quiet),
                "–",
                true,
            ),
        ]
    }
}
