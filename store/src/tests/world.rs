//! A store and the workers that a test plays.

use std::{
    io::{Read, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use aegis_ipc::{
    PROTOCOL_VERSION,
    board::Board,
    brief, codec,
    data::{Attach, Change, ChangeKind, FromStore, Operation, Outcome, Stored, ToStore, Write},
    frame,
};
use bytes::BytesMut;
use crossbeam::channel::Sender;

use crate::{
    catalog::{Generation, Settings},
    control::assemble,
    engine::{
        Engine,
        memory::{MemoryEngine, kept::Kept},
    },
    error::StoreError,
    link, lookup,
    notice::{self, Notices},
    recover::recover,
    requests::RecentRequests,
    shared::Shared,
    testing::{generation, settings, write},
    writer::{Command, Probe, Writer},
};

/// Longest that anything may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const TODO: &str = "name = \"todo\"\n[fields]\ncode = { unique = true }";
pub(super) const NOTE: &str = "name = \"note\"\ndatasource = \"memory\"";

/// Process numbers of the workers.
static INCARNATIONS: AtomicU64 = AtomicU64::new(1);

/// A running store.
pub(super) struct World {
    pub(super) shared: Arc<Shared>,
    pub(super) board: Board,
    pub(super) commands: Sender<Command>,
    pub(super) notices: Notices,
    writer: Option<JoinHandle<Result<RecentRequests, StoreError>>>,
}

impl World {
    /// Starts a store over an engine, with the models `TODO` and `NOTE`.
    pub(super) fn start(file: Box<dyn Engine>) -> Self {
        Self::with(file, settings())
    }

    /// Starts a store with other bounds.
    pub(super) fn with(file: Box<dyn Engine>, settings: Settings) -> Self {
        let (board, _) = Board::create().unwrap();
        let generation = Generation { settings, ..generation(1, &[TODO, NOTE]) };
        Self::continuing(file, generation, board, 1).unwrap()
    }

    /// Starts a store on a disk with as many free bytes as the test says.
    pub(super) fn on_disk_with(free_bytes: &Arc<AtomicU64>) -> Self {
        let (board, _) = Board::create().unwrap();
        let free_bytes = Arc::clone(free_bytes);
        let probe: Probe = Box::new(move || Ok(free_bytes.load(Ordering::Relaxed)));
        let file = Box::new(MemoryEngine::new());
        Self::probing(file, generation(1, &[TODO, NOTE]), None, (board, 1), Some(probe)).unwrap()
    }

    /// Starts a store of a host that runs already.
    pub(super) fn continuing(
        file: Box<dyn Engine>,
        generation: Generation,
        board: Board,
        epoch: u64,
    ) -> Result<Self, StoreError> {
        Self::probing(file, generation, None, (board, epoch), None)
    }

    /// Starts a store that is handed what another one kept in memory.
    pub(super) fn taking_up(
        file: Box<dyn Engine>,
        generation: Generation,
        kept: &[u8],
        board: Board,
        epoch: u64,
    ) -> Result<Self, StoreError> {
        let kept = Kept::read(&mut &*kept).unwrap();
        Self::probing(file, generation, Some(kept), (board, epoch), None)
    }

    fn probing(
        file: Box<dyn Engine>,
        generation: Generation,
        kept: Option<Kept>,
        (board, epoch): (Board, u64),
        probe: Option<Probe>,
    ) -> Result<Self, StoreError> {
        let settings = generation.settings.clone();
        let (notifier, notices) = notice::pair().unwrap();
        let recovery = recover(file, generation, kept, board, epoch)?;
        let parts = assemble(recovery, &settings, (board, epoch), notifier.clone());
        lookup::start(&parts.shared, &parts.questions).unwrap();
        let commands = parts.inbox.to_commands.clone();
        let writer = Writer::new(Arc::clone(&parts.shared), parts.inbox, notifier, parts.memory, probe);
        let writer = Some(std::thread::spawn(move || writer.run()));
        Ok(Self { shared: parts.shared, board, commands, notices, writer })
    }

    /// Connects a worker that has not introduced itself.
    pub(super) fn connect(&self) -> Worker {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        link::serve(theirs, &self.shared);
        let incarnation = INCARNATIONS.fetch_add(1, Ordering::Relaxed);
        Worker { socket: ours, buffer: BytesMut::new(), incarnation, requests: 0, brief: true }
    }

    /// Connects a worker that has nothing, and hands over the complete copy it is sent. From then on changes come before
    /// the answers to their writes; a worker that is sent the log meanwhile may be answered first.
    pub(super) fn worker(&self) -> (Worker, Replica) {
        let mut worker = self.connect();
        worker.attach(None);
        let replica = worker.receive_copy();
        self.wait_until(|world| world.shared.registry.is_live(), "the worker is sent the feed");
        (worker, replica)
    }

    /// Ends the store in order.
    pub(super) fn stop(self) {
        self.stop_and_keep();
    }

    /// Ends the store in order. Returns what it has in memory, for the next one.
    pub(super) fn stop_and_keep(mut self) -> Vec<u8> {
        self.shared.stop();
        self.commands.send(Command::Stop).unwrap();
        let requests = self.writer.take().unwrap().join().unwrap().unwrap();
        for link in self.shared.registry.links() {
            link.wait_until_answered(Instant::now() + PATIENCE);
            link.close();
        }
        self.wait_until(|world| world.shared.registry.links().is_empty(), "all connections end");
        let mut kept = Vec::new();
        self.shared.storage.keep(&requests, &mut kept).unwrap();
        kept
    }

    /// The failure that ended the writer.
    pub(super) fn failure(mut self) -> StoreError {
        self.writer.take().unwrap().join().unwrap().unwrap_err()
    }

    /// Waits for a condition.
    pub(super) fn wait_until(&self, condition: impl Fn(&Self) -> bool, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited in vain until {what}");
            std::thread::yield_now();
        }
    }
}

/// The worker's end of a connection.
pub(super) struct Worker {
    pub(super) socket: UnixStream,
    buffer: BytesMut,
    pub(super) incarnation: u64,
    requests: u64,
    /// It speaks the brief form, other than a worker of before.
    pub(super) brief: bool,
}

impl Worker {
    pub(super) fn send(&mut self, message: &ToStore) {
        let mut bytes = Vec::new();
        let write = if self.brief { brief::write_to_store } else { frame::write_message };
        write(message, &mut bytes).unwrap();
        self.socket.write_all(&bytes).unwrap();
    }

    /// The next message, `None` when the store has closed the connection.
    pub(super) fn next(&mut self) -> Option<FromStore> {
        loop {
            if let Some(payload) = frame::take(&mut self.buffer).unwrap() {
                let read = if self.brief { brief::read_from_store } else { codec::decode };
                return Some(read(&payload).unwrap());
            }
            let mut piece = [0; 65_536];
            match self.socket.read(&mut piece) {
                Ok(0) => return None,
                Ok(length) => self.buffer.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                // This process was stopped for a while.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the store is silent: {error}"),
            }
        }
    }

    pub(super) fn receive(&mut self) -> FromStore {
        self.next().expect("the connection is open")
    }

    /// Introduces the worker; returns epoch and durable number.
    pub(super) fn attach(&mut self, applied: Option<u64>) -> (u64, u64) {
        let (protocol, incarnation, brief) = (PROTOCOL_VERSION, self.incarnation, self.brief);
        self.send(&ToStore::Attach(Attach { protocol, incarnation, cell: 1, generation: 1, applied, brief }));
        match self.receive() {
            FromStore::Attached { epoch, durable, brief: true } => (epoch, durable),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn receive_copy(&mut self) -> Replica {
        let FromStore::SnapshotBegin { at } = self.receive() else { panic!("no copy") };
        let mut replica = Replica { received: at, ..Replica::default() };
        loop {
            match self.receive() {
                FromStore::SnapshotPage { documents } => replica.documents.extend(documents),
                FromStore::SnapshotEnd { at: end } => {
                    assert_eq!(at, end);
                    return replica;
                }
                FromStore::Written { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks for a write without waiting for the answer; returns the number of the request.
    pub(super) fn ask(&mut self, write: Write) -> u64 {
        self.requests += 1;
        let request = self.requests;
        self.send(&ToStore::Write(Write { request, ..write }));
        request
    }

    /// Writes and waits for the outcome; the feed in between goes to the replica.
    pub(super) fn write(&mut self, operation: Operation, replica: &mut Replica) -> Outcome {
        self.write_all(write(0, operation), replica)
    }

    pub(super) fn write_all(&mut self, write: Write, replica: &mut Replica) -> Outcome {
        let asked = self.ask(write);
        loop {
            match self.receive() {
                FromStore::Written { request, outcome } if request == asked => return outcome,
                message => replica.take(message),
            }
        }
    }

    /// Receives the feed until the replica has everything up to a number.
    pub(super) fn follow(&mut self, up_to: u64, replica: &mut Replica) {
        while replica.received < up_to {
            let message = self.receive();
            replica.take(message);
        }
        assert_eq!(replica.received, up_to);
    }
}

/// What a worker was sent.
#[derive(Debug, Default)]
pub(super) struct Replica {
    pub(super) documents: Vec<Stored>,
    pub(super) received: u64,
    pub(super) changes: Vec<Change>,
    pub(super) answers: Vec<(u64, Outcome)>,
}

impl Replica {
    pub(super) fn take(&mut self, message: FromStore) {
        match message {
            FromStore::Feed { first, last, changes } => {
                assert_eq!(first, self.received + 1, "no gap and no repetition");
                assert!(
                    first <= last && changes.iter().all(|change| (first..=last).contains(&change.sequence))
                );
                self.received = last;
                self.changes.extend(changes);
            }
            FromStore::Written { request, outcome } => self.answers.push((request, outcome)),
            other => panic!("{other:?}"),
        }
    }

    /// Ids of the documents that were put, in order.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.changes
            .iter()
            .filter_map(|change| match &change.kind {
                ChangeKind::Put { id, .. } => Some(id.as_str()),
                ChangeKind::Remove { .. } | ChangeKind::Truncate => None,
            })
            .collect()
    }
}

/// The outcome of a write that was committed as one change.
pub(super) fn committed(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Committed { first, last } if first == last => first,
        other => panic!("{other:?}"),
    }
}
