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

/// The present host.
pub(crate) struct Present {
    host: ArcSwap<Host>,
    /// What was durable when the present host took the place of another.
    since: AtomicU64,
    premises: Arc<Premises>,
}

impl Present {
    pub(crate) fn new(host: Arc<Host>) -> Arc<Self> {
        let premises = Arc::clone(host.premises());
        Arc::new(Self { host: ArcSwap::new(host), since: AtomicU64::new(0), premises })
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
        self.since.store(self.premises.board.durable(), Ordering::Release);
        self.host.swap(host)
    }

    /// The number of the last change that was durable before the present host took the place of another one; 0 for the
    /// first one. What is committed afterwards may be committed by the present one.
    pub(crate) fn since(&self) -> u64 {
        self.since.load(Ordering::Acquire)
    }
}
