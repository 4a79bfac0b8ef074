//! A listening socket that all workers share.

use std::{
    io,
    net::TcpStream,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use aegis_ipc::handoff::{Audience, ListenerAddress};
use rustix::{io::Errno, net::SocketFlags};

use super::AcceptedStream;

/// Where connections come from.
#[derive(Debug)]
pub(crate) struct Source {
    socket: OwnedFd,
    is_unix: bool,
    audience: Audience,
}

impl Source {
    /// Takes over a listening socket.
    ///
    /// # Errors
    /// When it cannot be made non-blocking.
    pub(super) fn new(socket: OwnedFd, address: &ListenerAddress, audience: Audience) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, is_unix: matches!(address, ListenerAddress::Unix(_)), audience })
    }

    /// Whom connections from here belong to.
    pub(super) fn audience(&self) -> Audience {
        self.audience
    }

    /// Takes one connection, without waiting for it.
    ///
    /// # Errors
    /// `EAGAIN` when none waits, and whatever else `accept(2)` has.
    pub(super) fn accept(&self) -> Result<AcceptedStream, Errno> {
        let socket = rustix::net::accept_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        Ok(if self.is_unix {
            AcceptedStream::Unix(UnixStream::from(socket))
        } else {
            AcceptedStream::Tcp(TcpStream::from(socket))
        })
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
