//! What makes running code look at its deadline: a thread that counts epochs while any code runs, and sleeps otherwise.
//!
//! It is a thread of the operating system, because a task would starve with the runtime that it is there to save.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Thread},
    time::Duration,
};

use wasmtime::Engine;

/// Time between two looks of running code at its deadline, after the first. It is also the longest that code keeps a thread
/// from others then.
pub(crate) const EPOCH: Duration = Duration::from_millis(1);

/// Counts the epochs of one engine until it is dropped, and then as long as code still runs.
#[derive(Debug)]
pub(crate) struct Ticker {
    ticks: Ticks,
}

/// For those whose code runs without a runtime at hand.
#[derive(Debug, Clone)]
pub(crate) struct Ticks {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Debug, Default)]
struct Shared {
    /// Calls that run.
    running: AtomicUsize,
    ended: AtomicBool,
}

/// Code runs as long as this is held.
#[derive(Debug)]
pub(crate) struct Running {
    shared: Arc<Shared>,
}

impl Ticker {
    /// Begins to count.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub(crate) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (engine, counted) = (engine.weak(), Arc::clone(&shared));
        let count = move || {
            loop {
                // In this order: whoever begins to run after the second look finds what the first one has found.
                let has_ended = counted.ended.load(Ordering::SeqCst);
                if counted.running.load(Ordering::SeqCst) == 0 {
                    if has_ended {
                        return;
                    }
                    thread::park();
                    continue;
                }
                thread::sleep(EPOCH);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        };
        let thread = thread::Builder::new().name("epoch".to_owned()).spawn(count)?.thread().clone();
        Ok(Self { ticks: Ticks { shared, thread } })
    }

    /// One that does not count: whoever tests code has the engine tick.
    #[cfg(test)]
    pub(crate) fn by_hand() -> Self {
        Self { ticks: Ticks { shared: Arc::default(), thread: thread::current() } }
    }

    /// Code begins to run.
    pub(crate) fn running(&self) -> Running {
        self.ticks.begin()
    }

    pub(crate) fn ticks(&self) -> &Ticks {
        &self.ticks
    }
}

impl Ticks {
    /// Code begins to run; nothing when nobody counts any more, and it would never look at its deadline.
    pub(crate) fn running(&self) -> Option<Running> {
        let running = self.begin();
        (!self.shared.ended.load(Ordering::SeqCst)).then_some(running)
    }

    fn begin(&self) -> Running {
        if self.shared.running.fetch_add(1, Ordering::SeqCst) == 0 {
            self.thread.unpark();
        }
        Running { shared: Arc::clone(&self.shared) }
    }
}

impl Clone for Running {
    /// The same code, held once more.
    fn clone(&self) -> Self {
        self.shared.running.fetch_add(1, Ordering::AcqRel);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.ticks.shared.ended.store(true, Ordering::SeqCst);
        self.ticks.thread.unpark();
    }
}
