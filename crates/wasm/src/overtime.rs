//! Threads for code that computes for longer than its slices where its request is.
//!
//! There are few of them, and all such calls take turns on them, a slice each. With a thread for each call they would
//! contend for the processors with each other, and the operating system makes up to each of them for what it had to wait
//! for the others: for milliseconds at a time, at the cost of threads that serve and that wake up just then.
//!
//! ```text
//!   come ─▶ first moments: 2 at a time ─▶ as long as usual code takes: one after the other ─▶ the rest: in rounds
//! ```
//!
//! If all took turns with all, none of many would end before its deadline, although most of them would have if they had
//! come one after the other. So few do, in the order in which they came. But whoever takes for ever must not keep those
//! from it that need a moment: a call has a place for so long only, then it gets one of the next stage ([`STAGES`]). Those
//! that have places take turns, whatever their stage. Who waits for the host has none meanwhile.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Semaphore, SemaphorePermit, oneshot},
};
use wasmtime::Engine;

use crate::{
    call::Signals,
    cpu::{STACK_BYTES, Work, weigh_less},
};

/// How much less these threads weigh than those that serve (`nice`): they should not be at work at all.
const NICE: i32 = 19;

/// What calls go through, by how long they have computed.
const STAGES: [Stage; 3] = [
    Stage { places: 2, time: Duration::from_millis(8) },
    Stage { places: 1, time: Duration::from_millis(120) },
    Stage { places: 1, time: Duration::from_millis(8) },
];

/// Calls that have computed for about as long.
#[derive(Debug, Clone, Copy)]
struct Stage {
    /// Calls that take turns, for each thread.
    places: usize,
    /// How long a call keeps a processor busy until it leaves its place, for the next stage or for another round in the last.
    time: Duration,
}

/// The stages of all threads, and their places.
type Places = [(Stage, Semaphore); STAGES.len()];

/// Threads for code that should not need them.
#[derive(Debug)]
pub(crate) struct Overtime {
    /// There until this is dropped.
    runtime: Option<Runtime>,
    places: Arc<Places>,
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
        Self::with_stages(threads, begin, STAGES)
    }

    fn with_stages(threads: usize, begin: fn(), stages: [Stage; STAGES.len()]) -> std::io::Result<Self> {
        let threads = threads.max(1);
        // Without timers and sockets: whatever calls wait for belongs to the runtime of their request.
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
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
            places: Arc::new(stages.map(|stage| (stage, Semaphore::new(threads * stage.places)))),
            #[cfg(test)]
            came: std::sync::atomic::AtomicUsize::new(0),
        })
    }

    /// Carries work out, as long as the future that this returns is there, and tells `computed` how long that kept a
    /// processor busy. `None` when it was not carried out to its end.
    pub(crate) async fn carry_out<T: Send + 'static>(
        &self,
        (work, signals): (Work<T>, Signals),
        computed: impl FnOnce(Duration) + Send + 'static,
    ) -> Option<T> {
        let runtime = self.runtime.as_ref()?;
        #[cfg(test)]
        self.came.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (mut answer, answered) = oneshot::channel();
        let (asker, places) = (Handle::current(), Arc::clone(&self.places));
        runtime.spawn(async move {
            let mut late = Late { work, signals, asker, took: Duration::ZERO };
            let outcome = tokio::select! {
                biased;
                outcome = late.end(&places) => Some(outcome),
                () = answer.closed() => None,
            };
            computed(late.took);
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

/// A call that works overtime.
struct Late<T> {
    work: Work<T>,
    signals: Signals,
    /// The runtime of its request.
    asker: Handle,
    /// How long it kept a processor busy.
    took: Duration,
}

/// What a turn comes to.
enum Turn<T> {
    /// The call is over.
    Over(T),
    /// It would go on.
    UsedUp,
    /// It has waited for the host, and goes on.
    Woken,
}

impl<T> Late<T> {
    /// Goes on with the work to its end.
    async fn end(&mut self, places: &Places) -> T {
        let (mut number, last) = (0, places.len() - 1);
        let mut left = places[number].0.time;
        loop {
            let (_, free) = &places[number];
            // In the last stage it has had what usual code takes: being late is its own doing.
            let waits = (number < last).then(|| self.signals.wait());
            let place = free.acquire().await.expect("the semaphore is never closed");
            drop(waits);
            let before = self.took;
            if let Some(outcome) = self.keep(place, left).await {
                return outcome;
            }
            left = left.saturating_sub(self.took - before);
            if left.is_zero() {
                number = last.min(number + 1);
                left = places[number].0.time;
                if number == last {
                    self.signals.forget_waits();
                }
            }
        }
    }

    /// Takes turns until the call is over, has kept a processor busy for so long, or waits for the host and goes on.
    async fn keep(&mut self, place: SemaphorePermit<'_>, time: Duration) -> Option<T> {
        let (mut place, before) = (Some(place), self.took);
        loop {
            let turn = poll_fn(|context| {
                if place.is_none() {
                    return Poll::Ready(Turn::Woken);
                }
                let _inside = self.asker.enter();
                let before = processor_time();
                let polled = self.work.as_mut().poll(context);
                self.took += processor_time().saturating_sub(before);
                match polled {
                    Poll::Ready(outcome) => Poll::Ready(Turn::Over(outcome)),
                    Poll::Pending if self.signals.slice_was_used_up() => Poll::Ready(Turn::UsedUp),
                    Poll::Pending => {
                        place = None; // for others, as long as there is nothing to do here
                        Poll::Pending
                    }
                }
            });
            match turn.await {
                Turn::Over(outcome) => return Some(outcome),
                Turn::Woken => return None,
                Turn::UsedUp => tokio::task::yield_now().await,
            }
            if self.took - before >= time {
                return None;
            }
        }
    }
}

/// How long this thread has been run by a processor. It stands still while others are run, however busy the machine is.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;

    use super::*;

    /// A slice here; a small part of a real one.
    const SLICE: Duration = Duration::from_micros(20);
    /// Slices of a call that computes for ever.
    const ENDLESS: u32 = u32::MAX;

    /// One thread, on which a millisecond is a slice of these tests.
    fn overtime() -> Arc<Overtime> {
        let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap();
        let stages = STAGES.map(|stage| Stage { time: SLICE * milliseconds(stage.time), ..stage });
        Arc::new(Overtime::with_stages(1, || (), stages).unwrap())
    }

    /// Computes for so many slices, which are counted, and answers how many there were by all when it was over.
    fn computing(mut slices: u32, all: &Arc<AtomicU32>) -> (Work<u32>, Signals) {
        let (signals, all) = (Signals::default(), Arc::clone(all));
        let code = signals.clone();
        let work = poll_fn(move |context| {
            let begun = processor_time();
            while processor_time() - begun < SLICE {}
            let count = all.fetch_add(1, Ordering::Relaxed) + 1;
            slices -= 1;
            if slices == 0 {
                return Poll::Ready(count);
            }
            code.use_up_slice();
            context.waker().wake_by_ref();
            Poll::Pending
        });
        (Box::pin(work), signals)
    }

    fn spawn(calls: &mut JoinSet<Option<u32>>, overtime: &Arc<Overtime>, work: (Work<u32>, Signals)) {
        let overtime = Arc::clone(overtime);
        calls.spawn(async move { overtime.carry_out(work, |_| ()).await });
    }

    #[tokio::test]
    async fn of_more_than_there_is_time_for_most_end_in_time() {
        const CALLS: usize = 16;
        let (overtime, all, mut calls) = (overtime(), Arc::default(), JoinSet::new());
        for _ in 0..CALLS {
            spawn(&mut calls, &overtime, computing(80, &all));
        }
        let mut ends: Vec<u32> = calls.join_all().await.into_iter().flatten().collect();
        ends.sort_unstable();
        let in_time = ends.iter().filter(|end| **end <= 1_000).count();
        assert!(in_time >= 10, "{in_time} of {CALLS}: {ends:?}");
    }

    #[tokio::test]
    async fn a_short_call_does_not_wait_for_those_that_take_for_ever() {
        let (overtime, all, mut endless) = (overtime(), Arc::new(AtomicU32::new(0)), JoinSet::new());
        for _ in 0..16 {
            spawn(&mut endless, &overtime, computing(ENDLESS, &all));
        }
        // Some have come to the last stage by then, and others to the one before.
        while all.load(Ordering::Relaxed) < 1_000 {
            tokio::task::yield_now().await;
        }
        let own = Arc::default();
        assert_eq!(overtime.carry_out(computing(5, &own), |_| ()).await, Some(5));
    }

    #[tokio::test]
    async fn who_waits_for_the_host_keeps_nobody_from_a_place() {
        let (overtime, all, mut waiting) = (overtime(), Arc::default(), JoinSet::new());
        let asked = Arc::new(Semaphore::new(0));
        for _ in 0..8 {
            let asked = Arc::clone(&asked);
            let work = Box::pin(async move { asked.acquire_owned().await.map_or(0, |_| 7) });
            spawn(&mut waiting, &overtime, (work, Signals::default()));
        }
        assert_eq!(overtime.carry_out(computing(200, &all), |_| ()).await, Some(200));
        asked.add_permits(1);
        assert_eq!(waiting.join_all().await, [Some(7); 8], "and goes on when the host has answered");
    }

    /// How many of four such calls had time that was not their own.
    async fn held_up(slices: u32) -> usize {
        const CALLS: usize = 4;
        let allowed = Duration::from_micros(100);
        let (overtime, all, mut calls) = (overtime(), Arc::default(), JoinSet::new());
        let works: Vec<_> = (0..CALLS).map(|_| computing(slices, &all)).collect();
        let signals: Vec<Signals> = works.iter().map(|(_, signals)| signals.clone()).collect();
        for work in works {
            spawn(&mut calls, &overtime, work);
        }
        assert_eq!(calls.join_all().await.len(), CALLS);
        signals.iter().filter(|signals| signals.without_waits(allowed) < allowed).count()
    }

    #[tokio::test]
    async fn time_in_which_others_had_its_place_is_not_the_calls_own_unless_it_takes_long() {
        assert!(held_up(100).await >= 2, "they waited for one another");
        assert_eq!(held_up(200).await, 0, "they would be late by themselves");
    }
}
