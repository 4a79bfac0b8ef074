//! How other threads reach the main thread, which waits for descriptors.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use crossbeam::channel::{Receiver, Sender};

use crate::{error::StoreError, requests::RecentRequests};

/// Notices that may wait. Each answers one command of the supervisor, which sends few.
const NOTICES_MAX: usize = 64;

/// What the main thread is told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The generation can start.
    Prepared {
        /// Its number.
        generation: u64,
    },
    /// The generation cannot start.
    Refused {
        /// Its number.
        generation: u64,
        /// Why.
        reasons: Vec<String>,
    },
    /// The writer has ended as it was told to.
    Stopped {
        /// Writes that were committed lately.
        requests: RecentRequests,
    },
    /// The writer cannot go on.
    Failed(StoreError),
}

/// The end that tells.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    notices: Sender<Notice>,
    bell: Arc<UnixStream>,
}

/// The end that is told.
#[derive(Debug)]
pub(crate) struct Notices {
    notices: Receiver<Notice>,
    bell: UnixStream,
}

/// A connected pair.
pub(crate) fn pair() -> io::Result<(Notifier, Notices)> {
    let (ring, bell) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    bell.set_nonblocking(true)?;
    let (sender, notices) = crossbeam::channel::bounded(NOTICES_MAX);
    Ok((Notifier { notices: sender, bell: Arc::new(ring) }, Notices { notices, bell }))
}

impl Notifier {
    /// Tells the main thread.
    pub(crate) fn tell(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            tracing::error!(%error, "the main thread does not take notices");
        }
        // A full pipe rings as well.
        let _ = (&*self.bell).write(&[1]);
    }
}

impl Notices {
    /// What was told since the last call.
    pub(crate) fn take(&mut self) -> Vec<Notice> {
        let mut rings = [0; 64];
        while matches!(self.bell.read(&mut rings), Ok(length) if length > 0) {}
        self.notices.try_iter().collect()
    }

    /// Waits for the next notice.
    #[cfg(test)]
    pub(crate) fn wait(&self) -> Notice {
        self.notices.recv_timeout(std::time::Duration::from_secs(60)).expect("a notice within a minute")
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
