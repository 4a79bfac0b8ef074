//! Several acceptors in one process share one listening socket, as worker processes do.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener, TcpStream as Client},
    thread::JoinHandle,
    time::Instant,
};

use aegis_ipc::board::Cell;
use parking_lot::Mutex;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longest step back here: a machine that runs other tests may take this long to run a sibling that was woken.
const BUSY_MACHINE: Duration = Duration::from_millis(500);

/// An acceptor and a runtime that takes connections and keeps them.
struct Worker {
    cell: Cell,
    seats: Arc<Seats>,
    doorbell: Arc<Doorbell>,
    kept: Arc<Mutex<Vec<Accepted>>>,
    acceptor: Option<JoinHandle<()>>,
    /// Thread of the acceptor.
    thread: nix::unistd::Pid,
    /// Where a stuck runtime leaves its connections.
    stuck: Option<mpsc::Receiver<Arrival>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Takes,
    IsStuck,
}

struct Site {
    board: Board,
    listener: TcpListener,
    address: SocketAddr,
}

impl Site {
    fn new() -> Self {
        let (board, _descriptor) = Board::create().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Self { board, listener, address }
    }

    fn worker(&self, cell: usize, runtime: Runtime, permits: usize, public_max: u64) -> Worker {
        let listeners = vec![self.listener_for(Audience::Public)];
        self.worker_on(listeners, cell, runtime, permits, public_max)
    }

    fn listener_for(&self, audience: Audience) -> Listener {
        let socket = OwnedFd::from(self.listener.try_clone().unwrap());
        Listener::new(socket, &ListenerAddress::Tcp(self.address), audience).unwrap()
    }

    fn worker_on(
        &self,
        listeners: Vec<Listener>,
        cell: usize,
        runtime: Runtime,
        permits: usize,
        public_max: u64,
    ) -> Worker {
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let seats = Seats::new(self.board.cell(cell), public_max, Arc::clone(&doorbell));
        let (intake, mut receiver) = mpsc::channel(permits);
        let lanes = vec![Lane { intake, connections: Arc::default() }];
        let place = (self.board, cell);
        let mut acceptor =
            Acceptor::new(listeners, lanes, Arc::clone(&seats), Arc::clone(&doorbell), place).unwrap();
        acceptor.step_back_max = BUSY_MACHINE;
        let kept: Arc<Mutex<Vec<Accepted>>> = Arc::default();
        let stuck = match runtime {
            Runtime::IsStuck => Some(receiver),
            Runtime::Takes => {
                let (kept, doorbell) = (Arc::clone(&kept), Arc::clone(&doorbell));
                thread::spawn(move || {
                    while let Some(arrival) = receiver.blocking_recv() {
                        kept.lock().push(arrival.accepted);
                        doorbell.room_was_made();
                    }
                });
                None
            }
        };
        let (sender, thread) = std::sync::mpsc::channel();
        let acceptor = thread::spawn(move || {
            sender.send(nix::unistd::gettid()).unwrap();
            acceptor.run();
        });
        let cell = self.board.cell(cell);
        Worker {
            cell,
            seats,
            doorbell,
            kept,
            acceptor: Some(acceptor),
            thread: thread.recv().unwrap(),
            stuck,
        }
    }

    /// Workers that accept, all of them in the wait list.
    fn serving(&self, cells: std::ops::Range<usize>) -> Vec<Worker> {
        let workers: Vec<Worker> = cells
            .map(|cell| self.worker(cell, Runtime::Takes, 2, 10_000).serving(self.board, cell))
            .collect();
        workers
    }

    /// Connections one after the other, each begun when all workers have come to rest after the one before. So it
    /// does not matter how busy the machine is.
    fn connect(&self, workers: &[Worker], count: usize) -> Vec<Client> {
        (0..count)
            .map(|_| {
                until("all workers are at rest", || workers.iter().all(Worker::is_at_rest));
                let before = accepted(workers);
                let client = Client::connect(self.address).unwrap();
                until("the connection is accepted", || accepted(workers) > before);
                client
            })
            .collect()
    }
}

impl Worker {
    fn serving(self, board: Board, cell: usize) -> Self {
        self.doorbell.serve();
        let gauge = |gauge| board.cell(cell).gauge(gauge).load(Ordering::Relaxed);
        until("the worker accepts", || gauge(Gauge::Accepting) == 1 && gauge(Gauge::AcceptorBeat) > 0);
        until("its acceptor sleeps", || self.is_at_rest());
        self
    }

    fn open(&self) -> u64 {
        self.seats.open()
    }

    /// Whether its runtime, if it takes any, has taken all connections there are, and its acceptor sleeps.
    fn is_at_rest(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", self.thread)).unwrap();
        let sleeps = stat.rsplit_once(") ").unwrap().1.starts_with('S');
        sleeps && (self.stuck.is_some() || self.kept.lock().len() as u64 == self.open())
    }

    /// Stops accepting and returns once the thread has ended.
    fn stop(&mut self) {
        self.doorbell.stop();
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
        assert!(self.doorbell.has_stopped());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.doorbell.stop();
    }
}

/// Connections that were ever accepted.
fn accepted(workers: &[Worker]) -> u64 {
    workers.iter().map(|worker| worker.cell.counter(Counter::Connections).load(Ordering::Relaxed)).sum()
}

fn total(workers: &[Worker]) -> u64 {
    workers.iter().map(Worker::open).sum()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        thread::yield_now();
    }
}

/// No worker has more than `percent` of what another one has.
#[track_caller]
fn assert_even(workers: &[Worker], percent: u64) {
    let open: Vec<u64> = workers.iter().map(Worker::open).collect();
    let (least, most) = (open.iter().min().unwrap(), open.iter().max().unwrap());
    assert!(*most * 100 <= *least * percent, "more than {percent} %: {open:?}");
}

#[test]
fn slow_arrivals_spread_evenly() {
    let site = Site::new();
    let workers = site.serving(0..8);
    let _clients = site.connect(&workers, 200);
    assert_even(&workers, 125);
}

#[test]
fn a_burst_does_not_end_with_one_worker() {
    let site = Site::new();
    let workers = site.serving(0..8);
    let _clients: Vec<Client> = (0..200).map(|_| Client::connect(site.address).unwrap()).collect();
    until("all are accepted", || total(&workers) == 200);
    // All arrive within a moment, so it matters which threads the machine runs in that moment.
    let most = workers.iter().map(Worker::open).max().unwrap();
    assert!(most <= 50, "one worker got {most} of 200");
}

#[test]
fn the_spread_is_even_after_every_worker_was_replaced() {
    let site = Site::new();
    let mut workers = site.serving(0..8);
    let mut clients = site.connect(&workers, 200);
    for slot in 0..8 {
        let successor = site.worker(8 + slot, Runtime::Takes, 2, 10_000).serving(site.board, 8 + slot);
        let mut old = std::mem::replace(&mut workers[slot], successor);
        old.stop();
        // The supervisor does so whenever a worker begins to leave.
        workers.iter().for_each(|worker| worker.doorbell.poke());
        let lost = usize::try_from(old.open()).unwrap();
        old.kept.lock().clear();
        clients.extend(site.connect(&workers, lost));
    }
    assert_eq!(total(&workers), 200);
    // They come one upon the other, so workers with more than their share help out.
    assert_even(&workers, 200);
}

#[test]
fn a_worker_that_joins_late_gets_what_comes() {
    let site = Site::new();
    let mut workers = site.serving(0..3);
    let _first = site.connect(&workers, 60);
    workers.extend(site.serving(3..4));
    let joined = monotonic_ms();
    let beats = |cell: usize| site.board.cell(cell).gauge(Gauge::AcceptorBeat).load(Ordering::Relaxed);
    until("all have come round", || (0..4).all(|cell| beats(cell) > joined));
    let _second = site.connect(&workers, 20);
    // Those that were there have twenty each. On a machine that does not run it in time, they help out.
    assert!(workers[3].open() >= 10, "it got {} of 20", workers[3].open());
}

#[test]
fn a_stuck_runtime_holds_no_more_than_its_permits_and_one() {
    let site = Site::new();
    let permits = 2;
    let workers = [
        site.worker(0, Runtime::IsStuck, permits, 10_000).serving(site.board, 0),
        site.worker(1, Runtime::Takes, permits, 10_000).serving(site.board, 1),
    ];
    let _clients = site.connect(&workers, 60);
    assert!(workers[0].open() <= permits as u64 + 1, "the stuck one holds {}", workers[0].open());
    assert_eq!(total(&workers), 60, "all others are served");
}

#[test]
fn a_full_worker_leaves_clients_to_others_but_lets_operators_in() {
    let site = Site::new();
    let admin = Site::new();
    let listeners = vec![site.listener_for(Audience::Public), admin.listener_for(Audience::Admin)];
    let full = [site.worker_on(listeners, 0, Runtime::Takes, 2, 3).serving(site.board, 0)];
    let mut clients = site.connect(&full, 3);
    let _waiting = Client::connect(site.address).unwrap();
    let _operators = admin.connect(&full, 2);
    assert_eq!(total(&full), 5, "the fourth client waits in the kernel");
    full[0].kept.lock().retain(|accepted| accepted.seat.audience() == Audience::Admin);
    clients.clear();
    until("the waiting client is let in", || total(&full) == 3);
}

#[test]
fn nothing_is_accepted_before_serving_and_nothing_after_the_last_pass() {
    let site = Site::new();
    let mut dark = site.worker(0, Runtime::Takes, 2, 10);
    let mut client = Client::connect(site.address).unwrap();
    dark.stop();
    assert_eq!(dark.open(), 0);
    // The connection is still in the queue of the shared socket: a sibling serves it.
    let mut sibling = site.worker(1, Runtime::Takes, 2, 10).serving(site.board, 1);
    until("the sibling takes it", || sibling.open() == 1 && sibling.is_at_rest());
    sibling.stop();
    assert_eq!(site.board.cell(1).gauge(Gauge::Accepting).load(Ordering::Relaxed), 0);
    let _late = Client::connect(site.address).unwrap();
    assert_eq!(sibling.open(), 1);
    sibling.kept.lock().clear();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the client sees the end of its connection");
}

#[test]
fn what_a_stuck_runtime_was_handed_keeps_no_socket_open() {
    let site = Site::new();
    let (board, address) = (site.board, site.address);
    let mut worker = site.worker(0, Runtime::IsStuck, 2, 10).serving(board, 0);
    let _clients = site.connect(std::slice::from_ref(&worker), 1);
    worker.stop();
    drop(site);
    let refused = Client::connect(address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn an_error_that_stays_does_not_end_the_thread() {
    let site = Site::new();
    // Bound but not listening: accept(2) answers EINVAL for ever.
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    let broken = Listener::new(socket, &ListenerAddress::Tcp(site.address), Audience::Public).unwrap();
    let mut worker = site.worker_on(vec![broken], 0, Runtime::Takes, 2, 10).serving(site.board, 0);
    let beat = site.board.cell(0).gauge(Gauge::AcceptorBeat);
    let first = beat.load(Ordering::Relaxed);
    until("the acceptor has tried again and again", || beat.load(Ordering::Relaxed) > first + 300);
    worker.stop();
    assert_eq!(worker.open(), 0);
}
