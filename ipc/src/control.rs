//! What the supervisor and a child say to each other, and the socket they say it over.
//!
//! One `SOCK_SEQPACKET` pair per child: a message is a datagram, end of file means the other side is gone, and
//! descriptors may ride along. Neither side ever blocks on it.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{IpcError, codec, operator};

/// Largest message, bytes.
pub const CONTROL_BYTES_MAX: usize = 192 * 1024;
/// Most descriptors that ride with one message.
pub const CONTROL_DESCRIPTORS_MAX: usize = 4;

/// Supervisor to child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToChild {
    /// Worker: start accepting.
    Serve,
    /// Worker: stop accepting, finish, leave. `deadline_ms` counts from now; none means however long it takes.
    Drain {
        /// Time to finish.
        deadline_ms: Option<u64>,
        /// Nobody follows, so that clients need not come back one after the other.
        #[serde(default)]
        is_last: bool,
    },
    /// Worker: look at the accept queue once more, a sibling may have left a connection behind.
    Poke,
    /// Any child: the descriptor that rides along is the new log file; put it in place of standard error.
    ReopenLogs,
    /// Answer to [`ToSupervisor::Ask`].
    Answer {
        /// As given.
        request: u64,
        /// The answer.
        reply: operator::Reply,
    },
    /// Store: a new generation is about to start; its bundle rides along. Make it possible or refuse it.
    Prepare {
        /// The generation.
        generation: u64,
    },
    /// Store: the prepared generation is in force.
    Activate {
        /// The generation.
        generation: u64,
    },
    /// Store: the prepared generation is not coming.
    Discard {
        /// The generation.
        generation: u64,
    },
    /// Worker: a generation whose bundle rides along is to take the place of the one you serve, without a new process.
    /// Answer with [`ToSupervisor::Adopted`] or [`ToSupervisor::NotAdopted`].
    Adopt {
        /// The generation.
        generation: u64,
    },
    /// Store: another one follows when you end; answer with [`ToSupervisor::Kept`] before you do.
    Keep,
}

/// Child to supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// First message of every child.
    Hello {
        /// [`crate::PROTOCOL_VERSION`] of the child.
        protocol: u32,
        /// Process id, to be compared with the one spawned.
        pid: u32,
        /// Generation it was started for.
        generation: u64,
    },
    /// Everything is in place: a worker has its configuration, catalog, cache and self-test; the store has recovered.
    Ready,
    /// It cannot become ready; it will exit by itself.
    Failed {
        /// Exit status that follows: 78 will not get better by trying again, 75 may.
        code: u8,
        /// Why.
        reason: String,
    },
    /// Worker: the drain makes progress. Said as soon as it accepts no more, and once a second.
    Draining {
        /// Connections still open.
        connections: u64,
        /// Requests still being answered.
        in_flight: u64,
        /// Whether it accepts no more: whoever connects from now on comes to another worker.
        #[serde(default)]
        closed: bool,
    },
    /// Worker: a client asked over HTTP for something that is the supervisor's to do.
    Ask {
        /// Chosen by the worker, echoed in the answers.
        request: u64,
        /// The request.
        ask: operator::Request,
    },
    /// Store: the generation can start.
    Prepared {
        /// The generation.
        generation: u64,
    },
    /// Store: the generation cannot start with the data there is.
    Refused {
        /// The generation.
        generation: u64,
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Worker: every request from now on is answered by this generation.
    Adopted {
        /// The generation.
        generation: u64,
        /// Time that it took to prepare it beside the one before, microseconds.
        prepare_microseconds: u64,
        /// Time that the exchange itself took, microseconds.
        switch_microseconds: u64,
    },
    /// Worker: it serves what it served before; the generation has to come with a new process.
    NotAdopted {
        /// The generation.
        generation: u64,
        /// Why.
        reason: String,
        /// A new process would come without something that this one remembers and was to hand over.
        #[serde(default)]
        loses_state: bool,
    },
    /// Store: what it had only in memory rides along as a sealed memory file (see [`crate::sealed`]), for the store that
    /// follows. It has taken its last write.
    Kept,
    /// Compile helper: a component is being compiled now. It has the whole time of a helper again, and if the helper does
    /// not survive it, this is known to be why.
    Working {
        /// The file of the component.
        on: String,
        /// Compatibility tag of the code that this image makes.
        engine: String,
    },
    /// Compile helper: what is worth knowing beside the bundle, which comes next. It is in the log already, and who does
    /// not know these words passes over them.
    Warned {
        /// What there is to say; not all, if there is much.
        warnings: Vec<String>,
    },
    /// Compile helper: the bundle rides along.
    Compiled,
    /// Compile helper: the application is not valid.
    Invalid {
        /// Why, all reasons at once.
        reasons: Vec<String>,
    },
    /// Compile helper: clients or documents would notice the module that was to be deployed.
    Incompatible {
        /// What they would notice, all at once.
        reasons: Vec<String>,
    },
    /// Look helper: it has asked the sources of modules whether something was published.
    Looked {
        /// How many it has asked.
        asked: u32,
        /// Modules whose source has something else than when the app was read last; not all names, if there are many.
        changed: Vec<String>,
        /// Why sources could not be asked; not all reasons, if there are many.
        away: Vec<String>,
        /// How many could not be asked.
        absent: u32,
    },
    /// It leaves by its own will, with nothing left to do.
    Bye,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct ControlSocket {
    descriptor: OwnedFd,
}

/// What a receive brought.
#[derive(Debug)]
pub enum Received<T> {
    /// A message and the descriptors that rode along.
    Message(T, Vec<OwnedFd>),
    /// Nothing there now.
    Empty,
    /// The other side is gone.
    Closed,
}

impl ControlSocket {
    /// Makes a connected, non-blocking pair, closed on exec.
    pub fn pair() -> Result<(Self, Self), IpcError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (left, right) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(|error| IpcError::os("creating a control socket pair", error))?;
        Ok((Self { descriptor: left }, Self { descriptor: right }))
    }

    /// Takes an inherited end.
    #[must_use]
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// Gives the descriptor away.
    #[must_use]
    pub fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    /// Sends one message. `Ok(false)`: the other side does not keep up or is gone, nothing was sent.
    pub fn send<T: Serialize>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) -> Result<bool, IpcError> {
        let bytes = codec::encode(message)?;
        if bytes.len() > CONTROL_BYTES_MAX {
            return Err(IpcError::FrameTooLarge {
                length_bytes: bytes.len() as u64,
                max_bytes: CONTROL_BYTES_MAX as u64,
            });
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(IpcError::Unexpected {
                object: "descriptors of a control message".to_owned(),
                found: descriptors.len().to_string(),
                expected: format!("at most {CONTROL_DESCRIPTORS_MAX}"),
            });
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::sendmsg(&self.descriptor, &[IoSlice::new(&bytes)], &mut ancillary, flags) {
            Ok(_) => Ok(true),
            Err(
                rustix::io::Errno::AGAIN
                | rustix::io::Errno::PIPE
                | rustix::io::Errno::CONNRESET
                | rustix::io::Errno::NOTCONN,
            ) => Ok(false),
            Err(error) => Err(IpcError::os("sending a control message", error)),
        }
    }

    /// Receives one message without waiting.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Received<T>, IpcError> {
        let mut bytes = vec![0; CONTROL_BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CONTROL_DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = loop {
            match rustix::net::recvmsg(&self.descriptor, &mut slices, &mut ancillary, flags) {
                Ok(received) => break received,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Empty),
                Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
                Err(error) => return Err(IpcError::os("receiving a control message", error)),
            }
        };
        if received.bytes == 0 {
            return Ok(Received::Closed);
        }
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        let message = codec::decode(&bytes[..received.bytes])?;
        Ok(Received::Message(message, descriptors))
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for ControlSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive_and_a_closed_end_is_an_event() {
        let (supervisor, child) = ControlSocket::pair().unwrap();
        let (extra, _keep) = ControlSocket::pair().unwrap();
        assert!(supervisor.send(&ToChild::Prepare { generation: 7 }, &[extra.as_fd()]).unwrap());
        let Received::Message(message, descriptors) = child.receive::<ToChild>().unwrap() else {
            panic!("no message")
        };
        assert_eq!(message, ToChild::Prepare { generation: 7 });
        assert_eq!(descriptors.len(), 1);
        assert!(matches!(child.receive::<ToChild>().unwrap(), Received::Empty));
        drop(supervisor);
        assert!(matches!(child.receive::<ToChild>().unwrap(), Received::Closed));
        assert!(!child.send(&ToSupervisor::Bye, &[]).unwrap());
    }

    /// What workers said of a drain when they did not say yet whether they accept.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum OfTheVersionBefore {
        Draining { connections: u64, in_flight: u64 },
    }

    #[test]
    fn the_version_before_and_this_one_understand_what_the_other_says_of_a_drain() {
        let (supervisor, child) = ControlSocket::pair().unwrap();
        let old = OfTheVersionBefore::Draining { connections: 3, in_flight: 1 };
        let new = |closed| ToSupervisor::Draining { connections: 3, in_flight: 1, closed };
        assert!(child.send(&old, &[]).unwrap());
        let Received::Message(heard, _) = supervisor.receive::<ToSupervisor>().unwrap() else {
            panic!("no message")
        };
        assert_eq!(heard, new(false), "who does not say so is not known to have stopped");
        assert!(child.send(&new(true), &[]).unwrap());
        let Received::Message(heard, _) = supervisor.receive::<OfTheVersionBefore>().unwrap() else {
            panic!("no message")
        };
        assert_eq!(heard, old);
    }

    #[test]
    fn a_full_socket_refuses_instead_of_blocking() {
        let (supervisor, _child) = ControlSocket::pair().unwrap();
        let mut sent = 0_u32;
        while supervisor.send(&ToChild::Poke, &[]).unwrap() {
            sent += 1;
            assert!(sent < 1_000_000, "the socket never filled up");
        }
        assert!(sent > 0);
    }
}
