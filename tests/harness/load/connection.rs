//! One connection of the load generator: a small state machine over a non-blocking socket.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    time::Instant,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, setsockopt, socket, sockopt,
};

use crate::http::Failure;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Its turn to send.
    Turn,
    /// The socket to take (more of) the request.
    Writable,
    /// The response.
    Readable,
}

/// A complete response, as far as the load generator cares.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) worker: Option<String>,
    /// Generation of the worker, unless it is not named exactly once.
    pub(super) generation: Option<u64>,
    pub(super) closes: bool,
}

pub(super) struct Connection {
    stream: Option<TcpStream>,
    pub(super) waiting: Waiting,
    /// When it began to wait for its turn.
    pub(super) free_since: Instant,
    /// Turns that it has had.
    pub(super) turns_had: u64,
    /// From when the answer counts.
    pub(super) counts_from: Instant,
    /// When the request was sent.
    pub(super) sent: Instant,
    /// Number of the request.
    pub(super) number: u64,
    /// Newest generation that has answered on this socket.
    generation: u64,
    request: Vec<u8>,
    written: usize,
    received: Vec<u8>,
}

impl Connection {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            stream: None,
            waiting: Waiting::Turn,
            free_since: now,
            turns_had: 0,
            counts_from: now,
            sent: now,
            number: 0,
            generation: 0,
            request: Vec::new(),
            written: 0,
            received: Vec::new(),
        }
    }

    pub(super) fn stream(&self) -> Option<&TcpStream> {
        self.stream.as_ref()
    }

    pub(super) fn close(&mut self) {
        self.stream = None;
        self.received.clear();
    }

    /// What it had to do is over.
    pub(super) fn take_turns(&mut self) {
        self.waiting = Waiting::Turn;
        self.free_since = Instant::now();
    }

    /// Takes a request with its number; opens the socket when there is none. Gives whether it was opened.
    pub(super) fn begin(
        &mut self,
        address: SocketAddr,
        (number, request): (u64, Vec<u8>),
        counts_from: Instant,
        now: Instant,
    ) -> Result<bool, Failure> {
        self.counts_from = counts_from;
        self.sent = now;
        self.number = number;
        self.request = request;
        self.written = 0;
        self.waiting = Waiting::Writable;
        if self.stream.is_some() {
            return Ok(false);
        }
        self.stream = Some(open(address)?);
        self.generation = 0;
        Ok(true)
    }

    /// Hears which generation answered, and gives whether none before it on this socket was newer.
    pub(super) fn follows(&mut self, generation: u64) -> bool {
        let follows = generation >= self.generation;
        self.generation = self.generation.max(generation);
        follows
    }

    /// Writes as much as the socket takes.
    pub(super) fn write(&mut self) -> Result<(), Failure> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.written < self.request.len() {
            match stream.write(&self.request[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.waiting = Waiting::Readable;
        Ok(())
    }

    /// Reads what there is; a complete response ends the wait.
    pub(super) fn read(&mut self) -> Result<Option<Answer>, Failure> {
        let Some(stream) = &mut self.stream else { return Ok(None) };
        let mut bytes = [0; 16 * 1024];
        loop {
            match stream.read(&mut bytes) {
                Ok(0) => return Err(Failure::EndOfFile),
                Ok(count) => {
                    self.received.extend_from_slice(&bytes[..count]);
                    if let Some((answer, used)) = scan(&self.received)? {
                        self.received.drain(..used);
                        self.take_turns();
                        return Ok(Some(answer));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(address: SocketAddr) -> Result<TcpStream, Failure> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None).map_err(io::Error::from)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true).map_err(io::Error::from)?;
    let result = match address {
        SocketAddr::V4(address) => connect(socket.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => connect(socket.as_raw_fd(), &SockaddrIn6::from(address)),
    };
    match result {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// Finds a complete response at the front of `bytes`: what it says and how long it is.
fn scan(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Failure> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut headers);
    let head = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Failure::Garbage),
    };
    let status = parsed.code.unwrap_or(0);
    let mut answer = Answer { status, worker: None, generation: None, closes: false };
    let (mut length, mut named) = (0, 0);
    for header in parsed.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = std::str::from_utf8(header.value).map_err(|_| Failure::Garbage)?;
            length = text.parse().map_err(|_| Failure::Garbage)?;
        } else if header.name.eq_ignore_ascii_case("aegis-worker") {
            let worker = String::from_utf8_lossy(header.value).into_owned();
            named += 1;
            answer.generation = worker
                .split_once('.')
                .and_then(|(_, generation)| generation.parse().ok())
                .filter(|_| named == 1);
            answer.worker = Some(worker);
        } else if header.name.eq_ignore_ascii_case("connection") {
            answer.closes = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let complete = bytes.len() >= head + length;
    Ok(complete.then_some((answer, head + length)))
}
