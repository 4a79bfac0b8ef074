//! Threads for code that computes for long, so that the threads that serve connections keep their latency.
//!
//! There are two pools of them. CPU-bound commands begin on one, behind a bounded queue: who comes when it is full is told
//! so at once instead of waiting past the deadline. Anything else begins where its request is, and works overtime on a
//! thread of the other pool when it is not over after its slices; there is no queue there. A caller who goes away cancels
//! its call; a call that was not begun is not begun any more.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime::Handle, sync::oneshot};
use wasmtime::Engine;

/// Stack of a thread: code runs on its own stack, but host functions run on top of it.
const STACK_BYTES: usize = 2 * 1024 * 1024;
/// How much less threads weigh that carry out what was declared to take long, when there are too few cores for them and
/// for those that serve connections (`nice`).
pub(crate) const NICE_DECLARED: i32 = 10;
/// The same for those that work overtime: they should not be at work at all.
pub(crate) const NICE_OVERTIME: i32 = 19;

/// A call on its way.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Threads for computations, and their queue.
#[derive(Debug)]
pub struct CpuPool {
    threads: rayon::ThreadPool,
    threads_count: usize,
    /// Calls that run or wait.
    taken: Arc<AtomicUsize>,
    queue_max: usize,
}

/// A place in the queue or on a thread.
#[derive(Debug)]
pub(crate) struct Place {
    taken: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

impl CpuPool {
    /// A pool whose threads are called `name-0`, `name-1` and so on, and begin with `begin`.
    pub(crate) fn new(
        name: &'static str,
        (threads, queue_max): (usize, usize),
        nice: i32,
        begin: fn(),
    ) -> Result<Self, String> {
        let threads_count = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads_count)
            .thread_name(move |number| format!("{name}-{number}"))
            .stack_size(STACK_BYTES)
            .start_handler(move |_| {
                Engine::tls_eager_initialize();
                // On Linux this is about the thread alone. Where it is forbidden, all threads weigh the same.
                let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
                begin();
            })
            .panic_handler(|_| tracing::error!(target: "aegis::wasm", "a call panicked on the CPU pool"))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { threads: pool, threads_count, taken: Arc::new(AtomicUsize::new(0)), queue_max })
    }

    /// Calls that run or wait.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place on a thread or in the queue; none when it is full.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place_among(self.threads_count + self.queue_max)
    }

    /// A place on a thread at once.
    pub(crate) fn free_thread(&self) -> Option<Place> {
        self.place_among(self.threads_count)
    }

    fn place_among(&self, most: usize) -> Option<Place> {
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < most).then_some(taken + 1))
            .ok()
            .map(|_| Place { taken: Arc::clone(&self.taken) })
    }

    /// Carries work out on one of the threads, unless `is_wanted` says no when its turn comes, and tells `computed` how
    /// long that kept a processor busy. `None` when it was not carried out to its end.
    pub(crate) async fn carry_out<T: Send + 'static>(
        &self,
        place: Place,
        work: Work<T>,
        is_wanted: impl FnOnce() -> bool + Send + 'static,
        computed: impl FnOnce(Duration) + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let handle = Handle::current();
        self.threads.spawn(move || {
            if is_wanted() {
                let before = processor_time();
                let answered = handle.block_on(work);
                computed(processor_time().saturating_sub(before));
                drop(place); // before the caller knows, who may ask again at once
                let _ = answer.send(answered);
            }
        });
        answered.await.ok()
    }
}

/// How long this thread has been run by a processor. It stands still while others are run, however busy the machine is.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
