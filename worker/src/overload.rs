//! Says no at once when the worker is full, so that nobody waits for an answer that comes too late.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aegis_config::settings::Limits;
use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::{Cell, Counter, Gauge};

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
}

/// A request that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admitted(&'static AtomicU64);

/// An event stream that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct AdmittedStream(Arc<AtomicU64>);

impl Load {
    pub(crate) fn new(cell: Cell, limits: &Limits) -> Self {
        Self {
            in_flight: cell.gauge(Gauge::InFlight),
            refused: cell.counter(Counter::Overloaded),
            in_flight_max: u64::from(limits.requests_in_flight_max),
            streams: Arc::new(AtomicU64::new(0)),
            streams_max: u64::from(limits.streams_max),
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
            return Ok(AdmittedStream(Arc::clone(&self.streams)));
        }
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.refused.fetch_add(1, Ordering::Relaxed);
        let detail = format!("this worker serves {} event streams already, its most", self.streams_max);
        Err(Problem::new(ProblemCode::Overloaded, detail))
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

impl Drop for AdmittedStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
