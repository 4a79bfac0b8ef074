//! A load generator that classifies every failure.
//!
//! One thread, one epoll set, closed loop: each connection sends its next request when its response is complete (or,
//! with a rate, when its turn has come, from which its answer counts however late the one before was). Anything but a complete response with a wanted status is a failure: refused,
//! reset, end of file, timed out, another status. A connection that the server announced to close is opened anew and
//! is no failure; one that just ends is.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::http::Failure;

mod connection;
mod run;
mod schedule;

/// Whether connections are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// One connection for many requests.
    KeepAlive,
    /// One connection for each request.
    PerRequest,
}

/// Makes the bytes of the request with the given number.
pub type MakeRequest = Box<dyn FnMut(u64) -> Vec<u8> + Send>;

/// Hears of each request that succeeded, by its number.
pub type HearSuccess = Box<dyn FnMut(u64) + Send>;

/// Hears of each request that succeeded, from when its answer counts and how long that took.
pub type HearLatency = Box<dyn FnMut(Instant, Duration) + Send>;

/// What is to be sent.
pub struct Plan {
    /// Where to.
    pub address: SocketAddr,
    /// How many connections at once.
    pub connections: usize,
    /// Whether they are kept.
    pub reuse: Reuse,
    /// Requests per second over all connections; as fast as possible when absent.
    pub rate: Option<u64>,
    /// Time a request may take.
    pub timeout: Duration,
    /// Statuses that count as success.
    pub wanted: fn(u16) -> bool,
    /// The requests.
    pub request: MakeRequest,
    /// Who hears which of them succeeded.
    pub succeeded: HearSuccess,
    /// Who hears when that was.
    pub timed: HearLatency,
}

impl Plan {
    /// Keep-alive GETs of one path, as fast as possible.
    #[must_use]
    pub fn get(address: SocketAddr, connections: usize, path: &str) -> Self {
        let bytes = crate::http::encode("GET", path, &address.to_string(), &[], b"");
        Self {
            address,
            connections,
            reuse: Reuse::KeepAlive,
            rate: None,
            timeout: Duration::from_secs(20),
            wanted: |status| (200..300).contains(&status),
            request: Box::new(move |_| bytes.clone()),
            succeeded: Box::new(|_| ()),
            timed: Box::new(|_, _| ()),
        }
    }

    /// The same with requests of the caller's making.
    #[must_use]
    pub fn requests(mut self, request: impl FnMut(u64) -> Vec<u8> + Send + 'static) -> Self {
        self.request = Box::new(request);
        self
    }

    /// The same with somebody who hears which requests succeeded.
    #[must_use]
    pub fn on_success(mut self, succeeded: impl FnMut(u64) + Send + 'static) -> Self {
        self.succeeded = Box::new(succeeded);
        self
    }

    /// The same with somebody who hears from when the answer to each request that succeeded counts, and how long it took.
    #[must_use]
    pub fn on_latency(mut self, timed: impl FnMut(Instant, Duration) + Send + 'static) -> Self {
        self.timed = Box::new(timed);
        self
    }

    /// The same with another treatment of connections.
    #[must_use]
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.reuse = reuse;
        self
    }

    /// The same, paced.
    #[must_use]
    pub fn rate(mut self, per_second: u64) -> Self {
        self.rate = Some(per_second);
        self
    }

    /// Runs for a time in this thread.
    #[must_use]
    pub fn run_for(self, duration: Duration) -> Report {
        let stop = Arc::new(AtomicBool::new(false));
        run::run(self, &stop, &AtomicU64::new(0), Some(Instant::now() + duration))
    }

    /// Runs in a thread of its own until stopped.
    #[must_use]
    pub fn spawn(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let thread = thread::spawn({
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            move || run::run(self, &stop, &done, None)
        });
        Running { stop, done, thread }
    }
}

/// A load that runs in the background.
pub struct Running {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<Report>,
}

impl Running {
    /// Requests completed so far, failed ones included.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets requests in flight finish and reports.
    ///
    /// # Panics
    /// When the load thread has panicked.
    #[must_use]
    pub fn stop(self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the load thread ends by itself")
    }
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Complete, wanted responses.
    pub succeeded: u64,
    /// Everything else, by kind.
    pub failures: BTreeMap<Failure, u64>,
    /// Connections opened.
    pub connections: u64,
    /// Successful responses by `Aegis-Worker`.
    pub workers: BTreeMap<String, u64>,
    /// Responses of a generation older than one that had answered on the same connection.
    pub backward: u64,
    /// Responses that do not name exactly one generation.
    pub unnamed: u64,
    /// Time the load ran.
    pub elapsed: Duration,
    /// Latencies of successful requests in microseconds, sorted.
    pub latencies_us: Vec<u32>,
}

impl Report {
    /// Number of failures.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Successful requests per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.succeeded as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Latency below which the given share (0 to 1) of the successful requests lies.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        if self.latencies_us.is_empty() {
            return Duration::ZERO;
        }
        let last = self.latencies_us.len() - 1;
        let index = ((last as f64) * share).round() as usize;
        Duration::from_micros(u64::from(self.latencies_us[index.min(last)]))
    }

    /// Asserts that nothing failed and that something was done.
    ///
    /// # Panics
    /// With the failures by kind.
    pub fn assert_clean(&self) {
        assert!(self.failures.is_empty(), "{} of {}: {:?}", self.failed(), self.succeeded, self.failures);
        assert!(self.succeeded > 0, "the load did nothing");
    }

    /// Asserts that each response is of one generation, and that on each connection none follows a newer one.
    ///
    /// # Panics
    /// With how many are not.
    pub fn assert_generations_grow(&self) {
        assert_eq!((self.unnamed, self.backward), (0, 0), "unnamed and backward of {}", self.succeeded);
    }

    /// Adds another report to this one.
    pub fn merge(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.connections += other.connections;
        self.backward += other.backward;
        self.unnamed += other.unnamed;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (worker, count) in other.workers {
            *self.workers.entry(worker).or_default() += count;
        }
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies_us.extend(other.latencies_us);
        self.latencies_us.sort_unstable();
    }
}
