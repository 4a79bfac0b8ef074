//! Says no at once when the worker is full, so that nobody waits for an answer that comes too late.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aegis_config::settings::Limits;
use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::{Cell, Counter, Gauge};

use crate::connection::Protocol;

/// Most bytes of answers that wait until clients take them. A larger answer may wait alone.
pub(crate) const UNTAKEN_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What the worker has on its hands.
///
/// Reads that are answered from the cache at once are not counted: they are over before another request can begin
/// on the same runtime.
#[derive(Debug)]
pub(crate) struct Load {
    in_flight: &'static AtomicU64,
    refused: &'static AtomicU64,
    in_flight_max: u64,
    streams: Arc<AtomicU64>,
    streams_max: u64,
    untaken_bytes: Arc<AtomicU64>,
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(&'static AtomicU64);

/// An event stream that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct AdmittedStream {
    streams: Arc<AtomicU64>,
    untaken_bytes: Arc<AtomicU64>,
}

/// Bytes that wait until a client takes them, until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    all: Arc<AtomicU64>,
    bytes: u64,
}

impl Load {
    pub(crate) fn new(cell: Cell, limits: &Limits) -> Self {
        Self {
            in_flight: cell.gauge(Gauge::InFlight),
            refused: cell.counter(Counter::Overloaded),
            in_flight_max: u64::from(limits.requests_in_flight_max),
            streams: Arc::new(AtomicU64::new(0)),
            streams_max: u64::from(limits.streams_max),
            untaken_bytes: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Lets a request in, or says that the worker is full.
    pub(crate) fn admit(&self) -> Result<Admitted, Problem> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) < self.in_flight_max {
            return Ok(Admitted(self.in_flight));
        }
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        let detail = format!("this worker answers {} requests already, its most", self.in_flight_max);
        Err(Problem::new(ProblemCode::Overloaded, detail))
    }

    /// Lets an event stream in, or says that the worker has as many as it may.
    pub(crate) fn admit_stream(&self) -> Result<AdmittedStream, Problem> {
        if self.streams.fetch_add(1, Ordering::Relaxed) < self.streams_max {
            return Ok(AdmittedStream {
                streams: Arc::clone(&self.streams),
                untaken_bytes: Arc::clone(&self.untaken_bytes),
            });
        }
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        let detail = format!("this worker serves {} event streams already, its most", self.streams_max);
        Err(Problem::new(ProblemCode::Overloaded, detail))
    }

    /// Lets bytes wait for their client, or says that there are as many as there may be.
    pub(crate) fn hold(&self, bytes: u64) -> Result<Held, Problem> {
        let (held, before) = Held::new(&self.untaken_bytes, bytes);
        if before == 0 || before.saturating_add(bytes) <= UNTAKEN_BYTES_MAX {
            return Ok(held);
        }
        Err(self.too_much_is_untaken())
    }

    /// Lets bytes wait that have to be sent, such as the answer to a write. [`Self::room`] was asked before.
    pub(crate) fn hold_anyway(&self, bytes: u64) -> Held {
        Held::new(&self.untaken_bytes, bytes).0
    }

    /// Says no, before anything is done, to what cannot be refused any more when its answer is there. Over HTTP/1, where a
    /// connection has one answer at a time, that is said late: slow readers of large answers keep nobody from writing.
    pub(crate) fn room(&self, protocol: Protocol) -> Result<(), Problem> {
        let bytes_max = match protocol {
            // The host asks itself.
            Protocol::Unknown => u64::MAX,
            Protocol::Http1 => 2 * UNTAKEN_BYTES_MAX,
            Protocol::Http2 => UNTAKEN_BYTES_MAX,
        };
        if self.untaken_bytes() < bytes_max { Ok(()) } else { Err(self.too_much_is_untaken()) }
    }

    fn too_much_is_untaken(&self) -> Problem {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let detail = "clients of this worker leave as much of its answers untaken as it keeps for them";
        Problem::new(ProblemCode::Overloaded, detail)
    }

    /// Bytes of large answers that clients have yet to take.
    pub(crate) fn untaken_bytes(&self) -> u64 {
        self.untaken_bytes.load(Ordering::Relaxed)
    }

    /// Event streams being served.
    pub(crate) fn streams(&self) -> u64 {
        self.streams.load(Ordering::Relaxed)
    }

    /// Requests being answered.
    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AdmittedStream {
    /// Counts bytes of the stream that wait when it has ended.
    pub(crate) fn leave_behind(&self, bytes: u64) -> Held {
        Held::new(&self.untaken_bytes, bytes).0
    }
}

impl Held {
    /// The guard, and how many bytes waited before.
    fn new(all: &Arc<AtomicU64>, bytes: u64) -> (Self, u64) {
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        (Self { all: Arc::clone(all), bytes }, before)
    }
}

impl Drop for AdmittedStream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use aegis_ipc::board::Board;

    use super::*;
    use crate::data::tests::config;

    #[test]
    fn what_waits_for_clients_is_bounded_unless_it_waits_alone() {
        let load = Load::new(Board::create().unwrap().0.cell(0), &config().limits);
        let large = load.hold(2 * UNTAKEN_BYTES_MAX).unwrap();
        assert_eq!(load.hold(1).unwrap_err().code, ProblemCode::Overloaded);
        assert_eq!(load.untaken_bytes(), 2 * UNTAKEN_BYTES_MAX, "what is refused does not wait");
        drop(large);
        let most = load.hold(UNTAKEN_BYTES_MAX - 1).unwrap();
        assert!(load.room(Protocol::Http2).is_ok());
        let last = load.hold(1).unwrap();
        assert!(load.hold(1).is_err() && load.room(Protocol::Http2).is_err());
        assert!(load.room(Protocol::Http1).is_ok(), "what only reads keeps nobody from writing");
        let answers_to_writes = load.hold_anyway(UNTAKEN_BYTES_MAX);
        assert_eq!(load.room(Protocol::Http1).unwrap_err().code, ProblemCode::Overloaded);
        assert!(load.room(Protocol::Unknown).is_ok(), "the host asks itself");
        drop((most, last, answers_to_writes));
        assert_eq!(load.untaken_bytes(), 0);
    }
}
