//! Signals of a worker: `TERM` drains with the deadline, `QUIT` drains without; all others that people send to a
//! whole process group are the supervisor's business.

use std::io;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How a signal asks the worker to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Within the drain time-out.
    InTime,
    /// However long it takes.
    Patiently,
}

/// The signals that are listened to. Those that are ignored have a handler that does nothing, which needs no unsafe
/// code and replaces whatever disposition was inherited.
pub(crate) struct Signals {
    terminate: Signal,
    quit: Signal,
}

impl Signals {
    /// Unblocks all signals and takes the handlers over. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the mask or a handler cannot be set.
    pub(crate) fn take_over() -> io::Result<Self> {
        let quiet = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::window_change(),
            SignalKind::from_raw(nix::libc::SIGTTIN),
            SignalKind::from_raw(nix::libc::SIGTTOU),
            SignalKind::pipe(),
        ];
        for kind in quiet {
            drop(signal(kind)?); // the handler stays
        }
        let signals = Self { terminate: signal(SignalKind::terminate())?, quit: signal(SignalKind::quit())? };
        SigSet::empty().thread_set_mask()?;
        Ok(signals)
    }

    /// The next signal that asks to leave.
    pub(crate) async fn next(&mut self) -> Leave {
        tokio::select! {
            _ = self.terminate.recv() => Leave::InTime,
            _ = self.quit.recv() => Leave::Patiently,
        }
    }
}
