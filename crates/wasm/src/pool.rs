//! Instances of one module that wait for calls: one call each at a time, the one used last is used next, so that few
//! are warm and the others go when nobody wants them.

use std::sync::Arc;

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
