//! Connections that wait behind one that was handed to a runtime, taken up by the runtime itself.
//!
//! Handing a connection from thread to thread costs two changes of threads, more than all the rest of accepting it. When
//! many come at once (a sibling has closed those it had, or clients make one for each request) a runtime that has just
//! shown that it runs takes the next ones on the way. It takes none beyond its share, in its worker and among workers, and
//! one that is stuck takes none at all: the balance is no other, and a stuck runtime holds no more than it took up just before.

use std::{
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use aegis_ipc::board::{Board, Counter, monotonic_ms};

use super::{
    Accepted, Doorbell, Seats, Source,
    balance::{STEP_BACK_MAX, Siblings},
};

/// Most connections that are taken behind one: those that are open already wait meanwhile.
const FOLLOWING_MAX: usize = 16;

/// How one runtime takes them.
#[derive(Debug)]
pub(crate) struct Following {
    board: Board,
    cell: usize,
    siblings: Siblings,
    seats: Arc<Seats>,
    /// Connections that each runtime of the worker has.
    lanes: Arc<[Arc<AtomicU64>]>,
    /// Which of them this one is.
    index: usize,
}

impl Following {
    /// For one runtime of those that have so many connections, in the worker of a cell of the board.
    pub(crate) fn new(
        (board, cell): (Board, usize),
        seats: &Arc<Seats>,
        (lanes, index): (&Arc<[Arc<AtomicU64>]>, usize),
    ) -> Self {
        let siblings = Siblings::new(board, cell);
        Self { board, cell, siblings, seats: Arc::clone(seats), lanes: Arc::clone(lanes), index }
    }

    /// What waits at `source`, as long as more of it belongs to this worker and the acceptor serves.
    pub(crate) fn take(&mut self, source: &Source, doorbell: &Doorbell) -> impl Iterator<Item = Accepted> {
        iter::from_fn(|| self.take_one(source, doorbell)).take(FOLLOWING_MAX)
    }

    fn take_one(&mut self, source: &Source, doorbell: &Doorbell) -> Option<Accepted> {
        let own = self.lanes[self.index].load(Ordering::Relaxed);
        let is_lane_full = self.lanes.iter().any(|lane| lane.load(Ordering::Relaxed) < own);
        if is_lane_full || !self.seats.has_room(source.audience()) {
            return None;
        }
        if self.siblings.step_back(&self.seats, STEP_BACK_MAX).is_some() {
            return None;
        }
        // Seated before the acceptor is asked: a worker that is told to leave either sees the seat, and waits for it to be
        // empty again, or is seen to leave here.
        let mut seat = self.seats.take(&self.lanes[self.index], source.audience())?;
        fence(Ordering::SeqCst);
        if !doorbell.is_serving() {
            return None;
        }
        // An error that concerns more than one connection is for the acceptor, who meets it too.
        let stream = source.accept().ok()?;
        seat.begin(monotonic_ms());
        self.board.cell(self.cell).counter(Counter::Connections).fetch_add(1, Ordering::Relaxed);
        Some(Accepted { stream, seat })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::OwnedFd,
    };

    use aegis_ipc::{
        board::Gauge,
        handoff::{Audience, ListenerAddress},
    };

    use super::*;

    struct Runtime {
        board: Board,
        source: Source,
        seats: Arc<Seats>,
        doorbell: Arc<Doorbell>,
        following: Following,
        clients: Vec<TcpStream>,
    }

    impl Runtime {
        /// The only runtime of a worker that serves, and clients that wait.
        fn with(clients: usize) -> Self {
            Self::among(1, clients)
        }

        /// One of some runtimes.
        fn among(runtimes: usize, clients: usize) -> Self {
            let (board, _descriptor) = Board::create().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let clients = (0..clients).map(|_| TcpStream::connect(address).unwrap()).collect();
            let source =
                Source::new(OwnedFd::from(listener), &ListenerAddress::Tcp(address), Audience::Public)
                    .unwrap();
            let doorbell = Arc::new(Doorbell::new().unwrap());
            doorbell.serve();
            let seats = Seats::new(board.cell(0), 1_000, Arc::clone(&doorbell));
            let lanes: Arc<[Arc<AtomicU64>]> = (0..runtimes).map(|_| Arc::default()).collect();
            let following = Following::new((board, 0), &seats, (&lanes, 0));
            Self { board, source, seats, doorbell, following, clients }
        }

        fn take(&mut self) -> Vec<Accepted> {
            self.following.take(&self.source, &self.doorbell).collect()
        }
    }

    #[test]
    fn what_waits_is_taken_up_in_portions() {
        let mut runtime = Runtime::with(FOLLOWING_MAX + 3);
        let first = runtime.take();
        assert_eq!(first.len(), FOLLOWING_MAX, "those that are open wait no longer than that");
        let second = runtime.take();
        assert_eq!(second.len(), 3);
        assert_eq!(runtime.seats.open(), FOLLOWING_MAX as u64 + 3);
        assert!(runtime.take().is_empty());
        assert_eq!(runtime.seats.short(), 0, "a look at an empty queue is no connection that ended soon");
        drop((first, second));
        assert_eq!(runtime.seats.open(), 0, "no seat is left of those that did not come");
        drop(runtime.clients);
    }

    #[test]
    fn what_belongs_to_a_sibling_is_left_to_it() {
        let mut runtime = Runtime::with(10);
        let sibling = runtime.board.cell(1);
        sibling.gauge(Gauge::Willing).store(1, Ordering::Relaxed);
        sibling.gauge(Gauge::AcceptorBeat).store(aegis_ipc::board::monotonic_ms(), Ordering::Relaxed);
        let taken = runtime.take();
        assert_eq!(taken.len(), 2, "one more than a sibling with none");
    }

    #[test]
    fn what_belongs_to_another_runtime_of_the_worker_is_left_to_it() {
        let mut runtime = Runtime::among(2, 10);
        assert_eq!(runtime.take().len(), 1, "as many as the other one has, and one more");
    }

    #[test]
    fn a_worker_that_leaves_takes_nothing_and_seats_nobody() {
        let mut runtime = Runtime::with(1);
        runtime.doorbell.stop();
        assert!(runtime.take().is_empty());
        assert_eq!(runtime.seats.open(), 0);
    }
}
