//! Talking to a running host: JSON lines over its control socket, one request at a time, never waiting without end.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aegis_ipc::operator::{REPLY_BYTES_MAX, Reply, Request};
use aegis_supervisor::exit;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

#[cfg(test)]
mod tests;

/// Time a host has to answer. Its loop answers within milliseconds; this long means that it is stopped or stuck.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody is there.
    #[error("no host listens on {}; is `aegis run` running?", path.display())]
    NoHost {
        /// The control socket.
        path: PathBuf,
    },
    /// Somebody is there and says nothing.
    #[error("the host on {} does not answer within {} s; it may be stopped or overloaded", path.display(), ANSWER_TIMEOUT.as_secs())]
    Silent {
        /// The control socket.
        path: PathBuf,
    },
    /// The host went away in the middle.
    #[error("the host on {} closed the connection before it answered; `aegis status` tells how it is", path.display())]
    Closed {
        /// The control socket.
        path: PathBuf,
    },
    /// The answer makes no sense.
    #[error("the host on {} answered with {found}, expected a line of JSON that this version of aegis knows", path.display())]
    Nonsense {
        /// The control socket.
        path: PathBuf,
        /// What came.
        found: String,
    },
    /// The operating system refused something.
    #[error("{operation} {} failed", path.display())]
    Os {
        /// What was attempted.
        operation: &'static str,
        /// The control socket.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// Exit status of the command.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoHost { .. } | Self::Silent { .. } | Self::Closed { .. } => exit::TRANSIENT,
            Self::Nonsense { .. } => exit::BUG,
            Self::Os { .. } => exit::OS,
        }
    }
}

/// What came, or did not.
#[derive(Debug, PartialEq)]
pub(crate) enum Incoming {
    /// An answer.
    Reply(Reply),
    /// Nothing so far.
    Nothing,
    /// The host closed the connection.
    Closed,
}

/// A connection to a host.
#[derive(Debug)]
pub(crate) struct Client {
    path: PathBuf,
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects to the host whose control socket is at `path`.
    pub(crate) fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = connect_now(path)?;
        let client = Self { path: path.to_owned(), stream, unread: Vec::new() };
        client.stream.set_nonblocking(false).map_err(client.os("using"))?;
        client.stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(client.os("using"))?;
        Ok(client)
    }

    /// Sends a request.
    pub(crate) fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line =
            serde_json::to_vec(request).map_err(|error| self.os("writing a request to")(error.into()))?;
        line.push(b'\n');
        match self.stream.write_all(&line) {
            Ok(()) => Ok(()),
            Err(error) if is_timeout(&error) => Err(ClientError::Silent { path: self.path.clone() }),
            // The host may have said why it closes the connection, so what it sent is read first.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(self.os("writing to")(error)),
        }
    }

    /// Waits for the next answer, at most for `patience`.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Incoming, ClientError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(line) = self.take_line() {
                return self.understand(&line).map(Incoming::Reply);
            }
            if self.unread.len() > REPLY_BYTES_MAX {
                let found = format!("a line of more than {REPLY_BYTES_MAX} bytes");
                return Err(ClientError::Nonsense { path: self.path.clone(), found });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Incoming::Nothing);
            }
            self.stream.set_read_timeout(Some(left)).map_err(self.os("using"))?;
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Incoming::Closed),
                Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Incoming::Closed),
                Err(error) => return Err(self.os("reading from")(error)),
            }
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.send(request)?;
        match self.receive(ANSWER_TIMEOUT)? {
            Incoming::Reply(reply) => Ok(reply),
            Incoming::Nothing => Err(ClientError::Silent { path: self.path.clone() }),
            Incoming::Closed => Err(ClientError::Closed { path: self.path.clone() }),
        }
    }

    /// The control socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let rest = self.unread.split_off(end + 1);
        Some(std::mem::replace(&mut self.unread, rest))
    }

    fn understand(&self, line: &[u8]) -> Result<Reply, ClientError> {
        serde_json::from_slice(line).map_err(|_| {
            let text = String::from_utf8_lossy(line);
            let found = format!("{:?}", text.trim_end().chars().take(120).collect::<String>());
            ClientError::Nonsense { path: self.path.clone(), found }
        })
    }

    fn os(&self, operation: &'static str) -> impl Fn(io::Error) -> ClientError + use<> {
        let path = self.path.clone();
        move |source| ClientError::Os { operation, path: path.clone(), source }
    }
}

/// Connects without waiting: when the queue of a stopped host is full, a blocking connect would never return.
fn connect_now(path: &Path) -> Result<UnixStream, ClientError> {
    let failed = |errno: nix::Error| ClientError::Os {
        operation: "connecting to",
        path: path.to_owned(),
        source: errno.into(),
    };
    let address = UnixAddr::new(path).map_err(failed)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(failed)?;
    match connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &address) {
        Ok(()) => Ok(UnixStream::from(socket)),
        Err(nix::Error::ENOENT | nix::Error::ECONNREFUSED) => {
            Err(ClientError::NoHost { path: path.to_owned() })
        }
        Err(nix::Error::EAGAIN) => Err(ClientError::Silent { path: path.to_owned() }),
        Err(errno) => Err(failed(errno)),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
