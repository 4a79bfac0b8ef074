//! Lists show one prefix of the log, whichever worker answers and whatever is being broken.
//!
//! One writer raises a row of counters in turn, each step only after the one before was acknowledged, and makes a pair
//! of documents with one request after each. So the counters in one list say how many steps it reflects, and there is
//! only one way to say it; and half a pair is never right.

use std::sync::atomic::{AtomicU64, Ordering};

use aegis_harness::{App, Response, client::MODELS};
use serde_json::{Value, json};

use crate::watch::{Meaning, Tally, Watch, keep};

/// Counters in one list.
const COUNTERS: u64 = 8;
/// Pairs that are made in one run: bounds the memory of a long one.
const PAIRS_MAX: u64 = 50_000;
/// Newest pairs that a list is asked for.
const PAIRS_SHOWN: usize = 10;

/// What the writer and the readers share.
pub(crate) struct Steps<'a> {
    watch: &'a Watch,
    /// Steps that were begun.
    begun: AtomicU64,
    /// Steps that were acknowledged.
    acknowledged: AtomicU64,
}

/// What the writer or a reader brings home.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) tally: Tally,
    /// Lists that were looked at.
    pub(crate) lists: u64,
    /// Steps that were acknowledged.
    pub(crate) steps: u64,
    /// Lists that no prefix of the log explains.
    pub(crate) wrong: Vec<String>,
}

impl Record {
    pub(crate) fn merge(&mut self, other: Self) {
        self.tally.merge(other.tally);
        self.lists += other.lists;
        self.steps += other.steps;
        self.wrong.extend(other.wrong);
    }
}

/// Adds the models that the lists are of.
pub(crate) fn add_models(app: App) -> App {
    app.module("counter", "name = \"counter\"\nendpoint = \"counters\"\n[fields]\nn = \"integer\"\n")
        .module("pair", "name = \"pair\"\nendpoint = \"pairs\"\n[fields]\nn = \"integer\"\n")
}

impl<'a> Steps<'a> {
    /// Makes the counters, all of them zero.
    pub(crate) fn begin(watch: &'a Watch) -> Self {
        let counters: Vec<Value> = (0..COUNTERS).map(|n| json!({"id": format!("c{n}"), "n": 0})).collect();
        let made = watch.client.post("counters", &json!(counters));
        assert_eq!(made.status, 201, "{}", made.text());
        Self { watch, begun: AtomicU64::new(0), acknowledged: AtomicU64::new(0) }
    }

    /// Makes steps until told to stop.
    pub(crate) fn write(&self) -> Record {
        let mut record = Record::default();
        for step in 1_u64.. {
            self.begun.store(step, Ordering::SeqCst);
            if !self.raise(step, &mut record.tally) {
                break;
            }
            self.acknowledged.store(step, Ordering::SeqCst);
            record.steps = step;
            if step <= PAIRS_MAX {
                let documents = ["a", "b"].map(|half| json!({"id": format!("{step:08}-{half}"), "n": step}));
                // Made or not, known or not: either both are there or neither is.
                let body = json!(documents).to_string();
                let _ = self.send(&mut record.tally, &[201], "POST", "pairs", &[], body.as_bytes());
            }
        }
        record
    }

    /// Raises the counter whose turn it is, until that is acknowledged; false when told to stop before.
    fn raise(&self, step: u64, tally: &mut Tally) -> bool {
        let (counter, value) = ((step - 1) % COUNTERS, (step - 1) / COUNTERS + 1);
        let path = format!("counters/c{counter}");
        // Each counter was made with revision 1 and value 0. The guard keeps a write whose answer was lost from being
        // made a second time, at whatever time.
        let guard = format!("\"{value}\"");
        let headers = [("if-match", guard.as_str())];
        let body = format!("{{\"n\":{value}}}");
        let mut may_be_made = false;
        while self.watch.goes_on() {
            let expected: &[u16] = if may_be_made { &[200, 412] } else { &[200] };
            match self.send(tally, expected, "PATCH", &path, &headers, body.as_bytes()) {
                Meaning::Told(_) => return true,
                Meaning::NotDone => {}
                Meaning::Unknown => may_be_made = true,
            }
        }
        false
    }

    /// Looks at lists until told to stop.
    pub(crate) fn read(&self) -> Record {
        let mut record = Record::default();
        while self.watch.goes_on() {
            let acknowledged = self.acknowledged.load(Ordering::SeqCst);
            let path = format!("counters?__sort=id&__limit={COUNTERS}");
            if let Meaning::Told(response) = self.send(&mut record.tally, &[200], "GET", &path, &[], b"") {
                let begun = self.begun.load(Ordering::SeqCst);
                record.lists += 1;
                if let Err(why) = explain(&numbers(&response), acknowledged, begun) {
                    keep(&mut record.wrong, || why);
                }
            }
            let path = format!("pairs?__sort=-id&__limit={}", 2 * PAIRS_SHOWN);
            if let Meaning::Told(response) = self.send(&mut record.tally, &[200], "GET", &path, &[], b"") {
                record.lists += 1;
                let numbers = numbers(&response);
                if !numbers.chunks(2).all(|pair| matches!(pair, [a, b] if a == b)) {
                    keep(&mut record.wrong, || format!("half a pair in {numbers:?}"));
                }
            }
        }
        record
    }

    fn send(
        &self,
        tally: &mut Tally,
        expected: &[u16],
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Meaning {
        let asked = self.watch.ask();
        let client =
            headers.iter().fold(self.watch.client.clone(), |client, (name, value)| client.with(name, value));
        let result = client.try_send(method, &format!("{MODELS}/{path}"), body);
        tally.judge(self.watch, asked, expected, result)
    }
}

fn numbers(response: &Response) -> Vec<u64> {
    let rows = response.json();
    let number = |row: &Value| row["n"].to_string().parse().unwrap_or(u64::MAX);
    rows.as_array().map(|rows| rows.iter().map(number).collect()).unwrap_or_default()
}

/// Says why no prefix of the log that ends between the steps `acknowledged` and `begun` has these counters.
fn explain(counters: &[u64], acknowledged: u64, begun: u64) -> Result<(), String> {
    let steps: u64 = counters.iter().fold(0, |sum, counter| sum.saturating_add(*counter));
    let expected: Vec<u64> =
        (0..COUNTERS).map(|counter| (steps + COUNTERS - 1 - counter) / COUNTERS).collect();
    if counters != expected {
        return Err(format!("counters {counters:?}, which were never so"));
    }
    if !(acknowledged..=begun).contains(&steps) {
        return Err(format!(
            "{steps} steps, although {acknowledged} were acknowledged before and {begun} begun after"
        ));
    }
    Ok(())
}

/// Whether the check of the lists sees one that mixes two moments, and one that is too old.
pub(crate) fn sees_planted_mistakes() -> bool {
    let now = [4, 4, 4, 3, 3, 3, 3, 3];
    let mixed = [3, 4, 4, 3, 3, 3, 3, 3];
    explain(&now, 27, 27).is_ok() && explain(&mixed, 0, u64::MAX).is_err() && explain(&now, 28, 28).is_err()
}
