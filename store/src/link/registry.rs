//! All connections, and the one place where the writer speaks to them.

use std::{os::unix::net::UnixStream, sync::Arc};

use parking_lot::Mutex;

use super::{FeedFrame, Form, Handover, Link, Outbox};

/// Connections at once: each worker has one, and the board has cells for 256 workers.
const LINKS_MAX: usize = 512;

/// All connections.
pub(crate) struct Registry {
    state: Mutex<State>,
}

struct State {
    links: Vec<Arc<Link>>,
    number: u64,
    offered: u64,
    committed: u64,
    feed_bytes_max: usize,
}

impl Registry {
    /// No connections yet; changes up to `committed` are done.
    pub(crate) fn new(committed: u64, feed_bytes_max: usize) -> Self {
        let state = State { links: Vec::new(), number: 0, offered: committed, committed, feed_bytes_max };
        Self { state: Mutex::new(state) }
    }

    /// Adds a connection, `None` when there are too many.
    pub(super) fn add(&self, socket: UnixStream) -> Option<Arc<Link>> {
        let mut state = self.state.lock();
        if state.links.len() >= LINKS_MAX {
            return None;
        }
        state.number += 1;
        let outbox = Outbox::new(state.offered, state.committed, state.feed_bytes_max);
        let link = Arc::new(Link::new(state.number, socket, outbox));
        state.links.push(Arc::clone(&link));
        Some(link)
    }

    /// Removes a connection.
    pub(super) fn remove(&self, link: &Arc<Link>) {
        self.state.lock().links.retain(|known| !Arc::ptr_eq(known, link));
    }

    /// Bounds of connections made from now on.
    pub(crate) fn set_feed_bytes_max(&self, feed_bytes_max: usize) {
        self.state.lock().feed_bytes_max = feed_bytes_max;
    }

    /// Offers a group, whose last number is `last`, to all workers. `encode` is called once for each form that one of them
    /// wants.
    pub(crate) fn offer(&self, last: u64, encode: impl Fn(Form) -> Vec<FeedFrame>) {
        let mut state = self.state.lock();
        state.offered = last;
        let handover = Handover::to(state.links.len());
        let (mut brief, mut plain) = (None, None);
        for link in &state.links {
            let mut outbox = link.outbox.lock();
            let kept = if outbox.wants_feed() {
                let form = link.form();
                let frames = if form == Form::Brief { &mut brief } else { &mut plain };
                link.offer(&mut outbox, last, frames.get_or_insert_with(|| encode(form)), handover)
            } else {
                link.offer(&mut outbox, last, &[], handover)
            };
            drop(outbox);
            if !kept {
                tracing::info!(
                    link = link.number,
                    last,
                    "a worker is too slow for the feed and is sent the log instead"
                );
            }
        }
    }

    /// Tells all senders that everything up to this number is durable.
    pub(crate) fn published(&self, committed: u64) {
        let mut state = self.state.lock();
        state.committed = committed;
        for link in &state.links {
            let mut outbox = link.outbox.lock();
            outbox.published(committed);
            let wake = outbox.replays();
            drop(outbox);
            if wake {
                link.to_send.notify_one();
            }
        }
    }

    /// Workers that have introduced themselves.
    pub(crate) fn attached(&self) -> usize {
        self.state.lock().links.iter().filter(|link| link.is_attached()).count()
    }

    /// Lowest number after which a worker is being sent the log.
    pub(crate) fn needs_log_after(&self) -> Option<u64> {
        self.state.lock().links.iter().filter_map(|link| link.outbox.lock().needs_log_after()).min()
    }

    /// Is every worker sent the live feed?
    #[cfg(test)]
    pub(crate) fn is_live(&self) -> bool {
        self.state.lock().links.iter().all(|link| link.outbox.lock().is_live())
    }

    /// All connections.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.state.lock().links.clone()
    }
}
