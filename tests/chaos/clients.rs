//! Clients that read and write a few documents, each in a thread, and write down what they see.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use aegis_harness::{Connection, Failure, Response};
use porcupine_rs::Operation;

use crate::{
    history::{Action, Document, Keyed},
    watch::{Meaning, Tally, Watch},
};

/// What these clients share.
pub(crate) struct Shared<'a> {
    pub(crate) watch: &'a Watch,
    pub(crate) keys: usize,
    pub(crate) begun: Instant,
    pub(crate) values: AtomicU64,
}

/// What one client brings home.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) history: Vec<Operation<Document>>,
    pub(crate) tally: Tally,
    /// Writes followed by a read, and those where another worker answered the read.
    pub(crate) pairs: (u64, u64),
}

/// A small generator (xorshift): the runs need variety, not secrecy.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

struct Runner<'a> {
    shared: &'a Shared<'a>,
    number: u32,
    dice: Dice,
    connection: Option<Connection>,
    record: Record,
    last_write: Option<String>,
    revisions: Vec<u64>,
}

/// Runs one client until it is told to stop.
pub(crate) fn run(shared: &Shared<'_>, number: u32) -> Record {
    let mut runner = Runner::new(shared, number);
    while shared.watch.goes_on() {
        runner.step();
    }
    runner.record
}

/// Reads every document once more: what was acknowledged must still be there.
pub(crate) fn final_reads(shared: &Shared<'_>) -> Record {
    let mut runner = Runner::new(shared, u32::MAX);
    for key in 0..shared.keys {
        runner.perform(key, &Wish::Read);
    }
    runner.record
}

enum Wish {
    Read,
    Create(u64),
    Replace(u64),
    Compare(u64, u64),
    Remove,
}

impl Wish {
    /// Statuses that say what became of it.
    fn statuses(&self) -> &'static [u16] {
        match self {
            Self::Read | Self::Replace(_) | Self::Remove => &[200, 404],
            Self::Create(_) => &[201, 412],
            Self::Compare(..) => &[200, 404, 412],
        }
    }
}

impl<'a> Runner<'a> {
    fn new(shared: &'a Shared<'a>, number: u32) -> Self {
        Self {
            shared,
            number,
            dice: Dice::new(u64::from(number) + 1),
            connection: None,
            record: Record::default(),
            last_write: None,
            revisions: vec![1; shared.keys],
        }
    }

    fn step(&mut self) {
        let key = self.dice.below(self.shared.keys as u64) as usize;
        let value = self.shared.values.fetch_add(1, Ordering::Relaxed);
        let wish = match self.dice.below(100) {
            0..50 => Wish::Read,
            50..62 => Wish::Create(value),
            62..78 => Wish::Replace(value),
            78..94 => Wish::Compare(self.revisions[key], value),
            _ => Wish::Remove,
        };
        self.perform(key, &wish);
        let keep = if matches!(wish, Wish::Read) { 3 } else { 10 };
        if self.dice.below(keep) != 0 {
            self.connection = None; // the next request may reach another worker
        }
    }

    fn perform(&mut self, key: usize, wish: &Wish) {
        let asked = self.shared.watch.ask();
        let called = self.now();
        let result = self.send(key, wish);
        let returned = self.now();
        if result.is_err() {
            self.connection = None;
        }
        match self.record.tally.judge(self.shared.watch, asked, wish.statuses(), result) {
            Meaning::Told(response) => self.note(key, wish, &response, called, returned),
            Meaning::NotDone => {}
            Meaning::Unknown => self.unknown(key, wish, called),
        }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.shared.begun.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    fn send(&mut self, key: usize, wish: &Wish) -> Result<Response, Failure> {
        let path = format!("/aegis/api/models/todo/k{key}");
        let body = |value: u64| format!("{{\"n\":{value}}}").into_bytes();
        let (method, guard, body) = match wish {
            Wish::Read => ("GET", None, Vec::new()),
            Wish::Create(value) => ("PUT", Some(("if-none-match", "*".to_owned())), body(*value)),
            Wish::Replace(value) => ("PUT", None, body(*value)),
            Wish::Compare(revision, value) => {
                ("PATCH", Some(("if-match", format!("\"{revision}\""))), body(*value))
            }
            Wish::Remove => ("DELETE", None, Vec::new()),
        };
        let mut headers = vec![("content-type", "application/json")];
        if let Some((name, value)) = &guard {
            headers.push((name, value));
        }
        if self.connection.is_none() {
            self.connection = Some(self.shared.watch.client.connect()?);
        }
        let Some(connection) = &mut self.connection else { return Err(Failure::Refused) };
        let response = connection.request(method, &path, &headers, &body)?;
        if response.closes() {
            self.connection = None;
        }
        Ok(response)
    }

    fn note(&mut self, key: usize, wish: &Wish, response: &Response, called: i64, returned: i64) {
        self.watch_workers(wish, response);
        let revision = response.header("etag").and_then(|tag| tag.trim_matches('"').parse::<u64>().ok());
        if let Some(revision) = revision {
            self.revisions[key] = revision;
        }
        let made = Some(if response.status < 300 { revision } else { None });
        let action = match wish {
            Wish::Read => Action::Read { seen: revision.map(|revision| (revision, value_of(response))) },
            Wish::Create(value) => Action::Create { value: *value, created: Some(response.status == 201) },
            Wish::Replace(value) => Action::Replace { value: *value, revision: made },
            Wish::Compare(expected, value) => {
                Action::Compare { expected: *expected, value: *value, revision: made }
            }
            Wish::Remove => Action::Remove { removed: Some(response.status == 200) },
        };
        self.push(key, action, called, returned);
    }

    /// Counts how often a read after a write was answered by another worker than the write.
    fn watch_workers(&mut self, wish: &Wish, response: &Response) {
        match wish {
            Wish::Read => {
                if let Some(writer) = self.last_write.take() {
                    self.record.pairs.0 += 1;
                    self.record.pairs.1 += u64::from(writer != response.worker());
                }
            }
            _ => self.last_write = Some(response.worker().to_owned()),
        }
    }

    /// A write whose outcome is not known may take effect at any time from now on, or never.
    fn unknown(&mut self, key: usize, wish: &Wish, called: i64) {
        let action = match wish {
            Wish::Read => return,
            Wish::Create(value) => Action::Create { value: *value, created: None },
            Wish::Replace(value) => Action::Replace { value: *value, revision: None },
            Wish::Compare(expected, value) => {
                Action::Compare { expected: *expected, value: *value, revision: None }
            }
            Wish::Remove => Action::Remove { removed: None },
        };
        self.push(key, action, called, i64::MAX);
    }

    fn push(&mut self, key: usize, action: Action, called: i64, returned: i64) {
        self.record.history.push(Operation {
            client_id: Some(self.number),
            call_time: called,
            return_time: returned,
            op: Keyed { key, action },
            metadata: None,
        });
    }
}

fn value_of(response: &Response) -> u64 {
    response.json()["n"].to_string().parse().unwrap_or(u64::MAX)
}
