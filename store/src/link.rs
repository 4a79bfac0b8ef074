//! The connection of one worker: a thread that reads what it asks, a thread that sends what it is told.
//!
//! The writer never waits for a worker: it puts frames into the [`outbox`], which is bounded, and goes on. While nothing
//! waits there it puts them into the socket itself, as far as that has room, and nobody has to be woken for it.

mod outbox;
mod reader;
mod registry;
mod sender;

use std::{
    net::Shutdown,
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use aegis_ipc::{data::FromStore, frame, slice};
use bytes::{Buf, Bytes};
use nix::sys::socket::{self, MsgFlags};
use parking_lot::{Condvar, Mutex};

pub(crate) use self::{
    outbox::{FeedFrame, Outbox},
    registry::Registry,
};
use crate::{error::chain, shared::Shared};

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As [`aegis_ipc::brief`] says.
    Brief,
    /// In MessagePack, for a worker of before.
    Plain,
}

/// Connections up to which the writer sends small frames himself: a sender would have to be woken, which costs as much.
/// With more of them it is quicker to let the senders do it side by side.
const AT_ONCE_LINKS_MAX: usize = 4;
/// Largest frame that the writer sends himself, bytes. The socket has room for as much unless the worker is behind.
const AT_ONCE_BYTES_MAX: usize = 128 * 1024;

/// Who puts frames into the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handover {
    /// Whoever has them, if nothing waits before them.
    AtOnce,
    /// The sender.
    ToSender,
}

impl Handover {
    /// For frames of which so many connections get one each.
    pub(crate) fn to(links: usize) -> Self {
        if links <= AT_ONCE_LINKS_MAX { Self::AtOnce } else { Self::ToSender }
    }
}

/// The connection of one worker.
pub(crate) struct Link {
    /// Counts connections, for messages.
    pub(crate) number: u64,
    socket: UnixStream,
    outbox: Mutex<Outbox>,
    /// Something to send, or closed.
    to_send: Condvar,
    /// Room for answers, everything answered, or closed.
    sent: Condvar,
    closed: AtomicBool,
    attached: AtomicBool,
    /// The worker reads the brief form. Set before anything is fed.
    brief: AtomicBool,
}

impl Link {
    fn new(number: u64, socket: UnixStream, outbox: Outbox) -> Self {
        Self {
            number,
            socket,
            outbox: Mutex::new(outbox),
            to_send: Condvar::new(),
            sent: Condvar::new(),
            closed: AtomicBool::new(false),
            attached: AtomicBool::new(false),
            brief: AtomicBool::new(false),
        }
    }

    /// Queues an answer.
    pub(crate) fn answer(&self, message: &FromStore) {
        if let Some(bytes) = self.encode(message) {
            self.answer_frames(bytes, Handover::ToSender);
        }
    }

    /// Queues the answer to a question.
    pub(crate) fn answer_question(&self, message: &FromStore) {
        if let Some(bytes) = self.encode(message) {
            self.change(|outbox| outbox.answer_question(bytes));
            self.sent.notify_all();
        }
    }

    /// Sends or queues answers that are frames already.
    pub(crate) fn answer_frames(&self, bytes: Bytes, handover: Handover) {
        let mut outbox = self.outbox.lock();
        let rest = if handover == Handover::AtOnce && outbox.is_quiet() {
            self.send_at_once(bytes)
        } else {
            Some(bytes)
        };
        if let Some(rest) = rest {
            outbox.answer(rest);
            drop(outbox);
            self.to_send.notify_one();
        }
    }

    /// Sends or queues a group, whose last number is `last`. Returns false when the worker is too slow for the feed.
    fn offer(&self, outbox: &mut Outbox, last: u64, frames: &[FeedFrame], handover: Handover) -> bool {
        let mut kept = true;
        match frames {
            [frame] if handover == Handover::AtOnce && outbox.takes_feed_at_once() => {
                let rest = self.send_at_once(frame.bytes.clone());
                match rest {
                    None => {
                        outbox.offered_at_once(last, None);
                        return true;
                    }
                    Some(rest) if rest.len() < frame.bytes.len() => outbox.offered_at_once(last, Some(rest)),
                    Some(_) => kept = outbox.offer(last, frames),
                }
            }
            frames => kept = outbox.offer(last, frames),
        }
        self.to_send.notify_one();
        kept
    }

    /// Puts as much into the socket as it takes without waiting, and returns the rest. The caller holds the lock on the
    /// outbox, so that nobody sends in between.
    fn send_at_once(&self, mut bytes: Bytes) -> Option<Bytes> {
        if bytes.len() > AT_ONCE_BYTES_MAX {
            return Some(bytes);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        // Whatever is wrong with the socket, the sender finds it out.
        let sent = socket::send(self.socket.as_raw_fd(), &bytes, flags).unwrap_or(0);
        bytes.advance(sent);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Waits until every answer was sent, the connection ended, or `deadline` has passed.
    pub(crate) fn wait_until_answered(&self, deadline: Instant) {
        let mut outbox = self.outbox.lock();
        while !outbox.is_answered() && !self.is_closed() {
            if self.sent.wait_until(&mut outbox, deadline).timed_out() {
                return;
            }
        }
    }

    /// Ends the connection; both threads notice.
    pub(crate) fn close(&self) {
        {
            let _outbox = self.outbox.lock();
            self.closed.store(true, Ordering::Release);
        }
        // Fails only when the other side is gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.to_send.notify_all();
        self.sent.notify_all();
    }

    /// Has the connection ended?
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Has the worker introduced itself?
    pub(crate) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// The form in which the worker is fed and answered.
    pub(crate) fn form(&self) -> Form {
        if self.brief.load(Ordering::Acquire) { Form::Brief } else { Form::Plain }
    }

    fn encode(&self, message: &FromStore) -> Option<Bytes> {
        let mut bytes = Vec::new();
        match frame::write_message(message, &mut bytes) {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                tracing::error!(link = self.number, error = chain(&error), "an answer cannot be sent");
                self.close();
                None
            }
        }
    }

    /// Changes the outbox and wakes the sender.
    fn change<T>(&self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let result = change(&mut self.outbox.lock());
        self.to_send.notify_one();
        result
    }
}

/// Serves a new connection until it ends.
pub(crate) fn serve(socket: UnixStream, shared: &Arc<Shared>) {
    let Some(link) = shared.registry.add(socket) else {
        tracing::warn!("too many workers are connected, one was turned away");
        return;
    };
    let spawn = |name: String, work: fn(&Arc<Link>, &Arc<Shared>)| {
        let (link, shared) = (Arc::clone(&link), Arc::clone(shared));
        std::thread::Builder::new().name(name).spawn(move || {
            slice::ask_for_short();
            work(&link, &shared);
            link.close();
            shared.registry.remove(&link);
        })
    };
    for (name, work) in [("read", reader::run as fn(&_, &_)), ("send", sender::run as fn(&_, &_))] {
        if let Err(error) = spawn(format!("link-{}-{name}", link.number), work) {
            tracing::error!(link = link.number, error = chain(&error), "no thread for a worker's connection");
            link.close();
            shared.registry.remove(&link);
            return;
        }
    }
}
