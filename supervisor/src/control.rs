//! The operator's socket: one JSON object per line, in and out, over a Unix stream.
//!
//! Only the owner of the host and root are served, a bounded number at a time, with bounded lines and bounded answers
//! waiting. Nothing here blocks: a client that does not read is cut off, and garbage is answered with an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use aegis_ipc::operator::{LINE_BYTES_MAX, REPLY_BYTES_MAX, Reply, Request};
use nix::sys::socket::sockopt::PeerCredentials;
use serde::{Deserialize, Serialize};

use crate::listen::Origin;

/// Most clients at once.
pub const CLIENTS_MAX: usize = 64;
/// Most bytes of answers that wait for one client; one that lets more pile up is cut off.
const OUTPUT_BYTES_MAX: usize = REPLY_BYTES_MAX;
/// Most bytes read from one client in one pass of the loop.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Most requests taken from one client in one pass of the loop.
const LINES_MAX: usize = 16;
/// Most clients accepted in one pass of the loop.
const ACCEPTS_MAX: usize = 16;

/// Names a connection for as long as the supervisor lives, upgrades included.
pub type ClientId = u64;

/// The socket and everybody connected to it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    origin: Origin,
    clients: BTreeMap<ClientId, Client>,
    next: ClientId,
}

/// One connection.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    interest: Interest,
    phase: Phase,
    /// Answers that are still to come, by the number of who waits for them.
    waiting: BTreeSet<u64>,
    /// What the loop waits for on it.
    polled_for: Readiness,
}

/// Whether a client wants the state of the host again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Interest {
    /// Only answers to its requests.
    Answers,
    /// Also every change of the state.
    Changes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Requests may come.
    Open,
    /// No more requests: it closed its half, or we refuse to listen. Closed once everything is answered.
    Finishing,
    /// Nothing more can be said.
    Gone,
}

/// What a successor needs to know about a client besides its descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The connection.
    pub id: ClientId,
    /// Number of the inherited descriptor.
    pub descriptor: i32,
    input: Vec<u8>,
    output: Vec<u8>,
    interest: Interest,
    phase: Phase,
    waiting: BTreeSet<u64>,
}

/// What the loop should wait for on the socket of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Bytes to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

impl Readiness {
    /// That of a client that is to be polled for the first time.
    const FRESH: Self = Self { read: true, write: false };
}

impl Server {
    /// Serves on a bound, non-blocking Unix socket.
    #[must_use]
    pub fn new(listener: OwnedFd, origin: Origin) -> Self {
        Self { listener: UnixListener::from(listener), origin, clients: BTreeMap::new(), next: 1 }
    }

    /// Where the socket comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether it is bound to `path` and nobody finds it there any more.
    #[must_use]
    pub fn has_lost(&self, path: &Path) -> bool {
        let is_bound_there =
            self.listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path));
        is_bound_there && matches!(path.try_exists(), Ok(false))
    }

    /// Goes on with another non-blocking Unix socket, which we have bound. Those who are connected stay.
    pub fn listen_on(&mut self, listener: OwnedFd) {
        (self.listener, self.origin) = (UnixListener::from(listener), Origin::Bound);
    }

    /// Accepts who waits; the new clients are to be polled.
    pub fn accept(&mut self) -> Vec<ClientId> {
        let mut accepted = Vec::new();
        for _ in 0..ACCEPTS_MAX {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::warn!(%error, "accepting an operator's connection failed");
                    break;
                }
            };
            if let Some(id) = self.admit(stream) {
                accepted.push(id);
            }
        }
        accepted
    }

    fn admit(&mut self, stream: UnixStream) -> Option<ClientId> {
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::warn!(%error, "an operator's connection cannot be used");
            return None;
        }
        let refusal = self.refusal(&stream);
        let id = self.insert(Client {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            interest: Interest::Answers,
            phase: Phase::Open,
            waiting: BTreeSet::new(),
            polled_for: Readiness::FRESH,
        });
        if let Some(message) = refusal {
            self.send(id, &Reply::Error { message });
            self.flush(id);
            self.clients.remove(&id);
            return None;
        }
        Some(id)
    }

    fn refusal(&self, stream: &UnixStream) -> Option<String> {
        if self.clients.len() >= CLIENTS_MAX {
            return Some(format!("{CLIENTS_MAX} operators are connected already, try again later"));
        }
        let own = rustix::process::geteuid().as_raw();
        match nix::sys::socket::getsockopt(stream, PeerCredentials) {
            Ok(peer) if peer.uid() == own || peer.uid() == 0 => None,
            Ok(peer) => {
                Some(format!("user id {} may not operate this host, expected {own} or 0", peer.uid()))
            }
            Err(error) => Some(format!("your user id cannot be told: {error}")),
        }
    }

    fn insert(&mut self, client: Client) -> ClientId {
        let id = self.next;
        self.next += 1;
        self.clients.insert(id, client);
        id
    }

    /// Reads what a client sent: requests, or what is wrong with a line. A bounded number of them; see
    /// [`Server::unread`].
    pub fn read(&mut self, id: ClientId) -> Vec<Result<Request, String>> {
        let Some(client) = self.clients.get_mut(&id) else { return Vec::new() };
        client.fill();
        client.take_lines()
    }

    /// Clients whose next request has arrived already, but was not taken by the last [`Server::read`].
    pub fn unread(&self) -> Vec<ClientId> {
        let has_line = |client: &Client| client.phase != Phase::Gone && client.input.contains(&b'\n');
        self.clients.iter().filter(|(_, client)| has_line(client)).map(|(id, _)| *id).collect()
    }

    /// Queues an answer; [`Server::flush`] sends it.
    pub fn send(&mut self, id: ClientId, reply: &Reply) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match serde_json::to_vec(reply) {
            Ok(line) if client.output.len() + line.len() < OUTPUT_BYTES_MAX => {
                client.output.extend_from_slice(&line);
                client.output.push(b'\n');
            }
            Ok(_) => {
                tracing::warn!(client = id, "an operator does not read its answers and is cut off");
                client.phase = Phase::Gone;
            }
            Err(error) => tracing::error!(%error, "an answer to an operator cannot be written as JSON"),
        }
    }

    /// Sends what is queued, as far as the client takes it.
    pub fn flush(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.drain();
        }
    }

    /// The client wants the state again and again.
    pub fn watch(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.interest = Interest::Changes;
        }
    }

    /// Whether anybody wants the state again and again.
    #[must_use]
    pub fn has_watchers(&self) -> bool {
        self.clients.values().any(|client| client.interest == Interest::Changes)
    }

    /// Clients that want the state and have taken the last one; a slow one simply sees it less often.
    pub fn watchers(&self) -> Vec<ClientId> {
        let wants = |client: &Client| client.interest == Interest::Changes && client.output.is_empty();
        self.clients.iter().filter(|(_, client)| wants(client)).map(|(id, _)| *id).collect()
    }

    /// An answer for `asker` will come later.
    pub fn expect(&mut self, id: ClientId, asker: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waiting.insert(asker);
        }
    }

    /// All answers for `asker` have been queued.
    pub fn fulfilled(&mut self, id: ClientId, asker: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.waiting.remove(&asker);
        }
    }

    /// The other side is gone entirely.
    pub fn hang_up(&mut self, id: ClientId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.phase = Phase::Gone;
        }
    }

    /// Clients that are done with: to be closed.
    pub fn finished(&self) -> Vec<ClientId> {
        self.clients.iter().filter(|(_, client)| client.is_done()).map(|(id, _)| *id).collect()
    }

    /// Closes a connection. The value: who among the askers waited on it.
    pub fn close(&mut self, id: ClientId) -> BTreeSet<u64> {
        self.clients.remove(&id).map(|client| client.waiting).unwrap_or_default()
    }

    /// What to wait for from now on, for those clients where that changed since the last call.
    pub fn changed_readiness(&mut self) -> Vec<(ClientId, Readiness)> {
        let mut changed = Vec::new();
        for (id, client) in &mut self.clients {
            let readiness = client.readiness();
            if client.polled_for != readiness {
                client.polled_for = readiness;
                changed.push((*id, readiness));
            }
        }
        changed
    }

    /// The socket of a client.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<BorrowedFd<'_>> {
        self.clients.get(&id).map(|client| client.stream.as_fd())
    }

    /// Everybody connected.
    pub fn ids(&self) -> impl Iterator<Item = ClientId> + '_ {
        self.clients.keys().copied()
    }

    /// What a successor needs, and the descriptors that go with it.
    pub fn records(&self) -> impl Iterator<Item = (ClientRecord, BorrowedFd<'_>)> {
        self.clients.iter().filter(|(_, client)| client.phase != Phase::Gone).map(|(id, client)| {
            let record = ClientRecord {
                id: *id,
                descriptor: client.stream.as_raw_fd(),
                input: client.input.clone(),
                output: client.output.clone(),
                interest: client.interest,
                phase: client.phase,
                waiting: client.waiting.clone(),
            };
            (record, client.stream.as_fd())
        })
    }

    /// Continues with a client of a predecessor.
    pub fn restore(&mut self, record: ClientRecord, descriptor: OwnedFd) {
        let ClientRecord { id, descriptor: _, input, output, interest, phase, waiting } = record;
        let stream = UnixStream::from(descriptor);
        self.clients.insert(
            id,
            Client { stream, input, output, interest, phase, waiting, polled_for: Readiness::FRESH },
        );
        self.next = self.next.max(id + 1);
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Client {
    fn fill(&mut self) {
        let mut bytes = [0; 4096];
        let mut taken = 0;
        while self.phase == Phase::Open && taken < READ_BYTES_MAX && self.input.len() <= LINE_BYTES_MAX {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.phase = Phase::Finishing,
                Ok(length) => {
                    taken += length;
                    self.input.extend_from_slice(&bytes[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.phase = Phase::Gone,
            }
        }
    }

    fn take_lines(&mut self) -> Vec<Result<Request, String>> {
        let mut lines = Vec::new();
        let mut start = 0;
        while lines.len() < LINES_MAX
            && let Some(length) = self.input[start..].iter().position(|byte| *byte == b'\n')
        {
            let line = self.input[start..start + length].trim_ascii();
            if !line.is_empty() {
                lines.push(parse(line));
            }
            start += length + 1;
        }
        self.input.drain(..start);
        if lines.len() < LINES_MAX && self.input.len() > LINE_BYTES_MAX {
            // Where the next line begins can no longer be told cheaply: answer, and listen no more.
            lines.push(Err(format!("a line may be {LINE_BYTES_MAX} bytes long, this one is longer")));
            self.input = Vec::new();
            self.phase = Phase::Finishing;
        }
        lines
    }

    fn drain(&mut self) {
        let mut sent = 0;
        while sent < self.output.len() && self.phase != Phase::Gone {
            match self.stream.write(&self.output[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.phase = Phase::Gone,
            }
        }
        self.output.drain(..sent);
        if self.output.is_empty() {
            self.output.shrink_to(4096);
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness { read: self.phase == Phase::Open, write: !self.output.is_empty() }
    }

    fn is_done(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Gone => true,
            // One that watches and closed its half still reads; it is gone when writing to it fails.
            Phase::Finishing => {
                let answered = self.output.is_empty() && self.waiting.is_empty();
                answered && self.interest == Interest::Answers && !self.input.contains(&b'\n')
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Request, String> {
    serde_json::from_slice(line).map_err(|error| {
        format!(
            "not a request: {error}; expected one JSON object per line, such as {{\"request\":\"status\"}}"
        )
    })
}

#[cfg(test)]
mod tests;
