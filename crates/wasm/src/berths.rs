//! How many instances one engine has, of all its modules together, and those that wait for calls.
//!
//! An instance takes a berth before it is made and keeps it until it is gone, so that the engine is never asked for more
//! than it has reserved. Whoever finds no berth gets that of an instance that waits, of the module that has most of them;
//! when all are called, whoever ends a call next gives way. Beside that, instances go that nobody wanted for a minute, and
//! one of each module stays.
//!
//! Code that wants to be told that its instance ends is told, unless its room is wanted: in a task of its own, which keeps
//! the berth until then, one instance of a module after the other, as long as that takes no more than a while. Whoever
//! finds no berth meanwhile does not wait for it.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    future::Future,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Mutex as Turn, Notify, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use wasmtime::component::Component;

use crate::engine::{INSTANCES_MAX, MEMORIES_EACH, TABLES_EACH};

/// How long instances wait that nobody wants. They are looked at so often, so one may wait for almost twice as long.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Time for code to release what its instance holds when that ends.
const ENDING_TIME_MAX: Duration = Duration::from_secs(1);
/// Time for all of them that end at once, of one module.
const ENDINGS_TIME_MAX: Duration = Duration::from_secs(30);
/// Most instances of one module whose code is still to be told that they end.
const ENDINGS_MAX: usize = 64;

/// Room for an instance, until it is dropped.
pub(crate) type Berth = OwnedSemaphorePermit;

/// Room for the instances of one engine.
pub(crate) struct Berths {
    free: Arc<Semaphore>,
    /// Those who found none.
    wanting: AtomicUsize,
    /// Somebody finds none.
    wanted: Notify,
    /// Where instances wait.
    shelves: Mutex<Vec<Weak<dyn Idle>>>,
    is_swept: AtomicBool,
}

/// An instance that can wait for calls.
pub(crate) trait Mortal: Send + 'static {
    /// Whether its code wants to be told when it ends.
    fn is_told(&self) -> bool;

    /// Has its code release what it holds, until then at the latest.
    fn end(self, until: Instant) -> impl Future<Output = ()> + Send;
}

/// Instances that wait for calls, of whatever kind.
trait Idle: Send + Sync {
    fn count(&self) -> usize;
    /// Ends the one that waits longest, if there is one.
    fn dismiss(&self) -> bool;
    /// Ends those that nobody wanted since the last time, but for one.
    fn tidy(&self);
}

impl Berths {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(INSTANCES_MAX as usize)),
            wanting: AtomicUsize::new(0),
            wanted: Notify::new(),
            shelves: Mutex::default(),
            is_swept: AtomicBool::new(false),
        })
    }

    /// Waits for room for so many instances of usual size.
    pub(crate) async fn take(self: &Arc<Self>, count: u32) -> Berth {
        self.be_swept();
        if let Ok(berth) = Arc::clone(&self.free).try_acquire_many_owned(count) {
            return berth;
        }
        // From here on nobody begins to wait for calls.
        let _wanting = Wanting::new(self);
        while self.dismiss() {
            if let Ok(berth) = Arc::clone(&self.free).try_acquire_many_owned(count) {
                return berth;
            }
        }
        let waited = Arc::clone(&self.free).acquire_many_owned(count).await;
        waited.expect("the semaphore is never closed")
    }

    /// Ends an instance that waits, where most of them do. A call may take the last one there in the meantime.
    fn dismiss(&self) -> bool {
        let mut shelves = self.shelves();
        shelves.sort_by_cached_key(|shelf| Reverse(shelf.count()));
        shelves.iter().any(|shelf| shelf.dismiss())
    }

    fn is_wanted(&self) -> bool {
        self.wanting.load(Ordering::Relaxed) > 0
    }

    /// Waits until somebody finds no berth.
    async fn be_wanted(&self) {
        let mut wanted = pin!(self.wanted.notified());
        wanted.as_mut().enable();
        if !self.is_wanted() {
            wanted.await;
        }
    }

    fn shelves(&self) -> Vec<Arc<dyn Idle>> {
        let mut shelves = self.shelves.lock();
        shelves.retain(|shelf| shelf.strong_count() > 0);
        shelves.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends instances that nobody wanted since the last time.
    pub(crate) fn tidy(&self) {
        self.shelves().iter().for_each(|shelf| shelf.tidy());
    }

    /// Has them looked at every now and then, from the first one that is made.
    fn be_swept(self: &Arc<Self>) {
        if self.is_swept.load(Ordering::Relaxed) || self.is_swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let sweep = Sweep(Arc::downgrade(self));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(IDLE_TIME).await;
                    let Some(berths) = sweep.0.upgrade() else { return };
                    berths.tidy();
                }
            });
        }
    }

    /// Takes all but so many.
    #[cfg(test)]
    pub(crate) fn leave(&self, count: usize) -> Berth {
        let taken = u32::try_from(self.free.available_permits() - count).unwrap();
        Arc::clone(&self.free).try_acquire_many_owned(taken).unwrap()
    }
}

/// Somebody looks after the instances as long as this is there.
struct Sweep(Weak<Berths>);

impl Drop for Sweep {
    fn drop(&mut self) {
        if let Some(berths) = self.0.upgrade() {
            berths.is_swept.store(false, Ordering::Relaxed);
        }
    }
}

/// Somebody wants a berth as long as this is there.
struct Wanting<'a>(&'a AtomicUsize);

impl<'a> Wanting<'a> {
    fn new(berths: &'a Berths) -> Self {
        berths.wanting.fetch_add(1, Ordering::SeqCst);
        berths.wanted.notify_waiters();
        Self(&berths.wanting)
    }
}

impl Drop for Wanting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How many instances of usual size an instance of this component stands for.
pub(crate) fn size_of(component: &Component) -> u32 {
    component.resources_required().map_or(1, |needed| {
        let memories = needed.num_memories.div_ceil(MEMORIES_EACH);
        memories.max(needed.num_tables.div_ceil(TABLES_EACH)).clamp(1, INSTANCES_MAX)
    })
}

/// Instances of one module that wait for calls: the one used last is used next, so that the others go when nobody wants
/// them.
pub(crate) struct Shelf<R> {
    waiting: Mutex<Waiting<R>>,
    berths: Arc<Berths>,
    /// Places for those whose code is still to be told that they end.
    endings: Arc<Semaphore>,
    /// Who is told now.
    turn: Arc<Turn<()>>,
}

struct Waiting<R> {
    /// The one used last at the end.
    residents: Vec<R>,
    /// The fewest there were since it was looked.
    fewest: usize,
}

impl<R: Mortal> Shelf<R> {
    pub(crate) fn new(berths: &Arc<Berths>) -> Arc<Self> {
        let waiting = Mutex::new(Waiting { residents: Vec::new(), fewest: 0 });
        let endings = Arc::new(Semaphore::new(ENDINGS_MAX));
        let shelf = Arc::new(Self { waiting, berths: Arc::clone(berths), endings, turn: Arc::default() });
        let idle = Arc::downgrade(&shelf);
        berths.shelves.lock().push(idle);
        shelf
    }

    pub(crate) fn berths(&self) -> &Arc<Berths> {
        &self.berths
    }

    /// The one that was used last.
    pub(crate) fn pop(&self) -> Option<R> {
        let mut waiting = self.waiting.lock();
        let resident = waiting.residents.pop();
        waiting.fewest = waiting.fewest.min(waiting.residents.len());
        resident
    }

    /// One whose call is over. It goes when there is no berth for somebody else.
    pub(crate) fn push(&self, resident: R) {
        let gone = {
            let mut waiting = self.waiting.lock();
            // While the shelf is locked: whoever wants a berth looks at it afterwards.
            if self.berths.is_wanted() {
                Some(resident)
            } else {
                waiting.residents.push(resident);
                None
            }
        };
        drop(gone);
    }

    /// Ends instances that are not called any more and that have not failed.
    pub(crate) fn retire(&self, residents: Vec<R>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let place = || Arc::clone(&self.endings).try_acquire_owned().ok();
        let told = residents.into_iter().filter(|resident| resident.is_told() && !self.berths.is_wanted());
        let told: Vec<_> = told.filter_map(|resident| Some((resident, place()?))).collect();
        if told.is_empty() {
            return;
        }
        let (berths, turn) = (Arc::clone(&self.berths), Arc::clone(&self.turn));
        runtime.spawn(async move {
            let one_by_one = async {
                let _turn = turn.lock().await;
                for (resident, _place) in told {
                    resident.end(Instant::now() + ENDING_TIME_MAX).await;
                }
            };
            tokio::select! {
                biased;
                () = berths.be_wanted() => {}
                _ = timeout(ENDINGS_TIME_MAX, one_by_one) => {}
            }
        });
    }

    /// All of them, the one used last at the end. None of them waits any more.
    pub(crate) fn empty(&self) -> Vec<R> {
        let mut waiting = self.waiting.lock();
        waiting.fewest = 0;
        std::mem::take(&mut waiting.residents)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().residents.len()
    }

    /// The most of what `measure` finds in them.
    pub(crate) fn most(&self, measure: impl Fn(&R) -> usize) -> Option<usize> {
        self.waiting.lock().residents.iter().map(measure).max()
    }
}

impl<R: Mortal> Idle for Shelf<R> {
    fn count(&self) -> usize {
        self.len()
    }

    fn dismiss(&self) -> bool {
        let gone = {
            let mut waiting = self.waiting.lock();
            waiting.fewest = waiting.fewest.saturating_sub(1);
            (!waiting.residents.is_empty()).then(|| waiting.residents.remove(0))
        };
        gone.is_some() // and now it is dropped, while nothing is locked
    }

    fn tidy(&self) {
        let gone: Vec<R> = {
            let mut waiting = self.waiting.lock();
            let unwanted = waiting.fewest.min(waiting.residents.len().saturating_sub(1));
            let gone = waiting.residents.drain(..unwanted).collect();
            waiting.fewest = waiting.residents.len();
            gone
        };
        self.retire(gone);
    }
}
