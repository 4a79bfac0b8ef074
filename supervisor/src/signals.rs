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
//! They are held back and read from a descriptor (signalfd(2)) by the loop. While the loop is busy, equal signals become one,
//! as the kernel itself does it. A child that is forked so has no handler to get rid of.

use std::{
    io::IsTerminal,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, atomic::AtomicBool},
};

use aegis_ipc::operator::StopMode;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};

use crate::SupervisorError;

const HANDLED: [Signal; 9] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTERM,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGWINCH,
];

/// Those that end a host, and may do so before it is one.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

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
    arrived: SignalFd,
    interpreter: Interpreter,
}

impl Signals {
    /// Takes over all handled signals: from here on they are held back until they are read. One that the parent left ignored
    /// is read as well, since the kernel drops none that is held back.
    pub fn install(terminal: Terminal) -> Result<Self, SupervisorError> {
        let failed = |error: std::io::Error| SupervisorError::os("taking the signals over", error);
        handled().thread_block().map_err(|error| failed(error.into()))?;
        let arrived = SignalFd::with_flags(&handled(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        // With CHLD ignored, as some parents leave it, the kernel would reap our children and lose their exit status.
        let unread = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGCHLD, unread).map_err(failed)?;
        Ok(Self { arrived, interpreter: Interpreter { terminal, interrupted: false } })
    }

    /// What arrived since the last call.
    pub fn wishes(&mut self) -> Vec<Wish> {
        // Each of them is there once at most.
        let arrived = std::iter::from_fn(|| self.arrived.read_signal().ok().flatten()).take(HANDLED.len());
        let signals = arrived.filter_map(|arrived| Signal::try_from(arrived.ssi_signo.cast_signed()).ok());
        signals.filter_map(|signal| self.interpreter.wish(signal)).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

fn handled() -> SigSet {
    HANDLED.into_iter().collect()
}

/// Holds back what asks a host for something else than its end, before there is one: it would end or stop this
/// process. What waits is read after [`Signals::install`], also by an image that is executed meanwhile.
pub fn hold_back() -> Result<(), SupervisorError> {
    let wishes: SigSet = HANDLED.into_iter().filter(|signal| !ENDING.contains(signal)).collect();
    wishes.thread_block().map_err(|error| SupervisorError::os("holding signals back", error))
}

/// Lets all signals through but those that are read. Those that waited arrive now.
pub fn unblock() -> Result<(), SupervisorError> {
    handled().thread_set_mask().map_err(|error| SupervisorError::os("unblocking signals", error))
}

/// Holds all signals back, so that none ends a half-started image during an exec.
pub fn block() -> Result<(), SupervisorError> {
    SigSet::all().thread_block().map_err(|error| SupervisorError::os("blocking signals", error))
}

/// Lets all signals through to a child that was just forked. None has come to it before.
pub(crate) fn let_all_through() -> Result<(), SupervisorError> {
    SigSet::empty().thread_set_mask().map_err(|error| SupervisorError::os("unblocking signals", error))
}

struct Interpreter {
    terminal: Terminal,
    interrupted: bool,
}

impl Interpreter {
    fn wish(&mut self, signal: Signal) -> Option<Wish> {
        match signal {
            Signal::SIGHUP => Some(Wish::Reload),
            Signal::SIGTERM => Some(Wish::Stop(StopMode::Graceful)),
            Signal::SIGQUIT => Some(Wish::Stop(StopMode::Patient)),
            Signal::SIGINT if self.interrupted => Some(Wish::Stop(StopMode::Immediate)),
            Signal::SIGINT => {
                self.interrupted = true;
                Some(Wish::Stop(StopMode::Graceful))
            }
            Signal::SIGUSR1 => Some(Wish::ReopenLogs),
            Signal::SIGUSR2 => Some(Wish::Upgrade),
            Signal::SIGWINCH if self.terminal == Terminal::Detached => Some(Wish::Drain),
            Signal::SIGTTIN => Some(Wish::More),
            Signal::SIGTTOU => Some(Wish::Fewer),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(terminal: Terminal, signals: &[Signal]) -> Vec<Option<Wish>> {
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
        assert_eq!(wishes(Terminal::Attached, &[Signal::SIGWINCH]), [None]);
    }

    #[test]
    fn the_second_interrupt_stops_at_once() {
        let expected = [Some(Wish::Stop(StopMode::Graceful)), Some(Wish::Stop(StopMode::Immediate))];
        assert_eq!(wishes(Terminal::Attached, &[Signal::SIGINT, Signal::SIGINT]), expected);
    }

    #[test]
    fn what_comes_before_there_is_a_host_is_read_by_it() {
        hold_back().unwrap();
        let early: Vec<Signal> = HANDLED.into_iter().filter(|signal| !ENDING.contains(signal)).collect();
        for signal in &early {
            nix::sys::signal::raise(*signal).unwrap();
        }
        let mask = SigSet::thread_get_mask().unwrap();
        assert!(ENDING.iter().all(|signal| !mask.contains(*signal)), "they end what is not a host yet");
        let mut signals = Signals::install(Terminal::Detached).unwrap();
        let mut read = signals.wishes();
        read.sort_by_key(|wish| format!("{wish:?}"));
        assert_eq!(
            read,
            [Wish::Drain, Wish::Fewer, Wish::More, Wish::Reload, Wish::ReopenLogs, Wish::Upgrade]
        );
    }

    #[test]
    fn a_signal_is_held_back_and_read() {
        let mut signals = Signals::install(Terminal::Attached).unwrap();
        nix::sys::signal::raise(Signal::SIGUSR1).unwrap();
        let mut polled = [rustix::event::PollFd::new(&signals, rustix::event::PollFlags::IN)];
        let second = rustix::time::Timespec { tv_sec: 5, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&second)).unwrap(), 1);
        assert_eq!(signals.wishes(), [Wish::ReopenLogs]);
        assert_eq!(signals.wishes(), []);
    }
}
