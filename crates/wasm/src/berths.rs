//! How many instances one engine has, of all its modules together, and those that wait for calls.
//!
//! An instance takes a berth before it is made and keeps it until it is gone, so that the engine is never asked for more
//! than it has reserved. Whoever finds no berth gets that of an instance that waits, of the module that has most of them;
//! when all are called, whoever ends a call next gives way. Beside that, instances go that nobody wanted for a minute, and
//! one of each module stays.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use wasmtime::component::Component;

use crate::engine::{INSTANCES_MAX, MEMORIES_EACH, TABLES_EACH};

/// How long instances wait that nobody wants. They are looked at so often, so one may wait for almost twice as long.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Room for an instance, until it is dropped.
pub(crate) type Berth = OwnedSemaphorePermit;

/// Room for the instances of one engine.
pub(crate) struct Berths {
    free: Arc<Semaphore>,
    /// Those who found none.
    wanting: AtomicUsize,
    /// Where instances wait.
    shelves: Mutex<Vec<Weak<dyn Idle>>>,
    is_swept: AtomicBool,
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
        let _wanting = Wanting::new(&self.wanting);
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

    fn shelves(&self) -> Vec<Arc<dyn Idle>> {
        let mut shelves = self.shelves.lock();
        shelves.retain(|shelf| shelf.strong_count() > 0);
        shelves.iter().filter_map(Weak::upgrade).collect()
    }

    /// Ends instances that nobody wanted since the last time.
    fn tidy(&self) {
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
    fn new(wanting: &'a AtomicUsize) -> Self {
        wanting.fetch_add(1, Ordering::SeqCst);
        Self(wanting)
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
}

struct Waiting<R> {
    /// The one used last at the end.
    residents: Vec<R>,
    /// The fewest there were since it was looked.
    fewest: usize,
}

impl<R: Send + 'static> Shelf<R> {
    pub(crate) fn new(berths: &Arc<Berths>) -> Arc<Self> {
        let waiting = Mutex::new(Waiting { residents: Vec::new(), fewest: 0 });
        let shelf = Arc::new(Self { waiting, berths: Arc::clone(berths) });
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

impl<R: Send + 'static> Idle for Shelf<R> {
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
        drop(gone);
    }
}
