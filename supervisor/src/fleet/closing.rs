//! The moment between the order to drain and the last connection.
//!
//! A worker that is told to drain looks at the accept queues once more before it stops
//! (`docs/adr/0003-soft-drain.md`), so until it says that it has stopped, a client that connects may still be answered by
//! it, as things were before. Nobody is told that a change is done before that. A worker that says nothing, because it
//! hangs or because its executable is of a version that has no word for it, is waited for no longer than
//! [`CLOSING_MS`].

use super::{
    Fleet, Phase,
    event::ChildId,
    worker::{State, Worker},
};

/// Time for a worker to say that it accepts no more after it was told to drain, milliseconds. It takes about one.
pub(super) const CLOSING_MS: u64 = 2_000;

impl Worker {
    /// Until when it must be assumed to take connections although it drains.
    pub(super) fn accepts_until_ms(&self) -> Option<u64> {
        match self.state {
            State::Draining { accepts_until_ms, .. } => accepts_until_ms,
            _ => None,
        }
    }
}

impl Fleet {
    /// A worker that drains accepts no more.
    pub(super) fn closed(&mut self, child: ChildId) {
        if let Some(Worker { state: State::Draining { accepts_until_ms, .. }, .. }) =
            self.workers.get_mut(&child)
        {
            *accepts_until_ms = None;
        }
    }

    /// Until when a worker in this state must be assumed to take connections if it is told to drain now.
    pub(super) fn closing_until_ms(&self, state: &State) -> Option<u64> {
        match state {
            State::Serving | State::Suspect => Some(self.now_ms + CLOSING_MS),
            State::Draining { accepts_until_ms, .. } => *accepts_until_ms,
            // One that was never told to serve has no last look.
            State::Starting | State::Ready | State::Killed { .. } => None,
        }
    }

    /// Whether a worker that was told to drain, and of which something holds, may still take a connection.
    pub(super) fn may_accept(&self, holds: impl Fn(&Worker) -> bool) -> bool {
        let is_open = |worker: &Worker| worker.accepts_until_ms().is_some_and(|at_ms| at_ms > self.now_ms);
        self.workers.values().any(|worker| is_open(worker) && holds(worker))
    }

    /// Whether every wanted slot has what it should have, and whoever connects now is answered by that.
    pub(super) fn is_handed_over(&self) -> bool {
        let target = self.target();
        let is_before = |worker: &Worker| worker.generation != target;
        // One that made up for a slot which has its worker only now is told to drain in the next turn.
        let is_surplus = |worker: &Worker| worker.is_serving() && is_before(worker);
        self.is_complete() && !self.workers.values().any(is_surplus) && !self.may_accept(is_before)
    }

    /// Whether whoever connects now is not answered by a generation that was gone back from.
    pub(super) fn is_undone(&self) -> bool {
        match self.phase {
            Phase::Paused(_) => !self.may_accept(|_| true),
            _ => self.is_handed_over(),
        }
    }
}
