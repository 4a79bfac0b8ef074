//! Which bodies stay in memory: SIEVE (Zhang et al., NSDI 2024).
//!
//! Bodies stand in a queue in the order in which they came. When room is needed a hand moves from the oldest towards the
//! newest: a body that was used since the hand passed by last is spared once, the first other one goes. A read only
//! sets a flag, so it needs no lock of its own, and bodies that come and are never read (a bulk load, a scan) leave
//! without pushing out those that are.
//!
//! The bodies are in the slots themselves: a hit costs nothing beyond the look-up, a body can never be that of another
//! version, and both bounds are exact.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::documents::{Slot, SlotNumber};

/// How much of a model's documents is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheBounds {
    /// Bytes of bodies.
    pub bytes_max: u64,
    /// Bodies; `None` for as many as there is room for.
    pub documents_max: Option<u64>,
}

/// Neighbours in the queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Links {
    older: Option<Neighbour>,
    newer: Option<Neighbour>,
}

/// A slot number + 1, so that a neighbour and its absence take four bytes.
type Neighbour = std::num::NonZeroU32;

fn neighbour(slot: SlotNumber) -> Option<Neighbour> {
    slot.checked_add(1).and_then(Neighbour::new)
}

fn slot_of(neighbour: Neighbour) -> SlotNumber {
    neighbour.get() - 1
}

/// The queue of all slots that have a body.
#[derive(Debug)]
pub(super) struct Cache {
    bounds: CacheBounds,
    oldest: Option<Neighbour>,
    newest: Option<Neighbour>,
    hand: Option<Neighbour>,
    documents: u64,
    bytes: u64,
}

impl Cache {
    pub(super) fn new(bounds: CacheBounds) -> Self {
        Self { bounds, oldest: None, newest: None, hand: None, documents: 0, bytes: 0 }
    }

    pub(super) fn bounds(&self) -> CacheBounds {
        self.bounds
    }

    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes room for a body and puts it into its slot, which has none; a body that could never fit is left out.
    pub(super) fn admit(&mut self, slots: &mut [Slot], slot: SlotNumber, body: Bytes) {
        let bytes = body.len() as u64;
        let documents_max = self.bounds.documents_max.unwrap_or(u64::MAX);
        if bytes > self.bounds.bytes_max || documents_max == 0 {
            return;
        }
        while self.bytes + bytes > self.bounds.bytes_max || self.documents + 1 > documents_max {
            self.evict(slots);
        }
        let older = self.newest;
        let entry = &mut slots[slot as usize];
        entry.body = Some(body);
        entry.is_used.store(false, Ordering::Relaxed);
        entry.links = Links { older, newer: None };
        self.newest = neighbour(slot);
        match older {
            Some(older) => slots[slot_of(older) as usize].links.newer = self.newest,
            None => self.oldest = self.newest,
        }
        self.documents += 1;
        self.bytes += bytes;
    }

    /// Takes the body out of a slot, if there is one.
    pub(super) fn take_body(&mut self, slots: &mut [Slot], slot: SlotNumber) -> Option<Bytes> {
        let entry = &mut slots[slot as usize];
        let body = entry.body.take()?;
        let links = std::mem::take(&mut entry.links);
        match links.older {
            Some(older) => slots[slot_of(older) as usize].links.newer = links.newer,
            None => self.oldest = links.newer,
        }
        match links.newer {
            Some(newer) => slots[slot_of(newer) as usize].links.older = links.older,
            None => self.newest = links.older,
        }
        if self.hand == neighbour(slot) {
            self.hand = links.newer;
        }
        self.documents -= 1;
        self.bytes -= body.len() as u64;
        Some(body)
    }

    /// Sets other bounds and keeps them.
    pub(super) fn set_bounds(&mut self, slots: &mut [Slot], bounds: CacheBounds) {
        self.bounds = bounds;
        while self.bytes > bounds.bytes_max || bounds.documents_max.is_some_and(|max| self.documents > max) {
            self.evict(slots);
        }
    }

    /// Takes the body out that is used least. There is one whenever there is too much.
    fn evict(&mut self, slots: &mut [Slot]) {
        let mut hand = self.hand.or(self.oldest);
        while let Some(at) = hand {
            let entry = &mut slots[slot_of(at) as usize];
            if !std::mem::take(entry.is_used.get_mut()) {
                self.hand = hand;
                self.take_body(slots, slot_of(at));
                return;
            }
            hand = entry.links.newer.or(self.oldest);
        }
    }
}

#[cfg(test)]
mod tests;
