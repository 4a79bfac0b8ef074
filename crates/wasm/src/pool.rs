//! Instances of one module that wait for calls: one call each at a time, the one used last is used next, so that few
//! are warm and the others go when nobody wants them.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::module::Resident;

/// Instances of one module.
pub(crate) struct Pool {
    waiting: Mutex<Vec<Resident>>,
    places: Arc<Semaphore>,
    instances_max: usize,
}

impl Pool {
    pub(crate) fn new(instances_max: usize) -> Self {
        let instances_max = instances_max.max(1);
        Self {
            waiting: Mutex::new(Vec::new()),
            places: Arc::new(Semaphore::new(instances_max)),
            instances_max,
        }
    }

    /// Waits until one more call may run.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        let places = Arc::clone(&self.places);
        places.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits until no call runs any more, and lets none begin while the places are held.
    pub(crate) async fn all_places(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(self.instances_max).unwrap_or(u32::MAX);
        let all = Arc::clone(&self.places).acquire_many_owned(count);
        tokio::time::timeout_at(deadline.into(), all).await.ok()?.ok()
    }

    /// All instances that wait, the one used last at the end. None of them waits any more.
    pub(crate) fn empty(&self) -> Vec<Resident> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// An instance that waits.
    pub(crate) fn take(&self) -> Option<Resident> {
        self.waiting.lock().pop()
    }

    /// An instance whose call is over.
    pub(crate) fn give_back(&self, resident: Resident) {
        self.waiting.lock().push(resident);
    }

    /// The most of what `measure` finds in the instances that wait.
    pub(crate) fn most(&self, measure: impl Fn(&Resident) -> usize) -> Option<usize> {
        self.waiting.lock().iter().map(measure).max()
    }

    /// Instances that wait or are called.
    pub(crate) fn instances(&self) -> usize {
        self.waiting.lock().len() + self.instances_max - self.places.available_permits()
    }
}
