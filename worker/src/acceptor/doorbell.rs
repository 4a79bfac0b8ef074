//! How the rest of the process reaches the acceptor thread while it sleeps.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::{AtomicBool, AtomicU8, Ordering, fence},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};
use tokio::sync::Notify;

/// What the acceptor is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Mode {
    /// Nothing yet.
    Dark,
    /// Accept.
    Serving,
    /// One last pass, then end.
    Stopping,
}

/// Commands for the acceptor thread, and an event descriptor that wakes it.
#[derive(Debug)]
pub(crate) struct Doorbell {
    event: EventFd,
    mode: AtomicU8,
    poked: AtomicBool,
    starving: AtomicBool,
    stopped: AtomicBool,
    stopping_done: Notify,
}

impl Doorbell {
    /// A doorbell of an acceptor that does not accept yet.
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            event: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            mode: AtomicU8::new(Mode::Dark as u8),
            poked: AtomicBool::new(false),
            starving: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stopping_done: Notify::new(),
        })
    }

    /// Starts accepting. Does nothing once [`Self::stop`] was called.
    pub(crate) fn serve(&self) {
        let (dark, serving) = (Mode::Dark as u8, Mode::Serving as u8);
        let _ = self.mode.compare_exchange(dark, serving, Ordering::AcqRel, Ordering::Acquire);
        self.ring();
    }

    /// Stops accepting for good, after one last pass.
    pub(crate) fn stop(&self) {
        self.mode.store(Mode::Stopping as u8, Ordering::Release);
        // Whoever looks at the seats from here on sees those that were taken by somebody who found this acceptor serving.
        fence(Ordering::SeqCst);
        self.ring();
    }

    /// Whether the acceptor was told to serve, and not to stop yet.
    pub(super) fn is_serving(&self) -> bool {
        self.mode() == Mode::Serving
    }

    /// Looks at the accept queues once more: a sibling may have been woken for a connection that it never took.
    pub(crate) fn poke(&self) {
        self.poked.store(true, Ordering::Release);
        self.ring();
    }

    /// Says that a runtime took a connection or one was closed, in case the acceptor waits for that.
    pub(crate) fn room_was_made(&self) {
        if self.starving.load(Ordering::Acquire) && self.starving.swap(false, Ordering::AcqRel) {
            self.ring();
        }
    }

    /// Whether the acceptor has ended; nothing is accepted any more.
    pub(crate) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Waits until the acceptor has ended.
    pub(crate) async fn stopped(&self) {
        while !self.has_stopped() {
            self.stopping_done.notified().await;
        }
    }

    pub(super) fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Acquire) {
            mode if mode == Mode::Dark as u8 => Mode::Dark,
            mode if mode == Mode::Serving as u8 => Mode::Serving,
            _ => Mode::Stopping,
        }
    }

    /// Announces that the acceptor waits for room. The caller looks for room once more afterwards.
    pub(super) fn starve(&self) {
        self.starving.store(true, Ordering::Release);
    }

    pub(super) fn take_poke(&self) -> bool {
        self.poked.load(Ordering::Relaxed) && self.poked.swap(false, Ordering::AcqRel)
    }

    pub(super) fn mark_stopped(&self) {
        self.stopped.store(true, Ordering::Release);
        self.stopping_done.notify_one();
    }

    /// Forgets that it was rung.
    pub(super) fn quiet(&self) {
        let _ = self.event.read(); // EAGAIN: nobody rang
    }

    /// Sleeps until somebody rings, at most for `pause`. Returns whether somebody did.
    pub(super) fn wait(&self, pause: Duration) -> bool {
        let mut descriptors = [PollFd::new(self.event.as_fd(), PollFlags::POLLIN)];
        let rung = matches!(ppoll(&mut descriptors, Some(TimeSpec::from_duration(pause)), None), Ok(1..));
        if rung {
            self.quiet();
        }
        rung
    }

    fn ring(&self) {
        // EAGAIN would mean 2^64 - 2 rings that nobody heard: the acceptor is awake in any case.
        let _ = self.event.write(1);
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
