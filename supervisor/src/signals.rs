//! Unix signals as events.
//!
//! | Signal | Meaning | | Signal | Meaning |
//! | --- | --- | --- | --- | --- |
//! | HUP | reload | | USR2 | upgrade the executable in place |
//! | TERM | graceful stop | | WINCH | drain the workers (not on a terminal, whose window has a size) |
//! | QUIT | graceful stop without deadline | | TTIN | one worker more |
//! | INT | graceful stop, the second time at once | | TTOU | one worker fewer |
//! | USR1 | open the log file anew | | CHLD | nothing: deaths are seen on process descriptors |
//!
//! A handler writes one byte into a socket pair; the loop reads it. While the loop is busy, equal signals become one,
//! as the kernel itself does it.

use std::{
    io::IsTerminal,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{Arc, atomic::AtomicBool},
};

use aegis_ipc::operator::StopMode;
use nix::sys::signal::SigSet;
use signal_hook::{
    consts::signal::{
        SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH,
    },
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
};

use crate::SupervisorError;

const HANDLED: [i32; 9] = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGTTIN, SIGTTOU, SIGWINCH];

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Go to the next generation.
    Reload,
    /// End the host.
    Stop(StopMode),
    /// Open the log file anew.
    ReopenLogs,
    /// Replace the running executable.
    Upgrade,
    /// Drain all workers, keep the sockets.
    Drain,
    /// One worker more.
    More,
    /// One worker fewer.
    Fewer,
}

/// Whether the host runs in the foreground of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// Its window changes send WINCH, which then means nothing.
    Attached,
    /// WINCH is an operator's wish.
    Detached,
}

impl Terminal {
    /// Looks at standard input.
    #[must_use]
    pub fn detect() -> Self {
        if std::io::stdin().is_terminal() { Self::Attached } else { Self::Detached }
    }
}

/// The signals of this process.
pub struct Signals {
    delivery: SignalDelivery<UnixStream, SignalOnly>,
    interpreter: Interpreter,
}

impl Signals {
    /// Takes over all handled signals. What the parent left ignored or blocked is undone: a handler replaces an ignored
    /// disposition, and [`unblock`] empties the mask.
    pub fn install(terminal: Terminal) -> Result<Self, SupervisorError> {
        let failed = |error| SupervisorError::os("installing the signal handlers", error);
        let (read, write) = UnixStream::pair().map_err(failed)?;
        read.set_nonblocking(true).map_err(failed)?;
        write.set_nonblocking(true).map_err(failed)?;
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, HANDLED).map_err(failed)?;
        // With CHLD ignored, as some parents leave it, the kernel would reap our children and lose their exit status.
        signal_hook::flag::register(SIGCHLD, Arc::new(AtomicBool::new(false))).map_err(failed)?;
        Ok(Self { delivery, interpreter: Interpreter { terminal, interrupted: false } })
    }

    /// What arrived since the last call.
    pub fn wishes(&mut self) -> Vec<Wish> {
        self.delivery.pending().filter_map(|signal| self.interpreter.wish(signal)).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.delivery.get_read().as_fd()
    }
}

/// Lets all signals through. Those that waited arrive now.
pub fn unblock() -> Result<(), SupervisorError> {
    SigSet::all().thread_unblock().map_err(|error| SupervisorError::os("unblocking signals", error))
}

/// Holds all signals back, so that none ends a half-started image during an exec.
pub fn block() -> Result<(), SupervisorError> {
    SigSet::all().thread_block().map_err(|error| SupervisorError::os("blocking signals", error))
}

struct Interpreter {
    terminal: Terminal,
    interrupted: bool,
}

impl Interpreter {
    fn wish(&mut self, signal: i32) -> Option<Wish> {
        match signal {
            SIGHUP => Some(Wish::Reload),
            SIGTERM => Some(Wish::Stop(StopMode::Graceful)),
            SIGQUIT => Some(Wish::Stop(StopMode::Patient)),
            SIGINT if self.interrupted => Some(Wish::Stop(StopMode::Immediate)),
            SIGINT => {
                self.interrupted = true;
                Some(Wish::Stop(StopMode::Graceful))
            }
            SIGUSR1 => Some(Wish::ReopenLogs),
            SIGUSR2 => Some(Wish::Upgrade),
            SIGWINCH if self.terminal == Terminal::Detached => Some(Wish::Drain),
            SIGTTIN => Some(Wish::More),
            SIGTTOU => Some(Wish::Fewer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(terminal: Terminal, signals: &[i32]) -> Vec<Option<Wish>> {
        let mut interpreter = Interpreter { terminal, interrupted: false };
        signals.iter().map(|signal| interpreter.wish(*signal)).collect()
    }

    #[test]
    fn every_signal_has_its_meaning() {
        insta::assert_debug_snapshot!(wishes(Terminal::Detached, &HANDLED), @r"
        [
            Some(
                Reload,
            ),
            Some(
                Stop(
                    Graceful,
                ),
            ),
            Some(
                Stop(
                    Patient,
                ),
            ),
            Some(
                ReopenLogs,
            ),
            Some(
                Upgrade,
            ),
            Some(
                Stop(
                    Graceful,
                ),
            ),
            Some(
                More,
            ),
            Some(
                Fewer,
            ),
            Some(
                Drain,
            ),
        ]
        ");
    }

    #[test]
    fn a_resized_terminal_window_drains_nobody() {
        assert_eq!(wishes(Terminal::Attached, &[SIGWINCH]), [None]);
    }

    #[test]
    fn the_second_interrupt_stops_at_once() {
        let expected = [Some(Wish::Stop(StopMode::Graceful)), Some(Wish::Stop(StopMode::Immediate))];
        assert_eq!(wishes(Terminal::Attached, &[SIGINT, SIGINT]), expected);
    }

    #[test]
    fn a_delivered_signal_is_read_from_the_pipe() {
        let mut signals = Signals::install(Terminal::Attached).unwrap();
        signal_hook::low_level::raise(SIGUSR1).unwrap();
        let mut polled = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        let second = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&second)).unwrap(), 1);
        assert_eq!(signals.wishes(), [Wish::ReopenLogs]);
        assert_eq!(signals.wishes(), []);
    }
}
