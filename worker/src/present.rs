//! The generation that requests are answered with now: one pointer per process, which a request reads once.
//!
//! ```text
//!   request ─ load ─▶ host of generation 4 ┄┄┄┄┄┄ to its end ┄┄┄┄▶ answer, `Aegis-Worker: 0.4`
//!                 exchange: 5
//!   request ─ load ─▶ host of generation 5 ─▶ …
//! ```
//!
//! Whoever began with the old one ends with it, and the last one to end lets go of it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};

use crate::host::{Host, Premises};

/// No other host has come.
const NEVER: u64 = u64::MAX;

/// The present host.
pub(crate) struct Present {
    host: ArcSwap<Host>,
    /// What was durable when another host took the place of the one that [`take_since`](Self::take_since) knows; `NEVER` while
    /// none has.
    since: AtomicU64,
    premises: Arc<Premises>,
}

impl Present {
    pub(crate) fn new(host: Arc<Host>) -> Arc<Self> {
        let premises = Arc::clone(host.premises());
        Arc::new(Self { host: ArcSwap::new(host), since: AtomicU64::new(NEVER), premises })
    }

    /// The host of now, for a moment: nobody counts who looks.
    pub(crate) fn look(&self) -> Guard<Arc<Host>> {
        self.host.load()
    }

    /// The host of now, to keep.
    pub(crate) fn host(&self) -> Arc<Host> {
        self.host.load_full()
    }

    /// What stays whatever generation is served.
    pub(crate) fn premises(&self) -> &Arc<Premises> {
        &self.premises
    }

    /// Puts another host in the place of the present one, which is returned.
    pub(crate) fn exchange(&self, host: Arc<Host>) -> Arc<Host> {
        self.since.fetch_min(self.premises.board.durable(), Ordering::AcqRel);
        self.host.swap(host)
    }

    /// The number of the last change that was durable before another host took the place of the one that was present when
    /// this was asked last. What is committed afterwards may be committed by a later one: by that one, if several came.
    pub(crate) fn take_since(&self) -> Option<u64> {
        Some(self.since.swap(NEVER, Ordering::AcqRel)).filter(|since| *since != NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::house::House;

    #[tokio::test]
    async fn a_subscription_begins_with_the_first_of_several_exchanges() {
        let house = House::new().await;
        let present = Present::new(Arc::clone(&house.host));
        assert_eq!(present.take_since(), None);
        house.store.put("TODO", "a", 1, "{}");
        let first = house.host.board.durable();
        present.exchange(Arc::clone(&house.host));
        house.store.put("TODO", "b", 1, "{}");
        assert!(house.host.board.durable() > first);
        present.exchange(Arc::clone(&house.host));
        assert_eq!((present.take_since(), present.take_since()), (Some(first), None));
    }
}
