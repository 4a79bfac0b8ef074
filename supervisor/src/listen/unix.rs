//! Unix listening sockets, for their owner only.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::Path,
};

use socket2::{Domain, SockAddr, Socket, Type};

use super::{BACKLOG, make_parent};
use crate::SupervisorError;

/// What to do with a socket file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// Somebody who answers keeps it; a file that nobody listens on is removed.
    Ask,
    /// It belongs to a dead predecessor: we hold the lock of the directory. What still listens there is finishing.
    Replace,
}

/// Binds a listening Unix socket with mode 0600.
pub fn bind_unix(path: &Path, occupant: Occupant) -> Result<OwnedFd, SupervisorError> {
    make_parent(path)?;
    clear(path, occupant)?;
    bind(path)
        .map_err(|error| SupervisorError::os(format!("listening on Unix socket {}", path.display()), error))
}

fn bind(path: &Path) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, so nobody sees the file with other permissions.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn clear(path: &Path, occupant: Occupant) -> Result<(), SupervisorError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(SupervisorError::os(format!("looking at {}", path.display()), error)),
    };
    let taken =
        |reason: &str| SupervisorError::UnixSocketTaken { path: path.to_owned(), reason: reason.to_owned() };
    if !metadata.file_type().is_socket() {
        return Err(taken("something that is not a socket is there"));
    }
    if occupant == Occupant::Ask && somebody_listens(path) {
        return Err(taken("another host answers there"));
    }
    std::fs::remove_file(path)
        .map_err(|error| SupervisorError::os(format!("removing the stale socket {}", path.display()), error))
}

fn somebody_listens(path: &Path) -> bool {
    let connected = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)
        .and_then(|socket| socket.connect(&SockAddr::unix(path)?));
    match connected {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock, // a full queue is one that somebody keeps open
    }
}
