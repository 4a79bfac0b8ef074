//! Threads for code that computes for longer than its slices where its request is.
//!
//! There are few of them, and all such calls take turns on them, a slice each. With a thread for each call they would
//! contend for the processors with each other, and the operating system makes up to each of them for what it had to wait
//! for the others: for milliseconds at a time, at the cost of threads that serve and that wake up just then.

use std::{future::poll_fn, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};
use wasmtime::Engine;

use crate::cpu::{STACK_BYTES, Work, weigh_less};

/// How much less these threads weigh than those that serve (`nice`): they should not be at work at all.
const NICE: i32 = 19;

/// Threads for code that should not need them.
#[derive(Debug)]
pub(crate) struct Overtime {
    /// There until this is dropped.
    runtime: Option<Runtime>,
    /// Calls that came here.
    #[cfg(test)]
    pub(crate) came: std::sync::atomic::AtomicUsize,
}

impl Overtime {
    /// So many threads, each of which begins with `begin`.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub(crate) fn new(threads: usize, begin: fn()) -> std::io::Result<Self> {
        // Without timers and sockets: whatever calls wait for belongs to the runtime of their request.
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("overtime")
            .thread_stack_size(STACK_BYTES)
            .on_thread_start(move || {
                Engine::tls_eager_initialize();
                weigh_less(NICE);
                begin();
            })
            .build()?;
        Ok(Self {
            runtime: Some(runtime),
            #[cfg(test)]
            came: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Carries work out, as long as the future that this returns is there, and tells `computed` how long that kept a
    /// processor busy. `None` when it was not carried out to its end.
    pub(crate) async fn carry_out<T: Send + 'static>(
        &self,
        mut work: Work<T>,
        computed: impl FnOnce(Duration) + Send + 'static,
    ) -> Option<T> {
        let runtime = self.runtime.as_ref()?;
        #[cfg(test)]
        self.came.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (mut answer, answered) = oneshot::channel();
        let asker = Handle::current();
        runtime.spawn(async move {
            let mut took = Duration::ZERO;
            let turns = poll_fn(|context| {
                let _inside = asker.enter();
                let before = processor_time();
                let polled = work.as_mut().poll(context);
                took += processor_time().saturating_sub(before);
                polled
            });
            let outcome = tokio::select! {
                biased;
                outcome = turns => Some(outcome),
                () = answer.closed() => None,
            };
            computed(took);
            if let Some(outcome) = outcome {
                let _ = answer.send(outcome);
            }
        });
        answered.await.ok()
    }
}

impl Drop for Overtime {
    /// Waits for nothing: it may happen where nothing may be waited for.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How long this thread has been run by a processor. It stands still while others are run, however busy the machine is.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
