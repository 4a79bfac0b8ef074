//! The instances of one module: one call each at a time, and no more of them than it may have.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    berths::{Berth, Berths, Shelf},
    module::Resident,
};

/// Instances of one module.
pub(crate) struct Pool {
    waiting: Arc<Shelf<Resident>>,
    places: Arc<Semaphore>,
    instances_max: usize,
    /// What an instance stands for among those of all modules.
    size: u32,
}

impl Pool {
    pub(crate) fn new(instances_max: usize, size: u32, berths: &Arc<Berths>) -> Self {
        let instances_max = instances_max.max(1);
        Self {
            waiting: Shelf::new(berths),
            places: Arc::new(Semaphore::new(instances_max)),
            instances_max,
            size,
        }
    }

    /// Waits until one more call may run.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        let places = Arc::clone(&self.places);
        places.acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits until there may be one more instance.
    pub(crate) async fn berth(&self) -> Berth {
        self.waiting.berths().take(self.size).await
    }

    /// Waits until no call runs any more, and lets none begin while the places are held.
    pub(crate) async fn all_places(&self, deadline: Instant) -> Option<OwnedSemaphorePermit> {
        let count = u32::try_from(self.instances_max).unwrap_or(u32::MAX);
        let all = Arc::clone(&self.places).acquire_many_owned(count);
        tokio::time::timeout_at(deadline.into(), all).await.ok()?.ok()
    }

    /// All instances that wait, the one used last at the end. None of them waits any more.
    pub(crate) fn empty(&self) -> Vec<Resident> {
        self.waiting.empty()
    }

    /// An instance that waits.
    pub(crate) fn take(&self) -> Option<Resident> {
        self.waiting.pop()
    }

    /// An instance whose call is over.
    pub(crate) fn give_back(&self, resident: Resident) {
        self.waiting.push(resident);
    }

    /// An instance that is called no more.
    pub(crate) fn retire(&self, resident: Resident) {
        self.waiting.retire(vec![resident]);
    }

    /// The most of what `measure` finds in the instances that wait.
    pub(crate) fn most(&self, measure: impl Fn(&Resident) -> usize) -> Option<usize> {
        self.waiting.most(measure)
    }

    /// Instances that wait or are called.
    pub(crate) fn instances(&self) -> usize {
        self.waiting.len() + self.instances_max - self.places.available_permits()
    }
}
