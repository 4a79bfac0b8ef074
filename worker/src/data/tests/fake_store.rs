//! A small store in the test process: the real frames over a real Unix socket, everything else in memory, and knobs
//! for what a real one does only on bad days.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use aegis_domain::{catalog::Catalog, document};
use aegis_ipc::{
    IpcError,
    board::{Board, StoreWord},
    brief, codec,
    data::{
        Change, ChangeKind, Expect, FromStore, Operation, Outcome, Stored, StoredResponse, ToStore, Version,
        Write,
    },
    frame,
};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Bodies of changes in one answer, bytes; the last one may exceed it. Far less than of a real store.
const CHANGES_BYTES_MAX: usize = 64 * 1024;

type Key = (String, String);
type Connection = mpsc::UnboundedSender<FromStore>;

/// What happens to writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// They are committed, fed, published and answered.
    Good,
    /// They are committed and fed, but neither published nor answered.
    Unsynced,
    /// They are committed, fed and published, and the connection breaks before the answer.
    BreaksBeforeAnswer,
    /// They wait.
    Silent,
    /// They wait, and nothing is said about keys either.
    Deaf,
    /// They are answered with `Unavailable`.
    Stopping,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    sequence: u64,
    revision: u64,
    body: Bytes,
}

struct State {
    mood: Mood,
    epoch: u64,
    log: Vec<Change>,
    oldest: u64,
    memory_oldest: u64,
    heads: BTreeMap<Key, Head>,
    next: u64,
    committed: HashMap<(u64, u64), (u64, u64)>,
    responses: HashMap<String, StoredResponse>,
    connections: Vec<Connection>,
    waiting: Vec<(u64, Write, Connection)>,
    /// Frames of the feed are lost while this is above zero.
    lose_frames: u32,
    /// Bodies are not found while this is above zero.
    lose_bodies: u32,
    /// Keys are not known while this is above zero.
    forget_keys: u32,
    writes_seen: Vec<u64>,
    attaches: Vec<Option<u64>>,
    fetches: u32,
    /// It reads and writes the plain form only, as a store of before.
    older: bool,
}

/// The store.
pub(crate) struct FakeStore {
    path: PathBuf,
    board: Board,
    catalog: Arc<Catalog>,
    state: Arc<Mutex<State>>,
    listening: Mutex<Option<JoinHandle<()>>>,
    /// Changes when all connections are to break.
    broken: watch::Sender<u64>,
}

impl FakeStore {
    /// Starts listening on a fresh path.
    pub(crate) fn start(board: Board, catalog: Arc<Catalog>) -> Arc<Self> {
        // Not after the process: its number is used again, and a test that was killed leaves its socket behind.
        let path = std::env::temp_dir().join(format!("aegis-fake-store-{}.sock", uuid::Uuid::new_v4()));
        let state = State {
            mood: Mood::Good,
            epoch: 0,
            log: Vec::new(),
            oldest: 1,
            memory_oldest: 1,
            heads: BTreeMap::new(),
            next: 1,
            committed: HashMap::new(),
            responses: HashMap::new(),
            connections: Vec::new(),
            waiting: Vec::new(),
            lose_frames: 0,
            lose_bodies: 0,
            forget_keys: 0,
            writes_seen: Vec::new(),
            attaches: Vec::new(),
            fetches: 0,
            older: false,
        };
        let state = Arc::new(Mutex::new(state));
        let (listening, broken) = (Mutex::new(None), watch::Sender::new(0));
        let store = Arc::new(Self { path, board, catalog, state, listening, broken });
        store.come_up();
        store
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(crate) fn set_mood(self: &Arc<Self>, mood: Mood) {
        let waiting = {
            let mut state = self.state.lock();
            state.mood = mood;
            std::mem::take(&mut state.waiting)
        };
        for (incarnation, write, connection) in waiting {
            self.write(incarnation, write, &connection);
        }
    }

    pub(crate) fn lose_frames(&self, frames: u32) {
        self.state.lock().lose_frames = frames;
    }

    pub(crate) fn lose_bodies(&self, times: u32) {
        self.state.lock().lose_bodies = times;
    }

    /// Says that it does not know the next key that it is asked about, as before the write with that key.
    pub(crate) fn forget_a_key(&self) {
        self.state.lock().forget_keys = 1;
    }

    /// From the next connection on it is a store that knows the plain form only.
    pub(crate) fn become_older(&self) {
        self.state.lock().older = true;
    }

    /// The log now begins after what is durable: whoever is older needs a complete copy.
    pub(crate) fn cut_log(&self) {
        let mut state = self.state.lock();
        state.oldest = self.board.durable() + 1;
        let oldest = state.oldest;
        state.log.retain(|change| change.sequence >= oldest);
    }

    /// Changes of models in memory before what is durable are forgotten.
    pub(crate) fn cut_log_of_memory(&self) {
        self.state.lock().memory_oldest = self.board.durable() + 1;
    }

    pub(crate) fn attaches(&self) -> Vec<Option<u64>> {
        self.state.lock().attaches.clone()
    }

    pub(crate) fn fetches(&self) -> u32 {
        self.state.lock().fetches
    }

    pub(crate) fn writes_seen(&self) -> Vec<u64> {
        self.state.lock().writes_seen.clone()
    }

    pub(crate) fn documents(&self) -> usize {
        self.state.lock().heads.len()
    }

    /// Makes what is committed durable.
    pub(crate) fn publish(&self) {
        self.board.publish_durable(self.state.lock().next - 1);
    }

    /// Closes all connections and takes no new ones, as after a crash. What was not published is lost.
    pub(crate) fn go_down(&self) {
        if let Some(listening) = self.listening.lock().take() {
            listening.abort();
        }
        let _ = std::fs::remove_file(&self.path);
        let durable = self.board.durable();
        self.break_connections();
        let mut state = self.state.lock();
        state.waiting.clear();
        state.log.retain(|change| change.sequence <= durable);
        state.committed.retain(|_, (_, last)| *last <= durable);
        state.responses.retain(|_, stored| stored.sequence <= durable);
        state.next = durable + 1;
        let lost = state.heads.values().any(|head| head.sequence > durable);
        if lost {
            state.heads = fold(&state.log);
        }
    }

    /// Listens, as a new process.
    pub(crate) fn come_up(self: &Arc<Self>) {
        let epoch = {
            let mut state = self.state.lock();
            state.epoch += 1;
            state.epoch
        };
        self.board.store(StoreWord::Epoch).store(epoch, Ordering::Release);
        let listener = UnixListener::bind(&self.path).expect("a fresh path");
        let store = Arc::clone(self);
        *self.listening.lock() = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let broken = store.broken.subscribe();
                tokio::spawn(serve(Arc::clone(&store), stream, broken));
            }
        }));
    }

    /// Breaks every connection, but goes on listening.
    pub(crate) fn break_connections(&self) {
        self.state.lock().connections.clear();
        self.broken.send_modify(|times| *times += 1);
    }

    /// Writes without a worker.
    pub(crate) fn put(&self, model: &str, id: &str, revision: u64, body: &str) {
        let operation = Operation {
            model: model.to_owned(),
            id: id.to_owned(),
            expect: Expect::Absent,
            revision,
            body: Some(Bytes::copy_from_slice(body.as_bytes())),
            changes: None,
        };
        self.commit(&mut self.state.lock(), vec![operation]);
        self.publish();
    }

    fn take_message(self: &Arc<Self>, message: ToStore, incarnation: &mut u64, connection: &Connection) {
        let send = |message| {
            let _ = connection.send(message);
        };
        match message {
            ToStore::Attach(attach) => {
                *incarnation = attach.incarnation;
                self.attach(attach.applied, connection);
            }
            ToStore::Write(write) => self.write(*incarnation, write, connection),
            ToStore::Fetch { request, versions } => {
                send(FromStore::Fetched { request, bodies: self.fetch(&versions) });
            }
            ToStore::Recall { request, key } => {
                let mut state = self.state.lock();
                if state.mood != Mood::Deaf {
                    let known =
                        state.forget_keys.checked_sub(1).map(|left| state.forget_keys = left).is_none();
                    let stored = state.responses.get(&key).filter(|_| known).cloned();
                    send(FromStore::Recalled { request, stored });
                }
            }
            ToStore::Changes { request, after, limit } => send(self.changes(request, after, limit)),
            ToStore::Resync { applied } => replay(&self.state.lock(), Some(applied), connection),
        }
    }

    fn attach(&self, applied: Option<u64>, connection: &Connection) {
        let mut state = self.state.lock();
        state.attaches.push(applied);
        let durable = self.board.durable();
        let brief = !state.older;
        let _ = connection.send(FromStore::Attached { epoch: state.epoch, durable, brief });
        replay(&state, applied, connection);
        state.connections.push(connection.clone());
    }

    fn write(self: &Arc<Self>, incarnation: u64, write: Write, connection: &Connection) {
        let mut state = self.state.lock();
        let request = write.request;
        state.writes_seen.push(request);
        let answer = |outcome| {
            let _ = connection.send(FromStore::Written { request, outcome });
        };
        if let Some((first, last)) = state.committed.get(&(incarnation, request)).copied() {
            return answer(Outcome::Committed { first, last });
        }
        match state.mood {
            Mood::Silent | Mood::Deaf => {
                return state.waiting.push((incarnation, write, connection.clone()));
            }
            Mood::Stopping => return answer(Outcome::Unavailable { reason: "stopping".to_owned() }),
            Mood::Good | Mood::Unsynced | Mood::BreaksBeforeAnswer => {}
        }
        if let Some(refusal) = self.refusal(&state, &write) {
            return answer(refusal);
        }
        let (first, last) = self.commit(&mut state, write.operations);
        state.committed.insert((incarnation, request), (first, last));
        if let Some(kept) = write.idempotency {
            let stored =
                StoredResponse { fingerprint: kept.fingerprint, response: kept.response, sequence: last };
            state.responses.insert(kept.key, stored);
        }
        if state.mood != Mood::Unsynced {
            self.board.publish_durable(last);
        }
        match state.mood {
            Mood::BreaksBeforeAnswer => {
                state.mood = Mood::Good;
                drop(state);
                self.break_connections();
            }
            Mood::Unsynced => {}
            Mood::Good | Mood::Silent | Mood::Deaf | Mood::Stopping => {
                answer(Outcome::Committed { first, last });
            }
        }
    }

    fn refusal(&self, state: &State, write: &Write) -> Option<Outcome> {
        if let Some(stored) = write.idempotency.as_ref().and_then(|kept| state.responses.get(&kept.key)) {
            return Some(Outcome::Replayed(stored.clone()));
        }
        let mut new_ids = HashSet::new();
        let mut new_values = HashSet::new();
        for (index, operation) in write.operations.iter().enumerate() {
            let key = (operation.model.clone(), operation.id.clone());
            let current = state.heads.get(&key).map(|head| head.sequence);
            let holds = match operation.expect {
                Expect::Absent => current.is_none() && new_ids.insert(key.clone()),
                Expect::At(sequence) => current == Some(sequence),
            };
            if !holds {
                return Some(Outcome::Conflict { operation: index as u32, current });
            }
            for (field, value) in
                self.unique_values(operation.body.as_deref().unwrap_or(b"{}"), &operation.model)
            {
                let taken = state.heads.iter().any(|((model, id), head)| {
                    *model == operation.model
                        && *id != operation.id
                        && self.unique_values(&head.body, model).contains(&(field.clone(), value.clone()))
                });
                if taken || !new_values.insert((field.clone(), value)) {
                    return Some(Outcome::UniqueTaken { operation: index as u32, field });
                }
            }
        }
        None
    }

    fn unique_values(&self, body: &[u8], model: &str) -> Vec<(String, Vec<u8>)> {
        self.catalog
            .by_name(model)
            .map(|model| document::unique_values(model, body).expect("a stored document"))
            .unwrap_or_default()
    }

    fn commit(&self, state: &mut State, operations: Vec<Operation>) -> (u64, u64) {
        let first = state.next;
        for operation in operations {
            let Operation { model, id, revision, body, changes, .. } = operation;
            let key = (model.clone(), id.clone());
            let sequence = state.next;
            let kind = match body {
                Some(body) => {
                    state.heads.insert(key, Head { sequence, revision, body: body.clone() });
                    ChangeKind::Put { id, revision, body, changes }
                }
                None => {
                    state.heads.remove(&key);
                    ChangeKind::Remove { id, revision }
                }
            };
            state.log.push(Change { sequence, model, kind, time_ms: 0 });
            state.next += 1;
        }
        let last = state.next - 1;
        if last < first {
            return (last, last); // only a response was stored
        }
        if state.lose_frames > 0 {
            state.lose_frames -= 1;
            return (first, last);
        }
        let changes: Vec<Change> =
            state.log.iter().filter(|change| change.sequence >= first).cloned().collect();
        for connection in &state.connections {
            let _ = connection.send(FromStore::Feed { first, last, changes: changes.clone() });
        }
        (first, last)
    }

    fn fetch(&self, versions: &[Version]) -> Vec<Option<Bytes>> {
        let mut state = self.state.lock();
        state.fetches += 1;
        if state.lose_bodies > 0 {
            state.lose_bodies -= 1;
            return vec![None; versions.len()];
        }
        versions
            .iter()
            .map(|version| {
                let head = state.heads.get(&(version.model.clone(), version.id.clone()))?;
                (head.sequence == version.sequence).then(|| head.body.clone())
            })
            .collect()
    }

    fn changes(&self, request: u64, after: u64, limit: u32) -> FromStore {
        let state = self.state.lock();
        let durable = self.board.durable();
        let mut bytes = 0;
        let changes = state
            .log
            .iter()
            .filter(|change| change.sequence > after && change.sequence <= durable)
            .take(limit as usize)
            .take_while(|change| {
                let has_room = bytes <= CHANGES_BYTES_MAX;
                bytes += body_bytes(change);
                has_room
            })
            .cloned()
            .collect();
        FromStore::ChangesRead {
            request,
            oldest: state.oldest,
            memory_oldest: state.memory_oldest,
            durable,
            changes,
        }
    }
}

fn body_bytes(change: &Change) -> usize {
    match &change.kind {
        ChangeKind::Put { body, .. } => body.len(),
        ChangeKind::Remove { .. } | ChangeKind::Truncate => 0,
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn replay(state: &State, applied: Option<u64>, connection: &Connection) {
    let send = |message| {
        let _ = connection.send(message);
    };
    let after = match applied.filter(|applied| applied + 1 >= state.oldest) {
        Some(applied) => applied,
        None => {
            let at = state.next - 1;
            send(FromStore::SnapshotBegin { at });
            let stored = |((model, id), head): (&Key, &Head)| Stored {
                model: model.clone(),
                id: id.clone(),
                revision: head.revision,
                sequence: head.sequence,
                body: head.body.clone(),
            };
            let all: Vec<Stored> = state.heads.iter().map(stored).collect();
            for documents in all.chunks(100) {
                send(FromStore::SnapshotPage { documents: documents.to_vec() });
            }
            send(FromStore::SnapshotEnd { at });
            at
        }
    };
    let changes: Vec<Change> = state.log.iter().filter(|change| change.sequence > after).cloned().collect();
    if let Some(last) = changes.last().map(|change| change.sequence) {
        send(FromStore::Feed { first: after + 1, last, changes });
    }
}

fn fold(log: &[Change]) -> BTreeMap<Key, Head> {
    let mut heads = BTreeMap::new();
    for Change { sequence, model, kind, .. } in log.iter().cloned() {
        match kind {
            ChangeKind::Put { id, revision, body, .. } => {
                heads.insert((model, id), Head { sequence, revision, body });
            }
            ChangeKind::Remove { id, .. } => {
                heads.remove(&(model, id));
            }
            ChangeKind::Truncate => heads.retain(|(of, _), _| *of != model),
        }
    }
    heads
}

fn write_frame(message: FromStore, older: bool, wire: &mut Vec<u8>) -> Result<(), IpcError> {
    match message {
        FromStore::Feed { first, last, changes } if !older => brief::write_feed(first, last, &changes, wire),
        FromStore::Written { request, outcome } if !older => brief::write_outcome(request, outcome, wire),
        message => frame::write_message(&message, wire),
    }
}

/// One connection. It ends when the worker leaves or the store breaks it.
async fn serve(store: Arc<FakeStore>, stream: UnixStream, mut broken: watch::Receiver<u64>) {
    let older = store.state.lock().older;
    let (mut reader, mut writer) = stream.into_split();
    let (connection, mut outgoing) = mpsc::unbounded_channel::<FromStore>();
    let write = async move {
        while let Some(message) = outgoing.recv().await {
            let mut wire = Vec::new();
            write_frame(message, older, &mut wire).expect("small enough");
            if writer.write_all(&wire).await.is_err() {
                return;
            }
        }
    };
    let read = async move {
        let (mut buffer, mut incarnation) = (BytesMut::new(), 0);
        while reader.read_buf(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {
            while let Some(payload) = frame::take(&mut buffer).expect("a good frame") {
                let read = if older { codec::decode } else { brief::read_to_store };
                let message = read(&payload).expect("a message");
                store.take_message(message, &mut incarnation, &connection);
            }
        }
    };
    tokio::select! {
        biased;
        _ = broken.changed() => {}
        () = write => {}
        () = read => {}
    }
}
