//! The connection of one worker: a thread that reads what it asks, a thread that sends what it is told.
//!
//! The writer never waits for a worker: it puts frames into the [`outbox`], which is bounded, and goes on.

mod outbox;
mod reader;
mod registry;
mod sender;

use std::{
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use aegis_ipc::{data::FromStore, frame};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

pub(crate) use self::{
    outbox::{FeedFrame, Outbox},
    registry::Registry,
};
use crate::{error::chain, shared::Shared};

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
        }
    }

    /// Queues an answer.
    pub(crate) fn answer(&self, message: &FromStore) {
        if let Some(bytes) = self.encode(message) {
            self.answer_frames(bytes);
        }
    }

    /// Queues the answer to a question.
    pub(crate) fn answer_question(&self, message: &FromStore) {
        if let Some(bytes) = self.encode(message) {
            self.change(|outbox| outbox.answer_question(bytes));
            self.sent.notify_all();
        }
    }

    /// Queues answers that are frames already.
    pub(crate) fn answer_frames(&self, bytes: Bytes) {
        self.change(|outbox| outbox.answer(bytes));
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
