//! The acceptor thread: takes connections from the shared listening sockets, one at a time, and only when a runtime
//! has room for it. The runtime takes up itself what waits behind that one (see [`Following`]).
//!
//! ```text
//!   reserve a permit ──none──▶ leave the wait list until a runtime takes a connection
//!        │ permit
//!   more connections than siblings? ──yes──▶ stay out of the wait list, look now and then
//!        │ no
//!   join the wait list: EPOLLIN | EPOLLEXCLUSIVE
//!        │ woken, poked, or 100 ms passed
//!   accept exactly one, send it with the permit, leave the wait list, begin again
//! ```
//!
//! Leaving after every accept puts this worker at the end of the kernel's list, so slow arrivals spread evenly. The
//! permit comes first, because a worker that is woken and unwilling would swallow the wake-up. The permits belong to
//! channels that the runtimes themselves empty, so a hung worker holds no more than its permits and the one
//! connection it was woken for. The time-out covers a wake-up lost with a sibling that died.
//!
//! Not tokio's accept: it wakes every worker for every connection and spreads slow arrivals 45 to 1. Not an
//! exclusive set inside tokio's own: the inner set has no waiter, so the kernel goes on waking the next one.

mod balance;
mod doorbell;
mod following;
mod seats;
mod source;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::TcpStream,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use aegis_ipc::{
    board::{Board, Counter, Gauge, monotonic_ms},
    handoff::{Audience, ListenerAddress},
    slice,
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};
use tokio::sync::mpsc;

use balance::{STEP_BACK_MAX, Siblings};
pub(crate) use doorbell::Doorbell;
use doorbell::Mode;
pub(crate) use following::Following;
pub(crate) use seats::{Seat, Seats};
use source::Source;

/// Longest sleep of the acceptor: bounds how long a connection waits whose wake-up was lost, and is its heartbeat.
const TICK: Duration = Duration::from_millis(100);
/// How often a worker with more than its share looks whether a connection stays unclaimed. It is the worst wait of a
/// connection when the only willing worker is frozen.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Runtimes that take no connection for this long are stuck.
const STUCK_AFTER: Duration = Duration::from_millis(20);
/// First and longest pause after an error that will not go away by itself (no descriptors, no memory).
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// Event data of the doorbell; listeners have their index.
const DOORBELL: u64 = u64::MAX;

/// A listening socket of this worker.
#[derive(Debug)]
pub(crate) struct Listener {
    source: Arc<Source>,
    armed: bool,
}

/// The way into one runtime.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Its capacity is the number of permits.
    pub(crate) intake: mpsc::Sender<Arrival>,
    /// Connections the runtime has.
    pub(crate) connections: Arc<AtomicU64>,
}

/// What is handed to a runtime.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// A connection.
    pub(crate) accepted: Accepted,
    /// Where it came from; more may wait there. It is the acceptor's: what a stuck runtime was handed keeps no socket open.
    pub(crate) source: Weak<Source>,
}

/// A connection on its way to a runtime.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Non-blocking, closed on exec.
    pub(crate) stream: AcceptedStream,
    /// Its place among the open connections.
    pub(crate) seat: Seat,
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum AcceptedStream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Everything the acceptor thread works with.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listeners: Vec<Listener>,
    lanes: Vec<Lane>,
    seats: Arc<Seats>,
    doorbell: Arc<Doorbell>,
    board: Board,
    cell: usize,
    siblings: Siblings,
    step_back_max: Duration,
    epoll: Epoll,
    lurking: Lurking,
    failures: u32,
}

/// Where a worker with more than its share stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lurking {
    /// It just accepted a connection or has no more than its share.
    No,
    /// Nothing was waiting when it looked.
    Idle,
    /// It saw a connection waiting and gives siblings time to take it.
    Seen,
}

struct Reserved {
    permit: mpsc::OwnedPermit<Arrival>,
    connections: Arc<AtomicU64>,
}

impl Listener {
    /// Takes over a listening socket.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub(crate) fn new(socket: OwnedFd, address: &ListenerAddress, audience: Audience) -> io::Result<Self> {
        let source = Arc::new(Source::new(socket, address, audience)?);
        Ok(Self { source, armed: false })
    }
}

impl Acceptor {
    /// Puts the parts together; nothing is accepted before [`Doorbell::serve`].
    ///
    /// # Errors
    /// When the private epoll set cannot be made.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        lanes: Vec<Lane>,
        seats: Arc<Seats>,
        doorbell: Arc<Doorbell>,
        (board, cell): (Board, usize),
    ) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(doorbell.as_ref(), EpollEvent::new(EpollFlags::EPOLLIN, DOORBELL))?;
        let siblings = Siblings::new(board, cell);
        Ok(Self {
            listeners,
            lanes,
            seats,
            doorbell,
            board,
            cell,
            siblings,
            step_back_max: STEP_BACK_MAX,
            epoll,
            lurking: Lurking::No,
            failures: 0,
        })
    }

    /// Starts the thread. It ends after [`Doorbell::stop`].
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(crate) fn start(self) -> io::Result<thread::JoinHandle<()>> {
        thread::Builder::new().name("acceptor".to_owned()).spawn(move || {
            slice::ask_for_short();
            self.run()
        })
    }

    fn run(mut self) {
        let accepting = self.board.cell(self.cell).gauge(Gauge::Accepting);
        let willing = self.board.cell(self.cell).gauge(Gauge::Willing);
        let mut has_served = false;
        loop {
            self.board.cell(self.cell).gauge(Gauge::AcceptorBeat).store(monotonic_ms(), Ordering::Relaxed);
            match self.doorbell.mode() {
                Mode::Dark => {
                    self.doorbell.wait(TICK);
                }
                Mode::Serving => {
                    has_served = true;
                    accepting.store(1, Ordering::Relaxed);
                    self.serve_once();
                }
                Mode::Stopping => {
                    accepting.store(0, Ordering::Relaxed);
                    willing.store(0, Ordering::Relaxed);
                    self.disarm_all();
                    if has_served {
                        self.accept_one_of_each();
                    }
                    // Whoever is told that it has stopped finds the sockets closed here.
                    self.listeners.clear();
                    self.doorbell.mark_stopped();
                    return;
                }
            }
        }
    }

    fn serve_once(&mut self) {
        let Some(reserved) = self.reserve() else { return self.starve() };
        self.be_willing(1);
        let poked = self.doorbell.take_poke();
        if let Some(delay) = self.step_back() {
            self.disarm_all(); // it may have been in the list since before siblings had fewer
            return self.lurk(delay, reserved);
        }
        if poked {
            drop(reserved);
            return self.accept_one_of_each();
        }
        self.lurking = Lurking::No;
        self.arm();
        match self.wait() {
            Some(DOORBELL) => self.doorbell.quiet(),
            Some(index) => {
                let index = usize::try_from(index).unwrap_or(usize::MAX);
                self.accept(index, reserved);
            }
            None => {
                drop(reserved);
                self.accept_one_of_each();
            }
        }
    }

    /// A permit of the runtime with the fewest connections among those that have one.
    fn reserve(&self) -> Option<Reserved> {
        if !self.listeners.iter().any(|listener| self.seats.has_room(listener.source.audience())) {
            return None;
        }
        let lane = self
            .lanes
            .iter()
            .filter(|lane| lane.intake.capacity() > 0)
            .min_by_key(|lane| lane.connections.load(Ordering::Relaxed))?;
        let permit = lane.intake.clone().try_reserve_owned().ok()?;
        Some(Reserved { permit, connections: Arc::clone(&lane.connections) })
    }

    /// No runtime has room: leave the wait list until one has. That is over in a moment, or the runtimes are stuck;
    /// only then siblings stop counting on this worker.
    fn starve(&mut self) {
        self.disarm_all();
        self.doorbell.starve();
        if self.reserve().is_some() || self.doorbell.wait(STUCK_AFTER) {
            return;
        }
        self.be_willing(0);
        self.doorbell.starve();
        if self.reserve().is_none() {
            self.doorbell.wait(TICK);
        }
    }

    /// Tells siblings whether connections may be left to this worker.
    fn be_willing(&self, willing: u64) {
        self.board.cell(self.cell).gauge(Gauge::Willing).store(willing, Ordering::Relaxed);
    }

    fn step_back(&mut self) -> Option<Duration> {
        self.siblings.step_back(&self.seats, self.step_back_max)
    }

    /// Stays out of the wait list, but takes a connection that nobody takes.
    fn lurk(&mut self, delay: Duration, reserved: Reserved) {
        let pause = if self.lurking == Lurking::Idle { LOOK_INTERVAL } else { delay };
        if self.doorbell.wait(pause) {
            return;
        }
        match (self.waiting_listener(), self.lurking) {
            (None, _) => self.lurking = Lurking::Idle,
            (Some(_), Lurking::No | Lurking::Idle) => self.lurking = Lurking::Seen,
            (Some(index), Lurking::Seen) => {
                self.lurking = Lurking::No;
                self.accept(index, reserved);
            }
        }
    }

    /// A listener with a connection in its queue, without joining the wait list.
    fn waiting_listener(&self) -> Option<usize> {
        let open: Vec<usize> = (0..self.listeners.len())
            .filter(|index| self.seats.has_room(self.listeners[*index].source.audience()))
            .collect();
        let mut descriptors: Vec<PollFd<'_>> = open
            .iter()
            .map(|index| PollFd::new(self.listeners[*index].source.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut descriptors, PollTimeout::ZERO).ok()?;
        let position = descriptors.iter().position(|descriptor| descriptor.any() == Some(true))?;
        Some(open[position])
    }

    /// One pass over all queues, as far as there are permits.
    fn accept_one_of_each(&mut self) {
        for index in 0..self.listeners.len() {
            let Some(reserved) = self.reserve() else { return };
            self.accept(index, reserved);
        }
    }

    fn accept(&mut self, index: usize, reserved: Reserved) {
        let Some(Listener { source, .. }) = self.listeners.get(index) else { return };
        let Some(mut seat) = self.seats.take(&reserved.connections, source.audience()) else {
            return self.disarm(index);
        };
        match source.accept() {
            Ok(stream) => {
                self.failures = 0;
                self.board.cell(self.cell).counter(Counter::Connections).fetch_add(1, Ordering::Relaxed);
                seat.begin(monotonic_ms());
                let source = Arc::downgrade(source);
                reserved.permit.send(Arrival { accepted: Accepted { stream, seat }, source });
                self.disarm(index);
            }
            Err(error) => {
                drop(seat);
                if !concerns_one_connection(error) {
                    self.back_off(error);
                }
            }
        }
    }

    /// The error will come again at once: let go of the listeners for a while, so that siblings serve.
    fn back_off(&mut self, error: rustix::io::Errno) {
        self.disarm_all();
        self.be_willing(0);
        let pause = BACK_OFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        if self.failures.is_power_of_two() {
            tracing::warn!(
                target: "aegis::worker",
                failures = self.failures,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "accepting a connection: {error}; trying again"
            );
        }
        self.doorbell.wait(pause);
    }

    fn arm(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            let wanted = self.seats.has_room(listener.source.audience());
            if wanted == listener.armed {
                continue;
            }
            let changed = if wanted {
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
                self.epoll.add(&listener.source, EpollEvent::new(flags, index as u64))
            } else {
                self.epoll.delete(&listener.source)
            };
            match changed {
                Ok(()) => listener.armed = wanted,
                Err(error) => {
                    tracing::error!(target: "aegis::worker", "watching a listening socket: {error}")
                }
            }
        }
    }

    fn disarm(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        if listener.armed {
            listener.armed = false;
            if let Err(error) = self.epoll.delete(&listener.source) {
                tracing::error!(target: "aegis::worker", "leaving a listening socket: {error}");
            }
        }
    }

    fn disarm_all(&mut self) {
        for index in 0..self.listeners.len() {
            self.disarm(index);
        }
    }

    /// Data of one event; `None` when the time is up.
    fn wait(&self) -> Option<u64> {
        let mut events = [EpollEvent::empty()];
        let timeout = EpollTimeout::try_from(TICK).unwrap_or(EpollTimeout::ZERO);
        match self.epoll.wait(&mut events, timeout) {
            Ok(1..) => Some(events[0].data()),
            Ok(0) => None,
            Err(_) => Some(DOORBELL), // interrupted: begin again
        }
    }
}

/// Errors that say something about the connection that was to be accepted, not about accepting (accept(2)).
fn concerns_one_connection(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno as E;
    matches!(
        error,
        E::AGAIN
            | E::INTR
            | E::CONNABORTED
            | E::PERM
            | E::PROTO
            | E::NETDOWN
            | E::NOPROTOOPT
            | E::HOSTDOWN
            | E::NONET
            | E::HOSTUNREACH
            | E::OPNOTSUPP
            | E::NETUNREACH
    )
}
