//! Counts connections from the moment they are accepted, so that the board never lags behind the kernel.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aegis_ipc::{
    board::{Cell, Gauge, monotonic_ms},
    handoff::Audience,
};
use tokio::sync::Notify;

use super::Doorbell;

/// Connections of operators that are accepted beyond `limits.connections_max`.
pub(crate) const ADMIN_CONNECTIONS_MAX: u64 = 64;
/// A connection that ended sooner was a short one, milliseconds.
pub(super) const SHORT_MS: u64 = 100;

/// All open connections of the process.
#[derive(Debug)]
pub(crate) struct Seats {
    open: &'static AtomicU64,
    short: AtomicU64,
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
    /// When the connection that it was taken for came, milliseconds of the monotonic clock.
    begun_ms: Option<u64>,
}

impl Seats {
    /// Counts into `cell`; `public_max` connections of clients are accepted at once.
    pub(crate) fn new(cell: Cell, public_max: u64, doorbell: Arc<Doorbell>) -> Arc<Self> {
        let open = cell.gauge(Gauge::Connections);
        let (short, admin) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { open, short, admin, public_max, doorbell, emptied: Notify::new() })
    }

    /// Open connections.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections since the start that have ended within [`SHORT_MS`] of their beginning.
    pub(super) fn short(&self) -> u64 {
        self.short.load(Ordering::Relaxed)
    }

    /// Whether one more connection of this audience may be accepted, as far as can be seen: others take seats as well.
    pub(super) fn has_room(&self, audience: Audience) -> bool {
        let admin = self.admin.load(Ordering::Relaxed);
        match audience {
            Audience::Admin => admin < ADMIN_CONNECTIONS_MAX,
            Audience::Public => self.open().saturating_sub(admin) < self.public_max,
        }
    }

    /// A seat for a connection that is about to be accepted for the runtime that `lane` belongs to, whoever else takes one
    /// at the same time; none when all are taken.
    pub(super) fn take(self: &Arc<Self>, lane: &Arc<AtomicU64>, audience: Audience) -> Option<Seat> {
        let (seat, before) = self.count(lane, audience);
        let most = match audience {
            Audience::Admin => ADMIN_CONNECTIONS_MAX,
            Audience::Public => self.public_max,
        };
        (before < most).then_some(seat)
    }

    /// A seat beyond any limit, for a connection that nobody else has made.
    pub(crate) fn take_for_nobody(self: &Arc<Self>) -> Seat {
        self.count(&Arc::default(), Audience::Public).0
    }

    /// Takes a seat, and says how many of its audience were taken before.
    fn count(self: &Arc<Self>, lane: &Arc<AtomicU64>, audience: Audience) -> (Seat, u64) {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        lane.fetch_add(1, Ordering::Relaxed);
        let before = match audience {
            Audience::Admin => self.admin.fetch_add(1, Ordering::Relaxed),
            // What is counted as open and not yet, or no longer, as an operator's makes it too many, never too few.
            Audience::Public => open.saturating_sub(self.admin.load(Ordering::Relaxed)),
        };
        (Seat { seats: Arc::clone(self), lane: Arc::clone(lane), audience, begun_ms: None }, before)
    }

    /// Waits until the last connection is closed, or returns at once if that happened since the last call.
    pub(crate) async fn emptied(&self) {
        self.emptied.notified().await;
    }
}

impl Seat {
    /// The connection that it was taken for has come.
    pub(super) fn begin(&mut self, now_ms: u64) {
        self.begun_ms = Some(now_ms);
    }

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
        if self.begun_ms.is_some_and(|begun_ms| monotonic_ms().saturating_sub(begun_ms) < SHORT_MS) {
            self.seats.short.fetch_add(1, Ordering::Relaxed);
        }
        if self.seats.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.seats.emptied.notify_one();
        }
        self.seats.doorbell.room_was_made();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use aegis_ipc::board::Board;

    use super::*;

    fn seats(public_max: u64) -> Arc<Seats> {
        let (board, _descriptor) = Board::create().unwrap();
        Seats::new(board.cell(0), public_max, Arc::new(Doorbell::new().unwrap()))
    }

    fn short_after(begun_ms: Option<u64>) -> u64 {
        let seats = seats(1);
        let mut seat = seats.take(&Arc::default(), Audience::Public).unwrap();
        if let Some(begun_ms) = begun_ms {
            seat.begin(begun_ms);
        }
        drop(seat);
        assert_eq!(seats.open(), 0);
        seats.short()
    }

    #[test]
    fn only_connections_that_came_and_ended_soon_are_short() {
        let now_ms = monotonic_ms();
        // One that began later than now is as short as can be, however long the test is held up.
        assert_eq!(short_after(Some(now_ms + 60_000)), 1);
        assert_eq!(short_after(Some(now_ms.saturating_sub(SHORT_MS))), 0, "it had lasted");
        assert_eq!(short_after(None), 0, "nobody came");
    }

    #[test]
    fn however_many_take_seats_at_once_no_more_are_taken_than_there_are() {
        let seats = seats(3);
        let operator = seats.take(&Arc::default(), Audience::Admin).unwrap();
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(seat) = seats.take(&Arc::default(), Audience::Public) else { continue };
                        most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(seat);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        let all: Vec<_> = (0..4).map_while(|_| seats.take(&Arc::default(), Audience::Public)).collect();
        assert_eq!((all.len(), seats.open()), (3, 4));
        drop((all, operator));
        assert_eq!(seats.open(), 0);
    }
}
