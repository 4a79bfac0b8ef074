//! What every answer is held to, whoever asked and whatever is being broken.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use aegis_harness::{Client, Failure, Response};

/// Codes of a 503 that says that nothing was done.
const NOT_DONE: &[&str] = &["contended", "overloaded", "store-unavailable"];
/// Code of a 503 that says that a write may have been made or not.
const UNKNOWN: &str = "write-outcome-unknown";
/// Examples of each kind of defect that one client keeps.
const EXAMPLES_MAX: usize = 100;
const DOWN_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What all clients and the nemesis share.
pub(crate) struct Watch {
    pub(crate) client: Client,
    pub(crate) stop: AtomicBool,
    /// Highest log position that any client was answered with.
    sequence: AtomicU64,
    /// Counts up when the whole host is about to be killed, and again when it listens: odd while it is down.
    outages: AtomicU64,
}

/// The state of the world when a request began.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    sequence: u64,
    outages: u64,
}

/// What a client knows after a request.
pub(crate) enum Meaning {
    /// It was answered, with one of the statuses that the request can have.
    Told(Response),
    /// Nothing was done.
    NotDone,
    /// It may have been done, and if it was not, may still be.
    Unknown,
}

/// What one client saw beside the answers themselves.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Requests without a usable answer, by kind.
    pub(crate) unanswered: BTreeMap<String, u64>,
    /// Requests that were cut off while the host as a whole was up.
    pub(crate) cut: u64,
    /// Failures and statuses that nothing that was broken explains.
    pub(crate) unexpected: Vec<String>,
    /// Answers that reflected an older log position than an answer that some client had before the request began.
    pub(crate) stale: Vec<String>,
}

impl Watch {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, stop: AtomicBool::new(false), sequence: AtomicU64::new(0), outages: AtomicU64::new(0) }
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// To be called before a request; waits while the whole host is down.
    pub(crate) fn ask(&self) -> Asked {
        loop {
            let outages = self.outages.load(Ordering::SeqCst);
            if outages.is_multiple_of(2) {
                return Asked { sequence: self.sequence.load(Ordering::SeqCst), outages };
            }
            thread::sleep(DOWN_POLL_INTERVAL);
        }
    }

    /// The whole host goes down, or is back.
    pub(crate) fn turn(&self) {
        self.outages.fetch_add(1, Ordering::SeqCst);
    }
}

impl Tally {
    /// Judges how a request ended that may be answered with the statuses `expected`.
    pub(crate) fn judge(
        &mut self,
        watch: &Watch,
        asked: Asked,
        expected: &[u16],
        result: Result<Response, Failure>,
    ) -> Meaning {
        let response = match result {
            Ok(response) => response,
            Err(failure) => return self.judge_failure(watch, asked, &failure),
        };
        self.judge_sequence(watch, asked, &response);
        if expected.contains(&response.status) {
            return Meaning::Told(response);
        }
        let problem: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or("none");
        *self.unanswered.entry(format!("{} {code}", response.status)).or_default() += 1;
        let may_return = response.status == 503 && response.header("retry-after").is_some();
        if may_return && NOT_DONE.contains(&code) {
            return Meaning::NotDone;
        }
        if !may_return || code != UNKNOWN {
            keep(&mut self.unexpected, || format!("status {}: {}", response.status, response.text()));
        }
        Meaning::Unknown
    }

    fn judge_failure(&mut self, watch: &Watch, asked: Asked, failure: &Failure) -> Meaning {
        *self.unanswered.entry(failure.to_string()).or_default() += 1;
        if watch.outages.load(Ordering::SeqCst) == asked.outages {
            match failure {
                Failure::Reset | Failure::EndOfFile => self.cut += 1,
                other => keep(&mut self.unexpected, || format!("{other} while the host is up")),
            }
        }
        // Nobody listened, so nobody was asked.
        if *failure == Failure::Refused { Meaning::NotDone } else { Meaning::Unknown }
    }

    /// Every answer that carries a log position reflects at least what anybody, this client included, saw before.
    fn judge_sequence(&mut self, watch: &Watch, asked: Asked, response: &Response) {
        if response.header("aegis-seq").is_none() {
            return keep(&mut self.unexpected, || format!("status {} without Aegis-Seq", response.status));
        }
        let (sequence, before) = (response.sequence(), asked.sequence);
        if sequence < before {
            keep(&mut self.stale, || {
                format!("status {} at {sequence} after an answer at {before}", response.status)
            });
        }
        watch.sequence.fetch_max(sequence, Ordering::SeqCst);
    }

    /// Adds what another client saw.
    pub(crate) fn merge(&mut self, other: Self) {
        for (kind, count) in other.unanswered {
            *self.unanswered.entry(kind).or_default() += count;
        }
        self.cut += other.cut;
        self.unexpected.extend(other.unexpected);
        self.stale.extend(other.stale);
    }
}

/// Keeps an example of a defect, unless there are enough.
pub(crate) fn keep(examples: &mut Vec<String>, example: impl FnOnce() -> String) {
    if examples.len() < EXAMPLES_MAX {
        examples.push(example());
    }
}
