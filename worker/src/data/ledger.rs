//! Requests to the store that have no answer yet. Pure: no socket, no clock.
//!
//! A request that was sent when the connection broke is sent again, under the same number and in the order of the
//! numbers; the store recognises a write it has committed. A write that is too old for that is given up, because the
//! store may have forgotten it: its outcome stays unknown.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use aegis_ipc::brief;

/// Encoded requests that may wait at once, bytes.
pub(super) const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What kind of request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Changes something: may be sent again only while the store surely remembers it.
    Write,
    /// Changes nothing: may be sent again at any time.
    Question,
}

/// Too many requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// What is known about a request when nobody waits for its answer any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// It was never sent and never will be.
    NeverSent,
    /// It was sent: the store may or may not have carried it out.
    Sent,
    /// It was answered before, or given up.
    Settled,
}

/// All requests without an answer. `A` is where the answer goes.
#[derive(Debug)]
pub(super) struct Ledger<A> {
    waiting: BTreeMap<u64, Entry<A>>,
    unsent: BTreeSet<u64>,
    urgent: Vec<u8>,
    open: bool,
    /// The store reads writes in their brief form.
    brief: bool,
    bytes: usize,
    writes: usize,
    writes_max: usize,
}

#[derive(Debug)]
struct Entry<A> {
    nature: Nature,
    frame: Vec<u8>,
    since: Instant,
    sent: Sent,
    answer: A,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Never,
    Before,
}

impl<A> Ledger<A> {
    /// At most `writes_max` writes may wait at once.
    pub(super) fn new(writes_max: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            unsent: BTreeSet::new(),
            urgent: Vec::new(),
            open: false,
            brief: true,
            bytes: 0,
            writes: 0,
            writes_max,
        }
    }

    /// Writes without an answer.
    pub(super) fn writes_waiting(&self) -> usize {
        self.writes
    }

    /// Takes a request in. Numbers are never used twice.
    pub(super) fn admit(
        &mut self,
        request: u64,
        nature: Nature,
        frame: Vec<u8>,
        now: Instant,
        answer: A,
    ) -> Result<(), Full> {
        let full = nature == Nature::Write && self.writes >= self.writes_max;
        if full || self.bytes + frame.len() > WAITING_BYTES_MAX {
            return Err(Full);
        }
        self.bytes += frame.len();
        self.writes += usize::from(nature == Nature::Write);
        self.unsent.insert(request);
        self.waiting.insert(request, Entry { nature, frame, since: now, sent: Sent::Never, answer });
        Ok(())
    }

    /// Sends a message without an answer before everything else; forgotten when the connection breaks.
    pub(super) fn send_first(&mut self, frame: &[u8]) {
        self.urgent.extend_from_slice(frame);
    }

    /// The store said whether it reads writes in the form in which they wait.
    pub(super) fn attached(&mut self, brief: bool) {
        self.brief = brief;
    }

    /// The store accepted the connection: requests may be sent.
    pub(super) fn opened(&mut self) {
        self.open = true;
    }

    /// Moves what is to be sent next into `buffer`, about `bytes_max` bytes of it (at least one request). Returns how
    /// many of them are writes that were sent before.
    pub(super) fn take(&mut self, buffer: &mut Vec<u8>, bytes_max: usize) -> u64 {
        buffer.append(&mut self.urgent);
        let mut again = 0;
        while self.open && buffer.len() < bytes_max {
            let Some(request) = self.unsent.pop_first() else { break };
            let Some(entry) = self.waiting.get_mut(&request) else { continue };
            if self.brief {
                buffer.extend_from_slice(&entry.frame);
            } else if let Err(error) = brief::write_plainly(&entry.frame, buffer) {
                tracing::error!(
                    request,
                    error = &error as &dyn std::error::Error,
                    "a request cannot be sent"
                );
                continue;
            }
            again += u64::from(entry.nature == Nature::Write && entry.sent == Sent::Before);
            entry.sent = Sent::Before;
        }
        again
    }

    /// An answer came. `None` when nobody waits for it.
    pub(super) fn answered(&mut self, request: u64) -> Option<A> {
        self.remove(request).map(|entry| entry.answer)
    }

    /// Nobody waits for the answer any longer.
    pub(super) fn withdraw(&mut self, request: u64) -> Withdrawn {
        match self.remove(request).map(|entry| entry.sent) {
            None => Withdrawn::Settled,
            Some(Sent::Never) => Withdrawn::NeverSent,
            Some(Sent::Before) => Withdrawn::Sent,
        }
    }

    /// The connection is gone: everything is to be sent again, except writes older than `write_time_max` that were
    /// sent before. Their outcome is unknown; they are returned.
    pub(super) fn closed(&mut self, now: Instant, write_time_max: Duration) -> Vec<A> {
        self.open = false;
        self.urgent.clear();
        let too_old: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, entry)| {
                entry.nature == Nature::Write
                    && entry.sent == Sent::Before
                    && now.saturating_duration_since(entry.since) >= write_time_max
            })
            .map(|(request, _)| *request)
            .collect();
        let given_up = too_old.into_iter().filter_map(|request| self.answered(request)).collect();
        self.unsent = self.waiting.keys().copied().collect();
        given_up
    }

    fn remove(&mut self, request: u64) -> Option<Entry<A>> {
        let entry = self.waiting.remove(&request)?;
        self.unsent.remove(&request);
        self.bytes -= entry.frame.len();
        self.writes -= usize::from(entry.nature == Nature::Write);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn taken(ledger: &mut Ledger<u64>, bytes_max: usize) -> (Vec<u8>, u64) {
        let mut buffer = Vec::new();
        let again = ledger.take(&mut buffer, bytes_max);
        (buffer, again)
    }

    #[test]
    fn nothing_is_sent_before_the_store_accepts_except_what_is_urgent() {
        let mut ledger = Ledger::new(8);
        ledger.admit(1, Nature::Write, vec![1], Instant::now(), 1).unwrap();
        ledger.send_first(&[9]);
        assert_eq!(taken(&mut ledger, 100), (vec![9], 0));
        ledger.opened();
        assert_eq!(taken(&mut ledger, 100), (vec![1], 0));
        assert_eq!(taken(&mut ledger, 100), (vec![], 0));
    }

    #[test]
    fn a_withdrawn_request_tells_whether_it_was_ever_sent() {
        let mut ledger = Ledger::new(8);
        for request in 1..=3 {
            ledger.admit(request, Nature::Write, vec![0; 10], Instant::now(), request).unwrap();
        }
        ledger.opened();
        assert_eq!(taken(&mut ledger, 1).0.len(), 10);
        assert_eq!(ledger.withdraw(1), Withdrawn::Sent);
        assert_eq!(ledger.withdraw(2), Withdrawn::NeverSent);
        assert_eq!(ledger.answered(3), Some(3));
        assert_eq!(ledger.withdraw(3), Withdrawn::Settled);
        assert_eq!((ledger.bytes, ledger.writes_waiting()), (0, 0));
    }

    #[test]
    fn only_young_writes_are_sent_again() {
        let start = Instant::now();
        let mut ledger = Ledger::new(8);
        ledger.admit(1, Nature::Write, vec![1], start, 1).unwrap();
        ledger.admit(2, Nature::Question, vec![2], start, 2).unwrap();
        ledger.admit(3, Nature::Write, vec![3], start + TIMEOUT / 2, 3).unwrap();
        ledger.opened();
        taken(&mut ledger, 100);
        ledger.admit(4, Nature::Write, vec![4], start, 4).unwrap();
        assert_eq!(
            ledger.closed(start + TIMEOUT, TIMEOUT),
            [1],
            "4 was never sent, so it cannot have been made"
        );
        assert_eq!(taken(&mut ledger, 100), (vec![], 0));
        ledger.opened();
        assert_eq!(taken(&mut ledger, 100), (vec![2, 3, 4], 1));
    }

    #[test]
    fn writes_and_bytes_are_bounded() {
        let mut ledger = Ledger::new(1);
        let now = Instant::now();
        ledger.admit(1, Nature::Write, vec![1], now, 1).unwrap();
        assert_eq!(ledger.admit(2, Nature::Write, vec![2], now, 2), Err(Full));
        ledger.admit(3, Nature::Question, vec![3], now, 3).unwrap();
        assert_eq!(ledger.admit(4, Nature::Question, vec![0; WAITING_BYTES_MAX], now, 4), Err(Full));
    }

    proptest! {
        #[test]
        fn after_any_losses_every_request_is_on_the_wire_once_per_connection_in_order(
            steps in prop::collection::vec((0..4_u8, 1..5_u64), 1..60)
        ) {
            let now = Instant::now();
            let mut ledger = Ledger::new(usize::MAX);
            let (mut next, mut wire) = (1_u64, Vec::new());
            ledger.opened();
            for (step, argument) in steps {
                match step {
                    0 => for _ in 0..argument {
                        ledger.admit(next, Nature::Write, vec![next as u8], now, next).unwrap();
                        next += 1;
                    },
                    1 => { ledger.take(&mut wire, argument as usize); }
                    2 => { wire.first().copied().map(|first| ledger.answered(u64::from(first))); }
                    _ => {
                        prop_assert!(ledger.closed(now, TIMEOUT).is_empty());
                        wire.clear();
                        ledger.opened();
                    }
                }
            }
            ledger.take(&mut wire, usize::MAX);
            prop_assert!(wire.is_sorted_by(|a, b| a < b), "{wire:?}");
            for request in ledger.waiting.keys() {
                prop_assert!(wire.contains(&(*request as u8)));
            }
        }
    }
}
