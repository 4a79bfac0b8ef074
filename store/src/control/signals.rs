//! Signals: TERM and QUIT end the store in order, everything else that a terminal or a parent may send is ignored.

use std::{
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::AtomicBool},
};

use nix::sys::signal::SigSet;
use signal_hook::consts::signal::{
    SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH,
};

use crate::error::StoreError;

const ENDING: [i32; 2] = [SIGTERM, SIGQUIT];
const IGNORED: [i32; 8] = [SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU, SIGPIPE];

/// The signals of this process.
pub(super) struct Signals {
    bell: UnixStream,
}

impl Signals {
    /// Takes over all signals, whatever the parent left ignored or blocked.
    pub(super) fn install() -> Result<Self, StoreError> {
        let failed = |error| StoreError::os("installing the signal handlers", error);
        let (ring, bell) = UnixStream::pair().map_err(failed)?;
        bell.set_nonblocking(true).map_err(failed)?;
        for signal in ENDING {
            let ring = ring.try_clone().map_err(failed)?;
            signal_hook::low_level::pipe::register(signal, ring).map_err(failed)?;
        }
        // A handler that notes the signal nowhere ignores it, and does away with whatever was inherited.
        let unread = Arc::new(AtomicBool::new(false));
        for signal in IGNORED {
            signal_hook::flag::register(signal, Arc::clone(&unread)).map_err(failed)?;
        }
        SigSet::all().thread_unblock().map_err(|error| StoreError::os("unblocking signals", error))?;
        Ok(Self { bell })
    }

    /// Was the store asked to end since the last call?
    pub(super) fn asked_to_end(&self) -> bool {
        let mut rings = [0; 16];
        matches!((&self.bell).read(&mut rings), Ok(length) if length > 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
