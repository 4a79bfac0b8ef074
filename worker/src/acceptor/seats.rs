//! Counts connections from the moment they are accepted, so that the board never lags behind the kernel.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aegis_ipc::{
    board::{Cell, Gauge},
    handoff::Audience,
};
use tokio::sync::Notify;

use super::Doorbell;

/// Connections of operators that are accepted beyond `limits.connections_max`.
pub(crate) const ADMIN_CONNECTIONS_MAX: u64 = 64;

/// All open connections of the process.
#[derive(Debug)]
pub(crate) struct Seats {
    open: &'static AtomicU64,
    ended: AtomicU64,
    admin: AtomicU64,
    public_max: u64,
    doorbell: Arc<Doorbell>,
    emptied: Notify,
}

/// One open connection. Dropped when it is closed.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    lane: Arc<AtomicU64>,
    audience: Audience,
}

impl Seats {
    /// Counts into `cell`; `public_max` connections of clients are accepted at once.
    pub(crate) fn new(cell: Cell, public_max: u64, doorbell: Arc<Doorbell>) -> Arc<Self> {
        let open = cell.gauge(Gauge::Connections);
        let (ended, admin) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { open, ended, admin, public_max, doorbell, emptied: Notify::new() })
    }

    /// Open connections.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that have ended since the start.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Whether one more connection of this audience may be accepted.
    pub(super) fn has_room(&self, audience: Audience) -> bool {
        let admin = self.admin.load(Ordering::Relaxed);
        match audience {
            Audience::Admin => admin < ADMIN_CONNECTIONS_MAX,
            Audience::Public => self.open().saturating_sub(admin) < self.public_max,
        }
    }

    /// Counts a connection that was just accepted for the runtime that `lane` belongs to.
    pub(crate) fn take(self: &Arc<Self>, lane: &Arc<AtomicU64>, audience: Audience) -> Seat {
        self.open.fetch_add(1, Ordering::Relaxed);
        lane.fetch_add(1, Ordering::Relaxed);
        if audience == Audience::Admin {
            self.admin.fetch_add(1, Ordering::Relaxed);
        }
        Seat { seats: Arc::clone(self), lane: Arc::clone(lane), audience }
    }

    /// Waits until the last connection is closed, or returns at once if that happened since the last call.
    pub(crate) async fn emptied(&self) {
        self.emptied.notified().await;
    }
}

impl Seat {
    /// Who is served.
    pub(crate) fn audience(&self) -> Audience {
        self.audience
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.lane.fetch_sub(1, Ordering::Relaxed);
        if self.audience == Audience::Admin {
            self.seats.admin.fetch_sub(1, Ordering::Relaxed);
        }
        self.seats.ended.fetch_add(1, Ordering::Relaxed);
        if self.seats.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.seats.emptied.notify_one();
        }
        self.seats.doorbell.room_was_made();
    }
}
