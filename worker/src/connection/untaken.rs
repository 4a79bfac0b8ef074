//! What an HTTP/2 connection has for its client, and when the client last took something of it.
//!
//! A client says for each stream how many bytes it takes (RFC 9113 section 5.2). Where it takes none, the socket
//! is never full, and whatever else the client sends keeps the connection in use: only this tells that it is stuck.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

use super::link::Link;

/// What is known about one connection.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    pieces: AtomicU32,
    /// When something was last taken, or when there was something again.
    progress_ms: AtomicU64,
}

/// A piece of an answer that waits for its client, until it is dropped.
#[derive(Debug)]
pub(crate) struct Awaited(Arc<Link>);

impl Untaken {
    pub(super) fn progressed(&self, now_ms: u64) {
        self.progress_ms.store(now_ms, Relaxed);
    }

    /// Since when nothing was taken of what waits.
    pub(super) fn since_ms(&self) -> Option<u64> {
        (self.pieces.load(Relaxed) > 0).then(|| self.progress_ms.load(Relaxed))
    }
}

impl Awaited {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        if link.untaken().pieces.fetch_add(1, Relaxed) == 0 {
            link.progressed();
        }
        Self(Arc::clone(link))
    }

    /// The client took a part of it.
    pub(crate) fn progressed(&self) {
        self.0.progressed();
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.untaken().pieces.fetch_sub(1, Relaxed);
    }
}
