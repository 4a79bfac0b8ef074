//! A stand-in for systemd's notify socket.

use std::{io, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use tempfile::TempDir;

/// Receives what a service tells systemd.
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    _folder: TempDir,
}

impl NotifySocket {
    /// Binds a socket in a folder of its own.
    ///
    /// # Panics
    /// When that is not possible.
    #[must_use]
    pub fn bind() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("bind the notify socket");
        Self { socket, path, _folder: folder }
    }

    /// Value for `NOTIFY_SOCKET`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.to_str().expect("temporary paths are UTF-8")
    }

    /// The next datagram.
    pub fn receive(&self, timeout: Duration) -> io::Result<String> {
        self.socket.set_read_timeout(Some(timeout))?;
        let mut bytes = [0; 4096];
        loop {
            match self.socket.recv(&mut bytes) {
                // This process was stopped for a while.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => return Ok(String::from_utf8_lossy(&bytes[..received?]).into_owned()),
            }
        }
    }

    /// The next datagram that `wanted` accepts; others are passed over.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn receive_matching(&self, what: &str, timeout: Duration, wanted: impl Fn(&str) -> bool) -> String {
        self.receive_noting(&mut Vec::new(), what, timeout, wanted)
    }

    /// The next datagram that `wanted` accepts; it and those before it are noted in `told`.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn receive_noting(
        &self,
        told: &mut Vec<String>,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> String {
        loop {
            match self.receive(timeout) {
                Ok(text) => told.push(text.clone()),
                Err(error) => panic!("no datagram {what} within {timeout:?} ({error}); saw {told:?}"),
            }
            if let Some(text) = told.last().filter(|text| wanted(text)) {
                return text.clone();
            }
        }
    }
}
