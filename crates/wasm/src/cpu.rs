//! Threads for code that computes for long, so that the threads that serve connections keep their latency.
//!
//! Commands that are CPU-bound by declaration begin on one, behind a bounded queue: who comes when it is full is told so at
//! once instead of waiting past the deadline. A caller who goes away cancels its call; one that was not begun leaves the queue.
//! Anything else begins where its request is, see [`crate::overtime`].

use std::{
    collections::BTreeMap,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{runtime::Handle, sync::oneshot};
use wasmtime::Engine;

/// Stack of a thread: code runs on its own stack, but host functions run on top of it.
pub(crate) const STACK_BYTES: usize = 2 * 1024 * 1024;
/// How much less these threads weigh when there are too few cores for them and for those that serve connections (`nice`).
const NICE: i32 = 15;

/// A call on its way.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a thread does for a call.
type Job = Box<dyn FnOnce() + Send>;

/// Threads for computations, and their queue.
#[derive(Debug)]
pub struct CpuPool {
    threads: rayon::ThreadPool,
    threads_count: usize,
    /// Calls that run or wait.
    taken: Arc<AtomicUsize>,
    queue_max: usize,
    queue: Arc<Mutex<Queue>>,
}

/// Calls that wait for a thread. They are here and not in the queue of the threads, since nobody can leave that one.
#[derive(Default)]
struct Queue {
    /// By number, which is the order in which they came.
    waiting: BTreeMap<u64, Job>,
    next: u64,
    /// Threads that take one call after the other from here: those that are at it, and those that were asked to be.
    busy: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (waiting, busy) = (self.waiting.len(), self.busy);
        formatter
            .debug_struct("Queue")
            .field("waiting", &waiting)
            .field("busy", &busy)
            .finish_non_exhaustive()
    }
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

/// The end of a call's wait, when its caller does not wait any longer: who comes next finds its place free.
struct LeaveOnDrop<'a> {
    queue: &'a Mutex<Queue>,
    number: u64,
}

impl Drop for LeaveOnDrop<'_> {
    fn drop(&mut self) {
        let left = lock(self.queue).waiting.remove(&self.number);
        drop(left); // not while others wait for the queue
    }
}

impl CpuPool {
    /// A pool of so many threads, each of which begins with `begin`, and a queue.
    pub(crate) fn new((threads, queue_max): (usize, usize), begin: fn()) -> Result<Self, String> {
        let threads_count = threads.max(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads_count)
            .thread_name(|number| format!("cpu-{number}"))
            .stack_size(STACK_BYTES)
            .start_handler(move |_| {
                Engine::tls_eager_initialize();
                weigh_less(NICE);
                begin();
            })
            .build()
            .map_err(|error| error.to_string())?;
        let (taken, queue) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        Ok(Self { threads: pool, threads_count, taken, queue_max, queue })
    }

    /// Calls that run or wait.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// A place on a thread or in the queue; none when it is full.
    pub(crate) fn place(&self) -> Option<Place> {
        let most = self.threads_count + self.queue_max;
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |taken| (taken < most).then_some(taken + 1))
            .ok()
            .map(|_| Place { taken: Arc::clone(&self.taken) })
    }

    /// Carries work out on one of the threads, as long as the future that this returns is there. `None` when it was not
    /// carried out to its end.
    pub(crate) async fn carry_out<T: Send + 'static>(&self, place: Place, work: Work<T>) -> Option<T> {
        let (mut answer, answered) = oneshot::channel();
        let handle = Handle::current();
        let job = Box::new(move || {
            if answer.is_closed() {
                return;
            }
            let outcome = handle.block_on(async {
                tokio::select! {
                    biased;
                    outcome = work => Some(outcome),
                    () = answer.closed() => None,
                }
            });
            drop(place); // before the caller knows, who may ask again at once
            if let Some(outcome) = outcome {
                let _ = answer.send(outcome);
            }
        });
        let _leaves = self.wait(job);
        answered.await.ok()
    }

    /// Puts a call at the end of the queue.
    fn wait(&self, job: Job) -> LeaveOnDrop<'_> {
        let mut queue = lock(&self.queue);
        let number = queue.next;
        queue.next += 1;
        queue.waiting.insert(number, job);
        if queue.busy < self.threads_count {
            queue.busy += 1;
            let shared = Arc::clone(&self.queue);
            self.threads.spawn(move || work_off(&shared));
        }
        LeaveOnDrop { queue: &self.queue, number }
    }
}

/// Carries one call out after the other, until none waits.
fn work_off(queue: &Mutex<Queue>) {
    loop {
        let next = {
            let mut queue = lock(queue);
            let next = queue.waiting.pop_first();
            if next.is_none() {
                queue.busy -= 1;
            }
            next
        };
        let Some((_, job)) = next else { return };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!(target: "aegis::wasm", "a call panicked on the CPU pool");
        }
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the calling thread `nice`. On Linux this is about the thread alone. Where it is forbidden, all threads weigh the
/// same.
pub(crate) fn weigh_less(nice: i32) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
}
