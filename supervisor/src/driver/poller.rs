//! Everything the loop waits for, behind one epoll set.

use std::os::fd::AsFd;

use nix::{
    errno::Errno,
    sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
};

use crate::{SupervisorError, control::ClientId, fleet::ChildId};

/// Most sources reported in one pass; the others are reported in the next.
const EVENTS_MAX: usize = 64;
/// Longest sleep. The clock of the kernel counts in 31 bits of milliseconds.
const SLEEP_MS_MAX: u64 = 60_000;

/// Something the loop waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Unix signals arrived.
    Signals,
    /// A child ended.
    Process(ChildId),
    /// A child said something.
    Control(ChildId),
    /// An operator connects.
    Door,
    /// An operator sent something or takes answers.
    Operator(ClientId),
    /// Files of the app changed.
    Files,
    /// The rehearsal of an upgrade ended.
    Rehearsal,
}

/// What a source is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) source: Source,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The other side is gone, for both directions.
    pub(super) hung_up: bool,
}

/// What to wait for on a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Only that the other side goes away.
    Nothing,
    /// Bytes, connections, ends.
    Read,
    /// Room.
    Write,
    /// Both.
    ReadWrite,
}

/// The epoll set.
#[derive(Debug)]
pub(super) struct Poller {
    epoll: Epoll,
}

impl Poller {
    pub(super) fn new() -> Result<Self, SupervisorError> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|error| SupervisorError::os("creating an epoll set", error))?;
        Ok(Self { epoll })
    }

    /// Waits for `source` on a descriptor, level-triggered: what is not taken is reported again.
    pub(super) fn add(
        &self,
        descriptor: impl AsFd,
        source: Source,
        interest: Interest,
    ) -> Result<(), SupervisorError> {
        self.epoll
            .add(descriptor, event(source, interest))
            .map_err(|error| SupervisorError::os(format!("waiting for {source:?}"), error))
    }

    /// Waits for something else on a descriptor from now on.
    pub(super) fn change(&self, descriptor: impl AsFd, source: Source, interest: Interest) {
        if let Err(error) = self.epoll.modify(descriptor, &mut event(source, interest)) {
            tracing::error!(?source, %error, "changing what the loop waits for failed");
        }
    }

    /// Waits no longer. Necessary before a descriptor is closed: while another process holds a duplicate, closing ours
    /// would leave a ghost in the set.
    pub(super) fn remove(&self, descriptor: impl AsFd) {
        if let Err(error) = self.epoll.delete(descriptor) {
            tracing::debug!(%error, "a descriptor was not waited for");
        }
    }

    /// Sleeps until something is ready, at most until `deadline_ms` if there is one.
    pub(super) fn wait(&self, now_ms: u64, deadline_ms: Option<u64>) -> Vec<Ready> {
        let sleep_ms =
            deadline_ms.map_or(SLEEP_MS_MAX, |deadline| deadline.saturating_sub(now_ms).min(SLEEP_MS_MAX));
        let timeout = EpollTimeout::try_from(sleep_ms).unwrap_or(EpollTimeout::ZERO);
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        match self.epoll.wait(&mut events, timeout) {
            Ok(count) => events[..count].iter().filter_map(ready).collect(),
            Err(Errno::EINTR) => Vec::new(),
            Err(error) => {
                tracing::error!(%error, "waiting for events failed");
                Vec::new()
            }
        }
    }
}

fn event(source: Source, interest: Interest) -> EpollEvent {
    let flags = match interest {
        Interest::Nothing => EpollFlags::empty(),
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::Write => EpollFlags::EPOLLOUT,
        Interest::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
    };
    EpollEvent::new(flags, token(source))
}

fn ready(event: &EpollEvent) -> Option<Ready> {
    let flags = event.events();
    Some(Ready {
        source: source(event.data())?,
        readable: flags.intersects(EpollFlags::EPOLLIN),
        writable: flags.intersects(EpollFlags::EPOLLOUT),
        hung_up: flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR),
    })
}

/// The kind in the highest byte, the number of a child or client below it.
fn token(source: Source) -> u64 {
    let (kind, number) = match source {
        Source::Signals => (0, 0),
        Source::Process(child) => (1, child.0),
        Source::Control(child) => (2, child.0),
        Source::Door => (3, 0),
        Source::Operator(client) => (4, client),
        Source::Files => (5, 0),
        Source::Rehearsal => (6, 0),
    };
    (kind << NUMBER_BITS) | (number & NUMBER_MASK)
}

fn source(token: u64) -> Option<Source> {
    let number = token & NUMBER_MASK;
    Some(match token >> NUMBER_BITS {
        0 => Source::Signals,
        1 => Source::Process(ChildId(number)),
        2 => Source::Control(ChildId(number)),
        3 => Source::Door,
        4 => Source::Operator(number),
        5 => Source::Files,
        6 => Source::Rehearsal,
        _ => return None,
    })
}

const NUMBER_BITS: u32 = 56;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn every_source_is_recognised_again() {
        let sources = [
            Source::Signals,
            Source::Process(ChildId(7)),
            Source::Control(ChildId(NUMBER_MASK)),
            Source::Door,
            Source::Operator(9),
            Source::Files,
            Source::Rehearsal,
        ];
        for expected in sources {
            assert_eq!(source(token(expected)), Some(expected));
        }
        assert_eq!(source(u64::MAX), None);
    }

    #[test]
    fn a_ready_source_is_reported_until_it_is_removed() {
        let poller = Poller::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        poller.add(&ours, Source::Operator(3), Interest::Read).unwrap();
        assert_eq!(poller.wait(0, Some(0)), []);
        theirs.write_all(b"x").unwrap();
        let ready = Ready { source: Source::Operator(3), readable: true, writable: false, hung_up: false };
        assert_eq!(poller.wait(0, Some(5000)), [ready]);
        poller.change(&ours, Source::Operator(3), Interest::Write);
        assert_eq!(poller.wait(0, Some(5000)), [Ready { readable: false, writable: true, ..ready }]);
        poller.remove(&ours);
        assert_eq!(poller.wait(0, Some(0)), []);
    }

    #[test]
    fn the_end_of_the_other_side_is_reported_whatever_the_interest() {
        let poller = Poller::new().unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        poller.add(&ours, Source::Operator(3), Interest::Nothing).unwrap();
        drop(theirs);
        assert!(poller.wait(0, Some(5000))[0].hung_up);
    }
}
